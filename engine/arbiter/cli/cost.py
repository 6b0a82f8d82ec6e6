"""`arbiter check --cost`: of each rule what the index answers, and what typical decisions take on this machine.

Law: draws subjects around the constants of the rules, decides for each as a server would, and prints. Figures are of
one thread and of the decision alone: no transport, no profile read.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.cli.terminal import out, plural, print_json, print_table
from arbiter.decision.walk import Need, Walk
from arbiter.lint.authored import Declarations, allowed_of
from arbiter.lint.cost import RuleCost, inputs_of, rule_costs
from arbiter.lint.order import Ranks
from arbiter.lint.space import Space, Trees
from arbiter.lint.subjects import Subject, subject_at, view_of
from arbiter.models.failure import ModelFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arbiter.ruleset.rules import DecisionPoint
    from arbiter.snapshot import Snapshot

_SUBJECTS: Final = 2_000
_WARM: Final = 100
_SHARE_MISSING: Final = 0.1
_ELEMENT: Final = 0.3
_LARGEST: Final = 20  # a model's input that no rule compares is a number up to this
_TOLD: Final = 100  # rules; of more only those with something to tell are listed


class Timing(msgspec.Struct, frozen=True):
    """Microseconds."""

    median: float
    p99: float


class PointCost(msgspec.Struct, frozen=True):
    """What decisions at one point took: `match` to ask the whole index, `whole` from question to answer.

    `survivors` are the ways that passed the index, on average; `share_with_models` is that of decisions for which a
    model ran.
    """

    decision: str
    rules: int
    subjects: int
    match: Timing
    whole: Timing
    survivors: float
    most_survivors: int
    share_with_models: float
    share_defaulted: float


def print_costs(snapshot: Snapshot, *, as_json: bool) -> None:
    """Measure, and print what came of it."""
    rules = list(rule_costs(snapshot))
    points = [_measured(snapshot, point) for point in snapshot.ruleset.decisions]
    if as_json:
        print_json({"decisions": points, "rules": rules})
        return
    _print_points(points)
    _print_rules(rules)


def _print_points(points: Sequence[PointCost]) -> None:
    heads = ("decision", "rules", "match µs", "p99", "decide µs", "p99", "survivors", "run a model", "default")
    rows = [
        (
            each.decision, f"{each.rules:,}", f"{each.match.median:.1f}", f"{each.match.p99:.1f}",
            f"{each.whole.median:.1f}", f"{each.whole.p99:.1f}", f"{each.survivors:.1f}, most {each.most_survivors:,}",
            f"{each.share_with_models:.0%}", f"{each.share_defaulted:.0%}",
        )
        for each in points
    ]  # fmt: skip
    print_table(heads, rows, title=f"Typical decisions: {_SUBJECTS:,} subjects drawn around the rules' own constants")


def _print_rules(rules: Sequence[RuleCost]) -> None:
    told = [each for each in rules if each.residual or each.models] if len(rules) > _TOLD else list(rules)
    rows = [
        (
            each.rule + ("" if each.enabled else " (off)"),
            f"{plural(each.tests, 'test')}, {plural(each.ways, 'way')}",
            "; ".join(f"{part.text} ({part.why})" for part in each.residual),
            ", ".join(each.models),
        )
        for each in told
    ]
    if rows:
        print_table(("rule", "in the index", "left to check", "may run"), rows, title="Rules", prose=("left to check",))
    whole = sum(not each.residual for each in rules)
    out().print(f"{plural(whole, 'rule')} of {len(rules):,} are answered by the index alone", style="bold")


def _measured(snapshot: Snapshot, declared: DecisionPoint) -> PointCost:
    point = snapshot.points[declared.name]
    matches: list[int] = []
    wholes: list[int] = []
    survivors: list[int] = []
    asked = defaulted = 0
    for number, subject in enumerate(_subjects(snapshot, declared)):
        view = view_of(snapshot, subject)
        begun = time.perf_counter_ns()
        masks = [mask for _, mask in point.index.survivors(view)]
        matched = time.perf_counter_ns()
        walk = Walk(point, view, subject.id)
        models = False
        while isinstance(outcome := walk.advance(), Need):
            models = True
            for name in outcome.models:
                view.models[name] = _scores(snapshot, name, view)
        decided = time.perf_counter_ns()
        if number < _WARM:
            continue  # the first calls compile what they check
        matches.append(matched - begun)
        wholes.append(decided - matched)
        survivors.append(sum(mask.bit_count() for mask in masks))
        asked += models
        defaulted += outcome.defaulted
    return PointCost(
        decision=declared.name,
        rules=sum(rule.enabled for rule in point.all_rules),
        subjects=len(wholes),
        match=_timing(matches),
        whole=_timing(wholes),
        survivors=statistics.fmean(survivors),
        most_survivors=max(survivors),
        share_with_models=asked / len(wholes),
        share_defaulted=defaulted / len(wholes),
    )


def _timing(nanoseconds: list[int]) -> Timing:
    ordered = sorted(nanoseconds)
    return Timing(statistics.median(ordered) / 1000, ordered[int(len(ordered) * 0.99)] / 1000)


def _scores(snapshot: Snapshot, name: str, view: Any) -> dict[str, Any]:
    """The outputs of a model, as a server would put them into a view."""
    try:
        row = snapshot.rows[name](view)
        return {} if row is None else dict(snapshot.models[name].score(row))
    except ModelFailure:
        return {}


def _subjects(snapshot: Snapshot, declared: DecisionPoint) -> Iterator[Subject]:
    """Subjects whose values lie at, between and beside the constants of the rules; the same ones each time."""
    draw = random.Random(declared.name)  # noqa: S311 - no secret
    trees = Trees(snapshot.symbols)
    rules = [rule for rule in snapshot.ruleset.rules if rule.decision == declared.name]
    allowed = allowed_of(snapshot.ruleset, Declarations({}, {}), snapshot.models)
    now = time.time_ns() // 1000
    space = Space(Ranks(declared, rules, trees).rules, trees, allowed, now)
    inputs = sorted(
        path for path in inputs_of(snapshot, declared.name) if path[0] in {"profile", "account", "context", "features"}
    )
    for number in range(_SUBJECTS + _WARM):
        point = {}
        for place, domain in enumerate(space.domains):
            if space.element(place) is not None:
                point[place] = 0 if draw.random() < _ELEMENT else 1
            elif domain.missing and draw.random() < _SHARE_MISSING:
                point[place] = domain.usual
            else:
                usable = [cell for cell in range(domain.everything.bit_length()) if domain.everything >> cell & 1]
                point[place] = draw.choice([c for c in usable if c != domain.usual] or usable)
        found = subject_at(space, point)
        for root, name in inputs:
            values = getattr(found, root)
            if (root, name) not in space.paths and _is_number(snapshot, root, name):
                values[name] = float(draw.randint(0, _LARGEST))
        yield msgspec.structs.replace(found, id=f"s{number}", models={})


def _is_number(snapshot: Snapshot, root: str, name: str) -> bool:
    if root == "features":
        return any(f.name == name and f.type in {"int", "double"} for f in snapshot.ruleset.features)
    types: dict[str, str] = getattr(snapshot.ruleset, f"{root}_types")
    return types.get(name) in {"int", "double"}
