"""What other rules would have earned of people who are kept in variants, while weights change."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import pytest

from arbiter.decision.exposure import exposed
from arbiter.learning.logged import Head, Row, won_of
from arbiter.ruleset.experiments.kept import kept_name
from arbiter.runtime.chances import chances, chances_then
from arbiter.runtime.earning import SAME, Earned, Earning
from arbiter.runtime.firsts import Firsts
from arbiter.runtime.replaying import Again, OfThen
from tests.test_bandit_earnings import snapshot_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.snapshot import Snapshot

RULES = """
decisions: {home: {default: {action: show, params: {x: none}}}}
experiments: {e: {decision: home, sticky: true, variants: {a: 3, b: 1, c: 0}}}
rules:
  - {id: b, decision: home, when: experiments.e == "b", then: {action: show, params: {x: b}}}
  - {id: c, decision: home, when: experiments.e == "c", then: {action: show, params: {x: c}}}
"""
TURNED = RULES.replace("a: 3, b: 1", "a: 1, b: 3")
THREE = RULES.replace("a: 3, b: 1, c: 0", "a: 4, b: 3, c: 1")
CLOSED = RULES.replace("a: 3, b: 1, c: 0", "a: 0, b: 3, c: 1")
CHANCES = {"b": 0.75, "c": 0.25}
ALL_B = RULES.replace('when: experiments.e == "b", ', "").replace("sticky: true, ", "")
OLD, NEW, WIDE, LAST = (Again(snapshot_of(rules)) for rules in (RULES, TURNED, THREE, CLOSED))
BY_DIGEST = {"old": OLD.snapshot, "new": NEW.snapshot, "wide": WIDE.snapshot, "last": LAST.snapshot}
KEY = OLD.snapshot.symbols.features[kept_name("e")].key
HEADS = {name: Head(1, "home", name, (("features", kept_name("e"), KEY),)) for name in BY_DIGEST}
WORTH = {"": 0.2, "b": 0.5, "c": 0.4}


class Known(NamedTuple):
    """A row, what it shares with others, and what it earned."""

    head: Head
    row: Row
    reward: float


def logged(again: Again, name: str, subject: str, at: int, kept: str | None) -> Row:
    """The row of a decision, as a server writes it."""
    row = Row(1, f"{subject}-{at}", at, subject, (kept,), ())
    view = again.view(HEADS[name], row)
    decision = again.decide(HEADS[name], row, view)
    point = again.snapshot.point("home")
    found = exposed(decision, point, view, subject, 0, (), dict, lambda _models, _view: None)
    won = tuple(msgspec.structs.replace(each, propensity=found.propensity) for each in won_of(found))
    return msgspec.structs.replace(
        row, won=won, variants={"e": view.experiments.of("e", view)}, exposed=tuple(found.experiments)
    )


def log(people: int, times: dict[str, int]) -> list[Known]:
    """Each is shown what is decided by `old`, and then decided for so often more; half of them come by `new` only."""
    chance = random.Random(7)  # noqa: S311 - no secret
    found, kept, at = [], dict[str, str](), 0
    for name, count in times.items():
        again = {"old": OLD, "new": NEW}[name]
        for number in [each for each in range(people) for _ in range(count)]:
            subject, at = f"s{number}", at + 1
            if number % 2 and name == "old":
                continue
            row = logged(again, name, subject, at, kept.get(subject))
            kept.setdefault(subject, row.variants["e"])
            found.append(Known(HEADS[name], row, float(chance.random() < WORTH[row.won[0].rule])))
    return found


def earned_by(candidate: Again, known: Iterable[Known]) -> Earned:
    rows = list(known)
    earning = Earning(OfThen(opened), {each.row.id: each.reward for each in rows}, 0.95)
    for head, row, _ in rows:
        earning.add(head, row, candidate, candidate.view(head, row))
    assert earning.left_out == {}
    (found,) = earning.result()
    return found


def opened(digest: str) -> Snapshot:
    return BY_DIGEST[digest]


def test_who_is_kept_weighs_by_the_weights_of_when_it_was_drawn() -> None:
    rows = log(600, {"old": 1, "new": 3})
    kept = [each for each in rows if each.head.snapshot == "new" and not int(each.row.subject[1:]) % 2]
    assert {each.row.values for each in kept} == {("a",), ("b",)}
    # The log itself knows the shares of now, which are wrong of them.
    assert {(each.row.won[0].rule, each.row.won[0].propensity) for each in kept} == {("", 0.25), ("b", 0.75)}
    found = earned_by(Again(snapshot_of(ALL_B)), rows)
    weights = []
    for each in rows:
        drawn_by_old = not int(each.row.subject[1:]) % 2
        weights.append((each.row.won[0].rule == "b") / (0.25 if drawn_by_old else 0.75))
    rewards = np.array([each.reward for each in rows])
    assert (found.early, found.unsupported, found.why) == (0, 0, "")
    assert found.estimates[0].value == pytest.approx((rewards * weights).mean())
    assert found.weight == pytest.approx(1, abs=0.12)
    for own in found.estimates:
        assert own.low < WORTH["b"] < own.high
        assert own.gain_low > 0


def test_the_rules_of_then_keep_whom_they_kept_and_earn_the_same() -> None:
    rows = log(100, {"old": 1, "new": 2})
    later = [each for each in rows if each.head.snapshot == "new"]
    assert earned_by(NEW, later).why == SAME
    # Other weights change nothing for those who are kept: with all rows known, for everybody else.
    earning = Earning(OfThen(opened), {}, 0.95)
    for head, row, _ in rows:
        earning.add(head, row, OLD, OLD.view(head, row))
    (found,) = earning.result()
    first = [each for each in rows if each.row.values == (None,)]
    changed = sum((0.75 if each.row.won[0].rule else 0.25) != 0.5 and each.head.snapshot == "new" for each in first)
    assert changed == 50
    weights = []
    for each in rows:
        came_by_new = int(each.row.subject[1:]) % 2 and each.row.values == (None,)
        weights.append(({"b": 1 / 3}.get(each.row.won[0].rule, 3.0)) if came_by_new else 1.0)
    assert found.weight == pytest.approx(np.mean(weights))


def test_what_lies_before_the_log_is_said_and_taken_as_of_now() -> None:
    later = [each for each in log(200, {"old": 1, "new": 1}) if each.head.snapshot == "new"]
    found = earned_by(Again(snapshot_of(ALL_B)), later)
    assert found.early == sum(each.row.values != (None,) for each in later) == 100


def test_whose_variant_was_closed_is_drawn_anew_and_all_others_are_kept() -> None:
    """Held against whom the published hash gives what."""
    firsts, times = Firsts(), defaultdict[bool, Counter[str]](Counter)
    for number in range(3000):
        before = logged(WIDE, "wide", f"s{number}", 1, None)
        firsts.of(WIDE, "wide", before, WIDE.view(HEADS["wide"], before))
        after = logged(LAST, "last", f"s{number}", 2, before.variants["e"])
        closed = before.variants["e"] == "a"
        times[closed][after.won[0].rule] += 1
        if number < 40:
            view = LAST.view(HEADS["last"], after)
            first, early = firsts.of(LAST, "last", after, view)
            then, forced = chances_then(LAST, HEADS["last"], after, view, first)
            assert (forced, early) == ((), False)
            assert {each.rules[0]: each.odds for each in then.courses} == pytest.approx(CHANCES)
            # A candidate that closes another one draws those anew whom that leaves.
            would = chances(NEW, HEADS["last"], after, NEW.view(HEADS["last"], after), first)
            said = {each.rules[0]: each.odds for each in would.courses}
            assert said == pytest.approx({"": 0.25 / 4, "b": 0.75 + 0.25 * 3 / 4} if first else {"": 0.25, "b": 0.75})
    assert len(times) == 2
    for counts in times.values():
        assert {rule: count / counts.total() for rule, count in counts.items()} == pytest.approx(CHANCES, abs=0.04)
