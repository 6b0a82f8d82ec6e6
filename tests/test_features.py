"""Features: whatever happened in whatever order, every clock reads what a recount from scratch finds."""

from __future__ import annotations

import math
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from arbiter.expr.check import Scope, read_expression
from arbiter.expr.tree import Expression
from arbiter.profiles import decays, windows
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.figures import Rebuilding
from arbiter.profiles.records import decode_profile
from arbiter.profiles.store import Store
from arbiter.profiles.totals import fold, total
from arbiter.ruleset.reads import reads_of
from arbiter.ruleset.rules import Aggregate, Feature
from arbiter.types import Event
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ALL: tuple[Aggregate, ...] = ("count", "sum", "since", "distinct", "first", "last", "min", "max", "mean")


def condition(source: str) -> Expression:
    checked = read_expression(source, Scope(roots={"event": None}), expect="bool")
    assert not checked.mistakes
    assert checked.root is not None
    return Expression(source, checked.root, checked.type, "test.yaml:1:1", checked.names)


def feature(
    aggregate: Aggregate,
    window: int | None = None,
    *,
    where: str = "",
    name: str = "",
    prop: str = "amount",
    event: str = "buy",
    half_life: int = 0,
) -> Feature:
    return Feature(
        name=name or aggregate,
        aggregate=aggregate,
        event=event,
        property="" if aggregate in {"count", "since"} else prop,
        window=window,
        where=condition(where) if where else None,
        unit=1,
        key=f"{aggregate}:{window}:{where}:{prop}:{event}:{half_life}",
        type="dyn",
        half_life=half_life,
    )


def ratio(first: Feature, second: Feature) -> Feature:
    parts = (first.key, second.key)
    return Feature("ratio", "ratio", "", "", None, None, 0, "/".join(parts), "double", parts=parts)


def buy(number: int, at: int, subject: str = "ann", **properties: Any) -> Event:
    return Event(str(number), subject, "buy", at, properties)


def counted(definition: Feature, log: Sequence[Event], now: int, where: Any = None) -> list[Event]:
    """The events that count at `now`, in order of time. `log` is in log order."""
    low = -math.inf if definition.window is None else now - definition.window
    inside = sorted((e for e in log if e.type == definition.event and low < e.at <= now), key=lambda e: e.at)
    return inside if where is None else [e for e in inside if where(e.properties)]


def recount(definition: Feature, log: Sequence[Event], now: int, where: Any = None) -> Any:
    """What is stored of a feature by its definition, from every event. Missing is None. `log` is in log order."""
    inside = counted(definition, log, now, where)
    if definition.aggregate == "count":
        return len(inside)
    if definition.aggregate == "since":
        return inside[-1].at if inside else None
    values = [e.properties[definition.property] for e in inside if definition.property in e.properties]
    if definition.aggregate in {"sum", "min", "max", "mean"}:
        values = [v for v in values if type(v) in {int, float}]
    if definition.aggregate == "sum":
        return add(values)
    return OF_VALUES[definition.aggregate](values) if values else None


def add(values: list[Any]) -> Any:
    return sum(values) if all(type(v) is int for v in values) else math.fsum(values)


