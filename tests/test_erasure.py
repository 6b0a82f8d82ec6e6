"""Erasure: nothing of a subject is left, a stream sent again resurrects nobody, and nobody else is touched."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.profiles.compaction import compact, is_due
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.environment import open_environment
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.generations import remove_superseded
from arbiter.profiles.holdings import HOLDINGS
from arbiter.profiles.store import Declarations, Ingested, Store, Update
from arbiter.types import ConsentState, Event
from tests.conftest import Clock
from tests.test_features import feature
from tests.test_holdings import Fire

if TYPE_CHECKING:
    from collections.abc import Iterator

T0 = 1_790_000_000_000_000
MINUTE = 60_000_000
FEATURES = FeatureSet((feature("count"), feature("sum"), feature("distinct"), feature("since")))
CHOICES = (ConsentState.GRANTED, ConsentState.REVOKED)
COUNT, SUM = feature("count").key, feature("sum").key


@pytest.fixture
def clock() -> Clock:
    return Clock(T0)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(tmp_path, clock=clock, background=False) as opened:
        opened.use_features(FEATURES)
        yield opened


def buy(number: int, at: int, subject: str = "ann", **properties: Any) -> Event:
    return Event(f"buy-{number}", subject, "buy", at, {"amount": number, **properties})


def fill(store: Store, subject: str = "ann") -> None:
    store.update(Update(subject, {"city": "Bern"}, idempotency_key="once")).result()
    store.ingest([buy(n, T0 - n, subject) for n in range(1, 4)]).result()


def test_nothing_of_an_erased_subject_is_left_and_the_answer_says_what_was(store: Store, clock: Clock) -> None:
    fill(store)
    fill(store, "bob")
    bob = store.read("bob", T0)
    clock.now += MINUTE
    done = store.erase("ann").result()
    assert done.at == clock.now
    assert done.entries == {
        "profile": 1,
        "feature_states": 1,
        "events": 3,
        "event_ids": 3,
        "idempotency_keys": 1,
        "history": 1,
    }
    found = store.read("ann", clock.now)
    assert (found.exists, found.version, found.attributes, found.features[COUNT]) == (False, 0, {}, 0)
    assert store.events("ann") == []
    left = store.export("ann")
    assert (left.entries, left.erased) == ([], clock.now)
    assert store.read("bob", T0) == bob
    assert len(store.events("bob")) == 3


def test_a_stream_that_is_sent_again_resurrects_nobody_and_what_comes_later_begins_anew(
    store: Store, clock: Clock
) -> None:
    fill(store)
    clock.now += MINUTE
    store.erase("ann").result()
    again = [buy(n, T0 - n, subject) for n in range(1, 4) for subject in ("ann", "bob")]
    assert store.ingest(again).result() == Ingested(3, 0, 6, 3)
    assert not store.read("ann", clock.now).exists
    later = store.ingest([buy(9, clock.now), buy(8, clock.now + 1), buy(8, clock.now + 1)]).result()
    assert later == Ingested(1, 1, 7, 1)
    clock.now += MINUTE
    assert store.read("ann", clock.now).features[COUNT] == 1
    assert store.update(Update("ann", {"city": "Basel"})).result() == 1
    assert store.read("ann", clock.now).attributes == {"city": "Basel"}


def test_erasing_again_erases_what_came_since_and_moves_the_time_up(store: Store, clock: Clock) -> None:
    assert store.erase("ann").result().entries == {}
    clock.now += MINUTE
    store.ingest([buy(1, T0 + 1)]).result()
    assert store.erase("ann").result().entries == {
        "profile": 1, "feature_states": 1, "events": 1, "event_ids": 1
    }  # fmt: skip
    assert store.erase("ann").result().entries == {}
    assert store.export("ann").erased == T0 + MINUTE
    assert store.ingest([buy(1, T0 + 1)]).result().erased == 1
    clock.now = T0  # a clock that steps back lets nothing in
    store.erase("ann").result()
    assert store.ingest([buy(1, T0 + 1)]).result().erased == 1


def test_an_event_dated_ahead_stays_away_too(store: Store) -> None:
    ahead = buy(1, T0 + 5 * MINUTE)
    store.ingest([ahead]).result()
    store.erase("ann").result()
    assert store.ingest([ahead, buy(2, T0 + 5 * MINUTE + 1)]).result() == Ingested(1, 0, 2, 1)


def test_what_shares_a_transaction_with_an_erasure_keeps_its_order(store: Store, clock: Clock) -> None:
    clock.now += MINUTE
    futures: list[Any] = []
    for _ in range(50):  # more than one commit holds, so that many share one
        futures += [
            store.update(Update("ann", {"city": "Bern"})),
            store.ingest([buy(1, T0)]),
            store.erase("ann"),
            store.update(Update("ann", {"age": 3})),
        ]
    for future in futures:
        future.result()
    assert store.commits < len(futures) / 2
    assert store.read("ann", clock.now).attributes == {"age": 3}
    assert [future.result() for future in futures[3::4]] == [1] * 50
    assert store.events("ann") == []


def test_a_position_is_not_given_again(tmp_path: Path, store: Store) -> None:
    fill(store)
    store.erase("ann").result()
    store.close()
    with Store.open(tmp_path, background=False) as again:
        assert again.ingest([buy(1, T0 + 1, "bob")]).result().position == 4


def test_a_full_store_erases(tmp_path: Path) -> None:
    with Store.open(tmp_path, quota=100_000, background=False) as store:
        fill(store)
        filling = (Update(f"s{n}", {"text": "x" * 9000}) for n in range(99))
        assert any(store.update(each).exception() is not None for each in filling)
        assert store.erase("ann").result().entries["events"] == 3
        assert store.export("ann").entries == []


SUBJECTS = ("ann", "bob")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.sampled_from(SUBJECTS), st.integers(0, 5), st.integers(-20, 20)),
        st.tuples(st.just("set"), st.sampled_from(SUBJECTS), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("erase"), st.sampled_from(SUBJECTS), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 9), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=40)
@given(STEPS)
def test_any_order_of_writes_and_erasures_leaves_what_came_after(steps: list[tuple[str, str, int, int]]) -> None:
    """The oracle: per subject a dict of attributes, a dict of events by id, and the time up to which events go."""
    clock = Clock(T0)
    attributes: dict[str, dict[str, int]] = {subject: {} for subject in SUBJECTS}
    events: dict[str, dict[str, Event]] = {subject: {} for subject in SUBJECTS}
    until = dict.fromkeys(SUBJECTS, 0)
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder), clock=clock, background=False) as store:
        store.use_features(FEATURES)
        for what, subject, number, off in steps:
            if what == "event":
                event = buy(number, clock.now + off, subject)
                taken = event.at > until[subject] and event.id not in events[subject]
                assert store.ingest([event]).result().accepted == taken
                if taken:
                    events[subject][event.id] = event
            elif what == "set":
                store.update(Update(subject, {f"a{number}": number})).result()
                attributes[subject][f"a{number}"] = number
            elif what == "erase":
                store.erase(subject).result()
                newest = max((event.at for event in events[subject].values()), default=0)
                until[subject] = max(until[subject], clock.now, newest)
                attributes[subject], events[subject] = {}, {}
            else:
                clock.now += number
        for subject in SUBJECTS:
            found = store.read(subject, clock.now + 99)
            assert found.attributes == attributes[subject]
            assert found.exists == bool(attributes[subject] or events[subject])
            assert found.features[SUM] == sum(event.properties["amount"] for event in events[subject].values())
            assert sorted(event.id for event in store.events(subject)) == sorted(events[subject])


def test_the_files_hold_no_trace_after_compaction(tmp_path: Path) -> None:
    """Reads every byte of the files: of the erased subject only the keys of its ids are left, in their tombstones."""
    rng = random.Random(5)  # noqa: S311 - no secret
    traces = [b"ann-the-subject", b"Bahnhofstrasse", b"idempotent-ann", b"event-of-ann", b"a-red-bicycle"]
    traces += [b"phone-of-ann", b"letters_to_ann", b"form-of-ann", b"clerk-of-ann"]
    number = 0x1234_5678_9ABC_DEF0
    traces.append(number.to_bytes(8, "big"))
    place = tmp_path / "store"
    with Store.open(place, background=False) as store:
        store.use_features(FEATURES)
        store.use_declared(Declarations(named=True))
        for n in range(400):  # among others, so that pages are shared and split
            store.update(Update(f"s{n}", {"city": "x" * rng.randrange(200)})).result()
            if n % 4 == 0:
                store.ingest(
                    [
                        Event(
                            f"event-of-ann-{n}",
                            "ann-the-subject",
                            "buy",
                            T0 + n,
                            {"what": "a-red-bicycle", "n": number},
                        ),
                        Event(f"e{n}", f"s{n}", "buy", T0 + n, {"what": "y" * rng.randrange(300)}),
                    ]
                ).result()
                change = Update("ann-the-subject", {"street": f"Bahnhofstrasse {n}"}, idempotency_key="idempotent-ann")
                store.update(change).exception()
                said = ConsentChange(
                    "phone-of-ann", "letters_to_ann", CHOICES[n % 8 // 4], "form-of-ann", by="clerk-of-ann"
                )
                store.set_consent(said).result()
                store.write(Fire(bytes.fromhex(store.pseudonym("ann-the-subject")), f"event-of-ann-{n}")).result()
            if n == 200:  # the history of both, what was agreed to by either, and the link
                moved = Update("ann-the-subject", {"street": "Bahnhofstrasse", "floor": 3}, by="clerk-of-ann")
                store.update(moved).result()
                assert store.link("phone-of-ann", "ann-the-subject", by="clerk-of-ann").result().linked
        assert store.refer("ann-the-subject").result()
        known = store.keys.subject("ann-the-subject")
        traces.append(store.keys.sealed(known, "ann-the-subject"))
        pseudonyms = [bytes.fromhex(store.pseudonym(name)) for name in ("ann-the-subject", "phone-of-ann")]
        assert len({name for name, _ in store.export("phone-of-ann").entries}) == len(HOLDINGS)
        kept = {n: store.read(f"s{n}", T0) for n in range(400)}
        before = _everything_in(place)
        # Ids and idempotency keys are hashed from the first; the scan sees what is there to see.
        assert [trace for trace in traces if trace not in before] == [
            b"ann-the-subject", b"idempotent-ann", b"phone-of-ann"
        ]  # fmt: skip
        erased = store.erase("phone-of-ann").result().entries
        assert set(erased) == {holding.name for holding in HOLDINGS}
        assert erased["events"] == 100
    environment = open_environment(place, 1 << 30)
    assert is_due(environment)
    compact(environment, 1 << 30)
    environment.handle.close()
    remove_superseded(place)
    after = _everything_in(place)
    assert [trace for trace in traces if trace in after] == []
    assert [after.count(key) for key in pseudonyms] == [1, 1]
    environment = open_environment(place, 1 << 30)
    assert not is_due(environment)
    with environment.handle.begin() as txn:
        assert [txn.get(key, None, environment.tombstone) is None for key in pseudonyms] == [False, False]
    environment.handle.close()
    with Store.open(place, background=False) as store:
        store.use_features(FEATURES)
        assert {n: store.read(f"s{n}", T0) for n in range(400)} == kept


def _everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
