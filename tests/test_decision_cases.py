"""Every case of cases/decisions, through three layers: expression, core, gRPC.

A case is a file named for a behaviour: rule files, a clock, and questions. A question is a subject (attributes, events),
a context, and the decision points asked; beside it stands the whole answer. The layers:

- expression: cel-cpp evaluates each condition on its own; it must agree with the slow evaluator, and with what the case
  says became of the rule;
- core: files → snapshot → view → walk and explain, without store and network;
- gRPC: a real server over a real store, told of the subject by its own calls.

To add a case, write one and run this test: where they differ, it shows what was decided beside what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from arbiter.decision.explain import explain
from arbiter.decision.walk import Need, Walk
from arbiter.expr import cel
from arbiter.expr.evaluate import judge, read
from arbiter.expr.ops import Unknown
from arbiter.expr.view import View
from arbiter.models import Model
from arbiter.profiles.features import FeatureSet, Readings
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.rules import Rule
from arbiter.snapshot import Snapshot
from arbiter.types import Decision, Event, ExplainLevel, Reason, from_micros, to_micros

FOLDER = Path(__file__).parent / "cases" / "decisions"
ENVIRONMENT = cel.Environment(
    dict.fromkeys(("profile", "context", "features", "segments", "models"), "dyn") | {"now": "timestamp"}
)


class Given(msgspec.Struct, forbid_unknown_fields=True):
    """A treatment: `params` and `value` are compared where given."""

    rule: str = ""
    action: str = ""
    params: dict[str, Any] | None = None
    priority: int | None = None
    value: float | None = None


class Became(msgspec.Struct, forbid_unknown_fields=True):
    """What became of a rule: what is given here is compared, the reason always."""

    reason: str
    lost_to: str | None = None
    lost_on: str | None = None
    expression: str | None = None
    values: dict[str, Any] | None = None
    missing: list[str] | None = None
    detail: str | None = None


class Expected(msgspec.Struct, forbid_unknown_fields=True):
    """The whole answer at one decision point. `rules`, where given, names every rule that is explained, in order."""

    treatments: list[Given | str] = []
    defaulted: bool = False
    valid_until: datetime | None | msgspec.UnsetType = msgspec.UNSET
    rules: dict[str, Became | str] | msgspec.UnsetType = msgspec.UNSET


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """One call. `attributes` are one update, or several in turn. `reads` are names and what they are; null: missing."""

    expect: Expected | list[Expected]
    decide: str | list[str] = "d"
    attributes: dict[str, Any] | list[dict[str, Any]] = {}
    events: list[dict[str, Any]] = []
    context: dict[str, Any] = {}
    now: datetime | None = None
    subject: str = ""
    slots: int = 0
    level: str = "all"
    only: list[str] = []
    reads: dict[str, Any] = {}


class Case(msgspec.Struct, forbid_unknown_fields=True):
    """A case file. `twins` gives cel-cpp another text for expressions that are ours alone (mixed arithmetic)."""

    rules: str | dict[str, str]
    asks: list[Question]
    now: datetime = from_micros(1_780_272_000_000_000)  # 2026-06-01T00:00:00Z
    twins: dict[str, str] = {}


def read_case(path: Path) -> Case:
    return msgspec.convert(yaml.safe_load(path.read_text("utf-8")), Case)


CASES = {path.stem: read_case(path) for path in sorted(FOLDER.glob("*.yaml"))}
QUESTIONS = [pytest.param(case, number, id=f"{name}-{number}") for name, case in CASES.items()
             for number in range(len(case.asks))]  # fmt: skip


class Asked(msgspec.Struct):
    """A question with everything that a layer needs."""

    case: Case
    question: Question
    now: int
    subject_id: str
    updates: list[dict[str, Any]]
    attributes: dict[str, Any]
    events: list[Event]
    points: list[str]
    level: ExplainLevel
    expected: list[Expected]


def asked(case: Case, number: int, name: str) -> Asked:
    question = case.asks[number]
    subject_id = question.subject or f"{name} {number}"
    updates = question.attributes if isinstance(question.attributes, list) else [question.attributes]
    events = []
    for position, fields in enumerate(question.events):
        properties = {key: value for key, value in fields.items() if key not in {"type", "at"}}
        events.append(Event(f"e{position}", subject_id, fields["type"], to_micros(fields["at"]), properties))
    return Asked(
        case=case,
        question=question,
        now=to_micros(question.now or case.now),
        subject_id=subject_id,
        updates=updates,
        attributes={key: value for update in updates for key, value in update.items()},
        events=events,
        points=[question.decide] if isinstance(question.decide, str) else question.decide,
        level=ExplainLevel[question.level.upper()],
        expected=question.expect if isinstance(question.expect, list) else [question.expect],
    )


def build(case: Case, models: Mapping[str, Model]) -> Snapshot:
    """The snapshot of a case's files; with the shipped models where the files speak of models."""
    files = {"case.yaml": case.rules} if isinstance(case.rules, str) else case.rules
    used = models if any("models." in text for text in files.values()) else {}
    ruleset, found = load_ruleset(
        {path: text.encode() for path, text in files.items()},
        {name: dict(model.outputs) for name, model in used.items()},
    )
    assert ruleset is not None, "\n".join(diagnostic.render() for diagnostic in found)
    return Snapshot(ruleset, used)


