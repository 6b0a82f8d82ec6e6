"""Calls as a good client makes them: over several connections, again when the server asks for that, never for ever.

Law: knows gRPC and nothing of what is asked. Says of every failure whether the call may have been carried out.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status

from arbiter.v1 import admin_pb2_grpc, decision_pb2_grpc, profile_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 10.0
PATIENCE_S = 60.0  # how long a call may be repeated in vain before that is a fault
_PAUSE_S = (0.05, 0.4)
_AGE_S = 15.0  # after this long a connection is replaced, so that a worker that is new gets its share
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, which the kernel gives to any worker
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
# Worth another attempt. CANCELLED is what grpc's core ends calls with that come as a worker stops to take any.
_PASSING = {
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}  # fmt: skip


class Unanswered(Exception):
    """A call failed in a way that no disturbance explains, or for longer than any lasts."""


class Connection:
    """A connection and its stubs."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target, _OPTIONS)
        self.until = time.monotonic() + random.uniform(0.5, 1.5) * _AGE_S
        decisions = decision_pb2_grpc.DecisionServiceStub(self.channel)
        profiles = profile_pb2_grpc.ProfileServiceStub(self.channel)
        admin = admin_pb2_grpc.AdminServiceStub(self.channel)
        self.stubs: dict[str, Callable[..., Any]] = {
            "Decide": decisions.Decide, "DecideBatch": decisions.DecideBatch,
            "UpdateProfile": profiles.UpdateProfile, "IngestEvents": profiles.IngestEvents,
            "GetProfile": profiles.GetProfile, "GetSnapshot": admin.GetSnapshot, "ListSnapshots": admin.ListSnapshots,
            "Reload": admin.Reload, "Rollback": admin.Rollback,
            "Check": health_pb2_grpc.HealthStub(self.channel).Check,
        }  # fmt: skip


class Calls:
    """A caller's connections. Not to be shared between threads."""

    def __init__(self, target: str, connections: int = 3) -> None:
        self._target = target
        self._open = [Connection(target) for _ in range(connections)]
        self.counts: Counter[str] = Counter()  # calls by method and code
        self.slowest = 0.0  # s, of those that were answered

    def close(self) -> None:
        """Close all connections."""
        for connection in self._open:
            connection.channel.close()

    def once(self, method: str, request: Any, deadline: float = DEADLINE_S) -> Any:
        """One attempt over any of the connections. Raises grpc.RpcError."""
        place = random.randrange(len(self._open))
        connection = self._open[place]
        if time.monotonic() > connection.until:
            connection.channel.close()
            connection = self._open[place] = Connection(self._target)
        began = time.monotonic()
        try:
            answer = connection.stubs[method](request, timeout=deadline)
        except grpc.RpcError as error:
            self.counts[f"{method} {error.code().name}"] += 1
            raise
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.counts[f"{method} OK"] += 1
        return answer

    def read(self, method: str, request: Any, deadline: float = DEADLINE_S) -> Any:
        """The answer to what may be asked any number of times. Raises Unanswered."""
        last = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.once(method, request, deadline)
            except grpc.RpcError as error:
                if error.code() not in _PASSING or time.monotonic() > last:
                    raise Unanswered(told(method, error)) from error
            time.sleep(random.uniform(*_PAUSE_S))


def told(method: str, error: grpc.RpcError) -> str:
    """A failure in one line."""
    return f"{method} ended with {error.code().name}: {error.details()}"


def limit(error: grpc.RpcError) -> str:
    """The limit that an error's details name, ``""`` for none."""
    status = rpc_status.from_call(cast("grpc.Call", error))
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.metadata["limit"]
    return ""
