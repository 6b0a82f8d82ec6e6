"""Experiments: who is in which variant, how that changes when shares change, and to which decisions they matter.

Balance and independence are held to exact bounds: a binomial count stays within five standard deviations.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.decision.assignment import Assigned, Assigners
from arbiter.decision.drawing import bars
from arbiter.expr.view import View
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.active import active_of, switched
from arbiter.runtime.engine import Engine
from arbiter.serving import Override
from arbiter.snapshot import Snapshot
from arbiter.types import Decision, ExplainLevel, Reason, Request, Standing
from tests.test_engine import NOW, table_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.models import Model

PAGE = (Path(__file__).parent.parent / "docs" / "hashing.md").read_text("utf-8")
COUNT = 4_000
SUBJECTS = [f"subject-{n}" for n in range(COUNT)]
DAY = 86_400_000_000


def snapshot_of(experiments: str, more: str = "", models: dict[str, Model] | None = None) -> Snapshot:
    models = models or {}
    text = f"decisions: {{d: {{default: {{action: none}}}}}}\n{more}\nexperiments:\n{experiments}\n"
    outputs = {name: {"s": "double"} for name in models}
    ruleset, found = load_ruleset({"r.yaml": text.encode()}, outputs)
    assert ruleset is not None, found
    return Snapshot(ruleset, models)


class Split:
    """The experiments of a rule set, asked without a store."""

    def __init__(self, experiments: str, more: str = "") -> None:
        self.snapshot = snapshot_of(experiments, more)
        self.assigners = Assigners(self.snapshot.frame.experiments, self.snapshot.symbols)

    def of(self, name: str, subject: str, now: int = NOW, **profile: Any) -> str:
        return Assigned(self.assigners, subject).of(name, View(profile, {}, {}, now))

    def standing(self, name: str, subject: str, now: int = NOW, **profile: Any) -> Standing:
        return Assigned(self.assigners, subject).outcome(name, View(profile, {}, {}, now)).standing

    def all(self, name: str, now: int = NOW) -> dict[str, str]:
        return {subject: self.of(name, subject, now) for subject in SUBJECTS}


def within(count: int, share: float, of: int = COUNT) -> bool:
    """Whether a count is what chance gives of a share."""
    return bool(abs(count - of * share) <= 5 * (of * share * (1 - share)) ** 0.5 + 1)


# What docs/hashing.md says.


def published() -> dict[str, Any]:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)  # noqa: S102 - our own page
    return names


@settings(deadline=None, max_examples=40)
@given(
    weights=st.lists(st.sampled_from([0, 1, 1, 2, 0.5, 7.25]), min_size=2, max_size=5).filter(any),
    offset=st.sampled_from([0, 0.2, 0.3]),
    traffic=st.sampled_from([0.1, 0.4, 0.7]),
    unit=st.text(min_size=1, max_size=20),
)
def test_what_is_generated_is_what_the_page_says(
    weights: list[float], offset: float, traffic: float, unit: str
) -> None:
    levels = {f"v{number}": float(weight) for number, weight in enumerate(weights)}
    said = f"  e: {{decision: d, layer: l, offset: {offset}, traffic: {traffic}, salt: s, variants: {levels}}}".replace(
        "'", ""
    )
    names = published()
    place, word = names["place_and_word"]("layer:l", unit)
    inside = offset <= place < round(offset + traffic, 12)
    assert Split(said).of("e", unit) == (names["drawn"](word, "s", "", levels) if inside else "")


WEIGHTS = st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.0, 2.0, 7.25, 1e-12, 1e9, 5e-324, 1.7e308])


@settings(deadline=None, max_examples=20)
@given(weights=st.lists(WEIGHTS, min_size=2, max_size=6).filter(any), salt=st.sampled_from(["s", "t", "u"]))
def test_races_that_are_decided_without_logarithms_have_the_winners_of_the_page(
    weights: list[float], salt: str
) -> None:
    levels = {f"v{number}": weight for number, weight in enumerate(weights)}
    split = Split(f"  e: {{decision: d, salt: {salt}, variants: {levels}}}".replace("'", ""))
    names = published()
    for subject in SUBJECTS[:300]:
        _, word = names["place_and_word"](salt, subject)
        assert split.of("e", subject) == names["drawn"](word, salt, "", levels)


@settings(deadline=None, max_examples=500)
@given(
    holder=st.floats(1e-300, 1.7e308),
    times=st.floats(1e-3, 1e3) | st.floats(1e-300, 1e300),
    cell=st.integers(0, 255),
    inside=st.integers(0, 2**56 - 1) | st.sampled_from([0, 1, 2**56 - 1]),
    off=st.integers(-(2**28), 2**28),
)
def test_bars_never_decide_otherwise_than_logarithms(
    holder: float, times: float, cell: int, inside: int, off: int
) -> None:
    challenger = min(max(holder * times, 1e-300), 1.7e308)
    loses, wins = bars(holder, challenger)
    held = score(cell << 56 | inside, holder)
    for bar in (loses[cell], wins[cell], int(exp(held * challenger) * 2**64)):
        draw = min(max(bar + off, 0), 2**64 - 1)
        if draw <= loses[cell]:
            assert not score(draw, challenger) > held
        if draw > wins[cell]:
            assert score(draw, challenger) > held


def score(draw: int, weight: float) -> float:
    return log(((draw >> 12) + 0.5) / 2**52) / weight


def test_the_vectors_of_the_page_hold() -> None:
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \| (0\.\S+) \| `(\S+)` \| `(\S+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) >= 6
    names = published()
    for salt, unit, place, even, uneven in rows:
        found, word = names["place_and_word"](salt, unit)
        assert repr(found) == place
        assert names["drawn"](word, salt, "", {"control": 1, "short": 1}) == even
        assert names["drawn"](word, salt, "", {"control": 2, "long": 1, "short": 1}) == uneven
        split = Split(f"  e: {{decision: d, salt: {salt}, variants: {{control: 2, long: 1, short: 1}}}}")
        assert split.of("e", unit) == uneven


# Shares and chance.


def test_variants_get_their_shares() -> None:
    counts = Counter(Split("  e: {decision: d, traffic: 0.8, variants: {a: 1, b: 2, c: 5}}").all("e").values())
    assert all(within(counts[name], 0.8 * weight / 8) for name, weight in {"a": 1, "b": 2, "c": 5}.items())
    assert within(counts[""], 0.2)


def test_experiments_are_independent_unless_a_layer_keeps_them_apart() -> None:
    split = Split(
        """
  one: {decision: d, layer: x, traffic: 0.5, variants: {a: 1, b: 1}}
  two: {decision: d, layer: x, offset: 0.5, traffic: 0.5, variants: {a: 1, b: 1}}
  three: {decision: d, layer: y, variants: {a: 1, b: 1}}
  four: {decision: d, variants: {a: 1, b: 1}}
