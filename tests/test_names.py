"""Names: of whom a firing is can be told while there are triggers, and only by who has the store's secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbiter.profiles.aliases import standing_for
from arbiter.profiles.consuming import Partition, Span
from arbiter.profiles.keys import Secrets
from arbiter.profiles.naming import name_of
from arbiter.profiles.store import Declarations, Store, Update
from arbiter.types import Event
from tests.test_features import buy

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.profiles.keys import Keys

T0 = 1_790_000_000_000_000
ONE = Secrets(b"1" * 32)


def opened(folder: Path, secrets: Secrets | None = None, *, named: bool = True) -> Store:
    store = Store.open(folder, clock=lambda: T0, background=False, secrets=secrets)
    store.use_declared(Declarations(named=named))
    return store


def name(store: Store, subject: str) -> str:
    with store._looking() as (environment, txn):
        return name_of(environment, txn, store.keys, standing_for(environment, txn, store.keys.subject(subject)))


@pytest.mark.parametrize("secrets", [None, ONE])
def test_whoever_sent_an_event_has_a_name_and_others_have_none(tmp_path: Path, secrets: Secrets | None) -> None:
    with opened(tmp_path, secrets) as store:
        store.ingest([buy(1, T0, "ann"), buy(2, T0, "ann"), buy(1, T0, "bob €")]).result()
        consumed = (0, store.prepare(Event("1", "cyd", "buy", T0), "event"))
        store.consume([Span(Partition("g", "t", 0), 0, 1, [consumed])]).result()
        store.update(Update("dan", {"city": "Bern"})).result()
        assert [name(store, each) for each in ("ann", "bob €", "cyd", "dan")] == ["ann", "bob €", "cyd", ""]
        store.erase("ann").result()
        assert name(store, "ann") == ""


def test_without_triggers_no_id_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path, named=False) as store:
        store.ingest([buy(1, T0, "ann")]).result()
        store.link("phone", "ann").result()
        assert name(store, "ann") == ""
        with store._looking() as (environment, txn):
            assert txn.stat(environment.name)["entries"] == 0


def test_of_linked_ids_the_known_one_is_the_name(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.ingest([buy(1, T0, "phone")]).result()
        assert name(store, "phone") == "phone"
        store.link("phone", "ann").result()
        assert name(store, "phone") == name(store, "ann") == "ann"
        store.ingest([buy(2, T0, "phone")]).result()
        assert name(store, "phone") == "ann"
        # Linked by an id that stands for another, it is the one that it stands for, whose id is known already.
        store.link("pad", "phone").result()
        assert name(store, "pad") == "ann"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Keys, Keys]:
    """The keys of two stores with one secret."""
    with opened(tmp_path_factory.mktemp("a"), ONE) as one, opened(tmp_path_factory.mktemp("b"), ONE) as two:
        return one.keys, two.keys


@given(st.text(min_size=1, max_size=256), st.text(min_size=1, max_size=256))
def test_an_id_is_opened_as_it_was_sealed_and_by_nobody_else(pair: tuple[Keys, Keys], one: str, two: str) -> None:
    keys, others = pair
    key = keys.subject(one)
    sealed = keys.sealed(key, one)
    assert keys.opened(key, sealed) == one
    assert len(sealed) == len(one.encode())
    assert others.opened(key, sealed) == ""
    if one != two:
        assert keys.opened(keys.subject(two), sealed) == ""
