"""How far along a subject is: what each trigger has seen and not used, what waits for its time, what came of it.

Law: data and its MessagePack form, which is what the store keeps of a subject; no trigger is needed to read it. Events
are held once, by their position in the log, however many triggers look at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from arbiter.types import Event  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.ruleset.triggers import Trigger

Moment = tuple[int, int]
"""When an event happened, and its position in the log: a subject's events are in this order."""


class Waiting(msgspec.Struct, array_like=True, gc=False):
    """An occurrence that fires at `due` (µs) unless an event keeps it from it.

    `events` are positions, in the order of the steps, those of a count in the order in which they happened. `completes`
    is the moment of the newest of them. Of an ``any``, `step` is the one that the event passed.
    """

    due: int
    completes: Moment
    events: tuple[int, ...]
    step: int = 0


class Progress(msgspec.Struct, array_like=True):
    """How far one trigger is with a subject. It is for the pattern with digest `key`, loaded at position `since`.

    `facts` are the positions of the events that a step waits to use, by step, in the order in which they happened.
    `fired` counts firings, and `last` is the time (µs) of the latest.
    """

    key: str
    since: int
    facts: list[list[int]]
    waiting: list[Waiting] = []
    fired: int = 0
    last: int | None = None


class SubjectState(msgspec.Struct, omit_defaults=True):
    """What all triggers keep of a subject: `progress` by trigger id, and the events of it by position in the log.

    Its form names its fields, since it is shown to whom it is about. `known` is the digest of the patterns that it was
    last held to, `over` the time (µs) from which an event may be out of time, None for never, and `loose` says that
    there may be something that `sweep` lets go of: so that looking for it is spared where there is nothing.
    """

    progress: dict[str, Progress] = {}
    events: dict[int, Event] = {}
    known: str = ""
    over: int | None = None
    loose: bool = False

    def next_due(self) -> int | None:
        """The time (µs) at which the first of what waits is due, None while nothing waits."""
        first = None
        for progress in self.progress.values():
            for each in progress.waiting:
                if first is None or each.due < first:
                    first = each.due
        return first

    def sweep(self) -> None:
        """Let go of what says nothing: of triggers that are back at their beginning, and of events that none uses."""
        if not self.loose:
            return
        self.loose = False
        used: set[int] = set()
        idle = []
        for name, progress in self.progress.items():
            keeps = progress.fired > 0
            for facts in progress.facts:
                if facts:
                    used.update(facts)
                    keeps = True
            for each in progress.waiting:
                used.update(each.events)
                keeps = True
            if not keeps:
                idle.append(name)
        for name in idle:
            del self.progress[name]
        if len(used) < len(self.events):
            self.events = {position: event for position, event in self.events.items() if position in used}


class Cause(NamedTuple):
    """An event of an occurrence, with the label of its step and its position in the log."""

    label: str
    position: int
    event: Event


class Occurrence(NamedTuple):
    """That a trigger's pattern came about for a subject, once: it fires at `at` (µs), or is passed over.

    `completes` is the time of the newest of `causes`, which are in the order of the steps; those of a count in the
    order in which they happened. `at` is the same, or where the trigger has an ``unless`` the end of its time. `late`
    says that `at` is so long past that nothing is done about it any more. `id` is the same whenever it is found again.
    """

    id: str
    trigger: Trigger
    causes: tuple[Cause, ...]
    completes: int
    at: int
    late: bool


def merged(states: Sequence[SubjectState]) -> SubjectState:
    """The state of a subject that was several: what waited for any of them waits for it."""
    if len(states) == 1:
        return states[0]
    whole = SubjectState(loose=True)
    for state in states:
        whole.events |= state.events
    for state in states:
        for name, other in state.progress.items():
            mine = whole.progress.get(name)
            if mine is None or mine.since < other.since:
                whole.progress[name] = msgspec.structs.replace(other)
            elif (mine.since, mine.key) == (other.since, other.key):
                whole.progress[name] = _together(mine, other, whole.events)
    whole.sweep()
    return whole


def _together(mine: Progress, other: Progress, events: dict[int, Event]) -> Progress:
    def in_order(positions: Iterable[int]) -> list[int]:
        return sorted(positions, key=lambda position: (events[position].at, position))

    return Progress(
        key=mine.key,
        since=mine.since,
        facts=[in_order({*one, *two}) for one, two in zip(mine.facts, other.facts, strict=True)],
        waiting=[*mine.waiting, *other.waiting],
        fired=mine.fired + other.fired,
        last=max((last for last in (mine.last, other.last) if last is not None), default=None),
    )


encode_state = msgspec.msgpack.Encoder().encode
decode_state = msgspec.msgpack.Decoder(SubjectState).decode