"""
    )
    one, two, three, four = (split.all(name) for name in ("one", "two", "three", "four"))
    assert all(bool(one[subject]) != bool(two[subject]) for subject in SUBJECTS)
    for left, right in itertools.combinations([one, three, four], 2):
        joint = Counter((left[subject], right[subject]) for subject in SUBJECTS)
        ones, others = Counter(left.values()), Counter(right.values())
        assert all(within(joint[a, b], ones[a] / COUNT * others[b] / COUNT) for a, b in itertools.product(ones, others))


def test_one_experiment_after_another_in_one_place_of_a_layer_splits_anew() -> None:
    split = Split(
        """
  old: {decision: d, layer: x, variants: {a: 1, b: 1}, active: {until: 2026-01-01T00:00:00Z}}
  new: {decision: d, layer: x, variants: {a: 1, b: 1}, active: {from: 2026-01-01T00:00:00Z}}
"""
    )
    old, new = split.all("old", NOW - 365 * DAY), split.all("new")
    joint = Counter((old[subject], new[subject]) for subject in SUBJECTS)
    assert len(joint) == 4
    assert all(within(count, 0.25) for count in joint.values())


def test_factors_are_drawn_each_by_itself() -> None:
    split = Split("  e: {decision: d, factors: {head: {a: 1, b: 3}, pic: {x: 1, y: 1}}}")
    joint = Counter(split.all("e").values())
    assert set(joint) == {"a+x", "a+y", "b+x", "b+y"}
    assert all(within(joint[f"{a}+{x}"], share) for a, x, share in (("a", "x", 0.125), ("b", "y", 0.375)))
    for subject in SUBJECTS[:50]:
        assert split.of("e", subject) == f"{split.of('e.head', subject)}+{split.of('e.pic', subject)}"


# Growing.


@settings(deadline=None, max_examples=15)
@given(
    weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=5),
    grown=st.integers(0, 4),
    times=st.floats(1.01, 5),
)
def test_a_weight_that_grows_takes_from_the_others_and_moves_nobody_else(
    weights: list[float], grown: int, times: float
) -> None:
    grown %= len(weights)
    after = [weight * times if number == grown else weight for number, weight in enumerate(weights)]
    one, other = (
        Split(f"  e: {{decision: d, variants: {{{', '.join(f'v{n}: {w!r}' for n, w in enumerate(each))}}}}}")
        for each in (weights, after)
    )
    for subject in SUBJECTS[:800]:
        before, now = one.of("e", subject), other.of("e", subject)
        assert now in {before, f"v{grown}"}


def test_a_new_variant_takes_from_the_others_and_moves_nobody_else() -> None:
    before = Split("  e: {decision: d, variants: {a: 1, c: 1}}").all("e")
    after = Split("  e: {decision: d, variants: {a: 1, b: 1, c: 1}}").all("e")
    assert all(after[subject] in {before[subject], "b"} for subject in SUBJECTS)


def test_traffic_that_grows_keeps_whom_it_had_in_the_same_variants_and_touches_no_other_experiment() -> None:
    other = "  z: {decision: d, layer: x, offset: 0.6, traffic: 0.4, variants: {a: 1, b: 1}}"
    before: dict[str, str] = {}
    beside: dict[str, str] | None = None
    for traffic in (0, 0.05, 0.3, 0.3001, 0.6):
        split = Split(f"  e: {{decision: d, layer: x, traffic: {traffic}, variants: {{a: 1, b: 1}}}}\n{other}")
        now = split.all("e")
        assert all(now[subject] == variant for subject, variant in before.items() if variant)
        assert within(sum(map(bool, now.values())), traffic)
        assert beside in (None, split.all("z"))
        before, beside = now, split.all("z")


def test_a_ramp_is_traffic_by_date() -> None:
    split = Split(
        """
  e:
    decision: d
    variants: {a: 1, b: 1}
    ramp:
      - {from: 2026-06-01T00:00:00Z, traffic: 0.1}
      - {from: 2026-06-08T00:00:00Z, traffic: 0.6}
      - {from: 2026-06-15T00:00:00Z, traffic: 0}
