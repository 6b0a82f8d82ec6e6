"""Holdings: whatever lies under a subject's key is shown, moved and erased, and nothing of anybody else is."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from arbiter.profiles import environment as environments
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.environment import Environment, open_environment
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.firings import Cause, FiringRecord, put_firing
from arbiter.profiles.holdings import HOLDINGS, erase_all, move_all
from arbiter.profiles.pending import put_state
from arbiter.profiles.records import encode
from arbiter.profiles.store import Declarations, Store, Update
from arbiter.types import ConsentState, Event, from_micros
from tests.test_features import feature

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arbiter.profiles.group import Group

T0 = 1_790_000_000_000_000
# What is not of subjects, or is found through another database.
ELSEWHERE = {"log", "meta", "unlinked", "offset", "tombstone", "previous", "arrival", "whose", "due", "firing", "arms"}
FEATURES = FeatureSet((feature("count", 7), feature("sum"), feature("distinct"), feature("since")))
Everything = dict[str, list[tuple[bytes, bytes]]]


class Fire:
    """Leaves what a trigger would: how far along a subject is, and a firing, of an event with this id."""

    weight = 1

    def __init__(self, key: bytes, event_id: str = "e1") -> None:
        self._key = key
        self._event_id = event_id

    def apply(self, group: Group) -> None:
        put_state(group.environment, group.txn, self._key, encode({"seen": self._event_id}), T0 + 99)
        cause = Cause("", self._event_id, "buy", T0, 1)
        put_firing(group.environment, group.txn, FiringRecord("f", "t", "k", self._key, T0, T0, "s", (cause,)))
        group.wrote = True


def fill(store: Store, subject: str) -> None:
    """Leave something of a subject in every database."""
    store.update(Update(subject, {"city": f"Bern of {subject}", "n": 1}, idempotency_key=f"key of {subject}")).result()
    events = [Event(f"{subject}-{n}", subject, "buy", T0 + n, {"amount": n}) for n in range(3)]
    store.ingest(events).result()
    change = ConsentChange(subject, "ads", ConsentState.GRANTED, f"form of {subject}")
    store.set_consent(change).result()
    store.link(f"{subject}'s phone", subject).result()
    store.write(Fire(bytes.fromhex(store.pseudonym(subject)))).result()
    store.refer(subject).result()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, bytes]:
    with Store.open(tmp_path, clock=lambda: T0 + 9, background=False) as store:
        store.use_features(FEATURES)
        store.use_declared(Declarations(named=True))
        for subject in ("ann", "bob", "cyd"):
            fill(store, subject)
        return {subject: bytes.fromhex(store.pseudonym(subject)) for subject in ("ann", "bob", "cyd", "new")}


@pytest.fixture
def environment(tmp_path: Path, keys: dict[str, bytes]) -> Iterator[Environment]:
    assert keys
    opened = open_environment(tmp_path, 1 << 30)
    yield opened
    opened.handle.close()


def held(environment: Environment, key: bytes) -> Everything:
    """All that is held, but for the key where a value tells whose it is."""
    with environment.handle.begin() as txn:
        return {
            each.name: [(rest, value.replace(key, b"its key")) for rest, value in each.entries(environment, txn, key)]
            for each in HOLDINGS
        }


def everything(environment: Environment, *, but: bytes) -> dict[str, list[tuple[bytes, bytes]]]:
    """All entries of all databases in which `but` does not stand; of the log, all."""
    with environment.handle.begin() as txn:
        return {
            name: [each for each in txn.cursor(getattr(environment, name)) if but not in b"".join(each)]
            for name in environments._NAMES
            if name not in {"log", "firing", "unlinked"}
        }


def test_every_database_of_subjects_is_registered() -> None:
    assert {holding.database for holding in HOLDINGS} == set(environments._NAMES) - ELSEWHERE


def test_what_is_held_is_shown_in_plain_values(environment: Environment, keys: dict[str, bytes]) -> None:
    with environment.handle.begin() as txn:
        shown = {
            holding.name: [each for _, each in holding.export(environment, txn, keys["ann"], T0)]
            for holding in HOLDINGS
        }
    assert all(shown.values())
    (profile,) = shown["profile"]
    assert profile["attributes"] == {"city": "Bern of ann", "n": 1}
    assert profile["changed"]["profile.city"] == from_micros(T0 + 9)
    assert profile["features"][feature("sum").key] == 3
    assert [(each["id"], each["at"], each["properties"]) for each in shown["events"]] == [
        (f"ann-{n}", from_micros(T0 + n), {"amount": n}) for n in range(3)
    ]
    assert len(shown["event_ids"]) == 3
    assert [each["version"] for each in shown["idempotency_keys"]] == [1]

    def check(value: Any) -> None:
        assert type(value) in {bool, int, float, str, bytes, datetime, list, dict}
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(each)
        assert not isinstance(value, dict) or all(type(name) is str for name in value)

    check(shown)


def test_an_export_goes_on_where_it_stopped(environment: Environment, keys: dict[str, bytes]) -> None:
    with environment.handle.begin() as txn:
        for holding in HOLDINGS:
            whole = list(holding.export(environment, txn, keys["ann"], T0))
            for place, (rest, _) in enumerate(whole):
                if rest:
                    assert list(holding.export(environment, txn, keys["ann"], T0, rest)) == whole[place + 1 :]


def test_what_is_erased_is_gone_and_the_rest_as_it_was(environment: Environment, keys: dict[str, bytes]) -> None:
    others = everything(environment, but=keys["ann"])
    bob = held(environment, keys["bob"])
    with environment.handle.begin(write=True) as txn:
        erased = erase_all(environment, txn, keys["ann"])
    assert erased == {
        "profile": 1, "feature_states": 1, "events": 3, "event_ids": 3, "idempotency_keys": 1, "history": 1,
        "consents": 1,
        "alias": 1, "name": 1, "triggers_in_progress": 1, "firings": 1, "decision_log": 1,
    }  # fmt: skip
    assert not any(held(environment, keys["ann"]).values())
    assert everything(environment, but=b"\0" * 99) == others  # nothing is left in whose key the subject's stands
    assert held(environment, keys["bob"]) == bob
    with environment.handle.begin(write=True) as txn:
        assert txn.stat(environment.log)["entries"] == 6
        assert txn.stat(environment.due)["entries"] == txn.stat(environment.firing)["entries"] == 2
        assert txn.stat(environment.unlinked)["entries"] == 1
        assert erase_all(environment, txn, keys["ann"]) == {}


def test_what_is_moved_is_the_same_under_the_other_key(environment: Environment, keys: dict[str, bytes]) -> None:
    before, others = held(environment, keys["ann"]), everything(environment, but=keys["ann"])
    with environment.handle.begin(write=True) as txn:
        assert move_all(environment, txn, keys["ann"], keys["new"]) == 16
    assert held(environment, keys["new"]) == before
    assert not any(held(environment, keys["ann"]).values())
    assert everything(environment, but=keys["new"]) == others
    with environment.handle.begin(write=True) as txn:
        assert move_all(environment, txn, keys["new"], keys["ann"]) == 16
    assert held(environment, keys["ann"]) == before


def test_who_is_moved_to_keeps_what_both_have(environment: Environment, keys: dict[str, bytes]) -> None:
    ann, bob = held(environment, keys["ann"]), held(environment, keys["bob"])
    with environment.handle.begin(write=True) as txn:
        move_all(environment, txn, keys["ann"], keys["bob"])
    together = held(environment, keys["bob"])
    assert together["profile"] == bob["profile"]
    assert together["events"] == sorted(ann["events"] + bob["events"])
    assert not any(held(environment, keys["ann"]).values())


def test_a_moved_idempotency_key_answers_and_is_forgotten_in_its_time(tmp_path: Path, keys: dict[str, bytes]) -> None:
    environment = open_environment(tmp_path, 1 << 30)
    with environment.handle.begin(write=True) as txn:
        move_all(environment, txn, keys["ann"], keys["new"])
    environment.handle.close()
    now = [T0]
    with Store.open(tmp_path, clock=lambda: now[0], background=False) as store:
        for _ in range(2):
            assert store.update(Update("new", increment={"n": 1}, idempotency_key="other")).result() == 2
        now[0] += 48 * 3600 * 1_000_000
        store.update(Update("somebody", {"a": 1})).result()
    environment = open_environment(tmp_path, 1 << 30)
    with environment.handle.begin() as txn:
        assert txn.stat(environment.idem)["entries"] == 0
    environment.handle.close()