OF_VALUES: dict[str, Callable[[list[Any]], Any]] = {
    "distinct": lambda values: len({(isinstance(v, (bool, str)), type(v) is bool, v) for v in values}),
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "min": min,
    "max": max,
    "mean": lambda values: math.fsum(values) / len(values),
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(tmp_path, clock=clock, background=False) as opened:
        yield opened


WINDOWS = (1, 7, 40, 300, None)
DEFINITIONS = tuple(feature(aggregate, window) for aggregate in ALL for window in WINDOWS) + tuple(
    feature(aggregate, 40, where="event.amount > 2") for aggregate in ALL
)


_DECAYS = (
    feature("decay", half_life=20),
    feature("decay", half_life=3),
    feature("decay", 40, half_life=7),
    feature("decay", 300, half_life=50, where="event.amount > 2"),
    feature("decay", half_life=30, prop=""),
)
_SINCE, _LAST = feature("since", 250), feature("last", 250)
MOVING = (
    *_DECAYS,
    _SINCE,
    _LAST,
    *(ratio(a, b) for a, b in pairwise([*_DECAYS, _SINCE, _LAST, DEFINITIONS[2], DEFINITIONS[15]])),
    ratio(DEFINITIONS[15], DEFINITIONS[12]),
    ratio(DEFINITIONS[16], _SINCE),
)
"""Features that time alone changes, and ratios; `DEFINITIONS` hold what else these need."""
EVERY = (*DEFINITIONS, *MOVING)


def above_two(properties: dict[str, Any]) -> bool:
    return type(properties.get("amount")) in {int, float} and properties["amount"] > 2


def decayed(definition: Feature, log: Sequence[Event], now: int, where: Any) -> list[Any]:
    """What each event adds to a decaying total at `now`."""
    inside = counted(definition, log, now, where)
    numbers = [(1 if not definition.property else e.properties.get(definition.property), e.at) for e in inside]
    return [n * 2.0 ** ((at - now) / definition.half_life) for n, at in numbers if type(n) in {int, float}]


def assert_equal_to_recount(
    store: Store, log: Sequence[Event], now: int, definitions: Sequence[Feature] = DEFINITIONS
) -> None:
    profile = store.read("ann", now)
    reads = reads_of(definitions)
    for definition in definitions:
        where = above_two if definition.where else None
        if definition.aggregate == "decay":
            terms = decayed(definition, log, now, where)
            found = reads[definition.key].value(profile.features[definition.key], now)
            assert abs(found - math.fsum(terms)) <= 2.0**-40 * math.fsum(map(abs, terms)), (definition.key, now)
            continue
        if definition.aggregate == "ratio":
            first, second = (reads[part].value(profile.features.get(part), now) for part in definition.parts)
            known = all(type(n) in {int, float} for n in (first, second)) and second
            found = reads[definition.key].value(profile.features.get(definition.key), now)
            assert found == (first / second if known and math.isfinite(first / second) else None)
            continue
        expected = recount(definition, log, now, where)
        found = profile.features.get(definition.key)
        assert found == expected, (definition.key, now)
        assert type(found) is type(expected), (definition.key, now)
    assert profile.valid_from <= now
    assert profile.next_change_at is None or now < profile.next_change_at


AMOUNTS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([0.1, 0.2, 0.3, 1.0, -2.5, 1e16, -1e16, 1e-9]),
    st.just("words"),
    st.just(value=True),
)
EVENTS = st.builds(
    lambda number, at, kind, amount: Event(str(number), "ann", kind, at, {} if amount is None else {"amount": amount}),
    st.integers(0, 60),
    st.integers(-100, 400),
    st.sampled_from(["buy", "buy", "buy", "see"]),
    st.one_of(st.none(), AMOUNTS),
)
BATCHES = st.lists(st.tuples(st.integers(0, 300), st.lists(EVENTS, max_size=12)), min_size=1, max_size=6)


@settings(max_examples=60)
@given(BATCHES, st.lists(st.integers(-150, 900), min_size=1, max_size=8))
def test_any_history_read_at_any_clock_equals_a_recount(
    batches: list[tuple[int, list[Event]]], clocks: list[int]
) -> None:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder), clock=clock, background=False) as store:
        store.use_features(FeatureSet(EVERY))
        log: dict[str, Event] = {}
        for now, batch in batches:
            clock.now = now
            known = len(log)
            for event in batch:
                log.setdefault(event.id, event)
            answer = store.ingest(batch).result()
            assert answer.accepted == len(log) - known
            assert answer.accepted + answer.duplicates == len(batch)
            assert answer.position == len(log)
            assert_equal_to_recount(store, list(log.values()), now, EVERY)
        for now in clocks:
            assert_equal_to_recount(store, list(log.values()), now, EVERY)


@pytest.fixture
def small_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MOST", 12)
    monkeypatch.setattr(windows, "NEWEST", 2)
    monkeypatch.setattr(windows, "GOAL", 2)