"""
    )
    shares = [(NOW - 1, 0), (NOW, 0.1), (NOW + 7 * DAY - 1, 0.1), (NOW + 7 * DAY, 0.6), (NOW + 14 * DAY, 0)]
    found = [split.all("e", now) for now, _ in shares]
    for (_, share), variants in zip(shares, found, strict=True):
        assert within(sum(map(bool, variants.values())), share)
    assert all(found[3][subject] == variant for subject, variant in found[1].items() if variant)


def test_an_answer_holds_until_a_ramp_goes_on() -> None:
    snapshot = snapshot_of(
        "  e: {decision: d, variants: {a: 1, b: 1}, ramp: [{from: 2026-06-08T00:00:00Z, traffic: 0.6}]}",
        "rules: [{id: r, decision: d, when: experiments.e == 'a', then: {action: x}}]",
    )
    assert snapshot.point("d").edges == (NOW + 7 * DAY,)


# What keeps somebody outside.


def test_why_somebody_is_outside() -> None:
    split = Split(
        """
  held: {decision: d, layer: x, traffic: 0.5, variants: {a: 1, b: 1}}
  other: {decision: d, layer: x, offset: 0.5, traffic: 0.3, variants: {a: 1, b: 1}}
  aimed: {decision: d, variants: {a: 1, b: 1}, when: [profile.country == "US", segments.adult]}
  dated: {decision: d, variants: {a: 1, b: 1}, active: {until: 2026-01-01T00:00:00Z}}
  off: {decision: d, variants: {a: 1, b: 1}, enabled: false, forced: {a: [tester]}}
  team: {decision: d, variants: {a: 1, b: 1}, unit: profile.team, forced: {b: [red]}}
  forced:
    {decision: d, traffic: 0, variants: {a: 1, b: 0}, active: {until: 2026-01-01T00:00:00Z}, forced: {b: [tester]}}
