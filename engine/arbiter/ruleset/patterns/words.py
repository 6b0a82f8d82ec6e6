"""A trigger in the words of its author, on short lines: for lists, explanations and differences.

Law: words only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.ruleset.triggers import Decide, Emit, EnterSegment, Increment, LeaveSegment, Set, Unset
from arbiter.ruleset.written import duration_text, param_text
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arbiter.ruleset.terms import Active, Param
    from arbiter.ruleset.triggers import Act, Step, Trigger


def events_text(step: Step) -> str:
    """The events that a step waits for: ``visit or purchase``."""
    return " or ".join(step.events) or "any event"


def step_text(step: Step) -> str:
    """A step: ``invited as invite where event.team == signup.team within 3d``."""
    said = [events_text(step)]
    if step.label and step.events != (step.label,):
        said.append(f"as {step.label}")
    if step.where is not None:
        said.append(f"where {' '.join(step.where.source.split())}")
    if step.within is not None:
        said.append(f"within {duration_text(step.within)}")
    return " ".join(said)


def pattern_text(trigger: Trigger) -> str:
    """The whole pattern on one line."""
    steps = [step_text(step) for step in trigger.steps]
    joined = {"sequence": ", then ", "any": ", or ", "all": ", and "}.get(trigger.kind, "").join(steps)
    if trigger.kind == "count":
        joined = f"{trigger.times} times {joined}" + (f" of one event.{trigger.by}" if trigger.by else "")
    if trigger.within is not None:
        joined += f"{'' if trigger.kind == 'count' else ', all'} within {duration_text(trigger.within)}"
    return joined + (f", unless {step_text(trigger.unless)}" if trigger.unless is not None else "")


def acts_of(trigger: Trigger) -> tuple[str, ...]:
    """What it does, a line for each thing."""
    return tuple(line for act in trigger.then for line in _lines(act))


def written_of(trigger: Trigger) -> dict[str, tuple[str, ...]]:
    """What it says, by field, without where it stands."""
    repeat = f"once per {duration_text(trigger.repeat.period)}" if trigger.repeat.kind == "per" else trigger.repeat.kind
    return {
        "pattern": (pattern_text(trigger),),
        "when": tuple(line.source for line in trigger.when),
        "then": acts_of(trigger),
        "repeat": (repeat,),
        "priority": (str(trigger.priority),),
        "active": (_active(trigger.active),) if trigger.active is not None else (),
        "purposes": trigger.purposes,
        "enabled": ("true" if trigger.enabled else "false",),
        "tags": trigger.tags,
    }


def _lines(act: Act) -> Iterator[str]:
    match act:
        case Set(values=values):
            yield from (f"set {name} = {param_text(value)}" for name, value in values.items())
        case Unset(names=names):
            yield from (f"unset {name}" for name in names)
        case Increment(values=values):
            yield from (f"increment {name} by {param_text(value)}" for name, value in values.items())
        case EnterSegment(segments=names):
            yield from (f"enter segment {name}" for name in names)
        case LeaveSegment(segments=names):
            yield from (f"leave segment {name}" for name in names)
        case Emit(event=event, properties=properties):
            yield f"emit {event}{_given(properties)}"
        case Decide(decision=decision, context=context):
            yield f"decide {decision}{_given(context)}"


def _given(params: Mapping[str, Param]) -> str:
    return f" {{{', '.join(f'{name}: {param_text(value)}' for name, value in params.items())}}}" if params else ""


def _active(active: Active) -> str:
    dates = active.local or active
    told = [f"{word} {from_micros(at).isoformat()}" for word, at in (("from", dates.start), ("until", dates.until))
            if at is not None]  # fmt: skip
    zone = "subject" if active.local is not None else active.zone
    return ", ".join([*told, *([f"zone {zone}"] if zone else [])])
