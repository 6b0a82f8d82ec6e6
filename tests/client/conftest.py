"""A real server, and a road to it that can be blocked, slow or lossy: the client's suite runs on both of its faces.

The road is a gRPC server of its own. It passes bytes on as they are, remembers what came with them, and does first what
a test has written on its script.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import grpc
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from arbiter.client import AsyncClient, Client
from arbiter.runtime.local import open_local
from arbiter.runtime.settings import Backing
from arbiter.server.app import Server
from arbiter.telemetry.counters import Counters

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
decisions:
  shop.banner: {slots: 1, order: [priority], default: {action: show, params: {banner: bestsellers}}}
  shop.footer: {slots: 1, order: [priority], default: {action: show, params: {banner: plain}}}
rules:
  - id: canadian
    decision: shop.banner
    priority: 80
    when: profile.country == "CA"
    then: {action: show, params: {banner: maple}}
"""


class _Refuse(msgspec.Struct, frozen=True):
    """Answer with a status and pass nothing on."""

    code: grpc.StatusCode
    retry_after: float | None = None
    reason: str = ""


class _Lose(msgspec.Struct, frozen=True):
    """Pass it on, and lose the answer."""


class _Hold(msgspec.Struct, frozen=True):
    """Pass it on after some seconds, or when the road lets go."""

    seconds: float = 30.0


class Seen(msgspec.Struct, frozen=True):
    """What the road saw of a call."""

    method: str
    peer: str
    remaining: float
    metadata: dict[str, str]


