"""A firing as a message.

Law: turns what the store keeps into messages; whom they go to, and what was wanted, is known elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.server.decisions import write_decision
from arbiter.types import Decision
from arbiter.v1 import trigger_pb2
from arbiter.wire.values import write_entries, write_timestamp

if TYPE_CHECKING:
    from arbiter.profiles.fired import Told
    from arbiter.profiles.firings import Cause
    from arbiter.triggers.state import Cause as Seen

_decode_decision = msgspec.msgpack.Decoder(Decision).decode


def write_firing(message: trigger_pb2.Firing, told: Told, *, include_decision: bool = False) -> None:
    """Fill in a message."""
    firing = told.firing
    message.position = told.position
    message.id = firing.id
    message.trigger = firing.trigger
    message.subject_id = told.subject_id
    message.pseudonym = firing.subject.hex()
    message.at.CopyFrom(write_timestamp(firing.at))
    message.recorded_at.CopyFrom(write_timestamp(firing.recorded))
    message.snapshot = firing.snapshot
    message.causes.extend(map(_cause, firing.causes))
    message.depth = firing.depth
    message.dropped = firing.dropped
    acts: dict[str, Any] = firing.acts
    write_entries(message.set, acts.get("set", {}))
    message.unset.extend(acts.get("unset", ()))
    write_entries(message.increment, acts.get("increment", {}))
    message.enter_segments.extend(acts.get("enter_segment", ()))
    message.leave_segments.extend(acts.get("leave_segment", ()))
    if (emit := acts.get("emit")) is not None:
        message.emitted.id = firing.emitted
        message.emitted.type = emit["event"]
        write_entries(message.emitted.properties, emit["properties"])
    if (decide := acts.get("decide")) is not None:
        message.decision_point = decide["decision"]
        if include_decision and firing.decision:
            write_decision(message.decision, _decode_decision(firing.decision), firing.snapshot)


def write_event(cause: Seen) -> trigger_pb2.TriggerEvent:
    """An event of a pattern as a message."""
    return trigger_pb2.TriggerEvent(
        label=cause.label,
        id=cause.event.id,
        type=cause.event.type,
        at=write_timestamp(cause.event.at),
        position=cause.position,
    )


def _cause(cause: Cause) -> trigger_pb2.TriggerEvent:
    return trigger_pb2.TriggerEvent(
        label=cause.label,
        id=cause.event_id,
        type=cause.type,
        at=write_timestamp(cause.at),
        position=cause.position,
    )
