"""How far along a subject is with one trigger: what has happened of its pattern, what is missing, and until when.

Law: pure, and read from what is kept alone: the correlating engine is not asked, and nothing changes. It is for people
who ask about one subject, so it may take its time, within bounds.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final, NamedTuple

from arbiter.expr.ops import eq
from arbiter.ruleset.triggering import bindings_of
from arbiter.triggers.state import Cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.ruleset.triggering import OpenTrigger
    from arbiter.ruleset.triggers import Step, Trigger
    from arbiter.triggers.state import Progress, SubjectState, Waiting
    from arbiter.types import Event, TriggerStage

    Fact = tuple[int, Event]  # an event with its position in the log
    Chosen = dict[int, Fact]  # by step

MOST_LOOKED_AT: Final = 5_000  # events that are tried at steps, before what was found so far has to do
SHOWN: Final = 5  # events of a step that are told


class StepStanding(NamedTuple):
    """A step: how many events it `needs`, those that it has, newest first, `SHOWN` at most of the `held`, and until
    when (µs) the next one must happen, None for at any time.
    """

    step: Step
    needs: int
    seen: tuple[Cause, ...]
    held: int
    until: int | None


class Pending(NamedTuple):
    """A pattern that is complete: it fires at `due` (µs), unless something keeps it from it."""

    due: int
    causes: tuple[Cause, ...]


class Standing(NamedTuple):
    """How far along a subject is. It `fired` so often, `last` at that time (µs), and may do so again from `again` on,
    None for at any time.
    """

    trigger: Trigger
    stage: TriggerStage
    steps: tuple[StepStanding, ...]
    pending: tuple[Pending, ...]
    fired: int
    last: int | None
    again: int | None


def standing(opened: OpenTrigger, state: SubjectState, now: int, *, on: bool = True) -> Standing:
    """How a trigger stands with the subject of a state at `now` (µs). `on`: that is within its dates."""
    trigger = opened.trigger
    progress = state.of(trigger.id)
    if progress is not None and progress.key != trigger.key:  # of another pattern that it had
        progress = None
    pending = () if progress is None else _pending(trigger, progress, state)
    facts = [[] for _ in trigger.steps] if progress is None else _facts(progress, state)
    steps = _counted(trigger, facts[0], now) if trigger.kind == "count" else _furthest(opened, facts, now)
    fired, last = (0, None) if progress is None else (progress.fired, progress.last)
    spent = bool(fired) and trigger.repeat.kind == "once"
    again = last + trigger.repeat.period if last is not None and trigger.repeat.kind == "per" else None
    return Standing(
        trigger,
        _stage(trigger, pending, steps, spent=spent, on=on),
        steps,
        pending,
        fired,
        last,
        again if again is not None and again > now else None,
    )


def _stage(
    trigger: Trigger, pending: Sequence[Pending], steps: Iterable[StepStanding], *, spent: bool, on: bool
) -> TriggerStage:
    if not trigger.enabled:
        return "disabled"
    if spent:
        return "spent"
    if not on:
        return "inactive"
    if pending:
        return "pending"
    return "in progress" if any(each.seen for each in steps) else "idle"


def _pending(trigger: Trigger, progress: Progress, state: SubjectState) -> tuple[Pending, ...]:
    found = [Pending(each.due, _causes(trigger, each, state)) for each in progress.waiting]
    return tuple(sorted(found, key=lambda each: each.due))


def _causes(trigger: Trigger, waiting: Waiting, state: SubjectState) -> tuple[Cause, ...]:
    several = trigger.kind in {"sequence", "all"}
    return tuple(
        Cause(trigger.steps[number if several else waiting.step].label, position, state.event(position))
        for number, position in enumerate(waiting.events)
    )


def _facts(progress: Progress, state: SubjectState) -> list[list[Fact]]:
    return [[(position, state.event(position)) for position in facts] for facts in progress.facts]


def _step(step: Step, facts: Sequence[Fact], *, needs: int = 1, until: int | None = None) -> StepStanding:
    """The standing of a step that has some facts, oldest first."""
    shown = tuple(Cause(step.label, position, event) for position, event in reversed(facts[-SHOWN:]))
    return StepStanding(step, needs, shown, len(facts), until)


def _counted(trigger: Trigger, facts: Sequence[Fact], now: int) -> tuple[StepStanding, ...]:
    """Of a count: the events that are in its window, those of the value of which there are most."""
    (step,) = trigger.steps
    live = [fact for fact in facts if trigger.within is None or fact[1].at + trigger.within > now]
    groups: list[list[Fact]] = []
    for fact in live:
        for group in groups:
            if not trigger.by or eq(group[0][1].properties.get(trigger.by), fact[1].properties.get(trigger.by)):
                group.append(fact)
                break
        else:
            groups.append([fact])
    most = max(groups, key=lambda group: (len(group), group[-1][1].at), default=[])
    until = most[0][1].at + trigger.within if most and trigger.within is not None else None
    return (_step(step, most, needs=trigger.times, until=until),)


def _furthest(opened: OpenTrigger, facts: Sequence[Sequence[Fact]], now: int) -> tuple[StepStanding, ...]:
    """Of a pattern of steps: the events that go together and make most of it, and can still become all of it."""
    trigger = opened.trigger
    search = _Search(opened, facts, now)
    count = len(trigger.steps)
    chosen: Chosen = {}
    if trigger.kind in {"sequence", "all"}:
        for size in range(count - 1, 0, -1):
            sets = combinations(range(count), size) if trigger.kind == "all" else [tuple(range(size))]
            if found := [each for numbers in sets if (each := search.best(numbers))]:
                chosen = max(found, key=lambda each: max(event.at for _, event in each.values()))
                break
    until = search.until(chosen)
    missing = next((number for number in range(count) if number not in chosen), count)
    return tuple(
        _step(
            step,
            [chosen[number]] if number in chosen else [],
            until=until if number not in chosen and (trigger.kind == "all" or number == missing) else None,
        )
        for number, step in enumerate(trigger.steps)
    )


class _Search:
    """Which events go together at some of the steps of a pattern, the most recent ones."""

    def __init__(self, opened: OpenTrigger, facts: Sequence[Sequence[Fact]], now: int) -> None:
        self._opened = opened
        self._steps = opened.trigger.steps
        self._ordered = opened.trigger.kind == "sequence"
        self._facts = facts
        self._now = now
        self._left = MOST_LOOKED_AT

    def best(self, numbers: Sequence[int]) -> Chosen | None:
        """Events for the steps of these numbers that can still become a whole, or None."""
        return self._down(list(numbers), {})

    def until(self, chosen: Chosen) -> int | None:
        """Before when (µs) the next event must happen, None for at any time."""
        if not chosen:
            return None
        times = [event.at for _, event in chosen.values()]
        within, ends = self._opened.trigger.within, []
        if within is not None:
            ends.append(min(times) + within)
        following = max(chosen) + 1
        if self._ordered and following < len(self._steps) and (gap := self._steps[following].within) is not None:
            ends.append(max(times) + gap)
        return min(ends, default=None)

    def _down(self, numbers: list[int], chosen: Chosen) -> Chosen | None:
        if not numbers:
            until = self.until(chosen)
            return dict(chosen) if until is None or until > self._now else None
        *rest, number = numbers
        for fact in reversed(self._facts[number]):
            self._left -= 1
            if self._left < 0:
                return None
            if self._fits(number, fact, chosen):
                found = self._down(rest, {**chosen, number: fact})
                if found is not None:
                    return found
        return None

    def _fits(self, number: int, fact: Fact, chosen: Chosen) -> bool:
        """Whether an event goes with those that are chosen for later steps."""
        position, event = fact
        if any(position == other for other, _ in chosen.values()):
            return False
        if self._ordered and chosen:
            following = chosen[number + 1]
            gap = self._steps[number + 1].within
            if (event.at, position) >= (following[1].at, following[0]):
                return False
            if gap is not None and following[1].at - event.at >= gap:
                return False
        within = self._opened.trigger.within
        times = [event.at, *(each.at for _, each in chosen.values())]
        if within is not None and max(times) - min(times) >= within:
            return False
        return self._is_true({**chosen, number: fact})

    def _is_true(self, chosen: Chosen) -> bool:
        """Whether what steps ask across events is true, as far as the events that it reads are chosen."""
        bound = bindings_of((self._steps[number].label, event.properties) for number, (_, event) in chosen.items())
        for number, (_, event) in chosen.items():
            step = self._opened.steps[number]
            for join in step.joins:
                if join.label in bound:
                    own, other = event.properties.get(join.own), bound[join.label].get(join.other)
                    if own is None or other is None or not eq(own, other):
                        return False
            across = step.step.across
            known = across is not None and all(path[0] in bound or path[0] == "event" for path in across.names)
            if known and not step.across(event.properties, bound):
                return False
        return True
