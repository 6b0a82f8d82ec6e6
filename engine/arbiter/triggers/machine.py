"""What triggers make of a subject's events, one by one, and of time as it passes.

Law: pure. What comes about is a function of the events in the order of the log, of when they arrived, and of the
moments at which it was asked what is due. What is kept of a subject is the caller's, and changed in place.
"""

from __future__ import annotations

from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from arbiter.triggers.dispatch import Dispatch
from arbiter.triggers.plan import Plan
from arbiter.triggers.state import Occurrence, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from arbiter.ruleset.triggering import OpenStep, OpenTrigger
    from arbiter.triggers.choosing import Candidate
    from arbiter.triggers.plan import Question
    from arbiter.triggers.state import Moment, Progress, SubjectState
    from arbiter.types import Event

    History = Callable[[Moment, int], Iterable[tuple[int, Event]]]


class Correlation(Protocol):
    """What says which facts complete which patterns: `Cage`, of which this is the face."""

    def complete(self, asked: Mapping[int, Sequence[Sequence[tuple[int, ...]]]]) -> Mapping[int, set[tuple[int, ...]]]:
        """By pattern, which facts complete it: for each way the place of every fact in its list."""

    def close(self) -> None:
        """Give back what it holds."""


class Look(NamedTuple):
    """An event that lies at `position` in the log and may mean something: the steps that it passes, by plan."""

    event: Event
    position: int
    steps: dict[Plan, list[int]]


class _Arrival(NamedTuple):
    """An event's arrival: whose it is and where it lies in the log, when it came, and what is known of the subject."""

    state: SubjectState
    subject: bytes
    position: int
    at: int
    history: History


_Keeping = tuple[Plan, "Progress", list[int]]
"""A plan that keeps what its steps take, what it keeps of the subject, and the steps that take an event."""


