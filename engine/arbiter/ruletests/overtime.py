"""What triggers make of the events of a test, as its clock goes on.

Law: pure. The machine is the one that a server runs; every event arrives at its own time, deadlines come due at theirs,
and what a firing does is there for the next. What is emitted happens at once, as in a server that keeps up.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.decision.dates import in_time
from arbiter.errors import InvalidField
from arbiter.expr.evaluate import judge
from arbiter.profiles.verbs import ABSENT, VERBS
from arbiter.ruleset.triggering import ToEmit, ToIncrement, ToSet, Unrenderable, bindings_of, open_triggers, told
from arbiter.ruleset.triggers import EnterSegment, LeaveSegment, Unset
from arbiter.ruletests.ways import Ways
from arbiter.triggers.chains import depth_of, emitted_id
from arbiter.triggers.machine import Machine
from arbiter.triggers.state import SubjectState
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from arbiter.expr.tree import Expression
    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.triggering import OpenTrigger, Todo
    from arbiter.snapshot import Snapshot
    from arbiter.triggers.state import Moment, Occurrence

CHAIN: Final = 8  # firings that may lead to one another: what a server allows where nothing is said
_SUBJECT: Final = b"the one of a test"
_LATE: Final = 1  # µs; nothing comes late


class Fired(msgspec.Struct, frozen=True):
    """A firing: when (µs), and what was done, by the keys of ``then``."""

    trigger: str
    at: int
    acts: dict[str, Any]


class Passed(msgspec.Struct, frozen=True):
    """A pattern that was complete at `at` (µs), of which nothing came, and why."""

    trigger: str
    at: int
    why: str


class Course(msgspec.Struct):
    """How it went: the subject as it is in the end, all events, and what fired and did not, in order."""

    profile: dict[str, Any]
    managed: dict[str, bool]
    events: list[Event]
    fired: list[Fired] = []
    passed: list[Passed] = []


class Triggers:
    """The triggers of a snapshot, for one test after another."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._open = {each.trigger.id: each for each in open_triggers(snapshot.frame, snapshot.symbols)}
        self._symbols = snapshot.symbols
        self._defaults = snapshot.frame.defaults_of("profile")

    def run(self, course: Course, now: int, look: Callable[[Course, int], View]) -> None:
        """Let everything happen up to `now` (µs): `course` has what is known in the beginning, and takes in the rest.

        `look` makes the view of the subject, as it is by then, at a µs time.
        """
        _Run(self._open, self._defaults, self._symbols, course, look).until(now)


class _Run:
    def __init__(
        self,
        opened: dict[str, OpenTrigger],
        defaults: dict[str, Any],
        symbols: Symbols,
        course: Course,
        look: Callable[[Course, int], View],
    ) -> None:
        self._open = opened
        self._defaults = defaults
        self._symbols = symbols
        self._course = course
        self._look = look
        self._machine = Machine([*opened.values()], late=_LATE, since={}, cage=Ways)
        self._state = SubjectState()
        # What is still to arrive: its time, its turn, itself.
        self._coming = [(event.at, turn, event) for turn, event in enumerate(course.events)]
        self._turn = len(course.events)
        heapq.heapify(self._coming)
        course.events = []

    def until(self, now: int) -> None:
        while True:
            due = self._state.next_due()
            following = self._coming[0][0] if self._coming else None
            if due is not None and due <= now and (following is None or due <= following):
                self._take(self._machine.due(self._state, _SUBJECT, due), due)
            elif following is not None and following <= now:
                event = heapq.heappop(self._coming)[2]
                self._course.events.append(event)
                position = len(self._course.events)
                look = self._machine.look(event, position)
                if look is not None:
                    found = self._machine.arrive(self._state, _SUBJECT, look, following, self._between)
                    self._take(found, following)
            else:
                return

    def _between(self, after: Moment, before: int) -> Iterator[tuple[int, Event]]:
        for position, event in enumerate(self._course.events, 1):
            if (event.at, position) > after and event.at < before:
                yield position, event

    def _take(self, occurrences: Sequence[Occurrence], clock: int) -> None:
        for occurrence in occurrences:
            name = occurrence.trigger.id
            try:
                acts = self._judged(occurrence)
            except _PassedOver as passed:
                self._course.passed.append(Passed(name, occurrence.at, str(passed)))
                continue
            self._machine.fired(self._state, occurrence)
            self._course.fired.append(Fired(name, occurrence.at, dict(map(told, acts))))
            depth = max(depth_of(cause.event.id) for cause in occurrence.causes)
            self._update(acts)
            for act in acts:
                if isinstance(act, ToEmit) and depth < CHAIN:
                    emitted = Event(emitted_id(occurrence.id, depth + 1), "", act.event, occurrence.at, act.properties)
                    self._turn += 1
                    heapq.heappush(self._coming, (clock, self._turn, emitted))

    def _judged(self, occurrence: Occurrence) -> tuple[Todo, ...]:
        """What is to be done; raises _PassedOver."""
        opened, trigger = self._open[occurrence.trigger.id], occurrence.trigger
        if not self._machine.may(self._state, occurrence):
            raise _PassedOver("`repeat` does not let it fire again yet")
        view = self._look(self._course, occurrence.at)
        if not in_time(trigger.active, view):
            raise _PassedOver("it is not `active` then")
        if lacking := [each for each in trigger.purposes if each not in view.consent.granted]:
            raise _PassedOver(f"there is no consent to {', '.join(lacking)}")
        bindings = bindings_of((cause.label, cause.event.properties) for cause in occurrence.causes)
        if not opened.when_true(view, bindings):
            raise _PassedOver(self._why_not(trigger.when, view))
        try:
            return opened.acts(view, bindings)
        except Unrenderable as failure:
            raise _PassedOver(str(failure)) from None

    def _why_not(self, when: Sequence[Expression], view: View) -> str:
        for line in when:
            verdict = judge(line.root, view, self._symbols)
            if verdict.value is False:
                return f"`{line.source}` is false"
            if verdict.value is None:
                return f"`{line.source}` is unknown: {', '.join(verdict.missing) or verdict.why}"
        return "`when` is not true"

    def _update(self, acts: Sequence[Todo]) -> None:
        """Change attributes and segments, all of it or, where a number cannot be added, nothing."""
        course = self._course
        profile, managed = dict(course.profile), dict(course.managed)
        for act in acts:
            match act:
                case ToSet(values):
                    profile |= values
                case Unset(names):
                    profile = {name: value for name, value in profile.items() if name not in names}
                case ToIncrement(values):
                    for name, number in values.items():
                        before = profile.get(name, self._defaults.get(name, ABSENT))
                        try:
                            profile[name] = VERBS["increment"](before, number, f"increment.{name}")
                        except InvalidField:
                            return
                case EnterSegment(segments):
                    managed |= dict.fromkeys(segments, True)
                case LeaveSegment(segments):
                    managed = {name: True for name in managed if name not in segments}
                case _:
                    pass
        course.profile, course.managed = profile, managed


class _PassedOver(Exception):
    """Nothing comes of an occurrence; the reason in words."""
