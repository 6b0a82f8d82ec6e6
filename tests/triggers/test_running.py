"""The loop that runs triggers, over a real store and a clock that is set: what fires, what it does, and what becomes of
it when rules change, ids are linked, subjects are erased, the engine dies, or the store is full.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.errors import InvalidField
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.reached import read_reached
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine
from arbiter.runtime.triggering.advancing import Advance, Overtaken
from arbiter.runtime.triggering.aside import DEATHS, AtWork
from arbiter.runtime.triggering.evaluating import Evaluator
from arbiter.runtime.triggering.loading import rules_of
from arbiter.runtime.triggering.loop import Loop
from arbiter.snapshot import Snapshot
from arbiter.telemetry.counters import Counters
from arbiter.types import ConsentState, Event
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arbiter.profiles.firings import FiringRecord

T0 = 1_790_000_000_000_000
SECOND = 1_000_000
HOUR = 3_600 * SECOND
PAIR = """\
  - id: pair
    all: [{event: a, as: a}, {event: b, as: b, where: event.n == a.n}]
    within: 1h
    then: {increment: {pairs: 1}}
"""
QUIET = """\
  - id: quiet
    after: {event: a, as: a}
    unless: {event: b, within: 10s}
    then: {set: {quiet: "${a.n}"}}
"""


class World:
    """A store with events, and triggers that run on it as they are told to."""

    def __init__(self, path: Path, quota: int = 1 << 30) -> None:
        self.path = path
        self.clock = Clock(T0)
        self.store = Store.open(path / "store", clock=self.clock, background=False, quota=quota)
        self.counters = Counters()
        self.engine = Engine(self.store, self.clock)
        self.loop = Loop(self.store, AtWork(path / "triggers.at", self.counters), self.counters, self.clock)
        self._number = 0

    def load(self, text: str) -> None:
        """Let these rules be live."""
        ruleset, found = load_ruleset({"rules.yaml": text.encode()}, {})
        assert ruleset is not None, [each.render() for each in found]
        self.engine.activate(Snapshot(ruleset, {}))
        self.loop.begin(rules_of(self.engine, late=HOUR, chain=3))

    def log(self, type_: str, subject: str = "ann", *, at: int | None = None, **properties: Any) -> None:
        """An event, now or at a time, and what follows from it."""
        self._number += 1
        event = Event(f"e{self._number}", subject, type_, self.clock() if at is None else at, properties)
        self.store.ingest([event]).result()
        self.go()

    def go(self) -> None:
        """Whatever follows."""
        while self.loop.step():
            pass

    def pass_time(self, micros: int) -> None:
        self.clock.now += micros
        self.go()

    def attributes(self, subject: str = "ann") -> dict[str, Any]:
        return dict(self.store.read(subject, self.clock()).attributes)

    def fired(self) -> list[FiringRecord]:
        return [told.firing for told in self.store.fired.after(0, 1000)[0]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def triggers(*written: str, more: str = "") -> str:
    return f"{more}triggers:\n{''.join(written)}"


# When rules change


def test_what_is_under_way_of_an_unchanged_pattern_survives_a_reload(world: World) -> None:
    world.load(triggers(PAIR, QUIET))
    world.log("a", n=1)
    changed = PAIR.replace("pairs: 1", "pairs: 10")  # what is done, not what is waited for
    world.load(triggers(QUIET, changed))
    world.log("b", n=1)
    assert world.attributes() == {"pairs": 10}
    world.log("a", n=2)
    world.load(triggers(QUIET))
    world.pass_time(10 * SECOND)
    assert world.attributes() == {"pairs": 10, "quiet": 2}


def test_a_changed_pattern_begins_anew_with_what_is_logged_from_then_on(world: World) -> None:
    world.load(triggers(PAIR, QUIET))
    world.log("a", n=1)
    world.load(triggers(PAIR.replace("1h", "2h"), QUIET.replace("10s", "20s")))
    world.log("b", n=1)  # completes nothing, and waits as the first of a pair
    world.pass_time(HOUR // 2)
    assert world.attributes() == {}
    world.log("a", n=1)
    assert world.attributes() == {"pairs": 1}


def test_a_new_trigger_sees_nothing_of_what_others_have_not_come_to_yet(world: World) -> None:
    world.load(triggers(QUIET))
    world.store.ingest([Event("a", "ann", "a", T0, {"n": 1}), Event("b", "ann", "b", T0 + 1, {"n": 1})]).result()
    world.load(triggers(QUIET, PAIR))
    world.go()
    assert world.fired() == []
    world.log("a", n=1)
    assert world.fired() == []
    world.log("b", n=1)
    assert world.attributes() == {"pairs": 1}


def test_a_trigger_that_was_away_begins_anew(world: World) -> None:
    world.load(triggers(PAIR))
    world.log("a", n=1)
    world.load("schema: {profile: {x: int}}\n")
    assert not (world.path / "triggers.at").exists()
    with world.store.fired.looking() as (environment, txn):
        assert read_reached(environment, txn).since == {}
    world.log("a", n=2)
    world.load(triggers(PAIR))
    world.log("b", n=1)
    world.log("b", n=2)
    assert world.fired() == []


def test_a_disabled_trigger_fires_nothing_and_what_it_waited_for_is_passed_over(world: World) -> None:
    world.load(triggers(QUIET))
    world.log("a", n=1)
    world.load(triggers(QUIET + "    enabled: false\n"))
    world.log("a", n=2)
    world.pass_time(HOUR // 2)
    assert world.fired() == []
    assert world.counters.trigger_passed == {"disabled": 1}


# What is done


def test_what_a_trigger_does_is_done_in_its_order_and_told(world: World) -> None:
    text = triggers(
        """\
  - id: all-of-it
    after: {event: a, as: a}
    then:
      set: {last: "${a.n}"}
      unset: [old]
      increment: {count: 2}
      enter_segment: vip
      leave_segment: trial
      emit: {event: done, properties: {n: "${a.n}"}}
