"""What follows from the next events of the log, or from the time that has passed: found out, and not yet written.

Law: reads one state of the store and writes nothing; the correlating engine runs here, so that whatever becomes of it
no lock is held. Time is what the arrivals of commits say: before the events of a commit, deadlines up to its arrival
come due, and after them those that they set and that are over by then; at the end of the log those up to now. What is
found holds as long as nobody else changed what was read.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.profiles import records
from arbiter.profiles.arrivals import arrivals_from, last_arrival
from arbiter.profiles.holdings import last_position
from arbiter.profiles.pending import states_of, subjects_due
from arbiter.profiles.subjects import Subject
from arbiter.runtime.quiet import Courtesy
from arbiter.triggers.state import SubjectState, decode_state, encode_state, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.reached import Reached
    from arbiter.runtime.triggering.aside import AtWork
    from arbiter.triggers.machine import Look, Machine
    from arbiter.triggers.state import Moment, Occurrence
    from arbiter.types import Event

    Transaction = lmdb.Transaction[bytes]

MOST_EVENTS: Final = 1_000
# What one transaction writes at most, about, while other writers wait: some ms of work.
_MOST_CHANGED: Final = 300
_MOST_FIRINGS: Final = 60


class Seen:
    """A subject that was looked at: its states as they were read, what became of them, how that is `written`, and the
    position of the last of its events that was looked at, 0 for none.
    """

    __slots__ = ("changed", "due", "position", "raw", "state", "written")

    def __init__(self, raw: list[bytes], state: SubjectState) -> None:
        self.raw: Final = raw
        self.state = state
        self.due = state.next_due()
        self.position = 0
        self.changed = len(raw) > 1
        self.written = b""

    def write(self) -> None:
        """Have the state written as it is now; nothing where it says nothing."""
        self.due = self.state.next_due()
        self.written = encode_state(self.state) if self.state.progress else b""


class Evaluation(msgspec.Struct):
    """What followed. It began where `before` says, and ends at `position`; `events` were looked at. `clock` is the µs
    time of the last arrival that was passed, or now.

    `subjects` were looked at, by their keys; `ready` are the occurrences to fire or to pass over, in order, with the
    keys of their subjects. `quiet` says that it holds only while the log ends at `position`; `at_end` that there was no
    more to look at. `courtesy` has others run while it is made and written.
    """

    before: Reached
    position: int
    clock: int
    events: int
    subjects: dict[bytes, Seen]
    ready: list[tuple[bytes, Occurrence]]
    quiet: bool = False
    at_end: bool = False
    courtesy: Courtesy = msgspec.field(default_factory=Courtesy)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write but how far it came."""
        return not self.ready and not any(seen.changed for seen in self.subjects.values())


