"""What the lint claims is true, and of conditions that the index answers it misses nothing.

Small random rule sets are decided for every subject that their rules can tell apart, one by one, by the walk; what is
seen there is held against what the lint says.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from arbiter.decision.hashing import share
from arbiter.lint.run import Names, findings
from arbiter.lint.subjects import Subject, winners
from arbiter.ruleset.load import load_ruleset
from arbiter.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.lint.finding import Finding

NOON = 1_780_000_000_000_000
HEAD = """
schema:
  profile: {n: int, s: {type: string, values: [x, y, z]}, l: list}
  context: {t: string, any_kind: double}
  events: {buy: {}, see: {}}
features:
  buys: {count: buy}
  heat: {decay: buy, half_life: 7d}
  seen: {since: see, unit: d}
  rate: {ratio: [buys, heat]}
segments: {small: profile.n < 2, other: profile.s != "x"}
"""
LITERALS = [
    *(f"profile.n {test} {n}" for test in ("<", ">=", "==", "!=") for n in (1, 2)),
    "profile.n in [1, 3]", "!(profile.n in [1, 2])", 'profile.s == "x"', 'profile.s != "y"', 'profile.s in ["x", "y"]',
    "has(profile.s)", "!has(profile.s)", "has(profile.n)", "has(profile.l)",
    '"a" in profile.l', '!("a" in profile.l)', '"b" in profile.l',
    'context.t.startsWith("a")', '!context.t.startsWith("ab")', 'context.t == "ab"',
    "segments.small", "!segments.small", "segments.other", "!segments.other",
    "features.buys == 0", "features.buys > 1", "features.buys >= 0",
    "features.heat > 1.5", "features.heat >= 0", "features.heat < 0", "!has(features.heat)",
    "features.rate > 0.5", "features.rate < 0", "!has(features.rate)", "features.seen < 0", "features.seen <= 2",
    'now < timestamp("2026-06-01T00:00:00Z")', 'now >= timestamp("2026-05-01T00:00:00Z")',
]  # fmt: skip
RESIDUAL = ["profile.n * 2 > 3", "profile.n * 2 <= 3", "size(context.t) > 1", "profile.n % 2 == 0 || segments.small"]
SALTS = {(salt, percent) for salt in ("p", "q") for percent in (30, 60)}
MONTH = 30 * 86_400_000_000


def one_of_each() -> list[str]:
    """Ids of subjects, one for each combination of rollouts."""
    found: dict[tuple[bool, ...], str] = {}
    for number in range(200):
        name = f"s{number}"
        found.setdefault(tuple(share(salt, name) * 100 < percent for salt, percent in sorted(SALTS)), name)
    assert len(found) == 9
    return list(found.values())


IDS = one_of_each()
VALUES: dict[str, list[Any]] = {
    "n": [None, 0, 1, 2, 3, 4], "s": [None, "x", "y", "z"], "l": [None, [], ["a"], ["b"], ["a", "b"]],
    "t": [None, "a", "ab", "abc", "b", ""], "buys": [0, 1, 2],
    "heat": [0.0, 2.0], "rate": [None, 0.25, 3.0], "seen": [None, 1.0, 5.5],
    "now": [NOON - 2 * MONTH, NOON - MONTH // 2, NOON, NOON + MONTH],
}  # fmt: skip


# Of rule sets that tell more subjects apart, some have 300,000: most of the time would go into one in ten of them.
MANY = 5_000


def told_apart(text: str) -> tuple[list[str], list[str]]:
    """The ids and the names of which each combination is a subject to rules that read only these names."""
    text = text.partition("rules:")[2]
    read = {"n": "profile.n" in text or "small" in text, "s": "profile.s" in text or "other" in text}
    read |= {"l": "profile.l" in text, "t": "context.t" in text, "buys": "features.buys" in text, "now": "now" in text}
    read["now"] = read["now"] or "active" in text
    read |= {name: f"features.{name}" in text for name in ("heat", "rate", "seen")}
    return IDS if "rollout" in text else ["s0"], [name for name, wanted in read.items() if wanted]


def how_many(text: str) -> int:
    """How many `subjects` there are."""
    ids, names = told_apart(text)
    return len(ids) * math.prod(len(VALUES[name]) for name in names)


def subjects(text: str) -> Iterator[Subject]:
    """Every subject that rules which read only these names can tell apart."""
    ids, names = told_apart(text)
    for ident in ids:
        for values in itertools.product(*(VALUES[name] for name in names)):
            has = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            profile: dict[str, Any] = {name: has[name] for name in ("n", "s", "l") if name in has}
            context = {"t": has["t"]} if "t" in has else {}
            features: dict[str, Any] = {name: has[name] for name in ("buys", "heat", "rate", "seen") if name in has}
            yield Subject(ident, has.get("now", NOON), profile, context=context, features=features)


def build(text: str) -> tuple[Snapshot, list[Finding]]:
    files = {"r.yaml": text.encode()}
    ruleset, found = load_ruleset(files, {})
    assert ruleset is not None, [each.render() for each in found]
    snapshot = Snapshot(ruleset, {})
    return snapshot, list(findings(snapshot, files, NOON, Names()))


@st.composite
def rule_sets(draw: st.DrawFn, literals: list[str], *, plain: bool) -> str:
    """A decision with some rules. `plain`: nothing but literals, and each rule with a treatment of its own."""
    names = draw(
        st.lists(
            st.sampled_from(["n", "s", "l", "t", "buys", "heat", "rate", "seen", "now", "small", "other"]),
            min_size=1,
            max_size=2,
        )
    )
    usable = [each for each in literals if any(name in each for name in names)] or literals[:4]
    order = draw(
        st.sampled_from(
            ["[priority]", "[specificity, priority]", "[]"] + ([] if plain else ["[priority, value]", "[recency]"])
        )
    )
    lines = [HEAD, f"decisions: {{home: {{slots: {draw(st.integers(1, 2))}, order: {order}}}}}", "rules:"]
    for number in range(draw(st.integers(1, 6))):
        parts = draw(st.lists(st.sampled_from(usable), max_size=3))
        if draw(st.booleans()) and len(parts) > 1:
            parts = [f"({parts[0]}) || ({parts[1]})", *parts[2:]]
        action = f"give{number if plain else draw(st.integers(0, number))}"
        then = f"{{action: {action}}}"
        if not plain and draw(st.integers(0, 4)) == 0:
            text = draw(st.sampled_from(["${profile.s}", "is ${profile.n}", "${profile.n + 1}"]))
            then = f"{{action: {action}, params: {{p: '{text}'}}}}"
        rule = f"id: r{number}, decision: home, priority: {draw(st.integers(0, 2))}, then: {then}"
        rule += f", when: {msgspec.json.encode(parts).decode()}"
        match draw(st.integers(0, 7)):
            case 0:
                salt, percent = draw(st.sampled_from(sorted(SALTS)))
                rule += f", rollout: {{percent: {percent}, salt: {salt}}}"
            case 1:
                rule += f", active: {{{draw(st.sampled_from(['from', 'until']))}: 2026-05-20T00:00:00Z}}"
            case 2 if not plain:
                rule += f", group: g{draw(st.integers(0, 1))}"
            case 3 if not plain:
                rule += f", value: {draw(st.sampled_from(['1', '2.5', 'profile.n', 'profile.n * 2']))}"
        lines.append(f"  - {{{rule}}}")
    return "\n".join(lines)


def claims(found: list[Finding], code: str) -> set[str]:
    return {each.message.split("`")[1] for each in found if each.code == code}


def matches(snapshot: Snapshot, text: str, rule: str) -> bool:
    """Whether a rule matches somebody: the others are off, so that what it reads itself tells all subjects apart."""
    (line,) = (line for line in text.splitlines() if f"id: {rule}," in line)
    others = frozenset(each.id for each in snapshot.ruleset.rules) - {rule}
    return any(winners(snapshot, "home", subject, 0, others) for subject in subjects(f"rules: {line}"))


def winning(snapshot: Snapshot, text: str) -> tuple[set[str], bool]:
    """The rules that won for some subject, and whether somebody got nothing; with `MANY` times n subjects, for every
    n-th of them or so.
    """
    won: set[str] = set()
    empty = False
    # Prime to the lengths of `VALUES`, so that each value comes with each other.
    stride = next((each for each in (1, 7, 11, 13, 17, 23, 29, 37, 47) if each >= how_many(text) // MANY), 59)
    for subject in itertools.islice(subjects(text), 0, None, stride):
        delivered = winners(snapshot, "home", subject)
        won |= set(delivered)
        empty = empty or not delivered
    return won, empty


@settings(max_examples=150)
@given(rule_sets(LITERALS + RESIDUAL, plain=False))
def test_what_never_matches_or_wins_does_not_for_any_subject(text: str) -> None:
    snapshot, found = build(text)
    assert not [rule for rule in claims(found, "never-matches") if matches(snapshot, text, rule)]
    never_wins = claims(found, "never-wins")
    assert not never_wins or not never_wins & winning(snapshot, text)[0]


@settings(max_examples=150)
@given(rule_sets(LITERALS, plain=True))
def test_of_literals_nothing_is_missed(text: str) -> None:
    assume(how_many(text) <= MANY)
    snapshot, found = build(text)
    won, empty = winning(snapshot, text)
    matched = {rule.id for rule in snapshot.ruleset.rules if matches(snapshot, text, rule.id)}
    rules = {rule.id for rule in snapshot.ruleset.rules}
    assert claims(found, "never-matches") == rules - matched
    assert claims(found, "never-wins") | claims(found, "duplicate-rule") == matched - won
    assert bool(claims(found, "no-default")) is empty


def pairs_that_tie(snapshot: Snapshot, text: str) -> set[frozenset[str]]:
    """The pairs of rules equal in every key of which one wins, for somebody, and the other would alone."""
    point = snapshot.ruleset.decisions[0]
    found: set[frozenset[str]] = set()
    equal: dict[str, set[str]] = {}
    for rule in snapshot.ruleset.rules:
        keys = str([getattr(rule, key) for key in point.order])
        equal.setdefault(keys, set()).add(rule.id)
    for subject in subjects(text):
        for slots in range(1, point.slots + 1):
            won = set(winners(snapshot, "home", subject, slots))
            for ids in equal.values():
                for better, worse in itertools.product(ids & won, ids - won):
                    pair, others = frozenset({better, worse}), frozenset(ids - {worse})
                    if pair not in found and worse in winners(snapshot, "home", subject, slots, others):
                        found.add(pair)
    return found


@settings(max_examples=150)
@given(rule_sets(LITERALS, plain=True))
def test_rules_are_said_to_tie_when_they_do(text: str) -> None:
    assume(how_many(text) <= MANY)
    snapshot, found = build(text)
    real = pairs_that_tie(snapshot, text)
    never = claims(found, "never-wins") | claims(found, "duplicate-rule")
    expected = {pair for pair in real if not pair & never}
    ids = {rule.position: rule.id for rule in snapshot.ruleset.rules}
    ties = [{ids[position] for position in each.also} for each in found if each.code == "tie"]
    for finding in (each for each in found if each.code == "tie"):
        assert frozenset(finding.message.split("`")[1:4:2]) in real
    for together in ties:
        assert all(any(each in pair and pair <= together for pair in expected) for each in together)
    assert all(any(pair <= together for together in ties) for pair in expected)
