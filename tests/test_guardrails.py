"""Guardrails: a variant that breaks one is found, and one that keeps to it seldom is, however often one looks."""

from __future__ import annotations

import random
from collections import defaultdict
from statistics import mean
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arbiter.learning.columns import HAPPENED, SCHEMA
from arbiter.learning.effects import Sample, proportions
from arbiter.learning.report.pausing import broken
from arbiter.learning.report.reading import scanned
from arbiter.learning.report.terms import Design
from arbiter.learning.sequential import FEWEST_EVENTS, FEWEST_UNITS, Arm, bounded
from arbiter.ruleset.diff import difference
from arbiter.ruleset.experiments.terms import Experiment, Factor, Guardrail
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.terms import Metric
from arbiter.runtime.admin import PauseExperiment, SetOverride
from arbiter.runtime.loader import Loader
from arbiter.runtime.local import open_local
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arbiter.ruleset.rules import Ruleset

START = 1_790_000_000_000_000
HOUR = 3_600_000_000
RULES = """\
decisions: {home: {default: {action: none}}}
metrics: {bought: {outcome: purchase, within: 1h}}
experiments:
  tone: {decision: home, variants: {control: 1, loud: 1}, guardrails: [{metric: bought, at_least: -0.01}]}
rules:
  - {id: loud, decision: home, when: experiments.tone == "loud", then: {action: shout}}
"""


# Chance. Each run is looked at after every batch of units.


def runs(shares: tuple[float, float], count: int, looks: int, batch: int, seed: int) -> Iterator[list[tuple[Arm, Arm]]]:
    """The arm and the control at each look, of so many runs."""
    chance = np.random.default_rng(seed)
    for _ in range(count):
        sums = [np.cumsum(chance.random(looks * batch) < share) for share in shares]
        found = []
        for units in range(batch, looks * batch + 1, batch):
            arms = []
            for each in sums:
                events = int(each[units - 1])
                share = events / units
                arms.append(Arm(Sample(units, share, share * (1 - share) * units / (units - 1)), events))
            found.append((arms[0], arms[1]))
        yield found


def pauses(found: list[tuple[Arm, Arm]], bound: float, *, binary: bool = True) -> bool:
    seen = (bounded([both], 0.05, binary=binary) for both in found)
    return any(each is not None and each.high < bound for each in seen)


@pytest.mark.parametrize(("control", "bound", "binary"), [(0.1, 0.0, True), (0.3, -0.05, False), (0.01, 0.0, True)])
def test_a_variant_on_its_bound_is_seldom_paused_however_often_one_looks(
    control: float, bound: float, *, binary: bool
) -> None:
    count, looks = 400, 120
    # At one look an interval of the same confidence leaves out what is true in one run of twenty: at some look in many.
    naive = found = 0
    for run in runs((control + bound, control), count, looks, 50, seed=7):
        found += pauses(run, bound, binary=binary)
        naive += any(
            proportions(a.events, a.sample.units, c.events, c.sample.units, 0.9).high < bound
            for a, c in run if a.sample.units >= FEWEST_UNITS
        )  # fmt: skip
    assert naive > 0.1 * count
    assert found <= 0.05 * count


def test_a_harmful_variant_is_paused_and_more_units_are_needed_for_less_harm() -> None:
    assert all(pauses(run, -0.01) for run in runs((0.03, 0.10), 40, 60, 50, seed=1))
    first = [
        mean(
            next(n for n in range(1, 201) if pauses(run[:n], -0.01)) for run in runs((0.1 - harm, 0.1), 10, 200, 100, 3)
        )
        for harm in (0.08, 0.04)
    ]
    assert first[0] < first[1]


def test_too_few_units_and_outcomes_are_not_judged() -> None:
    def arm(units: int, events: int) -> Arm:
        return Arm(Sample(units, events / units, 0.2), events)

    enough = FEWEST_UNITS
    assert bounded([(arm(enough - 1, 0), arm(10 * enough, 90))], 0.05, binary=True) is None
    assert bounded([(arm(enough, 0), arm(10 * enough, FEWEST_EVENTS - 1))], 0.05, binary=True) is None
    assert bounded([(arm(enough, 0), arm(10 * enough, FEWEST_EVENTS))], 0.05, binary=True) is not None
    assert bounded([], 0.05, binary=True) is None


# The log.


