"""What subjects say of purposes is kept as it was said: the newest time holds, whatever came when."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.profiles.consenting import AHEAD, ConsentChange, in_order
from arbiter.profiles.holdings import move_all
from arbiter.profiles.store import Limits, Store, Update
from arbiter.types import ConsentEntry, ConsentState, Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_790_000_000_000_000
GRANTED, DENIED, REVOKED = ConsentState
said = st.tuples(st.integers(NOW - 4, NOW), st.sampled_from(ConsentState), st.sampled_from(["web", "desk"]))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    limits = Limits(consent_history=3, consent_purposes=4)
    with Store.open(folder, clock=lambda: NOW, background=False, limits=limits) as opened:
        yield opened


def says(store: Store, subject: str, state: ConsentState, at: int | None = None, **more: str) -> bool:
    """Whether it was recorded."""
    change = ConsentChange(subject, more.get("purpose", "ads"), state, more.get("source", "web"), at)
    return store.set_consent(change).result().recorded


ids = itertools.count()


@settings(max_examples=150, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(said, min_size=1, max_size=7), st.randoms(use_true_random=False))
def test_in_any_order_and_however_often_the_newest_time_holds(
    store: Store, told: list[tuple[int, ConsentState, str]], random: object
) -> None:
    subjects = [f"s{next(ids)}" for _ in range(2)]
    shuffled = [*told, *told]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for subject, order in zip(subjects, (told, shuffled), strict=True):
        for at, state, source in order:
            says(store, subject, state, at, source=source)
    newest = max(at for at, _, _ in told)
    holds = all(state is GRANTED for at, state, _ in told if at == newest)
    found = [store.consents(subject)["ads"] for subject in subjects]
    assert found[0] == found[1]
    assert len(found[0]) == min(3, len(set(told)))
    assert {(each.at, each.state, each.source) for each in found[0]} <= set(told)
    assert found[0][0].at == newest
    assert [each.at for each in found[0]] == sorted((at for at, _, _ in set(told)), reverse=True)[:3]
    for subject in subjects:
        assert store.read(subject, NOW).granted == (("ads",) if holds else ())


def test_without_a_time_it_is_said_now_and_after_all_that_is_recorded(store: Store) -> None:
    assert says(store, "ann", GRANTED, NOW + 1_000_000)
    assert says(store, "ann", REVOKED)
    assert store.read("ann", NOW).granted == ()
    assert [(each.at - NOW, each.state) for each in store.consents("ann")["ads"]] == [
        (1_000_001, REVOKED),
        (1_000_000, GRANTED),
    ]


def test_saying_again_what_holds_changes_nothing(store: Store) -> None:
    assert says(store, "bob", GRANTED)
    before = store.consents("bob")
    assert not says(store, "bob", GRANTED)
    assert not says(store, "bob", GRANTED, before["ads"][0].at)
    assert store.consents("bob") == before
    assert says(store, "bob", GRANTED, source="desk")  # somebody else said so


def test_a_time_ahead_of_the_clock_is_refused_since_nothing_said_later_would_count(store: Store) -> None:
    assert says(store, "cyd", GRANTED, NOW + AHEAD)
    with pytest.raises(InvalidField, match=r"60 s ahead of the server's clock") as caught:
        says(store, "cyd", GRANTED, NOW + AHEAD + 1)
    assert caught.value.field == "at"
    assert len(store.consents("cyd")["ads"]) == 1


def test_what_is_older_than_a_full_history_is_not_recorded(store: Store) -> None:
    for at in (4, 3, 2):
        assert says(store, "dan", DENIED, NOW - at)
    assert not says(store, "dan", GRANTED, NOW - 9)
    assert says(store, "dan", GRANTED, NOW)
    assert [each.at - NOW for each in store.consents("dan")["ads"]] == [0, -2, -3]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (ConsentChange("", "ads", GRANTED, "web"), "subject_id"),
        (ConsentChange("s", "Ads!", GRANTED, "web"), "purpose"),
        (ConsentChange("s", "ads", GRANTED, ""), "source"),
        (ConsentChange("s", "ads", GRANTED, "x" * 257), "source"),
        (ConsentChange("s", "ads", GRANTED, "web", -(1 << 62)), "at"),
    ],
)
def test_a_bad_field_is_named(store: Store, change: ConsentChange, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        store.set_consent(change).result()
    assert caught.value.field == field


def test_the_number_of_purposes_is_bounded(store: Store) -> None:
    for purpose in "abcd":
        says(store, "eve", GRANTED, purpose=purpose)
    with pytest.raises(LimitExceeded) as caught:
        says(store, "eve", GRANTED, purpose="e")
    assert caught.value.reason == "consent_purposes"
    assert says(store, "eve", REVOKED, purpose="a")
    assert store.read("eve", NOW).granted == ("b", "c", "d")


def test_a_consent_is_of_the_store_and_survives_updates_and_events(tmp_path: Path) -> None:
    with Store.open(tmp_path, clock=lambda: NOW, background=False) as store:
        says(store, "ann", GRANTED)
        found = store.read("ann", NOW)
        assert (found.exists, found.version, found.granted) == (True, 0, ("ads",))
        assert store.update(Update("ann", {"a": 1}, expected_version=0)).result() == 1
        store.ingest([Event("e", "ann", "buy", NOW, {})]).result()
    with Store.open(tmp_path, clock=lambda: NOW, background=False) as store:
        assert store.read("ann", NOW).granted == ("ads",)
        assert store.consents("ann") == {"ads": (ConsentEntry(NOW, GRANTED, "web", NOW),)}
        assert store.consents("bob") == {}


def test_a_full_store_hears_a_no_and_takes_no_yes(tmp_path: Path) -> None:
    with Store.open(tmp_path, clock=lambda: NOW, background=False) as store:
        says(store, "ann", GRANTED)
    with Store.open(tmp_path, clock=lambda: NOW, background=False, quota=1) as store:
        with pytest.raises(LimitExceeded) as caught:
            says(store, "ann", GRANTED, purpose="mail")
        assert caught.value.reason == "store_quota"
        assert says(store, "ann", REVOKED)
        assert store.read("ann", NOW).granted == ()


def test_what_two_subjects_said_of_one_purpose_is_joined_when_one_becomes_the_other(tmp_path: Path) -> None:
    with Store.open(tmp_path, clock=lambda: NOW, background=False) as store:
        says(store, "anonymous", REVOKED, NOW - 1)
        says(store, "anonymous", GRANTED, NOW - 5, purpose="mail")
        says(store, "known", GRANTED, NOW - 2)
        both = {
            **store.consents("anonymous"),
            "ads": in_order([*store.consents("anonymous")["ads"], *store.consents("known")["ads"]]),
        }
        of, to = (bytes.fromhex(store.pseudonym(name)) for name in ("anonymous", "known"))
        environment = store._environment
        with environment.handle.begin(write=True) as txn:
            move_all(environment, txn, of, to)
        assert store.consents("known") == both
        assert [each.state for each in both["ads"]] == [REVOKED, GRANTED]
        assert store.consents("anonymous") == {}