class Evaluator:
    """Evaluates in one state of the store, once. `at_work` is told before the engine is asked of an event."""

    def __init__(
        self,
        environment: Environment,
        txn: Transaction,
        machine: Machine,
        reached: Reached,
        at_work: AtWork,
    ) -> None:
        self._environment = environment
        self._txn = txn
        self._machine = machine
        self._reached = reached
        self._at_work = at_work
        self._subjects: dict[bytes, Seen] = {}
        self._ready: list[tuple[bytes, Occurrence]] = []
        self._dues: list[tuple[int, bytes]] = []
        self._changed = 0
        self._courtesy = Courtesy()

    def evaluate(self, now: int) -> Evaluation | None:
        """What follows from the next events, or where there are none from the time; None for nothing at all."""
        first = self._reached.position + 1
        last = last_position(self._environment, self._txn)
        if last >= first:
            return self._events(first, min(last, first + MOST_EVENTS - 1))
        if self._pass_time(last_arrival(self._environment, self._txn)):
            self._pass_time(now)
        if not self._ready and not self._changed:
            return None
        return self._found(self._reached.position, now, 0, quiet=True)

    def _events(self, first: int, last: int) -> Evaluation:
        # With that of the commit before: what its events completed may have been over already when they came.
        arrivals = iter(arrivals_from(self._environment, self._txn, max(1, first - 1), last))
        following = next(arrivals, None)
        reached, arrival, looked = first - 1, records.NEVER, 0
        for position, key, raw in self._log(first, last):
            while following is not None and following[0] <= position:
                begins, at = following
                if begins >= first and not (self._pass_time(arrival) and self._pass_time(at) and not self._full):
                    return self._found(reached, arrival, looked)
                arrival, following = at, next(arrivals, None)
            self._courtesy.offer()
            event = records.decode_event(raw)
            looked += 1
            look = self._machine.look(event, position)
            if look is not None:
                self._arrive(key, look, arrival)
            reached = position
            if self._full:
                return self._found(reached, arrival, looked)
        found = self._found(last, arrival, looked)
        found.at_end = last - first + 1 < MOST_EVENTS
        return found

    def _log(self, first: int, last: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Position, subject's key and encoding of each event that is still there."""
        start = first.to_bytes(8, "big")
        whose = self._environment.whose
        with self._txn.cursor(self._environment.log) as cursor:
            if not cursor.set_range(start):
                return
            for packed, raw in cursor:
                position = int.from_bytes(packed, "big")
                if position > last:
                    return
                key = self._txn.get(packed, None, whose)
                if key is not None:
                    yield position, key, raw

    def _arrive(self, key: bytes, look: Look, arrival: int) -> None:
        seen = self._seen(key)
        position = seen.position = look.position
        if self._at_work.is_aside(position):
            self._at_work.count(position)
            begin_anew(seen.state)
        else:
            self._at_work.begin(position)
            ready = self._machine.arrive(seen.state, key, look, arrival, self._history(key))
            self._at_work.end()
            self._ready += [(key, occurrence) for occurrence in ready]
        self._note(key, seen, changed=True)

    def _pass_time(self, until: int) -> bool:
        """Let all come due that does up to `until` (µs); whether that was all there is room for."""
        ahead = subjects_due(self._environment, self._txn, until, _MOST_CHANGED)
        all_ = len(ahead) < _MOST_CHANGED
        if not all_:
            until = ahead[-1][0]
        for _, key in ahead:
            self._seen(key)
        found: list[tuple[bytes, Occurrence]] = []
        while self._dues and self._dues[0][0] <= until:
            at, key = heapq.heappop(self._dues)
            seen = self._subjects[key]
            if seen.due == at:
                found += [(key, occurrence) for occurrence in self._machine.due(seen.state, key, until)]
                self._note(key, seen, changed=True)
        found.sort(key=lambda each: (each[1].at, -each[1].trigger.priority, each[1].trigger.id, each[0]))
        self._ready += found
        return all_

    def _seen(self, key: bytes) -> Seen:
        seen = self._subjects.get(key)
        if seen is None:
            raw = states_of(self._environment, self._txn, key)
            seen = self._subjects[key] = Seen(raw, _state_of(raw))
            self._changed += seen.changed
            if seen.due is not None:
                heapq.heappush(self._dues, (seen.due, key))
        return seen

    def _note(self, key: bytes, seen: Seen, *, changed: bool) -> None:
        due = seen.state.next_due()
        if due != seen.due:
            seen.due = due
            if due is not None:
                heapq.heappush(self._dues, (due, key))
        if changed and not seen.changed:
            seen.changed = True
            self._changed += 1

    def _history(self, key: bytes) -> Callable[[Moment, int], Iterator[tuple[int, Event]]]:
        """What gives events of a subject after a moment and before a time (µs)."""

        def between(after: Moment, before: int) -> Iterator[tuple[int, Event]]:
            for place, event in Subject(self._environment, self._txn, key).placed_events(after[0], before - 1):
                position = int.from_bytes(place[24:], "big")
                if (event.at, position) > after:
                    yield position, event

        return between

    @property
    def _full(self) -> bool:
        return self._changed >= _MOST_CHANGED or len(self._ready) >= _MOST_FIRINGS

    def _found(self, position: int, clock: int, events: int, *, quiet: bool = False) -> Evaluation:
        for seen in self._subjects.values():
            if seen.changed:
                self._courtesy.offer()
                if seen.state.progress:
                    self._machine.prune(seen.state, clock)
                seen.write()
                seen.changed = seen.written != b"".join(seen.raw) or len(seen.raw) > 1
        return Evaluation(
            self._reached, position, clock, events, self._subjects, self._ready, quiet=quiet, courtesy=self._courtesy
        )


def _state_of(raw: list[bytes]) -> SubjectState:
    """The state that was stored, as one or as those of ids that were linked since."""
    if not raw:
        return SubjectState()
    return merged([decode_state(each) for each in raw])


def begin_anew(state: SubjectState) -> None:
    """Forget the events that wait to be used; what waits for its time, and what fired, stays."""
    for _, progress in state.all():
        progress.facts = [[] for _ in progress.facts]
    state.loose = True
