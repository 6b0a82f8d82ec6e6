"""`arbiter store check --features`: what is counted anew is what is stored, and what is not is told, with whom."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.profiles import collecting, records, windows
from arbiter.profiles.environment import open_environment
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.recounting import Recounted, recount
from arbiter.profiles.store import Limits, Store, Update
from arbiter.ruleset.load import load_ruleset
from arbiter.types import Event
from tests import forked
from tests.conftest import Clock
from tests.test_features import AMOUNTS, EVERY, feature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbiter.ruleset.rules import Feature

MAP = 1 << 30
HOUR = 3600 * 1_000_000
START = 20_000 * 24 * HOUR
COUNT, SUM, RECENT = feature("count"), feature("sum"), feature("count", 5 * HOUR, name="recent")
RULES = "features: {orders: {count: buy}, spent: {sum: buy.amount}}\ndecisions: {d: }\n"

# Hours that pass, then events of these subjects so many hours before, and whether what is old is then collected.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 300), st.one_of(st.none(), AMOUNTS)), max_size=12),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def opened(folder: Path, clock: Clock, definitions: Sequence[Feature], **limits: int) -> Store:
    store = Store.open(folder, clock=clock, background=False, limits=Limits(**limits))
    store.use_features(FeatureSet(definitions))
    while store.rebuild_step(100):
        pass
    return store


def counted(folder: Path, clock: Clock, *definitions: Feature) -> Recounted:
    return recount(folder, FeatureSet(definitions), clock)


def buys(store: Store, subject: str, *amounts: float) -> None:
    now = store._writer.clock()
    store.ingest(
        [Event(f"{subject}{n}", subject, "buy", now - n, {"amount": amount}) for n, amount in enumerate(amounts)]
    ).result()


def tamper(folder: Path, database: str, change: Callable[[bytes], bytes]) -> str:
    """Change the only record there is in a database; whose it is."""
    environment = open_environment(folder, MAP)
    with environment.handle as handle, handle.begin(write=True, db=getattr(environment, database)) as txn:
        ((key, raw),) = list(txn.cursor())
        txn.put(key, change(raw))
    return bytes(key).hex()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(STEPS, st.sampled_from([{}, {"keep_for": 24 * HOUR}, {"keep_events": 3}]))
def test_of_a_store_that_nobody_touched_everything_is_as_counted(
    steps: list[tuple[int, list[tuple[str, int, Any]], bool]], limits: dict[str, int]
) -> None:
    clock = Clock(START)
    definitions = [msgspec.structs.replace(each, window=each.window and each.window * HOUR) for each in EVERY]
    number = 0
    with (
        pytest.MonkeyPatch.context() as patched,
        tempfile.TemporaryDirectory() as folder,
    ):
        for name, small in (("MOST", 12), ("NEWEST", 2), ("GOAL", 2)):
            patched.setattr(windows, name, small)
        patched.setattr(collecting, "PIECE", 7)
        with opened(Path(folder), clock, definitions, **limits) as store:
            for hours, events, collect in steps:
                clock.now += hours * HOUR
                batch = []
                for subject, before, amount in events:
                    properties = {} if amount is None else {"amount": amount}
                    batch.append(Event(f"e{number}", subject, "buy", clock.now - before * HOUR, properties))
                    number += 1
                store.ingest(batch).result()
                while collect and store.collect_step():
                    pass
        clock.now += HOUR
        found = counted(Path(folder), clock, *definitions)
        assert found.differences == ()
        assert found.count == 0
        assert found.subjects == len({subject for _, events, _ in steps for subject, *_ in events})


def test_a_record_that_is_not_as_its_log_is_told_with_both_values(tmp_path: Path) -> None:
    clock = Clock(START)
    with opened(tmp_path, clock, [COUNT, SUM]) as store:
        buys(store, "ann", 2.5, 4)
    assert counted(tmp_path, clock, COUNT, SUM).count == 0

    def more(raw: bytes) -> bytes:
        profile = records.decode_profile(raw)
        profile.features = {**profile.features, COUNT.key: profile.features[COUNT.key] + 1}
        return records.encode(profile)

    key = tamper(tmp_path, "profile", more)
    found = counted(tmp_path, clock, COUNT, SUM)
    (only,) = found.differences
    assert (only.where, only.key, only.feature, only.stored, only.counted) == ("profile", key, "count", 3, 2)
    assert not only.thinned
    assert (found.subjects, found.waiting, found.count) == (1, 0, 1)


def test_a_state_that_is_not_as_its_log_is_told_too(tmp_path: Path) -> None:
    clock = Clock(START)
    with opened(tmp_path, clock, [COUNT, SUM]) as store:
        buys(store, "ann", 2.5, 4)

    def less(raw: bytes) -> bytes:
        cold = records.decode_cold(raw)
        cold.states[SUM.key].buckets.pop(0)
        return records.encode(cold)

    tamper(tmp_path, "window", less)
    (only,) = counted(tmp_path, clock, COUNT, SUM).differences
    assert (only.where, only.feature, only.stored, only.counted) == ("window", "sum", 2.5, 6.5)


def test_a_feature_that_was_away_is_counted_anew(tmp_path: Path) -> None:
    clock = Clock(START)
    with opened(tmp_path, clock, [COUNT, SUM]) as store:
        buys(store, "ann", 2.5, 4)

    def less(raw: bytes) -> bytes:
        cold = records.decode_cold(raw)
        cold.states[SUM.key].buckets.pop(0)
        return records.encode(cold)

    tamper(tmp_path, "window", less)
    for definitions in ([COUNT], [COUNT, SUM]):
        opened(tmp_path, clock, definitions).close()
    assert counted(tmp_path, clock, COUNT, SUM).count == 0


def test_what_left_the_log_is_counted_by_what_stands_for_it(tmp_path: Path) -> None:
    clock = Clock(START)
    with opened(tmp_path, clock, [COUNT, RECENT], keep_for=HOUR) as store:
        buys(store, "ann", 1, 2, 3)
        clock.now += 48 * HOUR
        while store.collect_step():
            pass
        assert store.events("ann") == []
    assert counted(tmp_path, clock, COUNT, RECENT).count == 0

    def forgetful(raw: bytes) -> bytes:
        cold = records.decode_cold(raw)
        cold.gone = {COUNT.key: windows.State()}
        return records.encode(cold)

    tamper(tmp_path, "window", forgetful)
    found = counted(tmp_path, clock, COUNT, RECENT)
    assert {(each.where, each.stored, each.counted, each.thinned) for each in found.differences} == {
        ("window", 3, 0, True),
        ("profile", 3, 0, True),
    }


def test_records_of_other_features_wait_and_are_no_findings(tmp_path: Path) -> None:
    clock = Clock(START)
    with opened(tmp_path, clock, [COUNT]) as store:
        buys(store, "ann", 2.5, 4)
        store.update(Update("bob", {"a": 1})).result()
        store.link("device", "ann").result()
    found = counted(tmp_path, clock, SUM)
    assert (found.subjects, found.waiting, found.count) == (2, 2, 0)


def test_more_than_a_slice_is_counted_once(tmp_path: Path) -> None:
    clock = Clock(START)
    with opened(tmp_path, clock, [COUNT]) as store:
        for future in [store.update(Update(f"s{n}", {"a": n})) for n in range(600)]:
            future.result()
    found = counted(tmp_path, clock, COUNT)
    assert (found.subjects, found.waiting, found.count) == (600, 0, 0)


def test_the_command_says_it_beside_a_server_and_ends_with_one_for_differences(tmp_path: Path) -> None:
    rules, home = tmp_path / "rules", tmp_path / "data" / "store"
    rules.mkdir()
    (rules / "a.yaml").write_text(RULES)
    ruleset, _ = load_ruleset({"a.yaml": RULES.encode()}, {})
    assert ruleset is not None
    with Store.open(home, background=False) as store:
        store.use_features(FeatureSet(ruleset.features))
        buys(store, "ann", 2.5, 4)
        assert "features of 1 subject as counted from the log" in check(tmp_path)
        assert json.loads(check(tmp_path, "--json"))["features"]["subjects"] == 1
    (orders,) = (each.key for each in ruleset.features if each.name == "orders")

    def more(raw: bytes) -> bytes:
        profile = records.decode_profile(raw)
        profile.features = {**profile.features, orders: profile.features[orders] + 1}
        return records.encode(profile)

    key = tamper(home, "profile", more)
    said = check(tmp_path, code=1)
    assert f"profile\t{key}\torders\t3\t2\tall are in the log" in said
    assert "1 feature of 1 subject not as counted" in said
    (rules / "a.yaml").write_text("features: {orders: {count: }}\n")
    assert "a.yaml" in check(tmp_path, code=1, error=True)


def check(home: Path, *more: str, code: int = 0, error: bool = False) -> str:
    """Run the command in a process of its own, since this one may have the store open."""
    done = forked.arbiter("store", "check", "--data", home / "data", "--features", home / "rules", *more)
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done.stderr if error else done.stdout
