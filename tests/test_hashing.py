"""The published hash: docs/hashing.md is executed, and the split is even and independent."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from arbiter.decision.hashing import share
from arbiter.decision.walk import Walk
from arbiter.expr.view import View
from arbiter.ruleset.load import load_ruleset
from arbiter.snapshot import Snapshot
from arbiter.types import Decision

PAGE = (Path(__file__).parent.parent / "docs" / "hashing.md").read_text("utf-8")
VECTORS = re.findall(r"^\| `(.*?)` \| `(.*?)` \| `([0-9a-f]{16})` \| (\S+) \|$", PAGE, re.MULTILINE)


def test_the_published_vectors_hold() -> None:
    assert len(VECTORS) >= 14
    for salt, unit, digest, expected in VECTORS:
        assert blake2b(f"{salt}\0{unit}".encode(), digest_size=8).hexdigest() == digest
        assert repr(share(salt, unit)) == expected


def test_the_code_on_the_page_is_the_function() -> None:
    block = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 - our own page
    for salt, unit, _, expected in VECTORS:
        assert repr(names["share"](salt, unit)) == expected


@given(st.text(), st.text())
def test_a_share_lies_in_the_half_open_range(salt: str, unit: str) -> None:
    assert 0.0 <= share(salt, unit) < 1.0


def test_shares_are_even_and_salts_independent() -> None:
    count = 20_000
    one = [share("one", str(n)) < 0.5 for n in range(count)]
    two = [share("two", str(n)) < 0.5 for n in range(count)]
    # A fair coin stays within five standard deviations of half; both at once, of a quarter.
    assert abs(sum(one) - count / 2) < 5 * (count / 4) ** 0.5
    assert abs(sum(a and b for a, b in zip(one, two, strict=True)) - count / 4) < 5 * (count * 3 / 16) ** 0.5


def test_a_rollout_that_grows_keeps_whom_it_had() -> None:
    sizes = []
    before: frozenset[str] = frozenset()
    for percent in (0, 0.5, 1, 5, 20, 20.5, 50, 99, 100):
        now = included(f"{{percent: {percent}}}", "rule")
        assert before <= now
        sizes.append(len(now))
        before = now
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (0, len(SUBJECTS))


def test_rules_that_share_a_salt_include_the_same_and_others_do_not() -> None:
    assert included("{percent: 30, salt: x}", "one") == included("{percent: 30, salt: x}", "two")
    assert included("{percent: 30}", "one") == included("{percent: 30, salt: one}", "two")
    assert included("{percent: 30}", "one") != included("{percent: 30}", "two")


def test_whoever_goes_by_a_team_goes_with_the_team() -> None:
    chosen = included("{percent: 50, by: profile.team}", "rule")
    teams = {subject: number % 50 for number, subject in enumerate(SUBJECTS)}
    inside = {teams[subject] for subject in chosen}
    assert chosen == {subject for subject in SUBJECTS if teams[subject] in inside}
    assert 10 < len(inside) < 40


SUBJECTS = [f"subject-{number}" for number in range(2000)]


def included(rollout: str, rule: str) -> frozenset[str]:
    """The subjects to whom a rule with this rollout is given."""
    text = f"decisions: {{d: }}\nrules: [{{id: {rule}, decision: d, then: {{action: a}}, rollout: {rollout}}}]\n"
    ruleset, mistakes = load_ruleset({"rules.yaml": text.encode()}, {})
    assert ruleset is not None, mistakes
    point = Snapshot(ruleset, {}).point("d")
    views = ((subject, View({"team": number % 50}, {}, {}, 0)) for number, subject in enumerate(SUBJECTS))
    walked = ((subject, Walk(point, view, subject).advance()) for subject, view in views)
    return frozenset(subject for subject, decision in walked if isinstance(decision, Decision) and decision.treatments)