class Machine:
    """All triggers of a rule set, over any number of subjects; for one thread.

    Firings that are more than `late` µs past when they are found are not to be done any more. `since` are the positions
    in the log from which on triggers see events, by id and key. `cage` makes a `Correlation` of the shapes of patterns;
    it is asked for only where a pattern takes several events. `cancelled` counts what an ``unless`` kept from firing.
    """

    def __init__(
        self,
        triggers: Sequence[OpenTrigger],
        *,
        late: int,
        since: Mapping[tuple[str, str], int],
        cage: Callable[[Sequence[tuple[tuple[int, ...], ...]]], Correlation],
    ) -> None:
        self._late = late
        self._plans = {
            each.trigger.id: Plan(each, late=late, since=since.get((each.trigger.id, each.trigger.key), 0))
            for each in triggers
        }
        on = [plan for plan in self._plans.values() if plan.trigger.enabled]
        self._dispatches = _dispatches(on)
        self._preventing_any, self._preventing = _preventing(on)
        correlating = [plan for plan in on if plan.correlates]
        self._numbers = {plan: number for number, plan in enumerate(correlating)}
        self._cage = cage([plan.joins.shape for plan in correlating]) if correlating else None
        self.cancelled = 0
        patterns = [late, [(plan.id, plan.key, plan.since) for plan in self._plans.values()]]
        self._known = blake2b(msgspec.msgpack.encode(patterns), digest_size=8).hexdigest()

    def close(self) -> None:
        """Give back what the cage holds."""
        if self._cage is not None:
            self._cage.close()

    def look(self, event: Event, position: int) -> Look | None:
        """An event that lies at `position` in the log, as `arrive` takes it; None for one that means nothing to any
        trigger, whosever it is: it is part of no pattern, and keeps none from firing.
        """
        steps = self._looking(event, position)
        if not steps:
            preventing = self._preventing.get(event.type, self._preventing_any)
            if not any(plan.may_prevent(event) for plan in preventing):
                return None
        return Look(event, position, steps)

    def arrive(
        self, state: SubjectState, subject: bytes, look: Look, arrival: int, history: History
    ) -> list[Occurrence]:
        """What comes about at once by an event that arrived at `arrival` (µs).

        Best first, and those that are late with the others. `subject` is the subject's key. ``history(after, before)``
        gives positions and events of the subject that happened after a moment and before a time (µs).
        """
        event, position, looking = look
        if state.due:
            self._cancel(state, event, position)
        if not looking:
            return []
        state.events[position] = event
        if not state.progress:
            state.known = self._known
        now = _Arrival(state, subject, position, arrival, history)
        ready = [self._take(plan, (position,), now, steps[0]) for plan, steps in looking.items() if not plan.keeps]
        keeping = self._keeping(looking, state, event, arrival)
        complete = self._complete(keeping, state, position)
        for plan, progress, steps in keeping:
            if plan in complete:
                ready.append(self._take(plan, complete[plan], now))
            else:
                for step in steps:
                    plan.keep(progress, state, step, position)
        if len(keeping) == len(complete):  # it is no part of anything to come, unless something waits with it
            if state.due:
                state.loose = True
            else:
                del state.events[position]
        return sorted((each for each in ready if each is not None), key=_best_first)

    def due(self, state: SubjectState, subject: bytes, now: int) -> list[Occurrence]:
        """What waited until `now` (µs) or before, in the order of its times, best first where they are equal."""
        found = []
        for name in [name for name, first in state.due.items() if first <= now]:
            plan, progress = self._plans.get(name), state.of(name)
            if plan is not None and progress is not None and plan.follows(progress):
                over = [each for each in progress.waiting if each.due <= now]
                state.wait(name, progress, [each for each in progress.waiting if each.due > now])
                state.loose = True
                found += [self._occurrence(plan, each, state, subject, now) for each in over]
        return sorted(found, key=lambda each: (each.at, *_best_first(each)))

    @staticmethod
    def may(state: SubjectState, occurrence: Occurrence) -> bool:
        """Whether the trigger may fire once more for the subject, by its ``repeat``."""
        repeat = occurrence.trigger.repeat
        progress = None if repeat.kind == "every" else state.of(occurrence.trigger.id)
        if progress is None or progress.last is None:
            return True
        return repeat.kind == "per" and occurrence.at - progress.last >= repeat.period

    def fired(self, state: SubjectState, occurrence: Occurrence) -> None:
        """Note that an occurrence fired and was not passed over."""
        progress = self._plans[occurrence.trigger.id].progress(state)
        progress.fired += 1
        progress.last = occurrence.at if progress.last is None else max(progress.last, occurrence.at)

    def prune(self, state: SubjectState, clock: int) -> None:
        """Let go of what can come to nothing at `clock` (µs): events out of time, and what is of triggers that are gone
        or have another pattern. What is left costs time and no more: it is found again as it is when it is asked for.
        """
        if state.known != self._known:
            for name, progress in state.all():
                if (plan := self._plans.get(name)) is None or not plan.follows(progress):
                    state.forget(name)
            state.known = self._known
            self._sweep(state, clock)
        elif state.lagging(clock):
            self._sweep(state, clock)

    def _sweep(self, state: SubjectState, clock: int) -> None:
        """Let go of all events out of time, and say when the next will be."""
        first = inf
        for name, progress in state.all():
            plan = self._plans.get(name)
            if plan is not None and plan.follows(progress):
                plan.expire(progress, state, clock)
                first = min(first, plan.over(progress, state))
        state.over = None if first == inf else int(first)
        state.sweep()

    def _cancel(self, state: SubjectState, event: Event, position: int) -> None:
        """Let go of the occurrences that an event keeps from firing."""
        for name in [*state.due]:
            plan = self._plans.get(name)
            if plan is None or not plan.trigger.enabled or not plan.may_prevent(event):
                continue
            progress = state.of(name)
            if progress is not None and plan.follows(progress):
                left = [each for each in progress.waiting if not plan.prevents(each, state, event, position)]
                self.cancelled += len(progress.waiting) - len(left)
                state.wait(name, progress, left)
                state.loose = True

    def _looking(self, event: Event, position: int) -> dict[Plan, list[int]]:
        """The steps that an event passes by what they ask of it alone, by plan, first to last; of plans that were there
        when it was logged.
        """
        found: dict[Plan, list[int]] = {}
        dispatch = self._dispatches.get(event.type)
        if dispatch is not None:
            for plan, step in dispatch.passed(event.properties):
                if plan.since <= position:
                    found.setdefault(plan, []).append(step)
        for steps in found.values():
            steps.sort()
        return found

    def _keeping(
        self, looking: Mapping[Plan, list[int]], state: SubjectState, event: Event, clock: int
    ) -> list[_Keeping]:
        """The plans that keep an event or use it with others, without what is out of time at `clock` (µs)."""
        # Nothing is before `over`, as it was found for the patterns that are known.
        expiring = state.known != self._known or (state.over is not None and state.over < clock)
        found = []
        for plan, passed in looking.items():
            if plan.keeps and (steps := plan.taken(passed, event, clock)):
                progress = plan.progress(state)
                if expiring:
                    plan.expire(progress, state, clock)
                found.append((plan, progress, steps))
        return found

    def _complete(self, keeping: Iterable[_Keeping], state: SubjectState, position: int) -> dict[Plan, tuple[int, ...]]:
        """The positions of the events of an occurrence, by plan, where an event at one of some steps makes one."""
        found: dict[Plan, tuple[int, ...]] = {}
        questions: dict[Plan, list[Question]] = {}
        for plan, progress, steps in keeping:
            if plan.correlates:
                for step in steps:
                    question = plan.question(progress, state, step, position)
                    if question is not None:
                        questions.setdefault(plan, []).append(question)
            elif run := plan.run(progress, state, position):
                found[plan] = run
        if not questions:
            return found
        several: dict[Plan, list[tuple[Candidate, ...]]] = {}
        for turn in range(max(map(len, questions.values()))):
            asked = {plan: each[turn] for plan, each in questions.items() if turn < len(each)}
            for plan, chosen in self._chosen(asked):
                several.setdefault(plan, []).append(chosen)
        return found | {plan: plan.preferred(each) for plan, each in several.items()}

    def _chosen(self, asked: Mapping[Plan, Question]) -> Iterable[tuple[Plan, tuple[Candidate, ...]]]:
        """What answers questions of several plans, where anything does: the cage is asked once for all."""
        assert self._cage is not None  # noqa: S101 - for the type checker
        ways = self._cage.complete({self._numbers[plan]: question.facts() for plan, question in asked.items()})
        for plan, question in asked.items():
            chosen = plan.choose(question, ways[self._numbers[plan]])
            if chosen is not None:
                yield plan, chosen

    def _take(self, plan: Plan, positions: tuple[int, ...], now: _Arrival, step: int = 0) -> Occurrence | None:
        """Use the events of an occurrence up. What fires at once, or would be late, is returned; the rest waits, or is
        kept from firing by what is known already.
        """
        state = now.state
        if plan.keeps:
            plan.use(plan.progress(state), state, positions)
        completes = max((state.event(position).at, position) for position in positions)
        waiting = Waiting(completes[0] + plan.waits, completes, positions, step)
        if plan.opened.unless is None or waiting.due + self._late < now.at:
            return self._occurrence(plan, waiting, state, now.subject, now.at)
        for position, event in now.history(completes, waiting.due):
            known = plan.since <= position < now.position
            if known and plan.may_prevent(event) and plan.prevents(waiting, state, event, position):
                self.cancelled += 1
                return None
        progress = plan.progress(state)
        state.wait(plan.id, progress, [*progress.waiting, waiting])
        return None

    def _occurrence(self, plan: Plan, waiting: Waiting, state: SubjectState, subject: bytes, now: int) -> Occurrence:
        causes = plan.causes(waiting, state)
        trigger = plan.trigger
        named = [subject, trigger.id, trigger.key, [cause.event.id for cause in causes]]
        return Occurrence(
            id=blake2b(msgspec.msgpack.encode(named), digest_size=16).hexdigest(),
            trigger=trigger,
            causes=causes,
            completes=waiting.completes[0],
            at=waiting.due,
            late=waiting.due + self._late < now,
        )


def _dispatches(plans: Sequence[Plan]) -> dict[str, Dispatch[tuple[Plan, int]]]:
    """Which steps events of a type may be for, by type."""
    entries: dict[str, list[tuple[OpenStep, tuple[Plan, int]]]] = {}
    for plan in plans:
        for number, step in enumerate(plan.opened.steps):
            for name in step.step.events:
                entries.setdefault(name, []).append((step, (plan, number)))
    return {name: Dispatch(steps) for name, steps in entries.items()}


def _preventing(plans: Sequence[Plan]) -> tuple[list[Plan], dict[str, list[Plan]]]:
    """The plans that an event of any type may keep from firing; and all that one of a type may, by type."""
    waited = [(plan, plan.trigger.unless.events) for plan in plans if plan.trigger.unless is not None]
    types = {name for _, names in waited for name in names}
    of_any = [plan for plan, names in waited if not names]
    return of_any, {each: [plan for plan, names in waited if not names or each in names] for each in types}


def _best_first(occurrence: Occurrence) -> tuple[int, str, tuple[int, ...]]:
    return (-occurrence.trigger.priority, occurrence.trigger.id, tuple(cause.position for cause in occurrence.causes))
