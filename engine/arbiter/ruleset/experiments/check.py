"""What is wrong between experiments and those that read them, through segments too.

Law: looks at what was read; reads no nodes, save to point at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.ruleset.render import expressions_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.authoring.nodes import Entry, Scalar
    from arbiter.authoring.report import Report
    from arbiter.expr.tree import Expression
    from arbiter.ruleset.experiments.terms import Experiment
    from arbiter.ruleset.rules import Rule, Segment

Path = tuple[str, ...]
MOST_KEPT: Final = 96
"""Bytes of names and variants of sticky experiments at a decision: each decision's id has room for so many."""


class Through(msgspec.Struct, frozen=True):
    """What segments read of `roots`, through each other: by segment the names."""

    found: Mapping[str, frozenset[Path]]

    def of(self, expressions: Iterable[Expression]) -> frozenset[Path]:
        """What expressions read, through segments."""
        names = {name for expression in expressions for name in expression.names}
        return frozenset(names).union(*(self.found.get(n[1], ()) for n in names if n[0] == "segments"))


def through(segments: Iterable[Segment]) -> Through:
    """What segments read, those that they name followed."""
    named = {segment.name: segment.condition.names for segment in segments}
    found: dict[str, frozenset[Path]] = {}
    for start in named:
        seen, pending, read = set[str](), [start], set[Path]()
        while pending:
            segment = pending.pop()
            if segment not in seen:
                seen.add(segment)
                read.update(named.get(segment, ()))
                pending += [path[1] for path in named.get(segment, ()) if path[0] == "segments"]
        found[start] = frozenset(read)
    return Through(found)


def report_targeting(
    experiments: Iterable[Experiment], entries: Mapping[str, Entry], segments: Through, report: Report
) -> None:
    """Report experiments whose targeting reads a model or an experiment through segments."""
    for each in experiments:
        for path in sorted(segments.of(each.when)):
            if path[0] in {"models", "experiments"}:
                message = f"the targeting of `{each.name}` reads `{'.'.join(path)}` through a segment"
                hint = "target by what is stored; a rule may ask for both"
                report.at(entries[each.name].key, message, hint, f"experiments.{each.name}.when")


def report_kept(experiments: Iterable[Experiment], entries: Mapping[str, Entry], report: Report) -> None:
    """Report the sticky experiments of a decision of which the variants have no room in the ids of its decisions."""
    taken: dict[str, int] = {}
    for each in experiments:
        if not each.sticky or not each.factors:
            continue
        size = len(each.name.encode()) + max(map(len, each.variants))
        for decision in each.decisions:
            taken[decision] = taken.get(decision, 0) + size
            if taken[decision] > MOST_KEPT:
                message = (
                    f"the names and variants of the sticky experiments of `{decision}` come to {taken[decision]} bytes "
                    f"with this one; at most {MOST_KEPT} are allowed"
                )
                report.at(entries[each.name].key, message, "take shorter names", f"experiments.{each.name}.sticky")


def report_strangers(
    rules: Iterable[Rule],
    ids: Mapping[str, tuple[Scalar, str]],
    decisions: Mapping[str, tuple[str, ...]],
    segments: Through,
    report: Report,
) -> None:
    """Report rules that read an experiment which is not for their decision. `decisions` are those of each experiment,
    `ids` where rules and tables say what they are called.
    """
    if not decisions:
        return
    for rule in rules:
        written = [*rule.when, *(e for param in rule.then.params.values() for e in expressions_of(param))]
        read = segments.of([*written, *([rule.value] if rule.value is not None else [])])
        for name in sorted({path[1] for path in read if path[0] == "experiments"}):
            if name in decisions and rule.decision not in decisions[name]:
                scalar, path = ids[rule.table or rule.id]
                message = f"this reads `experiments.{name}`, which is not for `{rule.decision}`"
                hint = f"add `{rule.decision}` to `experiments.{name}.decision`"
                report.at(scalar, message, hint, path)
