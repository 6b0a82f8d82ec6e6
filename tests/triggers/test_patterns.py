"""What triggers keep and choose, where chance does not lead to it."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.ruleset.image import symbols_of
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.triggering import open_triggers
from arbiter.triggers.cage import Cage
from arbiter.triggers.machine import Machine
from arbiter.triggers.plan import MOST_ALIKE, MOST_KINDS
from arbiter.triggers.state import SubjectState, decode_state, encode_state, merged
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arbiter.triggers.state import Moment, Occurrence

SECOND = 1_000_000
HOUR = 3_600 * SECOND


class Subject:
    """A subject whose events arrive as they happen, a second apart if nothing else is said, at positions 1, 2, 3 …."""

    def __init__(self, machine: Machine, state: SubjectState | None = None, *, position: int = 0) -> None:
        self.machine = machine
        self.state = state or SubjectState()
        self.log: dict[int, Event] = {}
        self.position = position
        self.now = 1_000 * HOUR

    def event(self, event_type: str, *, ago: int = 0, **properties: Any) -> list[str]:
        """What comes about by an event of `ago` seconds ago: triggers and positions, ``a:1,2``."""
        self.now += SECOND
        self.position += 1
        event = Event(f"e{self.position}", "", event_type, self.now - ago * SECOND, properties)
        self.log[self.position] = event
        look = self.machine.look(event, self.position)
        return [] if look is None else told(self.machine.arrive(self.state, b"key", look, self.now, self._history))

    def wait(self, seconds: int) -> list[str]:
        """What is due after some seconds."""
        self.now += seconds * SECOND
        found = self.machine.due(self.state, b"key", self.now)
        self.machine.prune(self.state, self.now)
        return told(found)

    def _history(self, after: Moment, before: int) -> Iterable[tuple[int, Event]]:
        return [(at, each) for at, each in self.log.items() if after < (each.at, at) and each.at < before]


def told(found: Iterable[Occurrence]) -> list[str]:
    """Occurrences as text; a late one ends in a question mark."""
    return [
        f"{each.trigger.id}:{','.join(str(cause.position) for cause in each.causes)}{'?' * each.late}" for each in found
    ]


def looked_at(made: Machine, types: str) -> str:
    """The types of which events without properties are looked at."""
    return "".join(each for each in types if made.look(Event("e", "", each, 0, {}), 1) is not None)


@contextmanager
def machine(*triggers: str, since: dict[str, int] | None = None) -> Iterator[Machine]:
    """A machine for triggers, each written but for its ``then``; `since` by id."""
    text = "triggers:\n" + "".join(f"  - {{{trigger}, then: {{unset: n}}}}\n" for trigger in triggers)
    ruleset, found = load_ruleset({"triggers.yaml": text.encode()}, {})
    assert ruleset is not None, [each.render() for each in found]
    opened = open_triggers(ruleset, symbols_of(ruleset, {}))
    positions = {(each.trigger.id, each.trigger.key): (since or {}).get(each.trigger.id, 0) for each in opened}
    with closing(Machine(opened, late=HOUR, since=positions, cage=Cage)) as made:
        yield made


JOINED = "id: t, sequence: [{event: a, as: x}, {event: b, where: event.k == x.k}]"


def test_a_step_without_a_window_keeps_the_newest_with_equal_keys() -> None:
    with machine(JOINED) as made:
        subject = Subject(made)
        for _ in range(MOST_ALIKE + 6):
            assert subject.event("a", k=1) == []
        subject.event("a", k=2)
        found = [subject.event("b", k=1) for _ in range(MOST_ALIKE + 6)]
    first = MOST_ALIKE + 8
    assert found[:MOST_ALIKE] == [[f"t:{70 - number},{first + number}"] for number in range(MOST_ALIKE)]
    assert found[MOST_ALIKE:] == [[]] * 6


def test_a_step_keeps_the_newest_in_all() -> None:
    most = MOST_ALIKE * MOST_KINDS
    with machine(JOINED) as made:
        subject = Subject(made)
        for number in range(most + 5):
            subject.event("a", k=number)
        progress = subject.state.of("t")
        assert progress is not None
        assert len(progress.facts[0]) == most
        assert [subject.event("b", k=number) for number in (4, 5)] == [[], [f"t:6,{most + 7}"]]


def test_a_count_keeps_as_many_as_it_counts() -> None:
    with machine("id: t, count: {event: a, times: 200, by: event.k}") as made:
        subject = Subject(made)
        found = [each for number in range(400) for each in subject.event("a", k=number % 2)]
    assert [each.count(",") for each in found] == [199, 199]


def test_integers_that_doubles_cannot_tell_apart_are_apart() -> None:
    with machine(JOINED) as made:
        subject = Subject(made)
        subject.event("a", k=2**53)
        assert subject.event("b", k=2**53 + 1) == []
        assert subject.event("b", k=2.0**53) == ["t:1,3"]


def test_of_two_steps_that_an_event_may_stand_at_the_later_moments_win() -> None:
    steps = "{event: a, as: x}, {event: [a, b], as: y}, {event: b, where: event.p > y.q}"
    with machine(f"id: t, sequence: [{steps}]") as made:
        subject = Subject(made)
        assert subject.event("a", q=1) == []
        assert subject.event("a", q=1) == []
        assert subject.event("b", p=0) == []
        # As the third step it would go with 1 and 2, as the second with 2 and 3, of which the last is more recent.
        assert subject.event("b", ago=2, p=2, q=-1) == ["t:2,4,3"]


def test_of_steps_without_order_the_first_that_makes_an_occurrence_takes_the_event() -> None:
    with machine("id: t, all: [{event: [a, b], as: x}, {event: b, as: y}, {event: [b, c]}]") as made:
        subject = Subject(made)
        subject.event("b")
        subject.event("c")
        assert subject.event("b") == ["t:3,1,2"]


def test_more_joins_than_the_engine_takes_are_judged_all_the_same() -> None:
    names = [f"k{number}" for number in range(30)]
    where = " && ".join(f"event.{name} == x.{name}" for name in names)
    with machine(f"id: t, sequence: [{{event: a, as: x}}, {{event: b, where: '{where}'}}]") as made:
        subject = Subject(made)
        same = dict.fromkeys(names, 1)
        subject.event("a", **same)
        assert subject.event("b", **same | {"k29": 2}) == []
        assert subject.event("b", **dict.fromkeys(names[:-1], 1)) == []
        assert subject.event("b", **same) == ["t:1,4"]


def test_a_search_gives_up_in_the_end() -> None:
    """Six of thirty events, with a condition that only the last of them can fail: millions of choices."""
    steps = ", ".join(f"{{event: a, as: s{number}}}" for number in range(5))
    with machine(f"id: t, sequence: [{steps}, {{event: a, where: event.y > s0.y}}]") as made:
        subject = Subject(made)
        assert [subject.event("a", y=1) for _ in range(30)] == [[]] * 30
        assert subject.event("a", y=2) == ["t:26,27,28,29,30,31"]


def test_joins_that_could_go_together_in_too_many_ways_are_looked_at_in_part() -> None:
    steps = [
        "{event: a, as: a}",
        "{event: b, as: b, where: event.p == a.p}",
        "{event: c, as: c, where: event.q == b.q}",
        "{event: d, where: event.r == c.r}",
    ]
    with machine(f"id: t, all: [{', '.join(steps)}]") as made:
        subject = Subject(made)
        for number in range(40):
            subject.event("a", p=number)
            subject.event("b", p=number, q=number)
            subject.event("c", q=number, r=number)
        # The newest sixteen of each step can go together in 4,096 ways.
        assert subject.event("d", r=39) == ["t:118,119,120,121"]
        assert subject.event("d", r=0) == ["t:1,2,3,122"]


def test_what_was_fired_last_is_what_counts_for_a_period() -> None:
    with machine("id: t, after: {event: a}, repeat: {per: 10s}") as made:
        subject = Subject(made)
        became: list[bool] = []
        for ago in (0, 8, 0):
            subject.now += 8 * SECOND
            event = Event("", "", "a", subject.now - ago * SECOND, {})
            look = made.look(event, len(became) + 1)
            assert look is not None
            (found,) = made.arrive(subject.state, b"key", look, subject.now, lambda *_: ())
            became.append(made.may(subject.state, found))
            if became[-1]:
                made.fired(subject.state, found)
        assert became == [True, False, True]


def test_an_unless_that_came_before_a_late_completion_is_asked_of_the_log() -> None:
    with machine("id: t, sequence: [{event: a}, {event: b}], unless: {event: c, within: 1m}") as made:
        subject = Subject(made)
        subject.event("a", ago=20)
        subject.event("c")
        assert subject.event("b", ago=8) == []
        assert made.cancelled == 1
        subject.event("a", ago=20)
        assert subject.event("b") == []
        assert made.cancelled == 1
        assert subject.wait(60) == ["t:4,5"]


def test_a_changed_pattern_starts_afresh_and_another_keeps_what_it_has() -> None:
    kept, changed = "id: kept, sequence: [{event: a}, {event: b}]", "id: changed, sequence: [{event: a}, {event: b}]"
    with machine(kept, changed) as made:
        before = Subject(made)
        before.event("a")
        state = decode_state(encode_state(before.state))
    with machine(f"{kept}, priority: 5, repeat: once", f"{changed}, within: 1h", since={"changed": 2}) as made:
        subject = Subject(made, state, position=1)
        assert subject.event("b") == ["kept:1,2"]
        assert subject.event("a") == []
        assert subject.event("b") == ["kept:3,4", "changed:3,4"]


def test_a_trigger_that_was_gone_meanwhile_starts_afresh() -> None:
    pattern = "id: t, sequence: [{event: a}, {event: b}]"
    with machine(pattern) as made:
        subject = Subject(made)
        subject.event("a")
    with machine(pattern, since={"t": 2}) as made:
        assert Subject(made, subject.state, position=1).event("b") == []
    with machine("id: other, after: {event: c}") as made:
        made.prune(subject.state, 0)
        assert not subject.state.progress
        assert not subject.state.events


def test_a_trigger_sees_no_event_from_before_it_was_there() -> None:
    with machine("id: t, after: {event: a}, unless: {event: c, within: 1m}", since={"t": 3}) as made:
        subject = Subject(made)
        assert subject.event("a") == []
        subject.event("c", ago=-5)
        assert subject.event("a") == []
        assert subject.wait(60) == ["t:3"]


def test_a_trigger_that_is_off_sees_nothing_and_what_waits_of_it_is_still_told() -> None:
    pattern = "id: t, after: {event: a}, unless: {event: b, within: 1m}"
    with machine(pattern) as made:
        before = Subject(made)
        before.event("a")
    with machine(f"{pattern}, enabled: false") as made:
        subject = Subject(made, before.state, position=1)
        assert not looked_at(made, "ab")
        assert subject.event("a") == []
        assert subject.event("b") == []
        assert subject.wait(60) == ["t:1"]
        assert not subject.state.progress
        assert not subject.state.events


def test_events_that_only_an_unless_waits_for_are_looked_at() -> None:
    with machine("id: t, after: {event: a}, unless: {event: [b, c], within: 1m}") as made:
        assert looked_at(made, "abcd") == "abc"
    with machine("id: t, after: {event: a}, unless: {event: b, where: event.n > 2, within: 1m}") as made:
        assert made.look(Event("e", "", "b", 0, {"n": 2}), 1) is None
        assert made.look(Event("e", "", "b", 0, {"n": 3}), 1) is not None
    with machine("id: t, after: {event: a}, unless: {event: '*', within: 1m}") as made:
        assert looked_at(made, "d") == "d"


def test_what_is_kept_goes_when_its_time_is_over() -> None:
    with machine("id: t, sequence: [{event: a}, {event: b}], within: 1m") as made:
        subject = Subject(made)
        subject.event("a")
        assert subject.wait(3_600 + 60) == []
        assert len(subject.state.events) == 1
        assert subject.wait(1) == []
        assert not subject.state.progress
        assert not subject.state.events


def test_states_of_one_who_was_several_go_on_together() -> None:
    with machine(JOINED, "id: w, after: {event: c}, unless: {event: d, within: 1m}, repeat: once") as made:
        one, other = Subject(made), Subject(made, position=2)
        one.event("a", k=1)
        one.event("c")
        other.event("a", k=1)
        other.event("c")
        state = merged([decode_state(encode_state(each.state)) for each in (other, one)])
        whole = Subject(made, state, position=4)
        whole.now = one.now
        assert whole.event("b", k=1) == ["t:3,5"]
        assert whole.event("b", k=1) == ["t:1,6"]
        assert whole.wait(60) == ["w:2", "w:4"]


@pytest.mark.parametrize("first", [0, 1])
def test_of_states_under_two_patterns_the_later_loaded_one_goes_on(first: int) -> None:
    states = []
    for since in (0, 7):
        with machine(JOINED, since={"t": since}) as made:
            subject = Subject(made, position=since)
            subject.event("a", k=1)
            states.append(subject.state)
    state = merged([states[first], states[1 - first]])
    progress = state.of("t")
    assert progress is not None
    assert progress.since == 7
    assert [*state.events] == [8]