def readings_of(snapshot: Snapshot, question: Asked) -> Readings:
    """The subject's features, counted from its events alone."""
    features = FeatureSet(snapshot.ruleset.features)

    def events(first: int | None, last: int | None) -> list[Event]:
        inside = (e for e in question.events if (first is None or e.at >= first) and (last is None or e.at <= last))
        return sorted(inside, key=lambda e: e.at)

    return features.read(features.complete({}, question.now, events), question.now, events)


def score(snapshot: Snapshot, view: View, names: tuple[str, ...]) -> None:
    for name in names:
        model, row = snapshot.models[name], snapshot.rows[name](view)
        answer = model.run_one(row) if row is not None else [None] * len(model.outputs)
        view.models[name] = {k: v for k, v in zip(model.outputs, answer, strict=True) if v is not None}


def decide_in_core(snapshot: Snapshot, question: Asked) -> list[Decision]:
    readings = readings_of(snapshot, question)
    view = View(question.attributes, question.question.context, readings.values, question.now)
    # Attributes change in the order of their updates.
    changed = {f"profile.{key}": n for n, update in enumerate(question.updates) for key in update}
    changes = changed | {f"features.{key}": at for key, at in readings.changed.items()}
    slots, page, delivered = question.question.slots, [], []
    for name in question.points:
        point = snapshot.point(name)
        walk = Walk(point, view, question.subject_id, slots, tuple(delivered), readings.until, lambda: changes)
        decision = walk.advance()
        while isinstance(decision, Need):
            score(snapshot, view, decision.models)
            decision = walk.advance()
        score(snapshot, view, tuple(m for m in point.models if m not in view.models))
        explanation = explain(
            point, view, question.subject_id, slots, tuple(delivered), lambda: changes, question.level,
            tuple(question.question.only),
        )  # fmt: skip
        page.append(msgspec.structs.replace(decision, explanation=explanation))
        delivered += decision.treatments
    return page


def compare(decisions: list[Decision], question: Asked, snapshot: Snapshot) -> None:
    """Hold decisions against what the case says."""
    assert [d.point for d in decisions] == question.points
    for decision, expected in zip(decisions, question.expected, strict=True):
        shown = [
            Given(
                t.rule_id,
                t.action,
                t.params,
                t.priority if not isinstance(e, str) and e.priority is not None else None,
                t.value if not isinstance(e, str) and e.value is not None else None,
            )
            for t, e in zip(decision.treatments, [*expected.treatments, *[""] * 9], strict=False)
        ]
        wanted = [
            Given(e, s.action, s.params)
            if isinstance(e, str)
            else Given(e.rule, e.action or s.action, s.params if e.params is None else e.params, e.priority, e.value)
            for e, s in zip(expected.treatments, [*shown, *[Given()] * 9], strict=False)
        ]
        assert shown == wanted
        assert [kinds(t.params) for t in shown] == [kinds(t.params) for t in wanted]
        assert decision.defaulted is expected.defaulted
        assert not decision.degraded
        if not isinstance(expected.valid_until, msgspec.UnsetType):
            until = decision.valid_until
            assert (from_micros(until) if until is not None else None) == expected.valid_until
        compare_outcomes(decision, expected)
        explained = [o.rule_id for o in decision.explanation]
        if question.level is ExplainLevel.ALL and not question.question.only:
            assert sorted(explained) == sorted(r.id for r in snapshot.point(decision.point).all_rules)


