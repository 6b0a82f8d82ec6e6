"""What triggers mean, slowly: every choice of events is tried, by definition.

Law: plain Python over a subject's whole history; nothing is shared with what it is there to judge. Times are µs.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arbiter.types import Event

    Bound = dict[str, dict[str, Any]]


class Atom(NamedTuple):
    """A test of one property: ``is`` and ``in`` constants, ``above`` a constant, or as `label`'s property `value`."""

    test: str
    name: str
    value: Any
    label: str = ""

    def true(self, event: Event, bound: Bound) -> bool:
        """Missing is not true."""
        if self.name not in event.properties or (self.label and self.value not in bound[self.label]):
            return False
        mine = event.properties[self.name]
        other = bound[self.label][self.value] if self.label else self.value
        match self.test:
            case "in":
                return any(equal(mine, each) for each in other)
            case "above":
                return bool(mine > other)
            case _:
                return equal(mine, other)


class Part(NamedTuple):
    """A step, or what is kept from happening."""

    label: str
    types: tuple[str, ...]
    atoms: tuple[Atom, ...] = ()
    within: int | None = None

    def true(self, event: Event, bound: Bound) -> bool:
        """Whether an event is of the type and passes all tests; any type is any that no trigger emitted."""
        of_type = event.type in self.types if self.types else not event.id.startswith("trigger:")
        return of_type and all(atom.true(event, bound) for atom in self.atoms)


class Spec(NamedTuple):
    """A trigger. `per` is the period of its repeat, 0 for every time, infinite for once."""

    id: str
    kind: str
    parts: tuple[Part, ...]
    within: int | None = None
    times: int = 0
    by: str = ""
    unless: Part | None = None
    per: float = 0
    priority: int = 0


class Seen(NamedTuple):
    """An event and its position; they are in the order in which they happened."""

    at: int
    position: int
    event: Event


class Outcome(NamedTuple):
    """What became of an occurrence: it was fired, or passed over as late or as one too many."""

    trigger: str
    became: str
    at: int
    positions: tuple[int, ...]


class Waits(NamedTuple):
    """An occurrence whose time is not over."""

    due: int
    completes: tuple[int, int]
    events: tuple[Seen, ...]
    bound: Bound


def equal(one: Any, other: Any) -> bool:
    """As CEL has it: an integer and a double are equal as doubles, and booleans are no numbers."""
    return same(one, other) or ({type(one), type(other)} == {int, float} and float(one) == float(other))


