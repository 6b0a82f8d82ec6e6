"""Accounts: stored once for many subjects, seen by the rules of each, read where a decision point needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import pytest

from arbiter.errors import InvalidField
from arbiter.profiles.keys import Keys, Secrets
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine
from arbiter.snapshot import Snapshot
from arbiter.types import Decision, ExplainLevel, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = 1_780_272_000_000_000
RULES = """
schema:
  profile: {account_id: string, role: string}
  account: {plan: string, seats: {type: double, personal: true}}
features: {orders: {count: order}}
segments: {paying: account.plan != "free"}
decisions: {team: {}, nested: {}, rolled: {}, mine: {}}
rules:
  - {id: team, decision: team, when: account.plan == "team", then: {action: show, params: {seats: "${account.seats}"}}}
  - {id: nested, decision: nested, when: "segments.paying", then: {action: show}}
  - {id: rolled, decision: rolled, rollout: {percent: 100, by: account.plan}, then: {action: show}}
  - {id: mine, decision: mine, when: profile.role == "admin", then: {action: show}}
"""


class WatchedKeys(Keys):
    """Keys that count how often one of an account was asked for."""

    accounts = 0

    def account(self, account_id: str) -> bytes:
        self.accounts += 1
        return super().account(account_id)


class Watched(Store):
    """A store that counts reads of accounts."""

    def watch(self) -> Self:
        """Count from now on."""
        self.keys = self._watched = WatchedKeys(self._environment, Secrets())
        return self

    @property
    def accounts(self) -> int:
        """How many there were."""
        return self._watched.accounts


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Watched]:
    with Watched.open(tmp_path / "store", clock=lambda: NOW, background=False) as opened:
        yield opened.watch()


@pytest.fixture
def engine(store: Watched) -> Engine:
    ruleset, found = load_ruleset({"rules.yaml": RULES.encode()}, {})
    assert ruleset is not None, found
    engine = Engine(store, clock=lambda: NOW)
    engine.activate(Snapshot(ruleset, {}))
    return engine


@pytest.fixture
def decide(engine: Engine) -> Callable[..., list[str]]:
    """Asks alone, on a page and in a batch, which must agree; the rules that won."""

    def won(answer: Any) -> list[str]:
        return [t.rule_id for decision in answer for t in decision.treatments]

    def ask(subject_id: str, *points: str) -> list[str]:
        each = [engine.decide(Request(subject_id, (point,), NOW))[0] for point in points]
        page = engine.decide(Request(subject_id, points, NOW))
        batch = engine.decide_batch([Request(subject_id, (point,), NOW) for point in points])
        explained = engine.decide(Request(subject_id, points, NOW, explain=ExplainLevel.ALL))
        assert won(each) == won(answer[0] for answer in batch if not isinstance(answer, Exception))
        assert won(page) == won(explained)
        return won(each)

    return ask


def test_the_rules_of_each_subject_see_the_account_that_it_names(
    store: Store, decide: Callable[..., list[str]]
) -> None:
    for subject_id in ("ann", "ben"):
        store.update(Update(subject_id, set={"account_id": "acme"})).result()
    store.update(Update("eve", set={"account_id": "other"})).result()
    assert decide("ann", "team") == []
    store.update(Update(account_id="acme", set={"plan": "team", "seats": 5})).result()
    for subject_id in ("ann", "ben"):
        assert decide(subject_id, "team", "nested", "rolled") == ["team", "nested", "rolled"]
    store.update(Update(account_id="acme", set={"plan": "free"})).result()
    assert decide("ann", "team", "nested", "rolled") == ["rolled"]
    for subject_id in ("eve", "nobody", "acme"):
        assert decide(subject_id, "team", "nested", "rolled") == []


def test_an_account_that_is_left_is_seen_no_more(store: Store, decide: Callable[..., list[str]]) -> None:
    store.update(Update(account_id="acme", set={"plan": "team", "seats": 5})).result()
    store.update(Update(account_id="9", set={"plan": "team", "seats": 9})).result()
    store.update(Update("ann", set={"account_id": "acme"})).result()
    assert decide("ann", "team") == ["team"]
    store.update(Update("ann", unset=("account_id",))).result()
    assert decide("ann", "team") == []


def test_the_same_id_names_a_subject_and_an_account(store: Store) -> None:
    assert store.update(Update("x", set={"role": "admin"})).result() == 1
    assert store.update(Update(account_id="x", set={"plan": "team"})).result() == 1
    assert store.read("x", NOW).attributes == {"role": "admin"}
    assert store.read_account("x", NOW).attributes == {"plan": "team"}


def test_what_is_declared_of_accounts_holds_for_them_alone(store: Store, engine: Engine) -> None:
    assert engine.snapshot is not None
    store.update(Update(account_id="acme", set={"seats": 5})).result()
    assert type(store.read_account("acme", NOW).attributes["seats"]) is float
    store.update(Update("acme", set={"seats": 5, "plan": 7})).result()
    with pytest.raises(InvalidField, match="declared as string"):
        store.update(Update(account_id="acme", set={"plan": 7})).result()
    with pytest.raises(InvalidField, match="both given"):
        store.update(Update("ann", account_id="acme", set={"plan": "free"})).result()


def test_an_account_is_read_only_where_a_rule_of_the_point_may_use_it(
    store: Watched, engine: Engine, decide: Callable[..., list[str]]
) -> None:
    store.update(Update(account_id="acme", set={"plan": "team", "seats": 1})).result()
    store.update(Update("ann", set={"account_id": "acme", "role": "admin"})).result()
    store.watch()
    assert decide("ann", "mine") == ["mine"]
    assert store.accounts == 0
    for point in ("team", "nested", "rolled"):
        engine.decide(Request("ann", (point,), NOW))
        engine.decide(Request("ann", ("mine", point), NOW))
        engine.decide_batch([Request("ann", (point,), NOW), Request("ann", ("mine",), NOW)])
    assert store.accounts == 9


def test_an_explanation_withholds_what_is_personal_of_an_account(store: Store, engine: Engine) -> None:
    rules = RULES.replace('account.plan == "team"', "account.seats > 9.0")
    ruleset, found = load_ruleset({"rules.yaml": rules.encode()}, {})
    assert ruleset is not None, found
    engine.activate(Snapshot(ruleset, {}))
    store.update(Update(account_id="acme", set={"seats": 7.5})).result()
    store.update(Update("ann", set={"account_id": "acme"})).result()
    decision: Decision = engine.decide(Request("ann", ("team",), NOW, explain=ExplainLevel.ALL))[0]
    assert (decision.explanation[0].values, decision.explanation[0].withheld) == ({}, ("account.seats",))


def test_a_description_knows_segments_that_read_the_account(store: Store, engine: Engine) -> None:
    store.update(Update("ann", set={"account_id": "acme"})).result()
    assert engine.describe("ann", NOW).segments == {"paying": None}
    store.update(Update(account_id="acme", set={"plan": "team"})).result()
    assert engine.describe("ann", NOW).segments == {"paying": True}