def compare_outcomes(decision: Decision, expected: Expected) -> None:
    if isinstance(expected.rules, msgspec.UnsetType):
        return
    outcomes = {o.rule_id: o for o in decision.explanation}
    shown, wanted = {}, {}
    for rule_id, outcome in outcomes.items():
        became = expected.rules.get(rule_id, "?")
        if isinstance(became, str):
            became = Became(became)
        shown[rule_id] = Became(
            outcome.reason.name,
            outcome.lost_to if became.lost_to is not None else None,
            outcome.lost_on if became.lost_on is not None else None,
            outcome.expression if became.expression is not None else None,
            outcome.values if became.values is not None else None,
            list(outcome.missing) if became.missing is not None else None,
            outcome.detail if became.detail is not None else None,
        )
        wanted[rule_id] = became
    assert shown == wanted
    assert list(outcomes) == list(expected.rules)


def kinds(value: Any) -> Any:
    """The types inside a value, since Python holds True == 1 == 1.0."""
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in value.items()}
    return [kinds(item) for item in value] if isinstance(value, list) else type(value).__name__


class Oracle:
    """cel-cpp's answers for one subject."""

    def __init__(self, snapshot: Snapshot, question: Asked, view: View) -> None:
        self.twins = question.case.twins
        self.data: dict[str, Any] = {
            "profile": question.attributes,
            "context": question.question.context,
            "features": {},
            "segments": {},
            "models": view.models,
            "now": from_micros(question.now),
        }
        for name in snapshot.symbols.features:
            try:
                self.data["features"][name] = read(("features", name), view, snapshot.symbols)
            except Unknown:
                continue
        # Segments may be built on segments: those that are known so far, again, until nothing is added.
        for _ in snapshot.ruleset.segments:
            for segment in snapshot.ruleset.segments:
                value = self.truth(segment.condition.source)
                if value is not None:
                    self.data["segments"][segment.name] = value

    def truth(self, source: str) -> bool | None:
        """True or False; None for unknown, which is an error in cel-cpp's words."""
        source = self.twins.get(source, source)
        data = dict(self.data)
        for root in ("profile", "context", "features"):
            data[root] = dict(data[root])
            for name, value in data[root].items():
                if isinstance(value, datetime):
                    # cel-cpp's Python face takes no times inside a map.
                    source = re.sub(rf"(?<!has\()\b{root}\.{name}\b", rf"timestamp({root}.{name})", source)
                    data[root][name] = value.isoformat()
        try:
            value = ENVIRONMENT.program(source).evaluate(data)
        except cel.CelFailure:
            return None
        return value if isinstance(value, bool) else None


def expected_reason(question: Asked, rule: Rule) -> str:
    """What the case says became of a rule; empty when it says nothing."""
    expected = question.expected[question.points.index(rule.decision)]
    if isinstance(expected.rules, msgspec.UnsetType):
        return ""
    became = expected.rules.get(rule.id, "")
    return became if isinstance(became, str) else became.reason


@pytest.mark.parametrize(("case", "number"), QUESTIONS)
def test_conditions_agree_with_cel_cpp(case: Case, number: int, shipped_models: dict[str, Model]) -> None:
    snapshot = build(case, shipped_models)
    question = asked(case, number, "expression")
    view = View(question.attributes, question.question.context, readings_of(snapshot, question).values, question.now)
    score(snapshot, view, tuple(snapshot.models))
    for dotted, value in question.question.reads.items():
        try:
            found = read(tuple(dotted.split(".")), view, snapshot.symbols)
        except Unknown:
            found = None
        assert (dotted, found) == (dotted, value)
    oracle = Oracle(snapshot, question, view)
    for rule in snapshot.ruleset.rules:
        if rule.decision not in question.points:
            continue
        truths = [oracle.truth(e.source) for e in rule.when]
        judged = [judge(e.root, view, snapshot.symbols).value for e in rule.when]
        assert (rule.id, judged) == (rule.id, truths)
        reason = expected_reason(question, rule)
        if reason in {"", Reason.DISABLED.name}:
            continue
        came_to = Reason.FAILED.name if False in truths else Reason.UNKNOWN.name if None in truths else ""
        assert came_to == (reason if reason in {Reason.FAILED.name, Reason.UNKNOWN.name} else ""), rule.id


@pytest.mark.parametrize(("case", "number"), QUESTIONS)
def test_the_core_decides(case: Case, number: int, shipped_models: dict[str, Model]) -> None:
    snapshot = build(case, shipped_models)
    question = asked(case, number, "core")
    compare(decide_in_core(snapshot, question), question, snapshot)


def test_there_are_cases() -> None:
    assert len(CASES) >= 40
