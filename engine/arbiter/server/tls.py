"""TLS: from files in PEM to the credentials of a port, which follow the files.

Law: the only place that reads certificates and private keys. Every new connection asks for the files again, and gets
the last pair that fits; what callers may do is not decided here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from arbiter.config.files import UnusableFile, content_of
from arbiter.server.lastgood import LastGood

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

    from arbiter.config.options import Tls


def credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return credentials that take new files without a restart, and keep the last good ones beside bad ones.

    With `client_ca`, connections without a client certificate that it signed are not accepted. Raises UnusableFile.
    """
    paths = [Path(name) for name in (tls.certificate, tls.key, tls.client_ca) if name]
    followed = LastGood("the certificates of the server", paths, lambda: _read(tls))

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # grpc asks before each handshake, in a thread of its own; None is for no change.
        return followed.content if followed.look() else None

    return grpc.dynamic_ssl_server_credentials(
        followed.content,
        fetch,  # type: ignore[arg-type] # the stubs forget the None
        require_client_authentication=bool(tls.client_ca),
    )


def _read(tls: Tls) -> grpc.ServerCertificateConfiguration:
    certificate, key = Path(tls.certificate), Path(tls.key)
    chain, secret = content_of(certificate, secret=False), content_of(key, secret=True)
    first = _certificates(certificate, chain)[0]
    if _public(first.public_key()) != _public(_private_key(key, secret).public_key()):
        raise UnusableFile(f"{key} is not the key of the first certificate in {certificate}: put the pair there")
    if first.not_valid_after_utc < datetime.now(UTC):
        raise UnusableFile(f"{certificate} expired on {first.not_valid_after_utc:%Y-%m-%d}: renew the certificate")
    ca = None
    if tls.client_ca:
        path = Path(tls.client_ca)
        ca = content_of(path, secret=False)
        _certificates(path, ca)
    return grpc.ssl_server_certificate_configuration([(secret, chain)], root_certificates=ca)


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise UnusableFile(f"{path} holds no certificate in PEM: such a file begins with `-----BEGIN`") from None


def _private_key(path: Path, content: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(content, None)
    except TypeError:
        raise UnusableFile(f"{path} is encrypted: store it without a passphrase, readable by the server only") from None
    except ValueError:
        raise UnusableFile(f"{path} holds no private key in PEM") from None


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
