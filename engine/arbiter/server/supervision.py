"""The supervisor's own server: administration, health and reflection, and no decisions.

Law: it stands in the supervisor's process and goes through no worker, so that it answers while workers are busy, start,
die or drain. A few threads and few calls: who looks after a server is not many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import msgspec
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from arbiter.runtime.address import ListenError
from arbiter.server import admin, health
from arbiter.server.calls import Entry, Rpc
from arbiter.server.guard import Guard
from arbiter.server.onlooking import DecisionWatch
from arbiter.server.requests import RequestReader
from arbiter.server.settings import FaceSettings
from arbiter.server.stock import Door, Pool, handler
from arbiter.server.streams import Streams
from arbiter.telemetry.counters import Counters

if TYPE_CHECKING:
    from arbiter.runtime.admin import Admin

# A Reload holds a thread until every worker has followed; the others are for who asks meanwhile.
_THREADS = 8
_CALLS = 64


class AdminServer:
    """A server that runs. `address` is where, ``HOST:PORT``."""

    def __init__(self, asked: Admin, listen: str, settings: FaceSettings) -> None:
        """Answer on ``HOST:PORT`` (port 0: any free one) from now on, behind what guards the workers' port too.

        Raises ListenError, and AuditFailed, AuthorError and UnusableFile for the files that the settings name.
        """
        self._guard = guard = Guard(settings, _nobody)
        limits, counters = settings.limits, Counters()
        works = admin.AdminService(asked, limits).works()
        rpcs = {
            name: Rpc(path := f"/{admin.SERVICE}/{name}", guard.recorded(path, work), guard.gate, counters)
            for name, work in works.items()
        }
        self._pool = Pool(_THREADS)
        by_path = {rpc.path: rpc for rpc in rpcs.values()}
        watch = Entry(f"/{admin.SERVICE}/WatchDecisions", guard.gate, counters)
        self._door = Door(by_path, guard.gate, self._pool, _CALLS, (health.SERVICE,), streams=(watch.path,))
        self._server = grpc.server(
            self._pool,
            interceptors=[self._door],
            options=(
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.metadata_bytes),
                ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
            ),
        )
        self._watching = Streams(limits.watchers, "watchers", "look on with fewer streams")
        seeing = DecisionWatch(asked, limits, RequestReader(limits))
        handlers = {name: handler(rpc) for name, rpc in rpcs.items()}
        handlers["WatchDecisions"] = self._watching.telling(watch, seeing.opens(guard.recorded, watch.path))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(admin.SERVICE, handlers),))
        self._health = health.GroupHealth([admin.SERVICE], guarded=guard.gate is not None)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((admin.SERVICE, health.SERVICE, reflection.SERVICE_NAME), self._server)
        try:
            port = guard.bind(self._server, listen)
        except RuntimeError as error:
            self._end_threads()
            raise ListenError(f"cannot listen on {listen} for administration: {error}") from error
        self.address = f"{listen.rpartition(':')[0]}:{port}"
        self._server.start()
        guard.start()
        asked.watch(self._health.update)

    def stop(self, grace: float) -> None:
        """Take no new calls, wait up to `grace` seconds for those begun, return when all have ended."""
        self._health.enter_graceful_shutdown()
        self._watching.close()
        self._server.stop(grace).wait()
        self._end_threads()

    def _end_threads(self) -> None:
        self._pool.shutdown()
        self._watching.shutdown()
        self._door.close()
        self._guard.stop()


def _nobody(_subject: str) -> str:
    """The name in the audit log of a subject: calls of administration concern none."""
    return ""


def open_admin(asked: Admin, listen: str, settings: bytes) -> AdminServer:
    """Open the supervisor's server: `settings` are encoded FaceSettings, empty for the defaults."""
    chosen = msgspec.msgpack.decode(settings, type=FaceSettings) if settings else FaceSettings()
    return AdminServer(asked, listen, chosen)
