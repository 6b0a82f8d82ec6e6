"""How far along a subject is: what each trigger has seen and not used, what waits for its time, what came of it.

Law: data and its MessagePack form, which is what the store keeps of a subject; no trigger is needed to read it. Events
are held once, by their position in the log, however many triggers look at them. An event moves a few triggers of many,
so what the others keep stays as it was written until somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from arbiter.ruleset.triggers import Trigger

Moment = tuple[int, int]
"""When an event happened, and its position in the log: a subject's events are in this order."""

_FEW: Final = 8  # events among which looking for what can go costs next to nothing


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


def _none() -> dict[str, int]:
    # Other than an empty dict that is a default, one that this makes is written: a form without it is an older one.
    return {}


class SubjectState(msgspec.Struct, omit_defaults=True):
    """What all triggers keep of a subject: `progress` by trigger id, and the events of it by position in the log, both
    as they were written until `of` and `event` are asked for them.

    Its form names its fields, since it is shown to whom it is about. `due` is the time (µs) at which the first of what
    waits is due, by trigger id. `known` is the digest of the patterns that it was last held to, `over` the time (µs)
    from which an event may be out of time, None for never, and `loose` says that there may be something that `sweep`
    lets go of; it left `settled` events the last time.
    """

    progress: dict[str, Progress | msgspec.Raw] = {}
    events: dict[int, Event | msgspec.Raw] = {}
    due: dict[str, int] = msgspec.field(default_factory=_none)
    known: str = ""
    over: int | None = None
    loose: bool = False
    settled: int = 0

    def of(self, name: str) -> Progress | None:
        """What is kept for a trigger."""
        found = self.progress.get(name)
        if found.__class__ is msgspec.Raw:
            found = self.progress[name] = _decode_progress(found)
        return found  # type: ignore[return-value]

    def all(self) -> Iterator[tuple[str, Progress]]:
        """All that is kept, by trigger id; what comes of it may be forgotten meanwhile."""
        for name in [*self.progress]:
            found = self.of(name)
            if found is not None:
                yield name, found

    def put(self, name: str, progress: Progress) -> None:
        """Keep this for a trigger."""
        self.progress[name] = progress
        self.wait(name, progress, progress.waiting)

    def event(self, position: int) -> Event:
        """One of its events."""
        found = self.events[position]
        if found.__class__ is msgspec.Raw:
            found = self.events[position] = _decode_event(found)
        return found  # type: ignore[return-value]

    def wait(self, name: str, progress: Progress, waiting: list[Waiting]) -> None:
        """Have these, and nothing else, wait for a trigger, of which `progress` is kept."""
        progress.waiting = waiting
        if waiting:
            self.due[name] = min([each.due for each in waiting])
        else:
            self.due.pop(name, None)

    def forget(self, name: str) -> None:
        """Keep nothing for a trigger any more."""
        self.progress.pop(name, None)
        self.due.pop(name, None)

    def next_due(self) -> int | None:
        """The time (µs) at which the first of what waits is due, None while nothing waits."""
        return min(self.due.values()) if self.due else None

    def lagging(self, clock: int) -> bool:
        """Whether so much may be let go of at `clock` (µs) that it is worth looking for: all that is kept has to be
        read for it, so it is left until there is a quarter more than when that was last done.
        """
        if not self.loose and (self.over is None or self.over >= clock):
            return False
        held = len(self.events)
        return held <= _FEW or held * 4 > self.settled * 5

    def sweep(self) -> None:
        """Let go of what says nothing: of triggers that are back at their beginning, and of events that none uses."""
        used: set[int] = set()
        for name, progress in self.all():
            keeps = progress.fired > 0
            for facts in progress.facts:
                if facts:
                    used.update(facts)
                    keeps = True
            for each in progress.waiting:
                used.update(each.events)
                keeps = True
            if not keeps:
                self.forget(name)
        if len(used) < len(self.events):
            self.events = {position: event for position, event in self.events.items() if position in used}
        self.loose, self.settled = False, len(self.events)


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
        for name, other in state.all():
            mine = whole.of(name)
            if mine is None or mine.since < other.since:
                whole.put(name, msgspec.structs.replace(other))
            elif (mine.since, mine.key) == (other.since, other.key):
                whole.put(name, _together(mine, other, whole))
    whole.sweep()
    return whole


def _together(mine: Progress, other: Progress, whole: SubjectState) -> Progress:
    def in_order(positions: Iterable[int]) -> list[int]:
        return sorted(positions, key=lambda position: (whole.event(position).at, position))

    return Progress(
        key=mine.key,
        since=mine.since,
        facts=[in_order({*one, *two}) for one, two in zip(mine.facts, other.facts, strict=True)],
        waiting=[*mine.waiting, *other.waiting],
        fired=mine.fired + other.fired,
        last=max((last for last in (mine.last, other.last) if last is not None), default=None),
    )


class _Written(msgspec.Struct):
    """A state as it is read."""

    progress: dict[str, msgspec.Raw] = {}
    events: dict[int, msgspec.Raw] = {}
    due: dict[str, int] | None = None
    known: str = ""
    over: int | None = None
    loose: bool = False
    settled: int = 0


def decode_state(raw: bytes) -> SubjectState:
    """A state as `encode_state` writes it. Raises msgspec.DecodeError."""
    form = _decode_form(raw)
    state = SubjectState(form.progress, form.events, form.due or {}, form.known, form.over, form.loose, form.settled)  # type: ignore[arg-type]
    if form.due is None:
        for name, progress in state.all():
            state.put(name, progress)
    return state


encode_state = msgspec.msgpack.Encoder().encode
_decode_form = msgspec.msgpack.Decoder(_Written).decode
_decode_progress = msgspec.msgpack.Decoder(Progress).decode
_decode_event = msgspec.msgpack.Decoder(Event).decode
