"""What triggers did, and how far along subjects are, as plain values.

Law: data and its translation from messages; no calls. Times are aware UTC datetimes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.client.answers import Answer, read_answer
from arbiter.types import TriggerStage, from_micros
from arbiter.wire.numbers import STAGES
from arbiter.wire.values import plain_values, read_timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

    from arbiter.v1 import trigger_pb2

_STAGES: dict[int, TriggerStage] = {number: stage for stage, number in STAGES.items()}


class TriggerEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a pattern. `label` is what the pattern calls it, `position` where it stands in the event log."""

    label: str
    id: str
    type: str
    at: datetime
    position: int


class EmittedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a trigger emitted. `id` is empty where it was not stored, which `Firing.dropped` explains."""

    id: str
    type: str
    properties: dict[str, Any]


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """That a trigger fired, and what it did.

    `position` is what to go on after, `id` the same whenever it is told. `subject_id` is empty where no id of the
    subject is known. `at` is by the times of events, `recorded_at` by the server's clock. `decision` is there where a
    decision was made and was asked for. `depth` counts the firings that it follows from. `dropped` says why some of
    what the trigger does was not done, empty for all was.
    """

    position: int
    id: str
    trigger: str
    subject_id: str
    pseudonym: str
    at: datetime
    recorded_at: datetime
    snapshot: str
    causes: tuple[TriggerEvent, ...]
    set: dict[str, Any]
    unset: tuple[str, ...]
    increment: dict[str, Any]
    enter_segments: tuple[str, ...]
    leave_segments: tuple[str, ...]
    emitted: EmittedEvent | None
    decision_point: str
    decision: Answer | None
    depth: int
    dropped: str


class StepStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a pattern: the types of `events` that are meant (none: any), the condition `where`, how many are
    `needed`, and those `seen`, newest first, five at most of `seen_count`. The next one must happen before `until`.
    """

    label: str
    events: tuple[str, ...]
    where: str
    needed: int
    seen: tuple[TriggerEvent, ...]
    seen_count: int
    until: datetime | None


class PendingFiring(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern that is complete, and fires at `due`, unless an event of the types `unless` (none: any) that is
    `where` comes before that.
    """

    due: datetime
    causes: tuple[TriggerEvent, ...]
    unless: tuple[str, ...]
    where: str


class TriggerStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How far along a subject is with a trigger. `text` is the same for people; `position` is where it is written."""

    trigger: str
    stage: TriggerStage
    steps: tuple[StepStanding, ...]
    pending: tuple[PendingFiring, ...]
    fired: int
    last_fired_at: datetime | None
    again_from: datetime | None
    firings: tuple[Firing, ...]
    text: str
    position: str


class SubjectStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How far along a subject is with triggers, at `at`. Triggers have not looked at `behind` events of the log yet."""

    subject_id: str
    snapshot: str
    at: datetime
    triggers: tuple[TriggerStanding, ...]
    behind: int


def read_firing(message: trigger_pb2.Firing) -> Firing:
    """Return what a trigger did."""
    decision = None
    if message.HasField("decision"):
        decision = read_answer(message.decision, message.decision.snapshot, "")
    return Firing(
        position=message.position,
        id=message.id,
        trigger=message.trigger,
        subject_id=message.subject_id,
        pseudonym=message.pseudonym,
        at=_moment(message.at),
        recorded_at=_moment(message.recorded_at),
        snapshot=message.snapshot,
        causes=tuple(map(_event, message.causes)),
        set=plain_values(message.set),
        unset=tuple(message.unset),
        increment=plain_values(message.increment),
        enter_segments=tuple(message.enter_segments),
        leave_segments=tuple(message.leave_segments),
        emitted=EmittedEvent(
            id=message.emitted.id,
            type=message.emitted.type,
            properties=plain_values(message.emitted.properties),
        )
        if message.HasField("emitted")
        else None,
        decision_point=message.decision_point,
        decision=decision,
        depth=message.depth,
        dropped=message.dropped,
    )


def read_standing(response: trigger_pb2.ExplainTriggersResponse) -> SubjectStanding:
    """Return how far along a subject is."""
    return SubjectStanding(
        subject_id=response.subject_id,
        snapshot=response.snapshot,
        at=_moment(response.at),
        triggers=tuple(map(_trigger, response.triggers)),
        behind=response.behind,
    )


def _trigger(message: trigger_pb2.TriggerExplanation) -> TriggerStanding:
    return TriggerStanding(
        trigger=message.trigger,
        stage=_STAGES[message.stage],
        steps=tuple(map(_step, message.steps)),
        pending=tuple(
            PendingFiring(
                due=_moment(each.due),
                causes=tuple(map(_event, each.causes)),
                unless=tuple(each.unless),
                where=each.where,
            )
            for each in message.pending
        ),
        fired=message.fired,
        last_fired_at=_moment(message.last_fired_at) if message.HasField("last_fired_at") else None,
        again_from=_moment(message.again_from) if message.HasField("again_from") else None,
        firings=tuple(map(read_firing, message.firings)),
        text=message.text,
        position=message.position,
    )


def _step(message: trigger_pb2.TriggerStep) -> StepStanding:
    return StepStanding(
        label=message.label,
        events=tuple(message.events),
        where=message.where,
        needed=message.needed,
        seen=tuple(map(_event, message.seen)),
        seen_count=message.seen_count,
        until=_moment(message.until) if message.HasField("until") else None,
    )


def _event(message: trigger_pb2.TriggerEvent) -> TriggerEvent:
    return TriggerEvent(
        label=message.label, id=message.id, type=message.type, at=_moment(message.at), position=message.position
    )


def _moment(stamp: Timestamp) -> datetime:
    return from_micros(read_timestamp(stamp))