def experiment(*guardrails: Guardrail) -> Experiment:
    return Experiment(
        "tone", ("home",), (Factor("", (("control", 1.0), ("loud", 1.0))),), "tone", guardrails=guardrails
    )


class Log:
    """A log of people who come again and again, in part of another snapshot, and buy sooner or later."""

    def __init__(self, folder: Path) -> None:
        chance = random.Random(5)  # noqa: S311 - no secret
        self.decisions: list[dict[str, Any]] = []
        self.outcomes: list[dict[str, Any]] = []
        variants: dict[str, str] = {}
        for number in range(3000):
            who, at = f"s{chance.randrange(900)}", START + number * HOUR // 100
            variant = variants.setdefault(who, chance.choice(["control", "loud"]))
            snapshot = "old" if number < 1000 else chance.choice(["new", "same"])
            self.decisions.append(
                {"id": f"d{number}", "at": at, "subject": who, "snapshot": snapshot, "variant": variant,
                 "exposed": chance.random() < 0.9}
            )  # fmt: skip
            for _ in range(chance.randrange(3) if variant == "control" or chance.random() < 0.3 else 0):
                self.outcomes.append(
                    {"decision": f"d{number}", "decided_at": at, "value": float(chance.randrange(1, 9)),
                     "at": at + chance.randrange(-HOUR // 9, 2 * HOUR)}
                )  # fmt: skip
        decisions = [
            {"id": each["id"], "at": from_micros(each["at"]), "subject": each["subject"], "point": "home", "won": [],
             "snapshot": each["snapshot"], "defaulted": True, "inputs": "{}",
             "experiments": [{"experiment": "tone", "variant": each["variant"], "exposed": each["exposed"]}]}
            for each in self.decisions
        ]  # fmt: skip
        outcomes = [
            {"kind": "outcome", "name": "purchase", "decision": each["decision"], "at": from_micros(each["at"]),
             "decided_at": from_micros(each["decided_at"]), "recorded": from_micros(each["at"]), "value": each["value"]}
            for each in self.outcomes
        ]  # fmt: skip
        self.files = folder / "decisions.parquet", folder / "outcomes.parquet"
        pq.write_table(pa.Table.from_pylist(decisions, SCHEMA), self.files[0])
        pq.write_table(pa.Table.from_pylist(outcomes, HAPPENED), self.files[1])
        self.spill = folder / "spill"

    def figures(self, take: str, since: int, now: int, snapshot: str = "") -> dict[tuple[str, str], list[float]]:
        """By design and variant what settled units have, counted one by one."""
        came: dict[str, dict[str, Any]] = {}
        of = {each["id"]: each for each in self.decisions if each["exposed"] and each["at"] >= since}
        for each in of.values():
            if snapshot in {"", each["snapshot"]}:
                came.setdefault(each["subject"], each)
        values: dict[str, list[float]] = defaultdict(list)
        for each in self.outcomes:
            decision = of.get(each["decision"])
            first = came.get(decision["subject"]) if decision else None
            if decision and first and first["at"] <= decision["at"] <= each["at"] < first["at"] + HOUR:
                values[decision["subject"]].append(each["value"])
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for who, first in came.items():
            if first["at"] + HOUR <= now:
                made = {"any": float(bool(values[who])), "count": float(len(values[who])), "sum": sum(values[who])}
                found["old" if first["snapshot"] == "old" else "new", first["variant"]].append(made[take])
        return found

    def broken(self, take: Any, since: int, now: int, guardrail: Guardrail, snapshot: str = "") -> Any:
        weights = {"old": {"control": 1.0, "loud": 1.0}, "new": {"control": 1.0, "loud": 2.0}}
        metrics = {"bought": Metric("bought", "purchase", HOUR, take)}

        def design_of(snapshot: str) -> Design:
            return Design(weights["old" if snapshot == "old" else "new"])

        with scanned([self.files[0]], [self.files[1]], 64, self.spill) as records:
            return broken(records, experiment(guardrail), metrics, design_of, since, now, snapshot)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return Log(tmp_path_factory.mktemp("guardrails"))


@pytest.mark.parametrize("take", ["any", "count", "sum"])
@pytest.mark.parametrize(
    ("since", "now"), [(0, START + 99 * HOUR), (0, START + 20 * HOUR), (START + HOUR, START + 99 * HOUR)]
)
def test_a_unit_counts_once_by_what_came_in_time_of_its_first_decision(
    log: Log, take: str, since: int, now: int
) -> None:
    found = log.broken(take, since, now, Guardrail("bought", at_least=-0.01, confidence=0.9))
    by = log.figures(take, since, now)
    strata = [s for s in ("old", "new") if min(len(by[s, "loud"]), len(by[s, "control"])) >= FEWEST_UNITS]
    units = {each: sum(len(by[s, each]) for s in strata) for each in ("loud", "control")}
    assert (found.found.units, found.found.others) == (units["loud"], units["control"])
    whole = sum(units.values())
    for variant, figure in (("loud", found.found.arm), ("control", found.found.control)):
        shares = {s: (len(by[s, "loud"]) + len(by[s, "control"])) / whole for s in strata}
        assert figure == pytest.approx(sum(shares[s] * mean(by[s, variant]) for s in strata))
    assert found.found.low < found.found.difference < found.found.high < -0.01
    assert "`bought` of variant `loud`" in found.said


def test_a_canary_is_judged_by_who_came_by_it(log: Log) -> None:
    late = START + 99 * HOUR
    found = log.broken("any", 0, late, Guardrail("bought", at_least=-0.01, confidence=0.9), "same").found
    by = log.figures("any", 0, late, "same")
    for variant, units, figure in (("loud", found.units, found.arm), ("control", found.others, found.control)):
        assert units == len(by["new", variant])
        assert figure == pytest.approx(mean(by["new", variant]))
    assert log.broken("any", 0, late, Guardrail("bought", at_least=-0.01, confidence=0.9), "other") is None


def test_what_keeps_to_its_bound_and_what_is_not_settled_pauses_nothing(log: Log) -> None:
    late = START + 99 * HOUR
    assert log.broken("any", 0, late, Guardrail("bought", at_least=-0.99)) is None
    assert log.broken("any", 0, late, Guardrail("bought", at_most=0.0)) is None
    assert log.broken("any", 0, START + HOUR - 1, Guardrail("bought", at_least=-0.01)) is None
    assert log.broken("any", late, 2 * late, Guardrail("bought", at_least=-0.01)) is None
    most = log.broken("any", 0, late, Guardrail("bought", at_most=-0.99))
    assert "may be at most -0.99" in most.said


# Rule files and orders.


def test_a_diff_says_what_guardrails_were_and_are() -> None:
    def read(rules: str) -> Ruleset:
        ruleset, found = load_ruleset({"r.yaml": rules.encode()}, {})
        assert ruleset is not None, found
        return ruleset

    [changed] = difference(read(RULES), read(RULES.replace("-0.01}", "-0.02, confidence: 0.9}"))).experiments.changed
    [change] = changed.changes
    assert (changed.name, change.field) == ("tone", "guardrails")
    assert change.before == "metric bought, at_least -0.01, confidence 0.95"
    assert change.after == "metric bought, at_least -0.02, confidence 0.9"


def test_what_was_seen_before_it_was_switched_on_again_pauses_nothing(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(RULES)
    engine, admin = open_local(tmp_path / "rules", None, tmp_path / "data")
    pause = PauseExperiment(name="tone", since=0, reason="worse")
    try:
        [standing] = admin.carry_out(pause).overrides
        assert (standing.kind, standing.name, standing.reason) == ("experiment", "tone", "worse")
        assert admin.carry_out(msgspec.structs.replace(pause, reason="again")).overrides == (standing,)
        cleared = engine.clock()
        admin.carry_out(SetOverride(kind="experiment", name="tone", until=0))
        assert admin.carry_out(pause).overrides == ()
        resumed = admin._desk.standing.resumed["tone"]
        assert resumed >= cleared
        [standing] = admin.carry_out(msgspec.structs.replace(pause, since=resumed)).overrides
        assert standing.reason == "worse"
    finally:
        engine.store.close()


def test_guardrails_that_nothing_sees_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RULES)
    attempt = Loader(tmp_path, None, None, logged=False).load()
    [warning] = attempt.diagnostics
    assert attempt.built is not None
    assert (warning.severity, warning.line, warning.column) == ("warning", 4, 3)
    assert "no decision log" in warning.message
    assert Loader(tmp_path, None, None, logged=True).load().diagnostics == ()
