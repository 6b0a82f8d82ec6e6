"""What is declared and nothing uses: segments, experiments, features, actions, models.

Law: names only; whether something that is used ever matters is not asked. Attributes and events that no rule reads are
no finding: they are declared for who sends them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.expr.syntax import walk
from arbiter.expr.tree import Name
from arbiter.lint.finding import Finding
from arbiter.ruleset.patterns.read import rendered
from arbiter.ruleset.render import expressions_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from arbiter.expr.tree import AnyNode
    from arbiter.ruleset.rules import Rule, Ruleset
    from arbiter.snapshot import Snapshot


def check_names(
    ruleset: Ruleset, snapshot: Snapshot, actions: Mapping[str, str], manifests: Mapping[str, str]
) -> Iterator[Finding]:
    """Findings about names. `actions` has the position of each declared action, `manifests` that of a model."""
    used = _used(ruleset)
    for segment in ruleset.segments:
        if ("segments", segment.name) not in used:
            yield Finding(
                code="unused-segment",
                position=segment.position,
                message=f"no rule uses the segment `{segment.name}`",
                hint="use it, or remove it",
                path=f"segments.{segment.name}",
            )
    yield from _unread_experiments(ruleset, used)
    read = used | {path for paths in snapshot.symbols.model_inputs.values() for path in paths}
    read |= {("features", part) for f in ruleset.features if ("features", f.name) in read for part in f.of}
    for feature in ruleset.features:
        if ("features", feature.name) not in read:
            yield Finding(
                code="unused-feature",
                position=feature.position,
                message=f"nothing reads the feature `{feature.name}`, which is kept for every subject",
                hint="use it, or remove it",
                path=f"features.{feature.name}",
            )
    done = {rule.then.action for rule in ruleset.rules}
    done |= {point.default.action for point in ruleset.decisions if point.default is not None}
    for action, position in actions.items():
        if action not in done:
            yield Finding(
                code="unused-action",
                position=position,
                message=f"no rule and no default has the action `{action}`",
                hint="use it, or remove it",
                path=f"actions.{action}",
            )
    asked = {path[1] for path in used if path[0] == "models"}
    for model, position in manifests.items():
        if model not in asked:
            yield Finding(
                code="unused-model",
                position=position,
                message=f"no rule asks the model `{model}`, which every worker loads",
                hint="use it, or remove its folder",
            )


def _unread_experiments(ruleset: Ruleset, used: set[tuple[str, ...]]) -> Iterator[Finding]:
    for each in ruleset.experiments.each:
        if not any(path[:2] == ("experiments", each.name) for path in used):
            yield Finding(
                code="unused-experiment",
                position=each.position,
                message=f"no rule reads the experiment `{each.name}`, so its variants are all alike",
                hint="use it, or remove it",
                path=f"experiments.{each.name}",
            )


def _used(ruleset: Ruleset) -> set[tuple[str, ...]]:
    """Every name that a rule or a trigger reads, through segments and experiments, these among them."""
    segments = {segment.name: segment.condition.root for segment in ruleset.segments}
    reads = ruleset.experiments.reads
    found: set[tuple[str, ...]] = set()
    pending: list[tuple[str, ...]] = [path for rule in ruleset.rules for path in _reads(rule)]
    for trigger in ruleset.triggers:
        pending += [path for line in (*trigger.when, *rendered(trigger.then)) for path in line.names]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        if path[0] == "segments":
            pending += _names([segments[path[1]]])
        if path[0] == "experiments":
            pending += _names(reads[path[1]])
    return found


def _reads(rule: Rule) -> Iterable[tuple[str, ...]]:
    expressions = [*rule.when, *(e for param in rule.then.params.values() for e in expressions_of(param))]
    expressions += [rule.value] if rule.value is not None else []
    for expression in expressions:
        yield from expression.names
    if rule.rollout is not None and rule.rollout.by != "subject":
        yield tuple(rule.rollout.by.split("."))


def _names(nodes: Iterable[AnyNode]) -> list[tuple[str, ...]]:
    return [n.path for node in nodes for n in walk(node) if isinstance(n, Name)]