""",
        "layers: {x: {holdout: 0.1}}\nholdout: {share: 0.2}\nsegments: {adult: profile.age >= 18}",
    )
    counts = Counter(split.standing("held", subject) for subject in SUBJECTS)
    shares = {Standing.HOLDOUT: 0.2 + 0.8 * 0.1, Standing.DRAWN: 0.8 * 0.5, Standing.LAYER: 0.8 * 0.3}
    assert all(within(counts[standing], share) for standing, share in shares.items())
    assert within(counts[Standing.TRAFFIC], 0.8 * 0.1)
    assert counts.keys() == shares.keys() | {Standing.TRAFFIC}
    free = next(subject for subject in SUBJECTS if split.standing("held", subject) is Standing.DRAWN)
    assert split.standing("aimed", free, country="US", age=20) is Standing.DRAWN
    assert split.standing("aimed", free, country="US") is Standing.TARGETING
    assert split.standing("dated", free) is Standing.INACTIVE
    assert split.standing("off", "tester") is Standing.DISABLED
    assert split.standing("team", free) is Standing.UNIT
    assert split.of("team", free, team="red") == "b"
    assert {split.of("team", subject, team="blue") for subject in SUBJECTS[:40]} <= {
        "",
        split.of("team", free, team="blue"),
    }
    assert (split.of("forced", "tester"), split.standing("forced", "tester")) == ("b", Standing.FORCED)
    assert split.of("forced", free) == ""


def test_who_is_in_the_holdout_of_all_is_in_no_experiment() -> None:
    split = Split(
        """
  one: {decision: d, variants: {a: 1, b: 1}}
  two: {decision: d, layer: x, variants: {a: 1, b: 1}}
""",
        "holdout: {share: 0.3}",
    )
    assert all(bool(split.of("one", subject)) == bool(split.of("two", subject)) for subject in SUBJECTS)


def test_an_operator_switches_an_experiment_off_for_all_and_rules_see_it() -> None:
    snapshot = snapshot_of("  e: {decision: d, variants: {a: 1, b: 1}, forced: {a: [tester]}}")
    active = active_of(snapshot, None)  # type: ignore[arg-type]  # no features are read
    override = Override(kind="experiment", name="e", since=0, until=NOW + DAY, reason="it hurts")
    off = switched(active, [override])
    assert off.experiments is not None
    view = View({}, {}, {}, NOW)
    outcome = Assigned(off.experiments, "tester").outcome("e", view)
    assert (outcome.variant, outcome.standing) == ("", Standing.OVERRIDDEN)
    assert "it hurts" in outcome.detail
    back = switched(off, [])
    assert back.experiments is not None
    assert Assigned(back.experiments, "tester").of("e", view) == "a"


# Decisions.

RULES = """
rules:
  - {id: vip, decision: d, priority: 9, when: profile.vip, then: {action: show, params: {w: vip}}}
  - {id: short, decision: d, priority: 2, when: experiments.copy == "short", then: {action: show, params: {w: short}}}
  - {id: tone, decision: d, priority: 1, when: profile.tone, then: {action: show, params: {w: "${experiments.tone}"}}}
  - {id: plain, decision: d, then: {action: show, params: {w: plain}}}
"""
EXPERIMENTS = """
  copy: {decision: d, traffic: 0.6, variants: {control: 1, short: 1, twin: 1}, forced: {short: [tester]}}
  tone: {decision: d, variants: {control: 1, loud: 1}}
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Store.open(tmp_path / "store", map_size=1 << 28, background=False) as store:
        engine = Engine(store, clock=lambda: NOW)
        engine.activate(snapshot_of(EXPERIMENTS, RULES))
        yield engine


