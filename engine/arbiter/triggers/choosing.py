"""Which events make the occurrence, where several could: the most recent, from the last step to the first.

Law: pure; `cage` has said which keys go together, here are order, windows and conditions across events. It is a search,
and gives up after so many candidates: what it would have found is then not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from arbiter.expr.ops import eq

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from arbiter.ruleset.triggering import OpenStep
    from arbiter.types import Event

MOST_LOOKED_AT = 20_000
"""Candidates that one event has looked at for a trigger. Only conditions across events that hardly ever are true, or
events that come late, make it look at more than some hundreds."""


class Candidate(NamedTuple):
    """An event that could stand at a step. `group` numbers those of the step that have the same keys."""

    at: int
    position: int
    group: int
    event: Event


class Search:
    """How the events of a ``sequence`` (`ordered`) or an ``all`` are chosen. `within` is the µs of its window."""

    def __init__(self, steps: Sequence[OpenStep], *, ordered: bool, within: int | None) -> None:
        self._steps = steps
        self._ordered = ordered
        self._within = within
        self._gaps = [step.step.within for step in steps]
        labels = {step.step.label: number for number, step in enumerate(steps) if step.step.label}
        # Joins and conditions of a step are looked at as soon as the events that they read are chosen: earlier steps
        # are chosen later.
        self._joined: list[list[tuple[int, str, str]]] = [[] for _ in steps]
        self._crossing: list[list[int]] = [[] for _ in steps]
        for number, step in enumerate(steps):
            for join in step.joins:
                self._joined[labels[join.label]].append((number, join.own, join.other))
            if step.step.across is not None:
                read = [labels[path[0]] for path in step.step.across.names if path[0] in labels]
                self._crossing[min([number, *read])].append(number)
        self._labels = [step.step.label for step in steps]

    def best(
        self, candidates: Sequence[Sequence[Candidate]], ways: Collection[tuple[int, ...]]
    ) -> tuple[Candidate, ...] | None:
        """The chosen events in the order of the steps, or None.

        `candidates` are for each step the most recent first; `ways` say which of their groups go together.
        """
        return _Chosen(self, candidates).down(len(candidates) - 1, [*ways])

    def fits(self, number: int, candidate: Candidate, chosen: Sequence[Candidate]) -> bool:
        """Whether a candidate at step `number` goes with those chosen for the steps behind it."""
        return self._in_time(number, candidate, chosen) and self._is_true(number, candidate, chosen)

    def _in_time(self, number: int, candidate: Candidate, chosen: Sequence[Candidate]) -> bool:
        behind = chosen[number + 1 :]
        if not behind:
            return True
        if self._ordered:
            following, gap = behind[0], self._gaps[number + 1]
            if candidate[:2] >= following[:2] or (gap is not None and following.at - candidate.at >= gap):
                return False
            return self._within is None or behind[-1].at - candidate.at < self._within
        if any(candidate.position == other.position for other in behind):
            return False
        times = [candidate.at, *(other.at for other in behind)]
        return self._within is None or max(times) - min(times) < self._within

    def _is_true(self, number: int, candidate: Candidate, chosen: Sequence[Candidate]) -> bool:
        for other, own, name in self._joined[number]:
            if not eq(chosen[other].event.properties[own], candidate.event.properties[name]):
                return False
        if not self._crossing[number]:
            return True
        events = [*chosen[:number], candidate, *chosen[number + 1 :]]
        bound = {
            label: events[place].event.properties
            for place, label in enumerate(self._labels)
            if label and place >= number
        }
        return all(self._steps[other].across(events[other].event.properties, bound) for other in self._crossing[number])


class _Chosen:
    """A search under way."""

    def __init__(self, search: Search, candidates: Sequence[Sequence[Candidate]]) -> None:
        self._search = search
        self._candidates = candidates
        self._chosen = [each[0] for each in candidates]
        self._left = MOST_LOOKED_AT

    def down(self, number: int, ways: list[tuple[int, ...]]) -> tuple[Candidate, ...] | None:
        if number < 0:
            return tuple(self._chosen)
        groups = {way[number] for way in ways}
        for candidate in self._candidates[number]:
            if candidate.group not in groups:
                continue
            self._left -= 1
            if self._left < 0:
                return None
            if self._search.fits(number, candidate, self._chosen):
                self._chosen[number] = candidate
                found = self.down(number - 1, [way for way in ways if way[number] == candidate.group])
                if found is not None:
                    return found
        return None
