"""A trigger as the machine follows it: which events it keeps, for how long, and which of them come together.

Law: pure, and of one trigger and one subject at a time; whether keys go together is asked of `cage` by whoever calls.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from math import inf, prod
from typing import TYPE_CHECKING, NamedTuple

from arbiter.expr.ops import eq
from arbiter.ruleset.triggering import bindings_of
from arbiter.triggers.choosing import Candidate, Search
from arbiter.triggers.joins import Joins, exact_key
from arbiter.triggers.state import Cause, Progress
from arbiter.types import EMITTED, RESERVED

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Sequence

    from arbiter.ruleset.triggering import OpenTrigger
    from arbiter.triggers.joins import Keys
    from arbiter.triggers.state import SubjectState, Waiting
    from arbiter.types import Event

MOST_ALIKE = 64
"""Events that a step keeps with equal keys: of the same values where it is joined, of one `by`."""
MOST_KINDS = 4
"""How many times as many it keeps in all."""
MOST_WAYS = 4_096
"""Ways in which keys could go together that one event has looked at for a trigger."""


class Question(NamedTuple):
    """Which events could make an occurrence with one that has come: for each step `candidates`, the most recent first,
    and for each group of them, which have equal keys, these `keys`. Whether keys go together is still open.
    """

    candidates: list[list[Candidate]]
    keys: list[list[Keys]]

    def facts(self) -> list[list[tuple[int, ...]]]:
        """The keys as small numbers, equal where they are."""
        numbers: dict[Hashable, int] = {}
        return [[tuple(numbers.setdefault(key, len(numbers)) for key in keys) for keys in each] for each in self.keys]


class Plan:
    """What a trigger makes of events from position `since` of the log on. What would be more than `late` µs past when
    it comes about is nothing to it.
    """

    def __init__(self, opened: OpenTrigger, *, late: int, since: int) -> None:
        self.trigger = trigger = opened.trigger
        self.opened = opened
        self.id, self.key = trigger.id, trigger.key
        self.since = since
        self.keeps = trigger.kind not in {"after", "any"}
        self.correlates = trigger.kind in {"sequence", "all"}
        self.waits = 0 if trigger.unless is None else trigger.unless.within or 0
        self.joins = Joins(trigger.steps if self.correlates else ())
        self._search = Search(opened.steps, ordered=trigger.kind == "sequence", within=trigger.within)
        self._window = inf if trigger.within is None else trigger.within
        steps = range(len(trigger.steps))
        self._apart = [[self._between(*sorted((one, other))) for other in steps] for one in steps]
        self._kept_for = [self._apart[number][-1] + self.waits + late for number in steps]
        self._steps = len(steps)
        self._most = max(MOST_ALIKE, trigger.times)

    def _between(self, first: int, second: int) -> float:
        """What events at two steps have to be less apart than (µs)."""
        if self.trigger.kind != "sequence":
            return self._window
        gaps = [step.within for step in self.trigger.steps[first + 1 : second + 1]]
        return min(self._window, sum(inf if gap is None else gap for gap in gaps))

    def progress(self, state: SubjectState) -> Progress:
        """What is kept of it for a subject; afresh where that was for another pattern."""
        found = state.of(self.id)
        if found is None or found.key != self.key or found.since != self.since:
            steps = self._steps if self.keeps else 0
            state.loose = state.loose or found is not None
            found = Progress(self.key, self.since, [[] for _ in range(steps)])
            state.put(self.id, found)
        return found

    def follows(self, progress: Progress) -> bool:
        """Whether what is kept is of this very pattern, watched from the same position on."""
        return progress.key == self.key and progress.since == self.since

    def taken(self, steps: Sequence[int], event: Event, clock: int) -> list[int]:
        """Those of some steps at which an event may be one of an occurrence, by what it holds and by its time: not if,
        at `clock` (µs), all that it could complete would be late.
        """
        oldest = clock - event.at
        return [step for step in steps if self._kept_for[step] >= oldest and self._joinable(step, event)]

    def expire(self, progress: Progress, state: SubjectState, clock: int) -> None:
        """Let go of the events that are out of time at `clock` (µs)."""
        for facts, kept_for in zip(progress.facts, self._kept_for, strict=False):
            if facts and state.event(facts[0]).at < clock - kept_for:
                del facts[: bisect_left(facts, clock - kept_for, key=lambda position: state.event(position).at)]
                state.loose = True

    def over(self, progress: Progress, state: SubjectState) -> float:
        """The time (µs) after which the first of its events is out of time."""
        kept = zip(progress.facts, self._kept_for, strict=False)
        return min((state.event(facts[0]).at + kept_for for facts, kept_for in kept if facts), default=inf)

    def keep(self, progress: Progress, state: SubjectState, number: int, position: int) -> None:
        """Keep an event of `state` at a step: of those with equal keys, and of all, so many of the newest."""
        facts = progress.facts[number]
        over = state.event(position).at + self._kept_for[number]
        if over != inf and (state.over is None or over < state.over):
            state.over = int(over)
        facts.insert(_place(facts, state, position), position)
        if len(facts) > self._most:
            state.loose = True
            seen: Counter[Keys | None] = Counter()
            kept: list[int] = []
            for each in reversed(facts):
                keys = self._keys(number, state.event(each))
                seen[keys] += 1
                if seen[keys] <= self._most and len(kept) < self._most * MOST_KINDS:
                    kept.append(each)
            facts[:] = reversed(kept)

    @staticmethod
    def use(progress: Progress, state: SubjectState, positions: Collection[int]) -> None:
        """Events are used by an occurrence, and so by no other."""
        state.loose = True
        progress.facts = [[each for each in facts if each not in positions] for facts in progress.facts]

    def run(self, progress: Progress, state: SubjectState, position: int) -> tuple[int, ...] | None:
        """Of a count: the events of the occurrence that the one at `position` completes."""
        facts = progress.facts[0]
        if self.trigger.by:
            keys = self._keys(0, state.event(position))
            facts = [each for each in facts if self._keys(0, state.event(each)) == keys]
        times, place = self.trigger.times, _place(facts, state, position)
        near = [*facts[max(0, place - times + 1) : place], position, *facts[place : place + times - 1]]
        for start in range(len(near) - times + 1):
            run = near[start : start + times]
            if state.event(run[-1]).at - state.event(run[0]).at < self._window:
                return tuple(run)
        return None

    def question(self, progress: Progress, state: SubjectState, number: int, position: int) -> Question | None:
        """Of a sequence or an all: what could be, with the event at `position` at step `number`."""
        # Most events find another step without any, and are done with here.
        for step, facts in enumerate(progress.facts):
            if not facts and step != number:
                return None
        near = [
            [position] if step == number else self._near(step, number, facts, state, position)
            for step, facts in enumerate(progress.facts)
        ]
        if not all(near):
            return None
        own = self._keys(number, state.event(position)) or ()
        fixed = dict(zip(self.joins.shape[number], own, strict=True))
        candidates: list[list[Candidate]] = []
        keys: list[list[Keys]] = []
        for step, positions in enumerate(near):
            groups: dict[Keys, int] = {}
            found = []
            for each in positions:
                event = state.event(each)
                held = self._keys(step, event) or ()
                if all(
                    fixed.get(name, value) == value for name, value in zip(self.joins.shape[step], held, strict=True)
                ):
                    found.append(Candidate(event.at, each, groups.setdefault(held, len(groups)), event))
            if not found:
                return None
            candidates.append(found)
            keys.append([*groups])
        while prod(map(len, keys)) > MOST_WAYS:
            max(keys, key=len).pop()  # the group whose newest event is the oldest
        return Question(candidates, keys)

    def choose(self, question: Question, ways: Collection[tuple[int, ...]]) -> tuple[Candidate, ...] | None:
        """The events of an occurrence, in the order of the steps, given which groups of keys go together."""
        return self._search.best(question.candidates, ways)

    def preferred(self, found: Sequence[tuple[Candidate, ...]]) -> tuple[int, ...]:
        """The positions of the best of several occurrences, which an event makes at one step and at another."""
        if self.trigger.kind == "sequence":
            found = [max(found, key=lambda chosen: [candidate[:2] for candidate in reversed(chosen)])]
        return tuple(candidate.position for candidate in found[0])

    def may_prevent(self, event: Event) -> bool:
        """Whether an event is one that keeps the trigger from firing, as far as it alone says. Any type is any that
        comes from outside: what triggers emit is nothing that the subject did.
        """
        unless = self.opened.unless
        if unless is None:
            return False
        types = unless.step.events
        meant = event.type in types if types else not event.id.startswith((EMITTED, RESERVED))
        return meant and (unless.own is None or unless.own(event.properties))

    def prevents(self, waiting: Waiting, state: SubjectState, event: Event, position: int) -> bool:
        """Whether an event that may do so keeps this occurrence from firing."""
        unless = self.opened.unless
        if unless is None or not waiting.completes < (event.at, position) or event.at >= waiting.due:
            return False
        if not unless.joins and not unless.crosses:
            return True
        bound = bindings_of((cause.label, cause.event.properties) for cause in self.causes(waiting, state))
        own = event.properties
        for join in unless.joins:
            other = bound.get(join.label, {})
            if join.own not in own or join.other not in other or not eq(own[join.own], other[join.other]):
                return False
        return unless.across(own, bound)

    def causes(self, waiting: Waiting, state: SubjectState) -> tuple[Cause, ...]:
        """The events of an occurrence under the names that conditions have for them."""
        steps = self.trigger.steps
        steps = steps if self.correlates else (steps[waiting.step],) * len(waiting.events)
        return tuple(
            Cause(step.label, each, state.event(each)) for step, each in zip(steps, waiting.events, strict=True)
        )

    def _joinable(self, number: int, event: Event) -> bool:
        """Whether an event at a step can be part of anything: whether it has `_keys`."""
        if self.correlates:
            return self.joins.joinable(number, event.properties)
        return not self.trigger.by or event.properties.get(self.trigger.by) is not None

    def _keys(self, number: int, event: Event) -> Keys | None:
        """What an event at a step has to share with others; None where it can be part of nothing."""
        if self.correlates:
            return self.joins.keys(number, event.properties)
        if not self.trigger.by:
            return ()
        value = event.properties.get(self.trigger.by)
        return None if value is None else (exact_key(value),)

    def _near(self, step: int, number: int, facts: list[int], state: SubjectState, position: int) -> list[int]:
        """The events at `step` that time allows beside the one at `position` at step `number`, most recent first."""
        if self.trigger.kind == "sequence":
            place = _place(facts, state, position)
            facts = facts[:place] if step < number else facts[place:]
        at, apart = state.event(position).at, self._apart[number][step]
        return [each for each in reversed(facts) if abs(state.event(each).at - at) < apart]


def _place(facts: list[int], state: SubjectState, position: int) -> int:
    """Where an event stands among others, in the order in which they happened."""

    def moment(each: int) -> tuple[int, int]:
        return (state.event(each).at, each)

    mine = moment(position)
    if not facts or moment(facts[-1]) < mine:  # as mostly
        return len(facts)
    return bisect_left(facts, mine, key=moment)