def same(one: Any, other: Any) -> bool:
    """Of the same value: numbers across their types, exactly."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


class Oracle:
    """All triggers of one subject."""

    def __init__(self, specs: Sequence[Spec], late: int) -> None:
        self._late = late
        self._of = [_Trigger(spec, late) for spec in specs]
        self._history: list[Seen] = []

    @property
    def cancelled(self) -> int:
        """How many occurrences something kept from firing."""
        return sum(trigger.cancelled for trigger in self._of)

    def event(self, event: Event, position: int, arrival: int) -> list[Outcome]:
        """What comes about at once by an event."""
        seen = Seen(event.at, position, event)
        taken = []
        for trigger in self._of:
            trigger.cancel(seen)
        for trigger in self._of:
            waits = trigger.occurrence(seen, arrival)
            if waits is None:
                continue
            if trigger.spec.unless is None or waits.due + self._late < arrival:
                taken.append((trigger, waits))
            elif any(trigger.prevents(waits, other) for other in self._history):
                trigger.cancelled += 1
            else:
                trigger.waiting.append(waits)
        self._history.append(seen)
        taken.sort(key=lambda each: (-each[0].spec.priority, each[0].spec.id))
        return [trigger.judge(waits, arrival) for trigger, waits in taken]

    def tick(self, now: int) -> list[Outcome]:
        """What is due."""
        over = [(trigger, waits) for trigger in self._of for waits in trigger.waiting if waits.due <= now]
        for trigger, waits in over:
            trigger.waiting.remove(waits)
        over.sort(key=lambda each: (each[1].due, -each[0].spec.priority, each[0].spec.id, _positions(each[1].events)))
        return [trigger.judge(waits, now) for trigger, waits in over]


class _Trigger:
    def __init__(self, spec: Spec, late: int) -> None:
        self.spec = spec
        self.waiting: list[Waits] = []
        self.cancelled = 0
        self._late = late
        self._unused: list[Seen] = []
        self._last = -inf
        self._window = inf if spec.within is None else spec.within
        self._waits = spec.unless.within or 0 if spec.unless is not None else 0

    def cancel(self, seen: Seen) -> None:
        left = [waits for waits in self.waiting if not self.prevents(waits, seen)]
        self.cancelled += len(self.waiting) - len(left)
        self.waiting = left

    def prevents(self, waits: Waits, seen: Seen) -> bool:
        unless = self.spec.unless
        return (
            unless is not None
            and waits.completes < seen[:2]
            and seen.at < waits.due
            and unless.true(seen.event, waits.bound)
        )

    def judge(self, waits: Waits, now: int) -> Outcome:
        became = "fired"
        if waits.due + self._late < now:
            became = "late"
        elif self.spec.per and waits.due - self._last < self.spec.per:
            became = "repeat"
        else:
            self._last = max(self._last, waits.due)
        return Outcome(self.spec.id, became, waits.due, _positions(waits.events))

    def occurrence(self, seen: Seen, clock: int) -> Waits | None:
        """The one that an event makes with unused ones, if it makes one; then they are used."""
        found = {"count": self._runs, "sequence": self._sequences, "all": self._alls}.get(self.spec.kind, self._alone)
        best = max(found(seen, clock), key=lambda each: each[0], default=None)
        if best is None:
            self._unused = sorted([*self._unused, seen])
            return None
        events, bound = best[1], best[2]
        self._unused = [each for each in self._unused if each not in events]
        completes = max(each[:2] for each in events)
        return Waits(completes[0] + self._waits, completes, events, bound)

    def _alone(self, seen: Seen, _: int) -> Iterator[tuple[Any, tuple[Seen, ...], Bound]]:
        for number, part in enumerate(self.spec.parts):
            if part.true(seen.event, {}):
                yield -number, (seen,), {part.label: seen.event.properties}

    def _runs(self, seen: Seen, clock: int) -> Iterator[tuple[Any, tuple[Seen, ...], Bound]]:
        (part,), by = self.spec.parts, self.spec.by
        alike = [
            each
            for each in sorted([*self._unused, seen])
            if self._counts(0, each, clock)
            and part.true(each.event, {})
            and (not by or all(by in one.event.properties for one in (each, seen)))
            and (not by or same(each.event.properties[by], seen.event.properties[by]))
        ]
        for start in range(len(alike) - self.spec.times + 1):
            run = alike[start : start + self.spec.times]
            if seen in run and run[-1].at - run[0].at < self._window:
                yield -start, tuple(run), {part.label: run[-1].event.properties}

    def _sequences(self, seen: Seen, clock: int) -> Iterator[tuple[Any, tuple[Seen, ...], Bound]]:
        for chosen, bound in self._choices((), {}, seen, clock):
            yield [each[:2] for each in reversed(chosen)], chosen, bound

    def _alls(self, seen: Seen, clock: int) -> Iterator[tuple[Any, tuple[Seen, ...], Bound]]:
        for chosen, bound in self._choices((), {}, seen, clock):
            yield (-chosen.index(seen), [each[:2] for each in reversed(chosen)]), chosen, bound

    def _choices(
        self, chosen: tuple[Seen, ...], bound: Bound, seen: Seen, clock: int
    ) -> Iterator[tuple[tuple[Seen, ...], Bound]]:
        """Every choice of distinct events, with `seen` among them, for steps in order."""
        number = len(chosen)
        if number == len(self.spec.parts):
            if seen in chosen:
                yield chosen, bound
            return
        part = self.spec.parts[number]
        for each in [*self._unused, seen]:
            if (
                each not in chosen
                and self._counts(number, each, clock)
                and self._follows(chosen, each, part)
                and part.true(each.event, bound)
            ):
                yield from self._choices((*chosen, each), bound | {part.label: each.event.properties}, seen, clock)

    def _follows(self, chosen: tuple[Seen, ...], each: Seen, part: Part) -> bool:
        times = [one.at for one in (*chosen, each)]
        if max(times) - min(times) >= self._window:
            return False
        if self.spec.kind == "all" or not chosen:
            return True
        return chosen[-1] < each and (part.within is None or each.at - chosen[-1].at < part.within)

    def _counts(self, number: int, each: Seen, clock: int) -> bool:
        """Whether an event at a step is not so old that whatever it could complete would be late."""
        rest = self._window
        if self.spec.kind == "sequence":
            gaps = [inf if part.within is None else part.within for part in self.spec.parts[number + 1 :]]
            rest = min(rest, sum(gaps))
        return each.at + rest + self._waits + self._late >= clock


def _positions(events: Sequence[Seen]) -> tuple[int, ...]:
    return tuple(each.position for each in events)
