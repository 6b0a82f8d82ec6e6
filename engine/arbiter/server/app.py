"""The server: services, health and reflection on one port.

Law: puts the parts together and owns their start and end. What a call does stands in the services.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import grpc
import msgspec
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from arbiter.errors import ArbiterError
from arbiter.runtime.address import ListenError
from arbiter.server import admin, decisions, health, profiles
from arbiter.server.calls import unary
from arbiter.server.limits import Limits

if TYPE_CHECKING:
    from arbiter.runtime.settings import Backing
    from arbiter.server.calls import Work

Transport = Literal["auto", "inline", "stock"]


class TransportError(ArbiterError):
    """The transport that was asked for is not built."""


class FaceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How calls are answered. `threads` bounds the calls that are worked on at once in one worker.

    `reuse_port` lets other processes listen on the same port.
    """

    transport: Transport = "auto"
    threads: int = 16
    reuse_port: bool = False
    limits: Limits = Limits()

    def encode(self) -> bytes:
        """Return the bytes that `open_face` takes."""
        return msgspec.msgpack.encode(self)


class Server:
    """A server that runs. `port` is the one that it listens on."""

    def __init__(self, backing: Backing, listen: str, settings: FaceSettings | None = None) -> None:
        """Bind ``HOST:PORT`` (port 0: any free one) and answer from now on. Raises ListenError, TransportError."""
        settings = settings or FaceSettings()
        if settings.transport == "inline":
            raise TransportError("the inline transport is not built yet: use `--transport auto` or `--transport stock`")
        limits = settings.limits
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="arbiter-call")
        self._server = grpc.server(
            self._pool,
            options=(
                ("grpc.so_reuseport", int(settings.reuse_port)),
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.max_send_message_length", -1),
            ),
            maximum_concurrent_rpcs=limits.concurrent_calls,
        )
        counters = backing.counters
        services: dict[str, dict[str, Work]] = {
            decisions.SERVICE: decisions.DecisionService(backing.engine, limits, counters).works(),
            profiles.SERVICE: profiles.ProfileService(backing.engine, limits, counters).works(),
            admin.SERVICE: admin.AdminService(backing.admin, limits).works(),
        }
        for service, works in services.items():
            short = service.rpartition(".")[2]
            handlers = {name: unary(f"{short}.{name}", work, counters) for name, work in works.items()}
            # Registered methods are matched in C; the generic handler answers where a channel does not use them.
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
            self._server.add_registered_method_handlers(service, handlers)  # type: ignore[attr-defined] # newer than the stubs
        self._health = health.Health(services)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*services, health.SERVICE, reflection.SERVICE_NAME), self._server)
        try:
            self.port = self._server.add_insecure_port(listen)
        except RuntimeError as error:
            self._pool.shutdown(wait=False)
            raise ListenError(f"cannot listen on {listen}: {error}") from error
        self._server.start()
        backing.admin.watch(self._health.update)

    def stop(self, grace: float) -> None:
        """Say NOT_SERVING, take no new calls, give those begun `grace` seconds, return when all have ended."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace).wait()
        self._pool.shutdown()


def open_face(backing: Backing, listen: str, settings: bytes) -> Server:
    """Open a worker's server: `settings` are encoded FaceSettings, empty for the defaults. Workers share the port."""
    chosen = msgspec.msgpack.decode(settings, type=FaceSettings) if settings else FaceSettings()
    return Server(backing, listen, msgspec.structs.replace(chosen, reuse_port=True))
