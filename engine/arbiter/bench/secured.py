"""TLS of a connection, without its socket.

Law: octets in, octets out; who moves them stands in `link`. What gRPC asks of TLS: from 1.2 on, and HTTP/2 by ALPN (RFC
7301).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from arbiter.bench.load import LoadError

if TYPE_CHECKING:
    from pathlib import Path

_HTTP2 = "h2"
_CHUNK = 1 << 18


class Refused(Exception):
    """One of both does not trust the other, or they have no way to speak in common."""


def trusting(ca: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """How to secure connections: `ca` has the roots to trust, else the system's are; a certificate with its key shows
    who calls. All PEM. Raises LoadError for files that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols([_HTTP2])
    try:
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca)
    except OSError as error:
        raise LoadError(f"{ca} holds no root certificates (PEM): {_told(error)}") from error
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            raise LoadError(
                f"{certificate} and {key} are no certificate (PEM) and its key without a passphrase: {_told(error)}"
            ) from error
    return context


class Secured:
    """The TLS of one connection to the server `name`."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._stands = False
        self._out = bytearray()

    def opened(self, data: bytes) -> bytes:
        """What the server said by octets that arrived. Raises Refused."""
        self._incoming.write(data)
        said = []
        try:
            if self._shaken():
                while part := self._tls.read(_CHUNK):
                    said.append(part)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLError as error:
            raise Refused(_told(error)) from error
        return b"".join(said)

    def sealed(self, out: bytearray) -> bytearray:
        """What is to be sent; whoever sends it takes it out. `out` is what we say: what could be sealed is taken out.

        Raises OSError when nothing can be sent any more.
        """
        if self._shaken():
            while out:
                del out[: self._tls.write(out)]
        self._out += self._outgoing.read()
        return self._out

    def _shaken(self) -> bool:
        """Whether the handshake is over; goes on with it as far as it can."""
        if not self._stands:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
            if self._tls.selected_alpn_protocol() != _HTTP2:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "it speaks TLS, but no HTTP/2 over it")
            self._stands = True
        return True


def _told(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted, {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)


def _no_passphrase() -> str:
    """In place of a question on the terminal."""
    raise ValueError("the key has a passphrase")
