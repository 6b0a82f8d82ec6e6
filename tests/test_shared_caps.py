"""Caps that rules share, cool-downs and runs: each holds exactly as a recount of all that was shown says."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.profiles import records
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.ingesting import IngestEvents
from arbiter.profiles.recounting import recount
from arbiter.profiles.store import Limits, Store
from arbiter.ruleset.diff import difference
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine
from arbiter.snapshot import Snapshot
from arbiter.types import Event, ExplainLevel, Reason, Request
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from arbiter.types import RuleOutcome

HOUR = 3_600_000_000
DAY = 24 * HOUR
NOW = 20_000 * DAY
RULES = """
decisions:
  home: {slots: 2}
  shop: {channel: mail}
  post: {channel: mail}
caps:
  all: {max: 6, per: 2d, count_on: exposure}
  actions: {push: {max: 2, per: 1d, cool_down: 1h, count_on: exposure}}
  groups: {offers: {cool_down: 3h, count_on: exposure}}
  channels: {mail: {max: 3, per: lifetime, count_on: exposure}}
  in_a_row: {home: {max: 2, count_on: exposure}, mail: {max: 1, within: 5h, count_on: exposure}}
rules:
  - {id: a, decision: home, priority: 9, group: offers, then: {action: push, params: {n: 1}}}
  - {id: b, decision: home, priority: 8, then: {action: push, params: {n: 2}}}
  - {id: c, decision: home, priority: 7, group: offers, then: {action: show, params: {n: 3}}}
  - {id: d, decision: home, priority: 6, cap: {max: 2, per: 1d, count_on: exposure},
     then: {action: show, params: {n: 4}}}
  - {id: e, decision: shop, priority: 5, then: {action: show, params: {n: 5}}}
  - {id: f, decision: shop, priority: 4, then: {action: push, params: {n: 6}}}
  - {id: g, decision: post, priority: 3, group: offers, then: {action: show, params: {n: 7}}}
  - {id: h, decision: post, priority: 2, cap: {cool_down: 2h, count_on: exposure},
     then: {action: show, params: {n: 8}}}