""",
        more="segments: {vip: managed, trial: managed}\n",
    )
    world.load(text)
    world.store.update(Update("ann", {"old": 1}, enter_segments=("trial",))).result()
    world.log("a", n=7)
    profile = world.store.read("ann", T0)
    assert (profile.attributes, profile.managed) == ({"last": 7, "count": 2}, ("vip",))
    (firing,) = world.fired()
    assert firing.acts == {
        "set": {"last": 7}, "unset": ["old"], "increment": {"count": 2}, "enter_segment": ["vip"],
        "leave_segment": ["trial"], "emit": {"event": "done", "properties": {"n": 7}},
    }  # fmt: skip
    assert [(event.id, event.at, event.properties) for event in world.store.events("ann")][1:] == [
        (firing.emitted, T0, {"n": 7})
    ]
    assert [version.by for version in world.store.history("ann", now=T0, limit=1)] == ["trigger:all-of-it"]


def test_what_cannot_be_done_is_said_and_the_rest_is_done(world: World) -> None:
    text = triggers(
        """\
  - id: partly
    after: {event: a, as: a}
    then: {increment: {count: 1}, emit: {event: done, properties: {n: "${a.n}"}}}
""",
    )
    world.load(text)
    world.store.update(Update("ann", {"count": "no number"})).result()
    world.log("a", n=7)
    (firing,) = world.fired()
    assert firing.dropped.startswith("the profile stays as it was: ")
    assert firing.emitted
    assert world.attributes() == {"count": "no number"}


def test_a_chain_of_events_that_triggers_emit_ends(world: World) -> None:
    world.load(
        triggers("""\
  - id: again
    after: {event: a, as: a, where: event.n < 100}
    then: {increment: {count: 1}, emit: {event: a, properties: {n: "${a.n + 1}"}}}
