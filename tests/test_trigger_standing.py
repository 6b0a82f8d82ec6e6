"""How far along a subject is: what is told of what was kept is what the machine goes on from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbiter.ruleset.image import symbols_of
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.triggering import open_triggers
from arbiter.server.triggerwords import explanation
from arbiter.triggers.cage import Cage
from arbiter.triggers.machine import Machine
from arbiter.triggers.standing import standing
from arbiter.triggers.state import SubjectState, decode_state, encode_state
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.triggers.standing import Standing
    from arbiter.triggers.state import Occurrence

S = 1_000_000
T0 = 1_790_000_000 * S
HOUR = 3600 * S

TRIGGERS = """
triggers:
  - id: abandoned
    after: {event: viewed, as: view}
    unless: {event: added, where: event.product == view.product, within: 5m}
    repeat: {per: 1d}
    then: {set: {product: "${view.product}"}}
  - id: invited
    sequence:
      - {event: signed_up, as: signup}
      - {event: invited, as: invite, where: event.team == signup.team, within: 2h}
      - {event: joined, where: event.team == invite.team}
    within: 3h
    then: {set: {grows: true}}
  - id: both
    all: [{event: read, as: one}, {event: wrote, where: event.page == one.page}, {event: shared}]
    within: 1h
    then: {set: {active: true}}
  - id: learner
    count: {event: lesson, times: 3, within: 1h, by: event.course}
    repeat: once
    then: {set: {learner: true}}
  - id: either
    any: [{event: left}, {event: paused}]
    then: {set: {gone: true}}
  - id: resting
    after: {event: lesson}
    enabled: false
    then: {set: {x: 1}}