"""
OF = {
    "a": ("home", "push", "offers"), "b": ("home", "push", ""), "c": ("home", "show", "offers"),
    "d": ("home", "show", ""), "e": ("shop", "show", ""), "f": ("shop", "push", ""), "g": ("post", "show", "offers"),
    "h": ("post", "show", ""),
}  # fmt: skip
MAIL = ("shop", "post")


def snapshot_of(rules: str) -> Snapshot:
    found, mistakes = load_ruleset({"r.yaml": rules.encode()}, {})
    assert found is not None, mistakes
    return Snapshot(found, {})


class Shop:
    """An engine, and what was shown to whom."""

    def __init__(self, folder: Path, rules: str = RULES) -> None:
        self.clock = Clock()
        self.clock.now = NOW
        self.store = Store.open(folder, clock=self.clock, background=False, limits=Limits(late=None, ahead=None))
        self.engine = Engine(self.store, self.clock)
        self.engine.activate(snapshot_of(rules))
        self.numbers = itertools.count()

    def show(self, subject: str, shown: Sequence[tuple[str, int]]) -> None:
        """Report what was shown: a rule, or of a decision point (``=NAME``) the default."""
        entries = []
        key = self.store.keys.subject(subject)
        for rule, at in shown:
            point, action, group = OF[rule] if rule in OF else (rule[1:], "rest", "")
            said: dict[str, Any] = {
                "point": point,
                "rule": rule if rule in OF else "",
                "action": action,
                "group": group,
            }
            event = Event(f"x{next(self.numbers)}", "", "arbiter.exposure", NOW + at, said)
            entries.append((key, records.seen_key(key, event.id), event, records.encode(event), b""))
        self.store.write(IngestEvents(entries)).result()

    def told(self, subject: str, point: str, now: int = NOW) -> dict[str, RuleOutcome]:
        """What became of each rule."""
        (decision,) = self.engine.decide(Request(subject, (point,), now, explain=ExplainLevel.ALL))
        return {each.rule_id: each for each in decision.explanation}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    found = Shop(tmp_path / "store")
    yield found
    found.store.close()


def is_running(log: Sequence[tuple[str, int]], rule: str, points: Sequence[str], most: int, since: int | None) -> bool:
    """Whether the last `most` moments at which anything was shown there all had the rule."""
    there = [(at, each) for each, at in log if (OF[each][0] if each in OF else each[1:]) in points]
    moments = sorted({at for at, _ in there})[-most:]
    newest = [{each for when, each in there if when == at} for at in moments]
    inside = since is None or all(at > since for at in moments)
    return len(newest) == most and inside and all(rule in each for each in newest)


def is_out(log: Sequence[tuple[str, int]], rule: str, now: int) -> bool:
    """By definition, from all that was shown."""
    shown = [(each, at) for each, at in log if each in OF]
    point, action, group = OF[rule]

    def count(since: int | None, **wanted: str) -> int:
        said = [
            ({**dict(zip(("point", "action", "group"), OF[each], strict=True)), "rule": each}, at) for each, at in shown
        ]
        return sum((since is None or at > now - since) and wanted.items() <= each.items() for each, at in said)

    found = [count(2 * DAY) >= 6]
    if action == "push":
        found += [count(DAY, action="push") >= 2, count(HOUR, action="push") >= 1]
    if group:
        found += [count(3 * HOUR, group=group) >= 1]
    if point in MAIL:
        found += [sum(count(None, point=each) for each in MAIL) >= 3, is_running(log, rule, MAIL, 1, now - 5 * HOUR)]
    else:
        found += [is_running(log, rule, ("home",), 2, None)]
    found += [rule == "d" and count(DAY, rule="d") >= 2, rule == "h" and count(2 * HOUR, rule="h") >= 1]
    return any(found)


SHOWN = st.tuples(
    st.sampled_from([*OF, "=home", "=shop"]),
    st.integers(-30, 1).map(lambda hours: hours * HOUR)
    | st.sampled_from([0, -HOUR, -2 * HOUR, 1 - HOUR, -DAY, 1 - DAY]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(SHOWN, max_size=5), max_size=4), st.lists(st.integers(0, 3 * DAY), max_size=2))
def test_a_rule_is_out_exactly_while_a_recount_says_so(
    shop: Shop, batches: list[list[tuple[str, int]]], later: list[int]
) -> None:
    subject = f"s{next(shop.numbers)}"
    for batch in batches:
        shop.show(subject, batch)
    log = list(itertools.chain.from_iterable(batches))
    for now, point in itertools.product([0, *later], ("home", "shop", "post")):
        told = shop.told(subject, point, NOW + now)
        out = {rule for rule in told if is_out(log, rule, now)}
        assert {rule for rule, each in told.items() if each.reason is Reason.CAPPED} == out
        (decision,) = shop.engine.decide(Request(subject, (point,), NOW + now))
        best = [rule for rule in sorted(told) if rule not in out]
        assert decision.defaulted == (not best)
        if best:
            assert decision.treatments[0].rule_id == best[0]
        until = decision.valid_until
        if until is not None:
            before, after = ({r for r in told if is_out(log, r, at - NOW)} for at in (until - 1, until))
            assert before == out
            assert after < out


def test_the_store_counts_what_a_recount_finds(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store")
    for number in range(20):
        shop.show(f"s{number}", [(rule, -number * at * HOUR) for at in (3, 1, 2) for rule in (*OF, "=home")])
    shop.store.close()
    found = recount(tmp_path / "store", FeatureSet(snapshot_of(RULES).frame.computed), shop.clock)
    assert (found.subjects, found.count) == (20, 0)


def test_what_is_full_says_which_cap_and_when_it_is_free(shop: Shop) -> None:
    shop.show("ann", [("f", -2 * HOUR), ("f", -HOUR // 2), ("h", -HOUR)])
    said = {rule: each.detail for point in ("home", "post") for rule, each in shop.told("ann", point).items()}
    assert said["b"].split("; ") == [
        "action `push`: 2 of 2 exposures in 1d, free again 2024-10-04T22:00:00Z",
        "action `push`: cools down for 1h after the last exposure, free again 2024-10-04T00:30:00Z",
    ]
    assert said["g"] == "channel `mail`: 3 of 3 exposures in all, never free again"
    assert said["h"].split("; ")[0] == "cools down for 2h after the last exposure, free again 2024-10-04T01:00:00Z"
    shop.show("bob", [("d", -DAY), ("d", -2 * DAY)])
    assert shop.told("bob", "home")["d"].detail == (
        "channel `home`: the last 2 in a row, free again when something else comes between"
    )


def test_what_comes_between_ends_a_run(shop: Shop) -> None:
    shop.show("ann", [("d", -DAY), ("d", -2 * DAY)])
    assert shop.told("ann", "home")["d"].reason is Reason.CAPPED
    shop.show("ann", [("=home", -DAY + 1)])
    assert shop.told("ann", "home")["d"].reason is not Reason.CAPPED
    # What is shown beside it at the same moment does not come between.
    shop.show("bob", [("d", -DAY), ("c", -DAY), ("d", -2 * DAY), ("b", -2 * DAY)])
    assert shop.told("bob", "home")["d"].reason is Reason.CAPPED


def test_a_shared_cap_that_changed_is_told_once() -> None:
    before = snapshot_of(RULES).ruleset
    after = snapshot_of(RULES.replace("max: 6, per: 2d", "max: 5, per: 2d, cool_down: 4h")).ruleset
    found = difference(before, after)
    assert not found.rules
    (changed,) = found.declarations.changed
    assert changed.name == "caps.all"
    assert [(each.before, each.after) for each in changed.changes] == [
        ("max 6, per 2d, count_on exposure", "max 5, per 2d, cool_down 4h, count_on exposure")
    ]


def test_rules_without_a_cap_in_common_have_none() -> None:
    snapshot = snapshot_of(
        "decisions: {d: }\n"
        "caps: {groups: {g: {cool_down: 1h, count_on: exposure}}}\n"
        "rules:\n"
        "  - {id: a, decision: d, group: g, then: {action: x}}\n"
        "  - {id: b, decision: d, then: {action: y}}\n"
    )
    (tally,) = snapshot.frame.tallies
    assert (tally.name, tally.keep) == ("arbiter.exposure.groups", {"g": 1})
    assert [bool(rule.limits) for rule in snapshot.points["d"].rules] == [True, False]