@pytest.mark.usefixtures("small_states")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.lists(st.tuples(st.integers(-50, 350), AMOUNTS), max_size=40)),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.integers(-100, 700), min_size=1, max_size=6),
)
@example([(100, [(at, at % 7) for at in range(100)]), (103, [(50, 1)]), (90, [(101, 2)])], [100, 107, 120, 55])
def test_coalesced_states_read_as_exactly_as_whole_ones(
    batches: list[tuple[int, list[tuple[int, Any]]]], clocks: list[int]
) -> None:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder), clock=clock, background=False) as store:
        store.use_features(FeatureSet(EVERY))
        log: list[Event] = []
        for now, batch in batches:
            clock.now = now
            events = [buy(len(log) + index, at, amount=amount) for index, (at, amount) in enumerate(batch)]
            store.ingest(events).result()
            log += events
            assert_equal_to_recount(store, log, now, EVERY)
            for later in clocks:
                assert_equal_to_recount(store, log, later, EVERY)


def test_a_hot_record_holds_exactly_until_it_says(store: Store, clock: Clock) -> None:
    definitions = [feature("count", 10), feature("sum", 25)]
    store.use_features(FeatureSet(definitions))
    clock.now = 100
    log = [buy(1, 92, amount=5), buy(2, 97, amount=6), buy(3, 110, amount=7)]
    store.ingest(log).result()
    profile = store.read("ann", 100)
    assert (profile.valid_from, profile.next_change_at) == (97, 102)
    seen: list[tuple[int, Any]] = []
    for now in range(90, 150):
        assert_equal_to_recount(store, log, now, definitions)
        seen.append((now, store.read("ann", now).features))
    changes = [now for (_, before), (now, after) in pairwise(seen) if before != after]
    assert changes == [92, 97, 102, 107, 110, 117, 120, 122, 135]


def test_a_state_stays_bounded_while_its_window_holds_many_events() -> None:
    for aggregate in (*ALL, "decay"):
        for window in (10_000, None):
            state = windows.State()
            for at in range(6_000):
                taken = {"distinct": b"%d" % (at % 3000), "decay": decays.part(at, at, 500)}
                windows.insert(state, aggregate, at, taken.get(aggregate, at))
                windows.compact(state, aggregate, window, at)
                assert len(state.buckets) <= windows.MOST
                assert len(state.latest) <= 2 * windows.DISTINCT
            assert all(a.last < b.first for a, b in pairwise(state.buckets))
            assert sum(bucket.count for bucket in state.buckets) == (0 if aggregate == "distinct" else 6_000)


def test_a_moving_window_fetches_few_events_again() -> None:
    fetched = 0
    log: list[int] = []

    def fetch(first: int | None, last: int | None) -> Iterator[tuple[int, Any]]:
        nonlocal fetched
        assert first is not None
        assert last is not None
        for at in range(first, last + 1):
            fetched += 1
            yield at, at

    state = windows.State()
    for at in range(30_000):
        log.append(at)
        windows.insert(state, "sum", at, at)
        low = max(0, at - 9_999)
        reading = windows.read(state, "sum", 10_000, at, fetch)
        windows.compact(state, "sum", 10_000, at)
        assert reading.value == (low + at) * (at + 1 - low) // 2
    assert fetched < 20 * len(log)


def test_distinct_counts_to_its_bound_and_then_says_the_bound(store: Store, clock: Clock) -> None:
    definitions = [feature("distinct", 5000), feature("distinct")]
    store.use_features(FeatureSet(definitions))
    clock.now = 3000
    store.ingest([buy(at, at, amount=at) for at in range(3000)]).result()
    assert set(store.read("ann", 3000).features.values()) == {windows.DISTINCT}
    assert store.read("ann", 7000).features[definitions[0].key] == 999
    assert store.read("ann", 6500).features[definitions[0].key] == windows.DISTINCT