def asked(engine: Engine, subject: str, context: dict[str, Any] | None = None, *, explain: bool = False) -> Decision:
    level = ExplainLevel.ALL if explain else ExplainLevel.NONE
    (decision,) = engine.decide(Request(subject, ("d",), NOW, context or {}, explain=level))
    (again,) = engine.decide_batch([Request(subject, ("d",), NOW, context or {}, explain=level)])[0]  # type: ignore[misc]
    assert again == decision
    return decision


def test_a_decision_names_the_experiments_that_mattered_in_every_variant_alike(engine: Engine) -> None:
    seen = set()
    for subject in SUBJECTS[:200]:
        decision = asked(engine, subject)
        (treatment,) = decision.treatments
        variant = variant_of(engine, subject)
        seen.add(variant)
        assert treatment.rule_id == ("short" if variant == "short" else "plain")
        # Control and its twin differ from `short`, so who is in them is exposed as well.
        assert decision.experiments == ({"copy": variant} if variant else {})
        assert treatment.variant == variant
        # Control and its twin give the same, so that is given with the probability of both.
        expected = {"": 1, "short": 1 / 3}.get(variant, 2 / 3)
        assert decision.propensity == pytest.approx(expected)
    assert seen == {"", "control", "short", "twin"}


def variant_of(engine: Engine, subject: str) -> str:
    active = engine.current()
    assert active.experiments is not None
    return Assigned(active.experiments, subject).of("copy", View({}, {}, {}, NOW))


def test_an_experiment_that_another_rule_hides_does_not_matter(engine: Engine) -> None:
    subject = next(each for each in SUBJECTS if variant_of(engine, each) == "short")
    engine.store.update(Update(subject_id=subject, set={"vip": True})).result()
    decision = asked(engine, subject, explain=True)
    assert [treatment.rule_id for treatment in decision.treatments] == ["vip"]
    assert decision.experiments == {}
    assert decision.treatments[0].variant == ""
    assert [(each.name, each.standing, each.mattered) for each in decision.standings] == [
        ("copy", Standing.DRAWN, False),
        ("tone", Standing.DRAWN, False),
    ]


def test_several_experiments_that_matter_are_all_named(engine: Engine) -> None:
    subject = next(each for each in SUBJECTS if variant_of(engine, each) == "control")
    engine.store.update(Update(subject_id=subject, set={"tone": True})).result()
    decision = asked(engine, subject, explain=True)
    assert set(decision.experiments) == {"copy", "tone"}
    assert decision.treatments[0].params == {"w": decision.experiments["tone"]}
    assert decision.treatments[0].variant == f"control,{decision.experiments['tone']}"
    assert all(each.mattered for each in decision.standings)
    assert decision.propensity == pytest.approx(2 / 3 * 1 / 2)


def test_a_forced_variant_is_given_and_says_nothing_about_chance(engine: Engine) -> None:
    decision = asked(engine, "tester", explain=True)
    assert (decision.treatments[0].rule_id, decision.treatments[0].variant) == ("short", "short")
    assert decision.experiments == {}
    assert decision.standings[0].standing is Standing.FORCED


def test_explanations_agree_with_decisions(engine: Engine) -> None:
    for subject in SUBJECTS[:60]:
        decision = asked(engine, subject, explain=True)
        won = [each.rule_id for each in decision.explanation if each.reason is Reason.WON]
        assert won == [treatment.rule_id for treatment in decision.treatments]


def test_a_model_that_only_another_variant_asks_runs_for_it(engine: Engine) -> None:
    more = """
rules:
  - {id: scored, decision: d, priority: 1, when: [experiments.e == "asks", models.score.s >= 10], then: {action: show}}
"""
    engine.activate(
        snapshot_of("  e: {decision: d, variants: {asks: 1, rests: 1}}", more, {"score": table_model("score")})
    )
    for number, subject in enumerate(SUBJECTS[:40]):
        engine.store.update(Update(subject_id=subject, set={"x": number % 2})).result()
        decision = asked(engine, subject)
        # With x = 0 the model says no: whoever asks it gets what the others get.
        assert bool(decision.experiments) is bool(number % 2)
