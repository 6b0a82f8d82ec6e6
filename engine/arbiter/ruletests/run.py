"""Runs tests against one snapshot.

Law: pure, and no short cuts: events are counted by the code that counts stored ones, the walk decides, the explanation
explains. What a test says of features, models, segments and experiments stands in for what would be computed, nothing
else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.decision.assignment import Assigned, Assigners
from arbiter.decision.explain import explain
from arbiter.decision.walk import Need, Walk
from arbiter.expr.tree import Const, Expression
from arbiter.expr.view import View
from arbiter.models.failure import ModelFailure
from arbiter.profiles.features import FeatureSet, Readings
from arbiter.ruletests.compare import Mismatch, compare
from arbiter.ruletests.firings import compare_firings
from arbiter.ruletests.given import change_times
from arbiter.ruletests.overtime import Course, Triggers

# Fields' types at run time.
from arbiter.ruletests.spec import RuleTest  # noqa: TC001
from arbiter.snapshot import Snapshot
from arbiter.types import Decision, Event, ExplainLevel, RuleOutcome, Treatment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.ruleset.compiled import Point


class Result(msgspec.Struct, frozen=True):
    """What became of a test: it passed when there is no mismatch. `broken` says which model failed, if one did.

    `decisions` explain the rules that the test names, those that tell why something did not come true, and those that
    matched, where that was asked for. `course` is what triggers did, where the test is about them.
    """

    test: RuleTest
    decisions: tuple[Decision, ...]
    mismatches: tuple[Mismatch, ...]
    broken: str = ""
    course: Course | None = None

    @property
    def passed(self) -> bool:
        """Whether all came true."""
        return not self.mismatches and not self.broken


class Runner:
    """Runs tests, one after another. Nothing is left of one for the next."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._features = FeatureSet(snapshot.frame.computed)
        self._managed = frozenset(snapshot.frame.managed)
        self._triggers: dict[Snapshot, Triggers] = {}
        self._variants: dict[tuple[frozenset[tuple[str, bool]], tuple[str, ...]], Snapshot] = {}

    def run(self, test: RuleTest, *, explained: bool = False) -> Result:
        """Decide, and compare with what is expected. `explained` tells of every rule that matched."""
        snapshot, course, mismatches = self._snapshot_for(test), _beginning(test), tuple[Mismatch, ...]()
        if test.foreseen is not None:
            self._triggers_of(snapshot).run(course, test.now, _Looking(snapshot, self._features, test).view)
            mismatches = tuple(compare_firings(test.foreseen, course))
        page = _Page(snapshot, self._features, test, course)
        told = course if test.foreseen is not None else None
        named = {
            point: frozenset(reason.rule for reason in expected.reasons)
            for point, expected in zip(test.decisions, test.expected, strict=True)
        }
        try:
            decisions = page.decide(named, matched=explained)
            unlike = compare(test, decisions)
            for mismatch in unlike:
                named[mismatch.decision] |= frozenset(mismatch.rules)
            if unlike:
                decisions = page.decide(named, matched=explained)
        except ModelFailure as error:
            return Result(test, (), (), str(error), told)
        return Result(test, decisions, (*mismatches, *unlike), course=told)

    def _triggers_of(self, snapshot: Snapshot) -> Triggers:
        if snapshot not in self._triggers:
            self._triggers[snapshot] = Triggers(snapshot)
        return self._triggers[snapshot]

    def _snapshot_for(self, test: RuleTest) -> Snapshot:
        """The snapshot, or one of the rules that are asked, where segments are what the test says."""
        said = {name: value for name, value in test.segments.items() if name not in self._managed}
        if not said:
            return self._snapshot
        key = (frozenset(said.items()), test.decisions)
        if key not in self._variants:
            whole = self._snapshot.ruleset
            segments = [
                msgspec.structs.replace(segment, condition=_constant(segment.condition, said[segment.name]))
                if segment.name in said
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


def _beginning(test: RuleTest) -> Course:
    """The subject of a test before anything happens."""
    return Course(test.profile, {name: True for name, value in test.segments.items() if value}, [*test.events])


class _Looking:
    """Looks at the subject of a test: features are counted from its events up to the moment."""

    def __init__(self, snapshot: Snapshot, features: FeatureSet, test: RuleTest) -> None:
        self._snapshot = snapshot
        self._features = features
        self._test = test

    def reading(self, course: Course, now: int) -> Readings:
        """The features at a µs time."""
        in_order = sorted((event for event in course.events if event.at <= now), key=_time)

        def events(first: int | None, last: int | None) -> Iterable[Event]:
            return [e for e in in_order if (first is None or e.at >= first) and (last is None or e.at <= last)]

        return self._features.read(self._features.complete({}, now, events), now, events)

    def view(self, course: Course, now: int, readings: Readings | None = None) -> View:
        """What expressions see of it at a µs time."""
        test, snapshot = self._test, self._snapshot
        counted = readings if readings is not None else self.reading(course, now)
        values = self._features.said(counted.values, test.features)
        profile = snapshot.frame.defaults_of("profile") | course.profile
        account = snapshot.frame.defaults_of("account") | test.account
        view = View(profile, test.context, values, now, account)
        view.models.update(test.models)
        view.managed = course.managed
        if snapshot.consent is not None:
            snapshot.consent.cover(view, test.granted)
        assigners = Assigners(snapshot.frame.experiments, snapshot.symbols)
        view.experiments = Assigned(assigners, test.subject_id, test.experiments)
        return view


class _Page:
    """The decisions of one test, from one profile."""

    def __init__(self, snapshot: Snapshot, features: FeatureSet, test: RuleTest, course: Course) -> None:
        self._snapshot = snapshot
        self._test = test
        looking = _Looking(snapshot, features, test)
        readings = looking.reading(course, test.now)
        self._changes = change_times(test, readings.changed)
        self._view = looking.view(course, test.now, readings)

    def decide(self, named: Mapping[str, frozenset[str]], *, matched: bool) -> tuple[Decision, ...]:
        """One decision per point, each without what the ones before it delivered. Raises ModelFailure.

        They explain what became of the rules that are `named`, by point, and of those that `matched`.
        """
        delivered: list[Treatment] = []
        decisions: list[Decision] = []
        for name in self._test.decisions:
            point, before = self._snapshot.point(name), tuple(delivered)
            decision = self._decide(point, before)
            outcomes = self._explain(point, before, ExplainLevel.LOSERS) if matched else ()
            if named[name]:
                told = {outcome.rule_id for outcome in outcomes}
                asked = self._explain(point, before, ExplainLevel.ALL, tuple(named[name]))
                outcomes += tuple(outcome for outcome in asked if outcome.rule_id not in told)
            decisions.append(msgspec.structs.replace(decision, explanation=outcomes))
            delivered += decision.treatments
        return tuple(decisions)

    def _decide(self, point: Point, delivered: tuple[Treatment, ...]) -> Decision:
        test = self._test
        walk = Walk(point, self._view, test.subject_id, test.slots, delivered, None, self._change_times)
        outcome = walk.advance()
        while isinstance(outcome, Need):
            self._score(outcome.models)
            outcome = walk.advance()
        return outcome

    def _explain(
        self, point: Point, delivered: tuple[Treatment, ...], level: ExplainLevel, only: tuple[str, ...] = ()
    ) -> tuple[RuleOutcome, ...]:
        self._score(point.models)
        test = self._test
        return explain(point, self._view, test.subject_id, test.slots, delivered, self._change_times, level, only)

    def _change_times(self) -> dict[str, int]:
        return self._changes

    def _score(self, models: Iterable[str]) -> None:
        """Put the outputs of these models into the view, where the test does not say them."""
        for name in models:
            if name in self._view.models:
                continue
            model, row = self._snapshot.models[name], self._snapshot.rows[name](self._view)
            self._view.models[name] = {} if row is None else model.score(row)


def _time(event: Event) -> int:
    return event.at
