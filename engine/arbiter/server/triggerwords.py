"""How far along a subject is with a trigger, in words for people.

Law: from what is known to sentences, and nothing else. Moments stand in UTC, to the second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.decision.wording import shown
from arbiter.ruleset.patterns.words import events_text, pattern_text
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.profiles.fired import Told
    from arbiter.profiles.firings import FiringRecord
    from arbiter.ruleset.triggers import Step, Trigger
    from arbiter.triggers.standing import Pending, Standing, StepStanding
    from arbiter.triggers.state import Cause

_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))


def explanation(found: Standing, firings: Sequence[Told], now: int) -> str:
    """How things stand, line by line."""
    trigger = found.trigger
    lines = [f"{trigger.id}: {_headline(found)}"]
    if found.stage not in {"disabled", "spent"}:
        lines += [f"  {line}" for line in _steps(found, now)]
        for pending in found.pending:
            lines += [f"  {line}" for line in _pending(trigger, pending, now)]
        if found.again is not None:
            lines.append(f"  it may fire again from {_at(found.again, now)}")
    if found.fired and found.last is not None:
        often = "once" if found.fired == 1 else f"{found.fired:,} times, last"
        lines.append(f"  it fired {often} at {shown(from_micros(found.last))}")
    lines += [f"  {line}" for told in firings for line in _fired(told.firing)]
    return "\n".join(lines)


def _headline(found: Standing) -> str:
    match found.stage:
        case "disabled":
            return "switched off by its author (`enabled: false`)"
        case "inactive":
            return "now is outside its dates (`active`), so it fires nothing"
        case "spent":
            return "it has fired, and fires once for each subject only"
        case "pending":
            return "complete, and waits for its time"
        case "in progress":
            return "under way"
        case _:
            return f"waits for {pattern_text(found.trigger)}"


def _steps(found: Standing, now: int) -> list[str]:
    if found.stage == "idle" or not any(each.seen for each in found.steps):
        return []
    if found.trigger.kind == "count":
        (step,) = found.steps
        until = "" if step.until is None else f"; the oldest counts until {_at(step.until, now)}"
        newest = step.seen[0]
        return [f"{step.held} of {step.needs} {_asked(step.step)}, the newest {_event(newest)}{until}"]
    return [_step(number, each, now) for number, each in enumerate(found.steps, 1)]


def _step(number: int, found: StepStanding, now: int) -> str:
    if found.seen:
        return f"{number}. {_asked(found.step)}: {_event(found.seen[0])}"
    until = "" if found.until is None else f", until {_at(found.until, now)}"
    return f"{number}. {_asked(found.step)}: not yet{until}"


def _pending(trigger: Trigger, pending: Pending, now: int) -> list[str]:
    fires = f"fires at {_at(pending.due, now)} for {_listed(pending.causes)}"
    return [fires] if trigger.unless is None else [fires, f"  unless {_asked(trigger.unless)} comes before that"]


def _fired(firing: FiringRecord) -> list[str]:
    causes = ", ".join(
        f"{each.type} at {shown(from_micros(each.at))} (event {shown(each.event_id)})" for each in firing.causes
    )
    lines = [f"at {shown(from_micros(firing.at))} because of {causes}"]
    if done := _done(firing):
        lines.append(f"  it {'; '.join(done)}")
    if firing.dropped:
        lines.append(f"  {firing.dropped}")
    return lines


def _done(firing: FiringRecord) -> list[str]:
    """What a firing did, as ends of a sentence that begins with it."""
    acts, done = firing.acts, []
    if "set" in acts:
        done.append(f"set {', '.join(f'{name} = {shown(value)}' for name, value in acts['set'].items())}")
    if "unset" in acts:
        done.append(f"removed {', '.join(acts['unset'])}")
    if "increment" in acts:
        done.append(f"added {', '.join(f'{shown(value)} to {name}' for name, value in acts['increment'].items())}")
    if "enter_segment" in acts:
        done.append(f"let the subject enter {', '.join(acts['enter_segment'])}")
    if "leave_segment" in acts:
        done.append(f"let the subject leave {', '.join(acts['leave_segment'])}")
    if "emit" in acts and firing.emitted:
        done.append(f"emitted {acts['emit']['event']}")
    if "decide" in acts and firing.decision:
        done.append(f"decided {acts['decide']['decision']}")
    return done


def _asked(step: Step) -> str:
    where = "" if step.where is None else f" where {' '.join(step.where.source.split())}"
    return f"{events_text(step)}{where}"


def _listed(causes: Iterable[Cause]) -> str:
    return ", ".join(f"{each.event.type} {_event(each)}" for each in causes)


def _event(cause: Cause) -> str:
    return f"at {shown(from_micros(cause.event.at))} (event {shown(cause.event.id)})"


def _at(moment: int, now: int) -> str:
    """A moment, and how far off it is."""
    far = f"in {_span(moment - now)}" if moment >= now else f"{_span(now - moment)} ago"
    return f"{shown(from_micros(moment))} ({far})"


def _span(micros: int) -> str:
    seconds = micros / 1e6
    for size, unit in _UNITS:
        if seconds >= 2 * size or size == 1:
            return f"{seconds / size:,.3g} {unit}"
    raise AssertionError
