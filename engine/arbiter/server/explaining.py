"""ExplainTriggers: how far along a subject is with each trigger.

Law: reads what is kept of the subject, whichever process runs triggers, and asks the pure `standing` what it means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.decision.dates import in_time
from arbiter.errors import InvalidField, LimitExceeded, NotFound, did_you_mean
from arbiter.ruleset.triggering import open_triggers
from arbiter.server.calls import Slow, parse
from arbiter.server.firings import write_event, write_firing
from arbiter.server.requests import RequestReader
from arbiter.server.triggerwords import explanation
from arbiter.triggers.standing import standing
from arbiter.triggers.state import decode_state, merged
from arbiter.types import Request
from arbiter.v1 import trigger_pb2
from arbiter.wire.numbers import STAGES
from arbiter.wire.values import write_timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.config.limits import Limits
    from arbiter.profiles.fired import Told
    from arbiter.ruleset.triggering import OpenTrigger
    from arbiter.runtime.engine import Engine
    from arbiter.server.calls import Call
    from arbiter.snapshot import Snapshot
    from arbiter.triggers.standing import Standing, StepStanding

_LOOKED_THROUGH: Final = 1_000  # of a subject's newest firings
_FIRINGS: Final = 100  # of one trigger that may be asked for


class TriggerExplainer:
    """Explains over an engine and its store. Raises InvalidField, LimitExceeded, NotFound, NotReady, StoreError."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._requests = RequestReader(limits)
        self._opened: tuple[Snapshot, dict[str, OpenTrigger]] | None = None

    def explain(self, content: bytes, _call: Call) -> Slow:
        """Answer an ExplainTriggersRequest."""
        request = parse(trigger_pb2.ExplainTriggersRequest, content)
        self._requests.check_id(request.subject_id, "subject_id")
        check_names(self._requests, self._limits, "triggers", request.triggers)
        if request.firings > _FIRINGS:
            raise InvalidField(f"firings is {request.firings:,}: ask for {_FIRINGS} at most", field="firings")
        return Slow(lambda: self._answer(request))

    def _answer(self, request: trigger_pb2.ExplainTriggersRequest) -> bytes:
        now, subject_id, fired = self._engine.clock(), request.subject_id, self._engine.store.fired
        active = self._engine.current()
        opened = self._open(active.snapshot)
        wanted = sorted(set(request.triggers)) or sorted(opened)
        for place, name in enumerate(request.triggers):
            if name not in opened:
                hint = did_you_mean(name, opened)
                raise NotFound(f"there is no trigger `{name}`{f'; {hint}' if hint else ''}", field=f"triggers[{place}]")
        view, _ = self._engine.view(Request(subject_id, (), now), active, ())
        state = merged([decode_state(each) for each in fired.states(subject_id)])
        firings = _by_trigger(fired.of(subject_id, _LOOKED_THROUGH), request.firings or 1)
        response = trigger_pb2.ExplainTriggersResponse(
            subject_id=subject_id, snapshot=active.snapshot.digest, at=write_timestamp(now), behind=fired.behind()
        )
        for name in wanted:
            found = standing(opened[name], state, now, on=in_time(opened[name].trigger.active, view))
            _write(response.triggers.add(), found, firings.get(name, []), now)
        return response.SerializeToString()

    def _open(self, snapshot: Snapshot) -> dict[str, OpenTrigger]:
        """The triggers of a snapshot by id, opened when they are first asked for."""
        known = self._opened
        if known is None or known[0] is not snapshot:
            opened = {each.trigger.id: each for each in open_triggers(snapshot.frame, snapshot.symbols)}
            known = self._opened = snapshot, opened
        return known[1]


def check_names(requests: RequestReader, limits: Limits, field: str, names: Sequence[str]) -> None:
    """Raise LimitExceeded for too many names, InvalidField for what can be none."""
    allowed = limits.explain_rules
    if len(names) > allowed:
        raise LimitExceeded(
            f"{field} has {len(names):,} names, `explain_rules` allows {allowed:,}: send fewer",
            field=field,
            reason="explain_rules",
        )
    for place, name in enumerate(names):
        requests.check_id(name, f"{field}[{place}]")


def _by_trigger(firings: Sequence[Told], most: int) -> dict[str, list[Told]]:
    """The newest firings of each trigger, `most` of them."""
    found: dict[str, list[Told]] = {}
    for told in firings:
        of = found.setdefault(told.firing.trigger, [])
        if len(of) < most:
            of.append(told)
    return found


def _write(message: trigger_pb2.TriggerExplanation, found: Standing, firings: Sequence[Told], now: int) -> None:
    trigger = found.trigger
    message.trigger = trigger.id
    message.stage = STAGES[found.stage]
    message.steps.extend(map(_step, found.steps))
    for each in found.pending:
        pending = message.pending.add(due=write_timestamp(each.due), causes=map(write_event, each.causes))
        if trigger.unless is not None:
            pending.unless.extend(trigger.unless.events)
            pending.where = "" if trigger.unless.where is None else trigger.unless.where.source
    message.fired = found.fired
    if found.last is not None:
        message.last_fired_at.CopyFrom(write_timestamp(found.last))
    if found.again is not None:
        message.again_from.CopyFrom(write_timestamp(found.again))
    for told in firings:
        write_firing(message.firings.add(), told)
    message.text = explanation(found, firings, now)
    message.position = trigger.position


def _step(found: StepStanding) -> trigger_pb2.TriggerStep:
    step = found.step
    return trigger_pb2.TriggerStep(
        label=step.label,
        events=step.events,
        where="" if step.where is None else step.where.source,
        needed=found.needs,
        seen=map(write_event, found.seen),
        seen_count=found.held,
        until=None if found.until is None else write_timestamp(found.until),
    )
