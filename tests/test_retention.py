"""Retention: what leaves the log leaves no trace in features, and everything else of it is gone."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from arbiter.errors import InvalidField, VersionConflict
from arbiter.profiles import collecting, windows
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.figures import Collected
from arbiter.profiles.retention import SLACK
from arbiter.profiles.store import Limits, Store, Update
from arbiter.profiles.sweeping import ROUND, Sweep
from arbiter.types import Event
from tests.conftest import Clock
from tests.test_features import ALL, assert_equal_to_recount, feature, ratio, recount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.errors import ArbiterError
    from arbiter.profiles.group import Group

HOUR = SLACK
DAY = 24 * HOUR
START = 20_000 * DAY
DEFINITIONS = tuple(feature(aggregate, window) for aggregate in ALL for window in (2 * HOUR, 9 * HOUR, None))
_DECAYS = (
    feature("decay", half_life=3 * HOUR),
    feature("decay", 9 * HOUR, half_life=HOUR),
    feature("decay", half_life=8 * HOUR, prop=""),
)
MOVING = (*_DECAYS, ratio(*_DECAYS[:2]), ratio(_DECAYS[0], _DECAYS[2]))
AMOUNTS = st.one_of(st.integers(-3, 3), st.sampled_from([0.1, 0.25, -1e16]), st.just("words"), st.just(value=True))


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "store"


def opened(home: Path, clock: Clock, **limits: int) -> Store:
    return Store.open(home, clock=clock, background=False, limits=Limits(**limits))


def use(store: Store, *definitions: Any) -> None:
    store.use_features(FeatureSet(definitions))
    while store.rebuild_step(100):
        pass


def sweep(store: Store, clock: Clock) -> None:
    """Go a whole round, an hour and a bit after the last one."""
    clock.now += ROUND
    while store.collect_step():
        pass


def buy(number: int, at: int, subject: str = "ann", **properties: Any) -> Event:
    return Event(f"e{number}", subject, "buy", at, properties)


def counts(store: Store) -> dict[str, int]:
    """How many entries each part of the store holds."""
    environment = store._environment
    with environment.handle.begin() as txn:
        parts = ("profile", "window", "log", "by_subject", "seen")
        return {part: txn.stat(getattr(environment, part))["entries"] for part in parts}


def refusal(future: Any) -> ArbiterError:
    error: ArbiterError = future.exception()
    return error


@pytest.fixture
def small_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST", 12)
    monkeypatch.setattr(windows, "NEWEST", 2)
    monkeypatch.setattr(windows, "GOAL", 2)
    monkeypatch.setattr(collecting, "PIECE", 7)


LIMITS = st.fixed_dictionaries(
    {
        "keep_for": st.one_of(st.none(), st.sampled_from([HOUR, 5 * HOUR, DAY])),
        "keep_events": st.one_of(st.none(), st.sampled_from([0, 1, 5, 20])),
        "late": st.sampled_from([None, 40 * HOUR]),
    }
)
# Minutes that pass, events (minutes before the clock, amount), whether what is old is then collected.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 900),
        st.lists(st.tuples(st.integers(-60, 2000), st.one_of(st.none(), AMOUNTS)), max_size=15),
        st.booleans(),
    ),
    min_size=2,
    max_size=7,
)


def assert_as_remembered(store: Store, log: Sequence[Event], now: int) -> None:
    profile = store.read("ann", now)
    for definition in DEFINITIONS:
        expected = recount(definition, log, now)
        found = profile.features.get(definition.key)
        assert (found, type(found)) == (expected, type(expected)), (definition.key, now)
    assert_equal_to_recount(store, log, now, MOVING)


@pytest.mark.usefixtures("small_states")
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(LIMITS, STEPS)
@example(
    {"keep_for": HOUR, "keep_events": None, "late": None},
    [(0, [(minute, minute % 5) for minute in range(0, 2000, 50)], True), (5, [(1500, 2), (-50, 1)], False),
     (600, [(1990, 0.1), (-60, "words")], True), (1, [(30, 1)], False)],
)  # fmt: skip
@example(  # what left and what came since are joined, and a clock that is behind cuts through it
    {"keep_for": HOUR, "keep_events": None, "late": None},
    [(0, [(minute, minute % 5) for minute in range(100, 2000, 50)], True),
     (1, [(minute, minute % 3) for minute in range(0, 58, 2)], False)],
)  # fmt: skip
def test_features_are_those_of_who_remembers_everything(
    limits: dict[str, int], steps: list[tuple[int, list[tuple[int, Any]], bool]]
) -> None:
    clock = Clock(START)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), clock, **limits) as store:
        use(store, *DEFINITIONS, *MOVING)
        log: list[Event] = []
        for minutes, batch, collected in steps:
            clock.now += minutes * HOUR // 60
            events = [
                buy(len(log) + index, clock.now - back * HOUR // 60, **({} if amount is None else {"amount": amount}))
                for index, (back, amount) in enumerate(batch)
            ]
            store.ingest(events).result()
            log += events
            if collected:
                sweep(store, clock)
            # Clocks of workers may be behind by an hour, and decisions are asked for later ones too.
            for offset in (-50, -20, 0, 30, 200, 3000):
                assert_as_remembered(store, log, clock.now + offset * HOUR // 60)
            assert store.ingest(events).result().accepted == 0
        kept = store.events("ann", limit=10_000)
        assert [event.at for event in kept] == sorted(event.at for event in kept)
        assert {event.id for event in kept} <= {event.id for event in log}


def test_events_leave_by_age_but_not_before_every_window_has_let_them_go(home: Path, clock: Clock) -> None:
    with opened(home, clock, keep_for=3 * DAY) as store:
        use(store, feature("count", 10 * DAY), feature("count", event="see"))
        store.ingest([buy(day, START - day * DAY) for day in range(20)]).result()
        store.ingest([Event(f"s{day}", "ann", "see", START - day * DAY) for day in range(20)]).result()
        sweep(store, clock)
        kept = store.events("ann")
        assert [event.id for event in kept if event.type == "buy"] == [f"e{day}" for day in range(9, -1, -1)]
        assert [event.id for event in kept if event.type == "see"] == ["s2", "s1", "s0"]
        assert counts(store)["log"] == counts(store)["by_subject"] == len(kept)
        assert store.read("ann", clock.now).features[feature("count", event="see").key] == 20


def test_the_newest_stay_where_number_alone_decides(home: Path, clock: Clock) -> None:
    with opened(home, clock, keep_events=5) as store:
        use(store, feature("count"))
        store.ingest([buy(number, START - number * DAY) for number in range(30)]).result()
        store.ingest([buy(number, START - number * DAY, "bob") for number in range(5)]).result()
        sweep(store, clock)
        assert [event.id for event in store.events("ann")] == ["e4", "e3", "e2", "e1", "e0"]
        assert len(store.events("bob")) == 5
        assert store.read("ann", clock.now).features == {feature("count").key: 30}


def test_the_last_hour_stays_whatever_the_number(home: Path, clock: Clock) -> None:
    with opened(home, clock, keep_events=0) as store:
        use(store)
        store.ingest([buy(number, START + number) for number in range(3)]).result()
        clock.now += HOUR // 2
        assert not store.collect_step()
        assert len(store.events("ann")) == 3


def test_a_long_history_goes_in_small_pieces(home: Path, clock: Clock) -> None:
    with opened(home, clock, keep_events=10) as store:
        use(store, feature("count"), feature("sum"))
        events = [buy(number, START - DAY + number, amount=1) for number in range(4 * collecting.PIECE)]
        store.ingest(events).result()
        commits = store.commits
        sweep(store, clock)
        assert store.commits - commits >= 4
        assert len(store.events("ann")) == 10
        assert store.figures().collected == Collected(events=len(events) - 10)
        assert set(store.read("ann", clock.now).features.values()) == {len(events)}


def test_a_new_event_outside_the_bounds_is_named_with_its_bound(home: Path, clock: Clock) -> None:
    with opened(home, clock, late=7 * DAY, ahead=HOUR) as store:
        early = refusal(store.ingest([buy(1, START), buy(2, START - 8 * DAY)]))
        assert isinstance(early, InvalidField)
        assert (early.field, early.reason) == ("events[1].at", "events.late_days")
        assert str(early) == (
            "events[1].at is 8.0 days ago, earlier than `events.late_days` allows: leave the event out, or raise that"
        )
        soon = refusal(store.ingest([buy(1, START + 2 * HOUR)]))
        assert isinstance(soon, InvalidField)
        assert (soon.field, soon.reason) == ("events[0].at", "events.ahead_seconds")
        assert "2.0 hours ahead of the server's clock" in str(soon)
        assert counts(store)["log"] == 0
        assert store.ingest([buy(1, START - 7 * DAY), buy(2, START + HOUR)]).result().accepted == 2


def test_a_duplicate_is_harmless_however_late_it_comes(home: Path, clock: Clock) -> None:
    with opened(home, clock, late=7 * DAY) as store:
        use(store, feature("count"))
        event = buy(1, START)
        store.ingest([event]).result()
        clock.now += 7 * DAY + HOUR // 2
        assert store.ingest([event]).result().duplicates == 1
        clock.now += HOUR
        sweep(store, clock)
        assert counts(store)["seen"] == 0
        assert refusal(store.ingest([event])).__class__ is InvalidField
        assert store.read("ann", clock.now).features == {feature("count").key: 1}
        assert [event.id for event in store.events("ann")] == ["e1"]


def test_what_was_forgotten_stays_refused_when_the_bound_is_raised(home: Path, clock: Clock) -> None:
    with opened(home, clock, late=7 * DAY) as store:
        use(store, feature("count"))
        store.ingest([buy(1, START)]).result()
        clock.now += 8 * DAY
        sweep(store, clock)
    with opened(home, clock, late=100 * DAY) as store:
        use(store, feature("count"))
        again = refusal(store.ingest([buy(1, START)]))
        assert isinstance(again, InvalidField)
        assert "the ids of this subject's events were forgotten" in str(again)
        # Nothing of another subject was.
        assert store.ingest([buy(1, START, "bob")]).result().accepted == 1
        assert store.ingest([buy(2, START + 1)]).result().accepted == 1


def test_an_inactive_subject_is_dropped_whole_and_may_come_back(home: Path, clock: Clock) -> None:
    with opened(home, clock, inactive=30 * DAY) as store:
        use(store, feature("count"), feature("sum", 365 * DAY))
        store.ingest([buy(number, START - 9 * DAY, amount=2) for number in range(1200)]).result()
        store.update(Update("cat", set={"a": 1})).result()
        store.ingest([buy(1, START - 90 * DAY, "bob"), buy(2, START, "dan")]).result()
        clock.now += 29 * DAY
        sweep(store, clock)
        assert counts(store)["profile"] == 4
        store.update(Update("bob", set={"a": 1})).result()
        store.ingest([buy(3, START, "dan")]).result()
        clock.now += DAY
        sweep(store, clock)
        assert counts(store) == {"profile": 2, "window": 2, "log": 3, "by_subject": 3, "seen": 3}
        assert [store.read(name, clock.now).exists for name in ("ann", "bob", "cat", "dan")] == [
            False, True, False, True,
        ]  # fmt: skip
        assert store.figures().collected == Collected(events=1200, subjects=2)
        assert store.ingest([buy(1, START, amount=5)]).result().accepted == 1
        assert store.read("ann", clock.now).features[feature("count").key] == 1


def test_ids_of_a_subject_that_is_dropped_stand_for_nobody(home: Path, clock: Clock) -> None:
    with opened(home, clock, inactive=30 * DAY) as store:
        use(store, feature("count"))
        store.ingest([buy(1, START, "device"), buy(2, START, "ann")]).result()
        assert store.link("device", "ann").result().events == 1
        clock.now += 31 * DAY
        sweep(store, clock)
        assert set(counts(store).values()) == {0}
        assert not store.read("device", clock.now).exists
        # Either is free for somebody else.
        store.update(Update("device", set={"a": 1})).result()
        assert store.read("ann", clock.now).attributes == {}
        assert store.link("device", "bob").result().linked


def test_a_write_that_shares_a_transaction_with_a_drop_is_found_under_the_id_that_it_named(
    home: Path, clock: Clock
) -> None:
    with opened(home, clock, inactive=30 * DAY) as store:
        use(store)
        store.update(Update("ann", set={"a": 1})).result()
        store.update(Update("device", set={"b": 1})).result()
        store.link("device", "ann").result()
        clock.now += 31 * DAY
        gate, before = Gate(), store.commits
        store._writer.submit(gate)
        # A refused one finds who `device` is, another drops them, and a third names `device` again.
        stale = store.update(Update("device", set={"b": 2}, expected_version=77))
        dropped = store._writer.submit(collecting.Collect([store.keys.subject("ann")]))
        stored = store.update(Update("device", set={"b": 3}))
        gate.opened.set()
        assert isinstance(refusal(stale), VersionConflict)
        assert dropped.result().subjects == 1
        assert stored.result() == 1
        assert store.commits == before + 1
        assert store.read("device", clock.now).attributes == {"b": 3}
        assert store.read("ann", clock.now).attributes == {}


class Gate:
    """Holds the writer until it is opened, so that what waits behind it shares a transaction."""

    weight = 1 << 30

    def __init__(self) -> None:
        self.opened = threading.Event()

    def apply(self, _: Group) -> None:
        assert self.opened.wait(60)


def test_positions_are_never_given_twice(home: Path, clock: Clock) -> None:
    with opened(home, clock, inactive=30 * DAY) as store:
        use(store)
        assert store.ingest([buy(number, START) for number in range(3)]).result().position == 3
        clock.now += 31 * DAY
        sweep(store, clock)
        assert counts(store)["log"] == 0
    with opened(home, clock) as store:
        assert store.ingest([buy(1, START)]).result().position == 4


def test_nothing_is_collected_while_records_are_rewritten_for_other_features(home: Path, clock: Clock) -> None:
    with opened(home, clock, keep_for=DAY) as store:
        use(store, feature("count"))
        store.ingest([buy(number, START - number * DAY, amount=3) for number in range(9)]).result()
        store.use_features(FeatureSet([feature("count"), feature("sum")]))
        sweep(store, clock)
        assert len(store.events("ann")) == 9
        use(store, feature("count"), feature("sum"))
        sweep(store, clock)
        assert len(store.events("ann")) == 1
        assert store.read("ann", clock.now).features == {feature("count").key: 9, feature("sum").key: 27}


def test_a_feature_that_goes_and_comes_back_between_rounds_lost_nothing(home: Path, clock: Clock) -> None:
    with opened(home, clock, keep_for=DAY) as store:
        use(store, feature("count"))
        store.ingest([buy(number, START - number * DAY, amount=3) for number in range(9)]).result()
        sweep(store, clock)
        use(store, feature("last"))
        store.ingest([buy(10, START, amount=4)]).result()
        use(store, feature("count"))
        assert store.read("ann", clock.now).features == {feature("count").key: 10}


def test_one_process_goes_the_round_and_another_goes_on_when_it_ended(home: Path, clock: Clock) -> None:
    with opened(home, clock, keep_for=DAY) as store:
        use(store)
        store.ingest([buy(1, START - 3 * DAY, f"s{number}") for number in range(600)]).result()
        first, second = (Sweep(store._current, store._writer, Limits(keep_for=DAY)) for _ in range(2))
        assert first.step()
        assert not second.step()
        left = counts(store)["log"]
        assert 0 < left < 600
        clock.now += 61_000_000  # the lease of one that was killed ends by itself
        while second.step():
            pass
        assert counts(store)["log"] == 0
        assert (first.collected.events, second.collected.events) == (600 - left, left)
        assert not second.step()  # the next round is not due


def test_the_background_collects(home: Path, clock: Clock) -> None:
    with Store.open(home, clock=clock, limits=Limits(keep_for=DAY)) as store:
        store.ingest([buy(number, START - number * DAY) for number in range(9)]).result()
        store.use_features(FeatureSet([feature("count")]))
        until = time.monotonic() + 20
        while len(store.events("ann")) > 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert [event.id for event in store.events("ann")] == ["e0"]


def test_a_decaying_total_over_all_time_keeps_what_left(home: Path, clock: Clock) -> None:
    definition = feature("decay", half_life=30 * DAY)
    with opened(home, clock, keep_for=DAY) as store:
        use(store, definition)
        store.ingest([buy(number, START - number * DAY, amount=number) for number in range(90)]).result()
        later = START + 2 * ROUND
        before = store.read("ann", later).features[definition.key]
        sweep(store, clock)
        assert len(store.events("ann")) == 1
        assert store.read("ann", later).features[definition.key] == pytest.approx(before)
        store.ingest([buy(90, START - 5 * DAY, amount=7)]).result()
        with Store.open(home.with_name("whole"), clock=clock, background=False) as whole:
            use(whole, definition)
            whole.ingest([buy(number, START - number * DAY, amount=number) for number in range(90)]).result()
            whole.ingest([buy(90, START - 5 * DAY, amount=7)]).result()
            expected = whole.read("ann", later).features[definition.key]
        assert store.read("ann", later).features[definition.key] == pytest.approx(expected)
