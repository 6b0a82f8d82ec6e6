"""TLS and mTLS on a real port, with files that are replaced while the server runs."""

from __future__ import annotations

import logging
import socket
import ssl
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from arbiter.config.files import UnusableFile
from arbiter.config.options import Tls
from arbiter.server.tls import credentials
from tests.security.conftest import DECIDE, UPDATE, Authority, put

if TYPE_CHECKING:
    from tests.security.conftest import Guarded, Open, Roll


def serial(server: Guarded, ca: Path) -> int:
    """The serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", server.server.port), 10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as wrapped,
    ):
        shown = wrapped.getpeercert(binary_form=True)
        assert wrapped.selected_alpn_protocol() == "h2"
        assert wrapped.version() in {"TLSv1.2", "TLSv1.3"}
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def on_disk(tls: Tls) -> int:
    return x509.load_pem_x509_certificate(Path(tls.certificate).read_bytes()).serial_number


def with_ca(tls: Tls, ca: Path) -> Tls:
    return msgspec.structs.replace(tls, client_ca=str(ca))


def test_calls_are_answered_over_tls_and_not_without(serve: Open, authority: Authority) -> None:
    server = serve(tls=authority.install("localhost"))
    assert server.call(DECIDE, channel=server.channel(authority.file)) == "OK"
    assert server.call(DECIDE) == "UNAVAILABLE"
    assert server.call(DECIDE, channel=server.channel(Authority(authority.folder, "stranger").file)) == "UNAVAILABLE"


def test_versions_of_tls_before_1_2_are_refused(serve: Open, authority: Authority) -> None:
    server = serve(tls=authority.install("localhost"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.file)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", server.server.port), 10) as raw, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(raw, server_hostname="localhost")


def test_a_new_certificate_is_shown_to_the_next_connection(serve: Open, authority: Authority) -> None:
    tls = authority.install("localhost")
    server = serve(tls=tls)
    before = serial(server, authority.file)
    assert before == on_disk(tls)
    held = server.channel(authority.file)
    assert server.call(DECIDE, channel=held) == "OK"
    authority.install("localhost")
    assert serial(server, authority.file) == on_disk(tls) != before
    assert server.call(DECIDE, channel=held) == "OK"  # who is connected stays so


@pytest.mark.parametrize("broken", ["certificate", "key", "half", "gone"])
def test_what_does_not_fit_leaves_the_last_good_pair(
    serve: Open, authority: Authority, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    tls = authority.install("localhost")
    server = serve(tls=tls)
    good = on_disk(tls)
    with caplog.at_level(logging.ERROR, "arbiter.security"):
        match broken:
            case "certificate":
                put(Path(tls.certificate), "no certificate")
            case "key":
                put(Path(tls.key), "no key")
            case "half":  # a renewal that is half done: the certificate is new, the key is not
                put(Path(tls.certificate), authority.issue("localhost")[0])
            case "gone":
                Path(tls.key).unlink()
        assert serial(server, authority.file) == good
        assert serial(server, authority.file) == good
    assert len(caplog.records) == 1
    assert "PRIVATE" not in caplog.text
    authority.install("localhost")
    assert serial(server, authority.file) == on_disk(tls) != good


def test_without_a_certificate_of_the_clients_nobody_connects(serve: Open, authority: Authority) -> None:
    other = Authority(authority.folder, "stranger")
    server = serve(tls=with_ca(authority.install("localhost"), authority.file))
    assert server.call(DECIDE, channel=server.channel(authority.file)) == "UNAVAILABLE"
    assert server.call(DECIDE, channel=server.channel(authority.file, other.issue("billing"))) == "UNAVAILABLE"
    assert server.call(DECIDE, channel=server.channel(authority.file, authority.issue("billing"))) == "OK"


def test_the_name_in_a_clients_certificate_gives_its_roles(serve: Open, authority: Authority, roll: Roll) -> None:
    roll.certificate("billing", "billing.internal", "write")
    tls = with_ca(authority.install("localhost"), authority.file)
    server = serve(tls=tls, tokens=roll.file)
    known = server.channel(authority.file, authority.issue("billing.internal"))
    assert server.call(UPDATE, channel=known) == "OK"
    assert server.call(DECIDE, channel=known) == "PERMISSION_DENIED"
    unknown = server.channel(authority.file, authority.issue("other.internal"))
    assert server.call(UPDATE, channel=unknown) == "UNAUTHENTICATED"
    token = roll.token("desk", "decide")
    gate = server.server._guard.gate
    assert gate is not None
    gate.look()
    assert server.call(DECIDE, token, unknown) == "OK"


def test_another_authority_of_clients_is_taken_without_a_restart(serve: Open, authority: Authority) -> None:
    clients = Authority(authority.folder, "clients")
    tls = with_ca(authority.install("localhost"), clients.file)
    server = serve(tls=tls)
    mine = clients.issue("billing")
    assert server.call(DECIDE, channel=server.channel(authority.file, mine)) == "OK"
    successor = Authority(authority.folder, "successor")
    put(clients.file, successor.file.read_bytes())
    assert server.call(DECIDE, channel=server.channel(authority.file, mine)) == "UNAVAILABLE"
    assert server.call(DECIDE, channel=server.channel(authority.file, successor.issue("billing"))) == "OK"


def test_files_that_cannot_serve_are_refused_with_what_to_do(authority: Authority) -> None:
    tls = authority.install("localhost")
    key = Path(tls.key)
    content = key.read_bytes()
    key.chmod(0o604)
    with pytest.raises(UnusableFile, match=r"every user of this machine may read .*run `chmod o-r"):
        credentials(tls)
    key.chmod(0o640)
    credentials(tls)
    locked = load_pem_private_key(content, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase")
    )
    put(key, locked)
    with pytest.raises(UnusableFile, match="without a passphrase"):
        credentials(tls)
    put(key, authority.issue("localhost")[1])
    with pytest.raises(UnusableFile, match="is not the key of the first certificate"):
        credentials(tls)
    with pytest.raises(UnusableFile, match="expired on"):
        credentials(authority.install("localhost", lasts=-timedelta(days=1)))
    with pytest.raises(UnusableFile, match="cannot read"):
        credentials(Tls(certificate=str(authority.folder / "none.pem"), key=str(key)))
    with pytest.raises(UnusableFile, match="holds no certificate"):
        credentials(with_ca(authority.install("localhost"), key))