class Road(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs only
    """The way to a server."""

    def __init__(self, to: str) -> None:
        self.seen: list[Seen] = []
        self._script: list[_Refuse | _Lose | _Hold] = []
        self._always: _Refuse | _Hold | None = None
        self._to = to
        self._let_go = threading.Event()
        self._lock = threading.Lock()
        self._channel = grpc.insecure_channel(to)
        self._server: grpc.Server | None = None
        self.target = ""

    def open(self, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None) -> str:
        """Let calls come, and return where to."""
        server = self._server = grpc.server(ThreadPoolExecutor(16), handlers=[self])
        self._let_go.clear()
        port = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
        server.start()
        self.target = address if address.startswith("unix:") else f"127.0.0.1:{port}"
        return self.target

    def close(self) -> None:
        """Let nothing more come; calls under way are cut off."""
        if self._server is not None:
            self._let_go.set()
            self._server.stop(None).wait()
            self._server = None

    def tear_down(self) -> None:
        self.close()
        self._channel.close()

    def refuse(
        self, code: grpc.StatusCode, times: int | None = 1, *, retry_after: float | None = None, reason: str = ""
    ) -> None:
        """Answer the next calls, or with `times` None all that have no other script, with a status."""
        refusal = _Refuse(code, retry_after, reason)
        if times is None:
            self._always = refusal
        else:
            self._script += [refusal] * times

    def lose(self) -> None:
        """Pass the next call on, and lose its answer."""
        self._script.append(_Lose())

    def hold(self) -> None:
        """Hold all calls until the road lets go."""
        self._always = _Hold()

    def clear(self) -> None:
        """Let everything pass from now on."""
        self._always = None
        self._script.clear()

    def let_go(self) -> None:
        """End all holding."""
        self._let_go.set()

    def wait_for(self, calls: int) -> None:
        """Return when that many have come."""
        deadline = time.monotonic() + 30
        while len(self.seen) < calls:
            assert time.monotonic() < deadline, f"only {len(self.seen)} calls came"
            time.sleep(0.005)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Answer any unary method."""
        method = handler_call_details.method

        def answer(content: bytes, context: grpc.ServicerContext) -> bytes:
            return self._answer(method, content, context)

        return grpc.unary_unary_rpc_method_handler(answer)

    def _answer(self, method: str, content: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            self.seen.append(Seen(method.rpartition("/")[2], context.peer(), context.time_remaining(), metadata))
            first = self._script.pop(0) if self._script else self._always
        if isinstance(first, _Refuse):
            context.abort_with_status(rpc_status.to_status(status_of(first)))
        if isinstance(first, _Hold):
            self._let_go.wait(first.seconds)
        passed_on = self._channel.unary_unary(method, None, None)
        try:
            answered: bytes = passed_on(content, timeout=30)
        except grpc.RpcError as error:
            call = cast("grpc.Call", error)
            context.set_trailing_metadata(call.trailing_metadata() or ())
            context.abort(call.code(), call.details() or "")
        if isinstance(first, _Lose):
            context.abort(grpc.StatusCode.UNAVAILABLE, "lost on the way")
        return answered


def status_of(refusal: _Refuse) -> Status:
    status = Status(code=refusal.code.value[0], message="refused on the way")
    if refusal.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(refusal.retry_after * 1000))
        status.details.append(packed(RetryInfo(retry_delay=delay)))
    if refusal.reason:
        status.details.append(packed(ErrorInfo(reason=refusal.reason, domain="arbiter")))
    return status


def packed(detail: RetryInfo | ErrorInfo) -> Packed:
    wrapped = Packed()
    wrapped.Pack(detail)
    return wrapped


class OnLoop:
    """An AsyncClient that is asked as a Client is: each method waits for its coroutine, which a loop runs elsewhere."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: AsyncClient) -> None:
        self.loop = loop
        self.client = client

    def __getattr__(self, name: str) -> Any:
        """Return the method, which waits."""
        method = getattr(self.client, name)
        return lambda *args, **kwargs: asyncio.run_coroutine_threadsafe(method(*args, **kwargs), self.loop).result()

    def __repr__(self) -> str:
        """Return the client's."""
        return repr(self.client)


class Authority:
    """Makes certificates that one root signed."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root of this test")])
        self.pem = self._signed(self._name, self._key.public_key(), authority=True)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """A key and its certificate, for an address or a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key.public_key(), name=name
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem, certificate

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, name: str = "", *, authority: bool = False
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        day = dt.timedelta(days=1)
        builder = x509.CertificateBuilder(
            self._name, subject, key, x509.random_serial_number(), now - day, now + day
        ).add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if name:
            where = x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
            builder = builder.add_extension(x509.SubjectAlternativeName([where]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


OpenClient = Callable[..., Client]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "rules").mkdir()
    (folder / "rules" / "shop.yaml").write_text(RULES, "utf-8")
    counters = Counters()
    engine, admin = open_local(folder / "rules", None, folder / "data", counters=counters)
    opened = Server(Backing(engine, admin, counters), "127.0.0.1:0")
    yield f"127.0.0.1:{opened.port}"
    opened.stop(1.0)
    engine.store.close()


@pytest.fixture
def road(server: str) -> Iterator[Road]:
    opened = Road(server)
    opened.open()
    yield opened
    opened.tear_down()


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own."""
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


@pytest.fixture(params=["blocking", "awaiting"])
def open_client(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Iterator[OpenClient]:
    """Makes clients of one face; all tests that ask for it run on both."""
    opened: list[Client] = []

    def opener(target: Any, **settings: Any) -> Client:
        if request.param == "blocking":
            client = Client(target, **settings)
        else:
            client = cast("Client", OnLoop(loop, AsyncClient(target, **settings)))
        opened.append(client)
        return client

    yield opener
    for client in opened:
        client.close()


@pytest.fixture
def at_once() -> Callable[[list[Callable[[], Any]]], list[Any]]:
    """Runs functions in threads of their own; gives what each returned, or raised."""

    def run(functions: list[Callable[[], Any]]) -> list[Any]:
        with ThreadPoolExecutor(len(functions)) as pool:
            ended = [pool.submit(each) for each in functions]
            return [each.exception() or each.result() for each in ended]

    return run


@pytest.fixture
def socket_path(tmp_path: Path) -> str:
    return f"unix:{tmp_path / 'arbiter.sock'}"


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