def test_distinct_holds_equal_numbers_equal_and_other_kinds_apart(store: Store, clock: Clock) -> None:
    definition = feature("distinct")
    store.use_features(FeatureSet([definition]))
    clock.now = 10
    values: list[Any] = [
        1,
        1.0,
        True,
        "1",
        b"1",
        [1],
        [1.0],
        {"a": 1, "b": 2},
        {"b": 2, "a": 1},
        0.0,
        -0.0,
        1.5,
        "x" * 99,
        "x" * 98,
    ]
    store.ingest([buy(index, 1, amount=value) for index, value in enumerate(values)]).result()
    assert store.read("ann", 10).features == {definition.key: 10}


def pending(store: Store, definitions: Sequence[Feature]) -> bool:
    """Change the definitions, and say whether records are left to rewrite."""
    store.use_features(FeatureSet(definitions))
    return store.rebuilding is not None


def test_changed_definitions_read_right_at_once_and_are_rewritten(store: Store, clock: Clock) -> None:
    log = [buy(number, number, amount=number % 5) for number in range(200)]
    old, new = DEFINITIONS[:20], (*DEFINITIONS[2:], *MOVING)
    clock.now = 200
    store.use_features(FeatureSet(old))
    store.ingest([*log, *(buy(0, 1, f"s{n}", amount=1) for n in range(300))]).result()
    assert pending(store, new)
    for now in (50, 200, 230, 600):
        assert_equal_to_recount(store, log, now, new)
    steps = 0
    while store.rebuild_step(100):
        steps += 1
    assert steps == 3
    assert not store.rebuilding
    assert store.read("ann", 200).feature_set == FeatureSet(new).id
    commits = store.commits
    assert store.rebuild_step(100) == 0
    assert store.commits == commits
    for now in (50, 200, 230, 600):
        assert_equal_to_recount(store, log, now, new)


def named(store: Store) -> tuple[str, ...] | None:
    """The features that are being rebuilt; None when nothing is."""
    return None if store.rebuilding is None else store.rebuilding.features


def test_what_is_rebuilt_is_named_until_it_is_done_over_restarts_too(tmp_path: Path, clock: Clock) -> None:
    old = [feature("count", 10, name="kept"), feature("sum", 10, name="gone")]
    new = [old[0], feature("decay", half_life=5, name="warmth"), feature("mean", name="average")]
    with Store.open(tmp_path, clock=clock, background=False) as store:
        store.use_features(FeatureSet(old))
        store.ingest([buy(n, 1, f"s{n}", amount=1) for n in range(300)]).result()
        while store.rebuild_step(100):
            assert named(store)
        assert named(store) is None
        store.use_features(FeatureSet(new))
        assert named(store) == ("average", "warmth")
        left = store.rebuild_step(100)
        assert store.figures().rebuilding == Rebuilding(("average", "warmth"), left)
        assert 100 <= left <= 300
    with Store.open(tmp_path, clock=clock, background=False) as store:
        store.use_features(FeatureSet(new))
        assert 0 < store.rebuild_step(100) < left
        assert named(store) == ("average", "warmth")
        while store.rebuild_step(100):
            pass
        assert named(store) is None
        # Less is counted now: records are rewritten, and no feature is new.
        store.use_features(FeatureSet(new[:2]))
        store.rebuild_step(100)
        assert named(store) == ()


def test_a_record_written_for_another_feature_set_is_found_by_the_next_rebuild(store: Store) -> None:
    old, new = DEFINITIONS[:20], DEFINITIONS[10:]
    store.use_features(FeatureSet(new))
    assert store.rebuild_step(100) == 0
    # A worker that has not yet changed over writes after the rebuild was done.
    store.use_features(FeatureSet(old))
    store.ingest([buy(1, 0, amount=1)]).result()
    store.use_features(FeatureSet(new))
    assert store.rebuild_step(100) == 0
    with store._environment.handle.begin() as txn:
        raw = txn.get(store._key("ann"), b"", store._environment.profile)
    assert decode_profile(raw).feature_set == FeatureSet(new).id


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60), AMOUNTS), max_size=30), st.integers(0, 120))
def test_two_feature_sets_in_turn_stay_right(steps: list[tuple[bool, int, Any]], now: int) -> None:
    clock = Clock()
    sets = ((*DEFINITIONS[:30], *MOVING[:3]), (*DEFINITIONS[2:3], *DEFINITIONS[12:], *MOVING))
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder), clock=clock, background=False) as store:
        log: list[Event] = []
        for number, (which, at, amount) in enumerate(steps):
            clock.now = max(clock.now, at)
            store.use_features(FeatureSet(sets[which]))
            log.append(buy(number, at, amount=amount))
            store.ingest(log[-1:]).result()
            if number % 7 == 3:
                store.rebuild_step(10)
        for definitions in sets:
            store.use_features(FeatureSet(definitions))
            assert_equal_to_recount(store, log, now, definitions)