""")
    )
    world.log("a", n=0)
    assert world.attributes() == {"count": 4}  # the first, and three that follow
    assert [firing.depth for firing in world.fired()] == [0, 1, 2, 3]
    assert [bool(firing.emitted) for firing in world.fired()] == [True, True, True, False]
    assert world.fired()[-1].dropped == "nothing is emitted: 3 firings led here, and `triggers.chain` allows no more"


def test_what_is_judged_when_it_fires_keeps_it_from_firing(world: World) -> None:
    then = "    then: {increment: {count: 1}}\n"
    world.load(
        triggers(
            f'  - id: in-canada\n    after: {{event: a}}\n    when: profile.country == "CA"\n{then}',
            f"  - id: asked\n    after: {{event: a}}\n    requires_consent: [ads]\n{then}",
            f"  - id: gone\n    after: {{event: a}}\n    active: {{until: 2020-01-01T00:00:00Z}}\n{then}",
            f"  - id: once\n    after: {{event: a}}\n    repeat: once\n{then}",
            '  - id: empty\n    after: {event: a}\n    then: {set: {x: "${profile.nothing}"}}\n',
            more="consent: {purposes: [ads]}\n",
        )
    )
    world.log("a")
    assert [firing.trigger for firing in world.fired()] == ["once"]
    assert world.counters.trigger_passed == {"when": 1, "consent": 1, "inactive": 1, "render_failed": 1}
    world.store.update(Update("ann", {"country": "CA"})).result()
    world.store.set_consent(ConsentChange("ann", "ads", ConsentState.GRANTED, "form")).result()
    world.log("a")
    assert sorted(firing.trigger for firing in world.fired()) == ["asked", "in-canada", "once"]
    assert world.counters.trigger_passed["repeat"] == 1
    assert world.counters.trigger_firings == {"once": 1, "asked": 1, "in-canada": 1}


def test_old_history_fires_nothing(world: World) -> None:
    world.load(triggers(PAIR, QUIET))
    world.log("a", at=T0 - 30 * HOUR, n=1)
    world.log("b", at=T0 - 30 * HOUR + 20 * SECOND, n=1)
    world.pass_time(HOUR)
    assert world.fired() == []
    assert world.counters.trigger_passed == {"late": 1}  # the pair is not even looked for


def test_what_late_events_complete_fires_by_their_arrival_however_long_nobody_looks(world: World) -> None:
    world.load(triggers(QUIET))
    world.clock.now += 30 * 60 * SECOND
    world.store.ingest([Event("e", "ann", "a", T0, {"n": 1})]).result()  # half an hour late: its ten seconds are over
    world.clock.now += 5 * HOUR
    world.store.ingest([Event("f", "bob", "c", world.clock(), {})]).result()
    world.go()
    assert [firing.at for firing in world.fired()] == [T0 + 10 * SECOND]
    world.store.ingest([Event("g", "cyd", "a", world.clock() - 30 * 60 * SECOND, {"n": 1})]).result()
    world.clock.now += 5 * HOUR
    world.go()
    assert len(world.fired()) == 2


# Links, erasures


def test_ids_that_are_linked_are_one_subject_to_triggers(world: World) -> None:
    world.load(triggers(PAIR, QUIET))
    world.log("a", "phone", n=1)
    world.log("a", "ann", n=2)
    world.store.link("phone", "ann").result()
    world.log("b", "phone", n=2)
    world.log("b", "ann", n=1)
    world.pass_time(HOUR // 2)
    assert world.attributes() == {"pairs": 2}
    assert [len(world.store.fired.of(subject, 9)) for subject in ("ann", "phone")] == [2, 2]


@pytest.mark.parametrize("what", ["erase", "link"])
def test_what_changed_since_it_was_read_is_read_again(world: World, what: str) -> None:
    world.load(triggers(PAIR, QUIET))
    world.store.ingest([Event("e", "ann", "a", T0, {"n": 1})]).result()
    evaluation = world.loop._evaluated(world.loop._running)  # type: ignore[arg-type]
    assert evaluation is not None
    assert not evaluation.empty
    if what == "erase":
        world.store.erase("ann").result()
    else:
        world.store.link("ann", "known").result()
    error = world.store.write(Advance(world.loop._running, evaluation)).exception()  # type: ignore[arg-type]
    assert isinstance(error, Overtaken)
    assert world.store.fired.states("ann") == []
    world.pass_time(10 * SECOND)
    assert [firing.trigger for firing in world.fired()] == ([] if what == "erase" else ["quiet"])


def test_that_nothing_came_holds_only_while_nothing_comes(world: World) -> None:
    world.load(triggers(QUIET))
    world.log("a", n=1)
    world.clock.now += 10 * SECOND
    running, reached = world.loop._running, world.loop._reached
    assert running is not None
    with world.store.fired.looking() as (environment, txn):
        evaluator = Evaluator(environment, txn, running.machine, reached, world.loop._at_work)
        evaluation = evaluator.evaluate(world.clock())
    assert evaluation is not None
    world.store.ingest([Event("b", "ann", "b", T0 + SECOND, {})]).result()
    assert isinstance(world.store.write(Advance(running, evaluation)).exception(), Overtaken)
    assert world.fired() == []
    world.go()  # the event came when the time was over
    assert [firing.at for firing in world.fired()] == [T0 + 10 * SECOND]


def test_ids_of_events_that_triggers_emit_are_nobody_elses(world: World) -> None:
    error = world.store.ingest([Event("trigger:1.1", "ann", "a", T0)]).exception()
    assert isinstance(error, InvalidField)
    assert error.field == "events[0].id"


# What goes wrong


def test_an_event_over_which_processes_died_again_and_again_is_set_aside(tmp_path: Path) -> None:
    with (tmp_path / "triggers.at").open("wb") as file:
        file.write(struct.pack("<QQQ", 2, 2, DEATHS - 1))  # one died over the second event, as others did before
    world = World(tmp_path)
    world.load(triggers(PAIR))
    for number in range(2):
        world.log("a", n=number)
    assert world.counters.trigger_set_aside == {"engine": 1}
    world.log("b", n=0)  # of before: the facts of the subject went with it
    assert world.fired() == []
    world.log("a", "bob", n=3)
    world.log("b", "bob", n=3)
    world.log("a", n=3)
    world.log("b", n=3)
    assert [firing.trigger for firing in world.fired()] == ["pair", "pair"]
    assert AtWork(tmp_path / "triggers.at", Counters()).is_aside(2)
    world.store.close()


def test_a_death_over_another_event_begins_the_count_anew(tmp_path: Path) -> None:
    path = tmp_path / "triggers.at"
    for died_over in (5, 5, 6, 5, 5):
        work = AtWork(path, Counters())
        assert not work.is_aside(died_over)
        work.begin(died_over)
    assert not AtWork(path, Counters()).is_aside(6)
    AtWork(path, Counters()).begin(5)
    assert AtWork(path, Counters()).is_aside(5)


def test_while_the_store_is_full_triggers_wait_and_lose_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.load(triggers(PAIR))
    world.store.ingest([Event("a", "ann", "a", T0, {"n": 1}), Event("b", "ann", "b", T0, {"n": 1})]).result()
    world.store._writer._quota = 1
    world.loop.stop()  # so that it does not wait
    assert world.loop.step()
    assert world.fired() == []
    world.store._writer._quota = 1 << 30
    world.go()
    assert world.attributes() == {"pairs": 1}
    world.store.close()
