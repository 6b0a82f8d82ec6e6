"""Runs tests against one snapshot.

Law: pure, and no short cuts: events are counted by the code that counts stored ones, the walk decides, the explanation
explains. What a test says of features, models and segments stands in for what would be computed, nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.decision.explain import explain
from arbiter.decision.walk import Need, Walk
from arbiter.expr.tree import Const, Expression
from arbiter.expr.view import View
from arbiter.models.model import ModelFailure
from arbiter.profiles.features import FeatureSet
from arbiter.ruletests.compare import Mismatch, compare
from arbiter.ruletests.given import change_times

# Fields' types at run time.
from arbiter.ruletests.spec import RuleTest  # noqa: TC001
from arbiter.snapshot import Snapshot
from arbiter.types import Decision, Event, ExplainLevel, Treatment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.ruleset.compiled import Point


class Result(msgspec.Struct, frozen=True):
    """What became of a test: it passed when there is no mismatch. `broken` says which model failed, if one did.

    `decisions` are explained where that was asked for, or where something did not come true.
    """

    test: RuleTest
    decisions: tuple[Decision, ...]
    mismatches: tuple[Mismatch, ...]
    broken: str = ""

    @property
    def passed(self) -> bool:
        """Whether all came true."""
        return not self.mismatches and not self.broken


class Runner:
    """Runs tests, one after another. Nothing is left of one for the next."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._features = FeatureSet(snapshot.frame.features)
        self._variants: dict[tuple[frozenset[tuple[str, bool]], tuple[str, ...]], Snapshot] = {}

    def run(self, test: RuleTest, *, explained: bool = False) -> Result:
        """Decide, and compare with what is expected. `explained` explains every rule, mismatch or not."""
        page = _Page(self._snapshot_for(test), self._features, test)
        try:
            wanted = explained or any(expected.reasons for expected in test.expected)
            decisions = page.decide(explained=wanted)
            mismatches = compare(test, decisions)
            if mismatches and not wanted:
                decisions = page.decide(explained=True)
                mismatches = compare(test, decisions)
        except ModelFailure as error:
            return Result(test, (), (), str(error))
        return Result(test, decisions, mismatches)

    def _snapshot_for(self, test: RuleTest) -> Snapshot:
        """The snapshot, or one of the rules that are asked, where segments are what the test says."""
        if not test.segments:
            return self._snapshot
        key = (frozenset(test.segments.items()), test.decisions)
        if key not in self._variants:
            whole = self._snapshot.ruleset
            segments = [
                msgspec.structs.replace(segment, condition=_constant(segment.condition, test.segments[segment.name]))
                if segment.name in test.segments
                else segment
                for segment in whole.segments
            ]
            ruleset = msgspec.structs.replace(
                whole,
                segments=tuple(segments),
                decisions=tuple(point for point in whole.decisions if point.name in test.decisions),
                rules=tuple(rule for rule in whole.rules if rule.decision in test.decisions),
            )
            self._variants[key] = Snapshot(ruleset, self._snapshot.models)
        return self._variants[key]


def _constant(condition: Expression, value: bool) -> Expression:  # noqa: FBT001 - it is the value
    return Expression(condition.source, Const("bool", value), "bool", condition.position, ())


class _Page:
    """The decisions of one test, from one profile."""

    def __init__(self, snapshot: Snapshot, features: FeatureSet, test: RuleTest) -> None:
        self._snapshot = snapshot
        self._test = test
        in_order = sorted(test.events, key=_time)

        def events(first: int | None, last: int | None) -> Iterable[Event]:
            return [e for e in in_order if (first is None or e.at >= first) and (last is None or e.at <= last)]

        readings = features.read(features.complete({}, test.now, events), test.now, events)
        self._changes = change_times(test, readings.changed)
        self._view = View(test.profile, test.context, readings.values | test.features, test.now)
        self._view.models.update(test.models)

    def decide(self, *, explained: bool) -> tuple[Decision, ...]:
        """One decision per point, each without what the ones before it delivered. Raises ModelFailure."""
        delivered: list[Treatment] = []
        decisions: list[Decision] = []
        for name in self._test.decisions:
            decision = self._decide(self._snapshot.point(name), tuple(delivered), explained=explained)
            decisions.append(decision)
            delivered += decision.treatments
        return tuple(decisions)

    def _decide(self, point: Point, delivered: tuple[Treatment, ...], *, explained: bool) -> Decision:
        test, view = self._test, self._view
        walk = Walk(point, view, test.subject_id, test.slots, delivered, None, self._change_times)
        outcome = walk.advance()
        while isinstance(outcome, Need):
            self._score(outcome.models)
            outcome = walk.advance()
        if not explained:
            return outcome
        self._score(point.models)
        reasons = explain(
            point, view, test.subject_id, test.slots, delivered, self._change_times, ExplainLevel.ALL
        )  # fmt: skip
        return msgspec.structs.replace(outcome, explanation=reasons)

    def _change_times(self) -> dict[str, int]:
        return self._changes

    def _score(self, models: Iterable[str]) -> None:
        """Put the outputs of these models into the view, where the test does not say them."""
        for name in models:
            if name in self._view.models:
                continue
            model, row = self._snapshot.models[name], self._snapshot.rows[name](self._view)
            answer: tuple[Any, ...] = () if row is None else model.run_one(row)
            self._view.models[name] = {
                output: value for output, value in zip(model.outputs, answer, strict=False) if value is not None
            }


def _time(event: Event) -> int:
    return event.at
