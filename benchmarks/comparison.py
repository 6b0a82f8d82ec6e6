"""Which rule is best for a person: asked of Arbiter, zen-engine, durable-rules and generated Python.

The same rules, the same people, answers checked to be equal before anything is timed, all from a dict of the attributes
that the rules read. The people of narrow rules are by turns anybody, and somebody for whom one of the rules was
written.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

from arbiter.snapshot import Snapshot
from benchmarks.conditions import POINT, files_of
from benchmarks.measure import alternate
from benchmarks.population import broad, narrow, narrow_snapshot, profile, rule_set, shoppers
from benchmarks.rivals import correlation, decision_table, generated, ours

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbiter.ruleset.compiled import Point
    from benchmarks.conditions import PlainRule

    Ask = Callable[[Sequence[PlainRule]], Callable[[dict[str, Any]], str]]

SIZES = (10, 100, 1_000, 10_000, 100_000)
BROAD_SIZES = (100, 1_000, 10_000)
PEOPLE = 256
SECONDS = 0.06  # of each subject in each round
OURS = {"ours, best rule": ours.best_rule, "ours, all rules": ours.all_rules, "ours, whole decision": ours.decided}
RIVALS: dict[str, Ask] = {
    "generated Python": generated.ask,
    "generated Python, choosiest first": generated.ask_choosily,
    "zen-engine, created": decision_table.created,
    "zen-engine, loaded": decision_table.loaded,
    "durable-rules": correlation.ask,
}


def run() -> dict[str, Any]:
    """µs by subject and number of rules; who cannot do which size and why; the ratios to ours."""
    results: dict[str, Any] = {"narrow_us": {}, "broad_us": {}, "cannot": {}}
    for size in SIZES:
        rules = narrow(size)
        _measure(f"narrow {size}", narrow_snapshot(size).point(POINT), rules, shoppers(rules, PEOPLE), results)
    draw = random.Random(7)
    anybody = [profile(draw) for _ in range(PEOPLE)]
    for size in BROAD_SIZES:
        rules = broad(size)
        _measure(f"broad {size}", Snapshot(rule_set(files_of(rules)), {}).point(POINT), rules, anybody, results)
    return results | {"ratios": _ratios(results["narrow_us"])}


def _measure(
    name: str, point: Point, rules: list[PlainRule], people: list[dict[str, Any]], results: dict[str, Any]
) -> None:
    """Check that all answer alike, time them by turns, and put what was found into `results`."""
    kind, size = name.split()
    names = decision_table.columns(rules)
    people = [{each: person[each] for each in names} for person in people]
    subjects: dict[str, Callable[[], Any]] = {label: _asking(how(point), people) for label, how in OURS.items()}
    expected = list(map(ours.best_rule(point), people))
    _same("ours, whole decision", expected, map(ours.decided(point), people))
    _same("ours, all rules", expected, (next(iter(ids), "") for ids in map(ours.all_rules(point), people)))
    for label, make in RIVALS.items():
        try:
            best = make(rules)
            _same(label, expected, map(best, people))
        except correlation.TooMuch as error:
            results["cannot"][f"{label}, {name}"] = str(error)
            continue
        subjects[label] = _asking(best, people)
    for label, took in alternate(subjects, SECONDS).items():
        results[f"{kind}_us"].setdefault(label, {})[size] = took


def _asking(ask: Callable[[dict[str, Any]], Any], people: list[dict[str, Any]]) -> Callable[[], Any]:
    following = itertools.cycle(people)
    return lambda: ask(next(following))


def _same(label: str, expected: list[str], answers: Any) -> None:
    for number, (want, got) in enumerate(zip(expected, answers, strict=True)):
        if want != got:
            raise SystemExit(f"{label} answers {got!r} for person {number}, where Arbiter answers {want!r}")


def _ratios(narrow_us: dict[str, dict[str, float]]) -> dict[str, float]:
    """How many times as long as ours the others take, and how ours grows."""
    ours_took = narrow_us["ours, best rule"]
    ratios = {}
    for label, key in {
        "zen-engine, created": "zen_engine_created",
        "zen-engine, loaded": "zen_engine_loaded",
        "durable-rules": "durable_rules",
        "generated Python": "generated_python",
        "generated Python, choosiest first": "generated_python_choosily",
    }.items():
        for size in ("1000", "10000"):
            if size in narrow_us[label]:
                ratios[f"{key}_over_ours_{size}"] = narrow_us[label][size] / ours_took[size]
    for label, key in (("ours, best rule", "best_rule"), ("ours, all rules", "all_rules")):
        ratios[f"{key}_100000_over_100"] = narrow_us[label]["100000"] / narrow_us[label]["100"]
    return ratios
