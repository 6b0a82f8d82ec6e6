"""grpc.health.v1, told by what the runtime knows.

Law: maps a Status to serving states: a worker's own, or the supervisor's, which speaks for all workers. The name
``arbiter.reload`` stands for the last attempt to load: NOT_SERVING while it failed, though decisions go on with the
snapshot before it. Check answers then carry the first line of the error in the trailing metadata `arbiter-last-error`,
percent-encoded as gRPC does with its own messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from grpc_health.v1 import health, health_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc

    from arbiter.serving import Status

RELOAD = "arbiter.reload"
WORKER = "arbiter.worker."
LAST_ERROR = "arbiter-last-error"
SERVICE = health.SERVICE_NAME
# Printable ASCII passes through a header as it is; `%` begins what does not.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_HEADER_BYTES = 1000

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health.HealthServicer):
    """The health of the server (``""``), of each of `services` and of the last reload. NOT_SERVING until told.

    Anyone may ask for it; with `guarded` it tells no errors, whose texts show rules.
    """

    def __init__(self, services: Iterable[str], *, guarded: bool = False) -> None:
        super().__init__()
        self._guarded = guarded
        self._services = ("", *services)
        self._last_error = ""
        self._said: dict[str, int] = {}
        for name in (*self._services, RELOAD):
            self._say(name, serving=False)

    def update(self, status: Status) -> None:
        """Take over how things stand; who watches is told."""
        report = status.last_reload
        told = "" if report is None or self._guarded else report.first_error
        self._last_error = quote(told, safe=_PLAIN)[:_HEADER_BYTES]
        for name in self._services:
            self._say(name, serving=self.is_serving(status))
        self._say(RELOAD, serving=report is not None and report.ok)

    def is_serving(self, status: Status) -> bool:
        """Whether calls are answered, which a worker does once there is a snapshot."""
        return status.snapshot is not None

    def _say(self, name: str, *, serving: bool) -> None:
        """Who watches is told of changes alone."""
        said = _SERVING if serving else _NOT_SERVING
        if self._said.get(name) != said:
            self._said[name] = said
            self.set(name, said)

    def Check(  # noqa: N802 - the RPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer for the service that is named, with the last error beside it."""
        if self._last_error:
            context.set_trailing_metadata(((LAST_ERROR, self._last_error),))
        return super().Check(request, context)


class GroupHealth(Health):
    """The same for all workers together: SERVING while one of them serves; and each under ``arbiter.worker.N``."""

    def is_serving(self, status: Status) -> bool:
        """Whether any worker serves."""
        return any(status.workers.values())

    def update(self, status: Status) -> None:
        """Take over how things stand, the workers too."""
        super().update(status)
        for number, digest in status.workers.items():
            self._say(f"{WORKER}{number}", serving=bool(digest))