"""


class Run:
    """A machine and one subject, whose events arrive when they happen."""

    def __init__(self) -> None:
        ruleset, found = load_ruleset({"a.yaml": TRIGGERS.encode()}, {})
        assert ruleset is not None, [each.render() for each in found]
        self.opened = {each.trigger.id: each for each in open_triggers(ruleset, symbols_of(ruleset, {}))}
        self.machine = Machine([*self.opened.values()], late=HOUR, since={}, cage=Cage)
        self.state = SubjectState()
        self.log: list[tuple[int, Event]] = []
        self.now = T0

    def send(self, kind: str, after_s: float = 0, **properties: Any) -> list[Occurrence]:
        """An event happens some seconds later; what comes about by then, deadlines first."""
        self.now += round(after_s * S)
        done = self.machine.due(self.state, b"k", self.now)
        position = len(self.log) + 1
        event = Event(f"e{position}", "", kind, self.now, properties)
        self.log.append((position, event))
        look = self.machine.look(event, position)
        if look is not None:
            done += self.machine.arrive(self.state, b"k", look, self.now, self._history)
        for each in done:
            if self.machine.may(self.state, each):
                self.machine.fired(self.state, each)
        self.machine.prune(self.state, self.now)
        return done

    def standing(self, trigger: str, after_s: float = 0) -> Standing:
        """As it is read from what was stored."""
        return standing(self.opened[trigger], decode_state(encode_state(self.state)), self.now + round(after_s * S))

    def text(self, trigger: str, after_s: float = 0) -> str:
        now = self.now + round(after_s * S)
        return explanation(self.standing(trigger, after_s), [], now)

    def _history(self, after: tuple[int, int], before: int) -> Iterator[tuple[int, Event]]:
        for position, event in self.log:
            if after < (event.at, position) and event.at < before:
                yield position, event


@pytest.fixture
def run() -> Iterator[Run]:
    opened = Run()
    yield opened
    opened.machine.close()


def seen(found: Standing) -> list[list[str]]:
    return [[cause.event.id for cause in step.seen] for step in found.steps]


def test_nothing_has_happened(run: Run) -> None:
    for trigger in ("abandoned", "invited", "both", "learner", "either"):
        found = run.standing(trigger)
        assert (found.stage, found.pending, found.fired) == ("idle", (), 0)
        assert not any(seen(found))
    assert run.text("invited") == (
        "invited: waits for signed_up as signup, then invited as invite where event.team == signup.team within 2h, "
        "then joined where event.team == invite.team, all within 3h"
    )
    assert (
        run.text("both")
        == "both: waits for read as one, and wrote where event.page == one.page, and shared, all within 1h"
    )
    assert run.text("learner") == "learner: waits for 3 times lesson of one event.course within 1h"
    assert run.text("either") == "either: waits for left, or paused"


def test_what_is_complete_says_when_it_fires_and_what_would_keep_it_from_it(run: Run) -> None:
    run.send("viewed", product="p1")
    run.send("viewed", 60, product="p2")
    found = run.standing("abandoned")
    assert found.stage == "pending"
    assert [(each.due, [cause.event.id for cause in each.causes]) for each in found.pending] == [
        (T0 + 300 * S, ["e1"]), (T0 + 360 * S, ["e2"]),
    ]  # fmt: skip
    assert run.text("abandoned").splitlines() == [
        "abandoned: complete, and waits for its time",
        '  fires at 2026-09-21T14:18:20Z (in 4 minutes) for viewed at 2026-09-21T14:13:20Z (event "e1")',
        "    unless added where event.product == view.product comes before that",
        '  fires at 2026-09-21T14:19:20Z (in 5 minutes) for viewed at 2026-09-21T14:14:20Z (event "e2")',
        "    unless added where event.product == view.product comes before that",
    ]
    run.send("added", 1, product="p1")
    assert len(run.standing("abandoned").pending) == 1
    run.send("other", 600)
    found = run.standing("abandoned")
    assert (found.stage, found.fired, found.last) == ("idle", 1, T0 + 360 * S)
    assert found.again == T0 + 360 * S + 24 * HOUR
    assert run.standing("abandoned", 86_400).again is None


def test_a_sequence_tells_the_events_that_go_together_and_until_when_the_next_must_come(run: Run) -> None:
    run.send("signed_up", team="a")
    run.send("signed_up", 60, team="b")
    run.send("invited", 60, team="a")
    found = run.standing("invited")
    assert found.stage == "in progress"
    assert seen(found) == [["e1"], ["e3"], []]
    assert [step.until for step in found.steps] == [None, None, T0 + 3 * HOUR]
    assert run.text("invited").splitlines() == [
        "invited: under way",
        '  1. signed_up: at 2026-09-21T14:13:20Z (event "e1")',
        '  2. invited where event.team == signup.team: at 2026-09-21T14:15:20Z (event "e3")',
        "  3. joined where event.team == invite.team: not yet, until 2026-09-21T17:13:20Z (in 2.97 hours)",
    ]
    # When the first can no longer become anything, the other one can still.
    found = run.standing("invited", 3 * 3600 - 120)
    assert (found.stage, seen(found)) == ("idle", [[], [], []])
    run.send("signed_up", 7500, team="c")
    found = run.standing("invited")
    assert seen(found) == [["e1"], ["e3"], []]
    found = run.standing("invited", 3600)
    assert (seen(found), found.steps[1].until) == ([["e4"], [], []], run.log[3][1].at + 2 * HOUR)
    (done,) = run.send("joined", 1, team="a")
    assert [cause.event.id for cause in done.causes] == ["e1", "e3", "e5"]
    assert seen(run.standing("invited")) == [["e4"], [], []]


def test_of_what_may_come_in_any_order_the_most_is_told(run: Run) -> None:
    run.send("wrote", page=1)
    run.send("read", 10, page=2)
    assert seen(run.standing("both")) == [["e2"], [], []]
    run.send("shared", 10)
    found = run.standing("both")
    assert seen(found) == [["e2"], [], ["e3"]]
    assert [step.until for step in found.steps] == [None, T0 + 10 * S + HOUR, None]
    run.send("wrote", 10, page=2.0)
    found = run.standing("both")
    assert (found.stage, found.fired, seen(found)) == ("in progress", 1, [[], ["e1"], []])
    run.send("wrote", 10, page=3)
    run.send("read", 10, page=3)
    run.send("read", 10, page=4)
    assert seen(run.standing("both")) == [["e6"], ["e5"], []]
    # What is said of the most is not said of what can no longer become all of it.
    assert seen(run.standing("both", 3600 - 15)) == [["e7"], [], []]


def test_a_count_tells_how_many_of_the_value_that_has_most(run: Run) -> None:
    for course in ("x", "y", "y"):
        run.send("lesson", 60, course=course)
    found = run.standing("learner")
    assert (found.stage, seen(found)) == ("in progress", [["e3", "e2"]])
    assert (found.steps[0].needs, found.steps[0].held, found.steps[0].until) == (3, 2, T0 + 120 * S + HOUR)
    assert "2 of 3 lesson, the newest at 2026-09-21T14:16:20Z" in run.text("learner")
    assert "the oldest counts until 2026-09-21T15:15:20Z" in run.text("learner")
    assert run.standing("learner", 3500).steps[0].held == 2
    assert run.standing("learner", 3560).steps[0].held == 1
    (done,) = run.send("lesson", 60, course="y")
    assert done.trigger.id == "learner"
    found = run.standing("learner")
    assert (found.stage, found.fired) == ("spent", 1)
    assert run.text("learner").splitlines()[0] == "learner: it has fired, and fires once for each subject only"


def test_who_is_switched_off_or_out_of_its_dates_says_so(run: Run) -> None:
    assert run.standing("resting").stage == "disabled"
    assert standing(run.opened["learner"], run.state, run.now, on=False).stage == "inactive"
    assert "outside its dates" in explanation(standing(run.opened["either"], run.state, run.now, on=False), [], run.now)


STEPS = st.lists(
    st.tuples(st.sampled_from(["signed_up", "invited", "joined"]), st.integers(0, 5000), st.sampled_from("ab")),
    max_size=12,
)


@given(STEPS)
def test_what_is_told_to_be_missing_makes_it_complete(history: list[tuple[str, int, str]]) -> None:
    """Send what a sequence is said to lack, in time, and it comes about; and it says to be idle only if that is so."""
    run = Run()
    try:
        for kind, after, team in history:
            run.send(kind, after, team=team)
        found = run.standing("invited")
        if found.stage == "idle":
            return
        chosen = [step.seen[0] for step in found.steps if step.seen]
        missing = [step for step in found.steps if not step.seen]
        assert missing[0].until is not None
        assert missing[0].until > run.now
        team = chosen[0].event.properties["team"]
        done: list[Occurrence] = []
        for number, step in enumerate(missing):
            assert not done
            done = run.send(step.step.events[0], 1e-6 if number or missing[0].until > run.now + 1 else 0, team=team)
        within = run.now - chosen[0].event.at < 3 * HOUR
        assert [each.trigger.id for each in done] == ["invited"] * within
    finally:
        run.machine.close()
