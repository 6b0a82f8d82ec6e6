"""TriggerService: what fired, as it fires, and how far along a subject is.

Law: turns messages into questions to the store and to the rules that run. How streams go on stands in `following`, how
far along a subject is in `explaining`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.server.calls import parse, settled
from arbiter.server.explaining import TriggerExplainer, check_names
from arbiter.server.firings import write_firing
from arbiter.server.following import Follower, Following, Tail
from arbiter.server.requests import RequestReader
from arbiter.v1 import trigger_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbiter.config.limits import Limits
    from arbiter.profiles.fired import Told
    from arbiter.profiles.firings import FiringRecord
    from arbiter.runtime.engine import Engine
    from arbiter.server.calls import Call, Work
    from arbiter.server.streams import Opens
    from arbiter.snapshot import Snapshot
    from arbiter.telemetry.counters import Counters

SERVICE = trigger_pb2.DESCRIPTOR.services_by_name["TriggerService"].full_name


class TriggerService:
    """Subscribe and ExplainTriggers over an engine and its store."""

    def __init__(self, engine: Engine, limits: Limits, counters: Counters) -> None:
        self._engine = engine
        self._limits = limits
        self._counters = counters
        self._requests = RequestReader(limits)
        self._tail = Tail(engine.store.fired)

    def works(self) -> dict[str, Work]:
        """Return the work of each RPC by name."""
        return {"ExplainTriggers": TriggerExplainer(self._engine, self._limits).explain}

    def opens(self, recorded: Callable[[str, Work], Work], path: str) -> Opens:
        """Return what opens a stream of Subscribe; `recorded` has calls of `path` recorded."""
        checked = recorded(path, self._check)

        def open_(content: bytes, call: Call, cancel: Callable[[], object]) -> Follower:
            settled(checked(content, call), call)
            request = parse(trigger_pb2.SubscribeRequest, content)
            asked = Following(
                request.after if request.HasField("after") else None, request.subject_id, self._wanted(request)
            )
            return Follower(self._tail, asked, self._writer(request), self._counters, cancel)

        return open_

    def _check(self, content: bytes, _call: Call) -> bytes:
        """Refuse what is wrong with a SubscribeRequest."""
        request = parse(trigger_pb2.SubscribeRequest, content)
        if request.subject_id:
            self._requests.check_id(request.subject_id, "subject_id")
        for field, names in (("triggers", request.triggers), ("tags", request.tags)):
            check_names(self._requests, self._limits, field, names)
        return b""

    def _wanted(self, request: trigger_pb2.SubscribeRequest) -> Callable[[FiringRecord], bool] | None:
        names, tags = frozenset(request.triggers), frozenset(request.tags)
        if not names and not tags:
            return None
        tagged = _Tagged(self._engine, tags)
        return lambda firing: (not names or firing.trigger in names) and (not tags or firing.trigger in tagged)

    def _writer(self, request: trigger_pb2.SubscribeRequest) -> Callable[[Sequence[Told], int, int], bytes]:
        snapshot = self._engine.current().snapshot
        declared = {each.id for each in snapshot.frame.triggers}
        unknown = sorted(set(request.triggers) - declared)

        def write(found: Sequence[Told], position: int, newest: int) -> bytes:
            response = trigger_pb2.SubscribeResponse(position=position, newest=newest, unknown_triggers=unknown)
            unknown.clear()  # told once
            for told in found:
                write_firing(response.firings.add(), told, include_decision=request.include_decision)
            return response.SerializeToString()

        return write


class _Tagged:
    """The triggers of the rules that run that carry one of some tags."""

    def __init__(self, engine: Engine, tags: frozenset[str]) -> None:
        self._engine = engine
        self._tags = tags
        self._of: Snapshot | None = None
        self._names: frozenset[str] = frozenset()

    def __contains__(self, trigger: str) -> bool:
        """Whether a trigger is one of them now."""
        snapshot = self._engine.snapshot
        if snapshot is not None and snapshot is not self._of:
            carry = (each.id for each in snapshot.frame.triggers if not self._tags.isdisjoint(each.tags))
            self._of, self._names = snapshot, frozenset(carry)
        return trigger in self._names
