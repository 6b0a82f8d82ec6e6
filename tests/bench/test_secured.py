"""Load over TLS: the same calls, and what is not trusted is said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from arbiter.bench import Load, LoadError, NoServer, drive
from arbiter.bench.secured import Refused, Secured, trusting
from tests.security.conftest import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Serve = Callable[..., str]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def serve(authority: Authority) -> Iterator[Serve]:
    """Starts an echo behind TLS."""
    servers = []

    def start(name: str = "localhost", *, clients: bool = False) -> str:
        certificate, key = authority.issue(name)
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], authority.file.read_bytes() if clients else None, require_client_auth=clients
        )
        server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": handler}),))
        port = server.add_secure_port("localhost:0", credentials)
        server.start()
        servers.append(server)
        return f"localhost:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


def load(target: str, **more: object) -> Load:
    return Load(target, "/a.B/C", [b"hello"], **({"seconds": 0.3, "warmup": 0.0} | more))  # type: ignore[arg-type]


def test_calls_are_answered_over_tls(serve: Serve, authority: Authority) -> None:
    seen: set[tuple[int, bytes]] = set()
    tls = trusting(authority.file)
    (result,) = drive(
        load(serve(), streams=8, connections=2, tls=tls, on_answer=lambda _, status, body: seen.add((status, body)))
    )
    assert result.arrived[0] > 0
    assert result.failed == result.reconnected == 0
    assert seen == {(0, b"hello")}


def test_large_messages_go_both_ways_over_tls(serve: Serve, authority: Authority) -> None:
    seen: set[bytes] = set()
    body = bytes(range(256)) * 4000
    loaded = Load(
        serve(), "/a.B/C", [body], seconds=0.2, warmup=0, tls=trusting(authority.file),
        on_answer=lambda _, __, answer: seen.add(answer),
    )  # fmt: skip
    (result,) = drive(loaded)
    assert result.failed == 0
    assert seen == {body}


def test_a_server_that_asks_for_a_certificate_is_shown_it(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    target = serve(clients=True)
    for name, pem in zip(("certificate", "key"), authority.issue("generator"), strict=True):
        (tmp_path / name).write_bytes(pem)
    (result,) = drive(load(target, tls=trusting(authority.file, tmp_path / "certificate", tmp_path / "key")))
    assert result.arrived[0] > 0
    with pytest.raises(NoServer):
        drive(load(target, tls=trusting(authority.file)))


def test_who_is_not_trusted_is_said(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "another authority")
    with pytest.raises(NoServer, match="its certificate is not trusted, "):
        drive(load(serve(), tls=trusting(other.file)))
    with pytest.raises(NoServer, match="its certificate is not trusted, Hostname mismatch"):
        drive(load(serve("elsewhere"), tls=trusting(authority.file)))


def test_a_server_without_tls_is_said(authority: Authority) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        with pytest.raises(NoServer):
            drive(load(f"localhost:{port}", tls=trusting(authority.file)))
    finally:
        server.stop(0).wait()


def test_octets_that_are_no_tls_are_refused_and_cut_octets_are_waited_for(authority: Authority) -> None:
    secured = Secured(trusting(authority.file), "localhost")
    assert bytes(secured.sealed(bytearray(b"later")))[:1] == b"\x16"  # the first message of a handshake
    assert secured.opened(b"\x16\x03") == b""
    with pytest.raises(Refused):
        Secured(trusting(authority.file), "localhost").opened(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_files_that_cannot_secure_anything_are_named(authority: Authority, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    with pytest.raises(LoadError, match=f"{empty} holds no root certificates"):
        trusting(empty)
    with pytest.raises(LoadError, match=f"{empty} and {empty} are no certificate"):
        trusting(authority.file, empty, empty)
    with pytest.raises(LoadError, match="is a Unix socket, and servers speak no TLS on those"):
        load("unix:/tmp/none", tls=trusting(authority.file))