def test_the_background_rewrites_what_reads_find_out_of_date(tmp_path: Path, clock: Clock) -> None:
    definition = feature("count", 10)
    with Store.open(tmp_path, clock=clock) as store:
        store.use_features(FeatureSet([definition]))
        store.ingest([buy(1, 0)]).result()
        clock.now = 50
        deadline = 5_000
        while store.read("ann", 50).valid_from != 10 or store.commits < 3:
            deadline -= 1
            assert deadline, "the record was never rewritten"
            time.sleep(0.002)
        assert store.read("ann", 50).features == {definition.key: 0}


@settings(max_examples=200)
@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(-1e300, 1e300)), max_size=30), st.integers(0, 30))
def test_totals_are_exact_however_they_are_grouped(numbers: list[int | float], cut: int) -> None:
    grouped = total([fold([fold(numbers[:cut]), fold(numbers[cut:])])])
    assert grouped == total(numbers)
    if all(type(number) is float for number in numbers) and numbers:
        assert grouped == math.fsum(numbers)
    elif all(type(number) is int for number in numbers):
        assert grouped == sum(numbers) or (abs(sum(numbers)) >= 2**63 - 1 and grouped == float(sum(numbers)))


def test_a_sum_beyond_the_doubles_is_missing(store: Store, clock: Clock) -> None:
    definitions = [feature("sum"), feature("mean"), feature("max")]
    store.use_features(FeatureSet(definitions))
    clock.now = 5
    store.ingest([buy(1, 1, amount=1.7e308), buy(2, 2, amount=1.7e308)]).result()
    assert store.read("ann", 5).features == {definitions[2].key: 1.7e308}


def test_change_times_name_the_newest_event_that_counts(store: Store, clock: Clock) -> None:
    definitions = [feature("count", 10), feature("count", 10, event="see"), feature("last")]
    store.use_features(FeatureSet(definitions))
    clock.now = 100
    store.ingest([buy(1, 95, amount=1), buy(2, 93, amount=2)]).result()
    assert store.read("ann", 100).changes() == {
        f"features.{definitions[0].key}": 95,
        f"features.{definitions[2].key}": 95,
    }
    assert store.read("ann", 120).changes() == {f"features.{definitions[2].key}": 95}


@pytest.mark.parametrize("aggregate", ["sum", "min", "max", "first", "last"])
def test_a_feature_of_doubles_is_a_double_whatever_the_events_hold(store: Store, aggregate: Aggregate) -> None:
    definition = msgspec.structs.replace(feature(aggregate, window=10), type="double")
    # What was logged before the property was declared may be an int.
    store.ingest([buy(1, 0, amount=7)]).result()
    store.use_features(FeatureSet([definition]))
    counted = [store.read("ann", now).features.get(definition.key) for now in (5, 20)]
    stranger = store.read("bob", 5).features.get(definition.key)
    nothing = 0.0 if aggregate == "sum" else None
    assert [*map(repr, counted), repr(stranger)] == ["7.0", repr(nothing), repr(nothing)]


def test_a_feature_of_ints_stays_an_int(store: Store) -> None:
    definitions = [msgspec.structs.replace(feature(a), type="int") for a in ("sum", "min", "max")]
    store.use_features(FeatureSet(definitions))
    store.ingest([buy(1, 0, amount=7)]).result()
    assert [repr(value) for value in store.read("ann", 5).features.values()] == ["7", "7", "7"]
