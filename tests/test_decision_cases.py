"""Every case of cases/decisions, through three layers: expression, core, gRPC.

A case is a file named for a behaviour: rule files, a clock, and questions. A question is a subject (attributes,
events), a context, and the decision points asked; beside it stands the whole answer. The layers:

- expression: cel-cpp evaluates each condition on its own; it must agree with the slow evaluator, and with what the case
  says became of the rule;
- core: files → snapshot → view → walk and explain, without store and network;
- gRPC: a real server over a real store, told of the subject by its own calls.

To add a case, write one and run this test: where they differ, it shows what was decided beside what was expected.
"""

from __future__ import annotations

import re
import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import pytest
import yaml

from arbiter.decision.assignment import Assigned, Assigners
from arbiter.decision.explain import explain
from arbiter.decision.walk import Need, Walk
from arbiter.expr import cel
from arbiter.expr.evaluate import judge, read
from arbiter.expr.ops import Unknown
from arbiter.expr.view import View
from arbiter.profiles.features import FeatureSet, Readings
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.local import open_local
from arbiter.runtime.settings import Backing
from arbiter.server.app import Server
from arbiter.snapshot import Snapshot
from arbiter.telemetry.counters import Counters
from arbiter.types import (
    Decision,
    Degradation,
    Event,
    ExplainLevel,
    Lack,
    Reason,
    RuleOutcome,
    Treatment,
    from_micros,
    to_micros,
)
from arbiter.v1 import admin_pb2, admin_pb2_grpc, decision_pb2, decision_pb2_grpc, profile_pb2, profile_pb2_grpc
from arbiter.wire.numbers import OUTCOMES
from arbiter.wire.values import plain_values, write_timestamp, write_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arbiter.models import Model
    from arbiter.ruleset.rules import Rule

FOLDER = Path(__file__).parent / "cases" / "decisions"
SHIPPED = Path(__file__).parent.parent / "models"
ENVIRONMENT = cel.Environment(
    dict.fromkeys(("profile", "account", "context", "features", "segments", "models", "experiments"), "dyn")
    | {"now": "timestamp"}
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
    valid_until: datetime | msgspec.UnsetType | None = msgspec.UNSET
    rules: dict[str, Became | str] | msgspec.UnsetType = msgspec.UNSET


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """One call. `attributes` are one update, or several in turn; `account` are those of the account, if there is one.
    `reads` are names and what they are; null: missing.
    """

    expect: Expected | list[Expected]
    decide: str | list[str] = "d"
    attributes: dict[str, Any] | list[dict[str, Any]] = {}
    account: dict[str, Any] = {}
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
QUESTIONS = [(name, number) for name, case in CASES.items() for number in range(len(case.asks))]


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


def asked(name: str, number: int) -> Asked:
    case = CASES[name]
    question = case.asks[number]
    # The server's store outlives a case: every question has a subject of its own.
    subject_id = question.subject or f"{name} {number}"
    updates = question.attributes if isinstance(question.attributes, list) else [question.attributes]
    if question.account:
        updates = [*updates, {"account_id": subject_id}]
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
    asks = question.question
    view = see(snapshot, question, readings.values)
    # Attributes change in the order of their updates.
    changed = {f"profile.{key}": n for n, update in enumerate(question.updates) for key in update}
    changed |= {f"account.{key}": len(question.updates) for key in asks.account}
    changes = changed | {f"features.{key}": at for key, at in readings.changed.items()}
    slots = question.question.slots
    page: list[Decision] = []
    delivered: list[Treatment] = []
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


def see(snapshot: Snapshot, question: Asked, features: dict[str, Any]) -> View:
    """What a decision sees: declared defaults stand for absent attributes."""
    profile = snapshot.frame.defaults_of("profile") | question.attributes
    account = snapshot.frame.defaults_of("account") | question.question.account
    view = View(profile, question.question.context, features, question.now, account)
    view.experiments = Assigned(Assigners(snapshot.frame.experiments, snapshot.symbols), question.subject_id)
    return view


class Oracle:
    """cel-cpp's answers for one subject."""

    def __init__(self, snapshot: Snapshot, question: Asked, view: View) -> None:
        self.twins = question.case.twins
        self.data: dict[str, Any] = {
            "profile": view.profile,
            "account": view.account,
            "context": question.question.context,
            "features": {},
            "segments": {},
            "models": view.models,
            "experiments": {
                each.name: read(("experiments", each.name), view, snapshot.symbols)
                for each in snapshot.frame.experiments.each
            },
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
        for root in ("profile", "account", "context", "features"):
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


@pytest.mark.parametrize(("name", "number"), QUESTIONS)
def test_conditions_agree_with_cel_cpp(name: str, number: int, shipped_models: dict[str, Model]) -> None:
    question = asked(name, number)
    snapshot = build(question.case, shipped_models)
    features = readings_of(snapshot, question).values
    view = see(snapshot, question, features)
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


@pytest.mark.parametrize(("name", "number"), QUESTIONS)
def test_the_core_decides(name: str, number: int, shipped_models: dict[str, Model]) -> None:
    question = asked(name, number)
    snapshot = build(question.case, shipped_models)
    compare(decide_in_core(snapshot, question), question, snapshot)


class Served:
    """A real server over a real store, which is given the rule files of one case after another."""

    def __init__(self, rules: Path, channel: grpc.Channel) -> None:
        self.decisions = decision_pb2_grpc.DecisionServiceStub(channel)
        self.profiles = profile_pb2_grpc.ProfileServiceStub(channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(channel)
        self._rules = rules
        self._loaded: Case | None = None

    def load(self, case: Case) -> None:
        if case is self._loaded:
            return
        for old in self._rules.iterdir():
            old.unlink()
        files = {"case.yaml": case.rules} if isinstance(case.rules, str) else case.rules
        for path, text in files.items():
            (self._rules / path).write_text(text)
        answer = self.admin.Reload(admin_pb2.ReloadRequest())
        assert answer.last_reload.ok, answer
        self._loaded = case

    def tell(self, question: Asked) -> None:
        """Make the subject what the question says, by the calls that anybody would use."""
        for update in question.updates:
            if update:
                self.profiles.UpdateProfile(
                    profile_pb2.UpdateProfileRequest(subject_id=question.subject_id, set=write_values(update))
                )
        if question.question.account:
            self.profiles.UpdateProfile(
                profile_pb2.UpdateProfileRequest(
                    account_id=question.subject_id, set=write_values(question.question.account)
                )
            )
        if question.events:
            events = [
                profile_pb2.Event(
                    id=e.id,
                    subject_id=e.subject_id,
                    type=e.type,
                    at=write_timestamp(e.at),
                    properties=write_values(e.properties),
                )
                for e in question.events
            ]
            answer = self.profiles.IngestEvents(profile_pb2.IngestEventsRequest(events=events))
            assert answer.accepted == len(events)

    def decide(self, question: Asked) -> list[Decision]:
        several = not isinstance(question.question.decide, str)
        answer = self.decisions.Decide(
            decision_pb2.DecideRequest(
                subject_id=question.subject_id,
                decision="" if several else question.points[0],
                decisions=question.points if several else (),
                context=write_values(question.question.context),
                slots=question.question.slots,
                explain=decision_pb2.ExplainOptions(
                    level=decision_pb2.ExplainLevel.Value(f"EXPLAIN_LEVEL_{question.level.name}"),
                    rules=question.question.only,
                ),
                dry_run=True,
                at=write_timestamp(question.now),
            )
        )
        assert not answer.decision_id
        return [received(part) for part in (answer.decisions if several else [answer])]


def received(answer: decision_pb2.DecideResponse | decision_pb2.Decision) -> Decision:
    """What came over the wire as the core's own value."""
    reasons = {wire: reason for reason, wire in OUTCOMES.items()}
    kinds_of = {decision_pb2.REASON_RULE: Reason.WON, decision_pb2.REASON_DEFAULT: Reason.DEFAULT}
    treatments = [
        Treatment(
            t.rule_id,
            t.action,
            plain_values(t.params),
            t.priority,
            t.value if t.HasField("value") else None,
            kinds_of[t.reason],
        )
        for t in answer.treatments
    ]
    outcomes = [
        RuleOutcome(
            r.rule_id,
            reasons[r.outcome],
            r.position,
            r.expression,
            plain_values(r.values),
            tuple(r.missing),
            r.lost_to,
            r.lost_on,
            r.detail,
            r.value if r.HasField("value") else None,
        )
        for r in answer.explanation.rules
    ]
    until = to_micros(answer.valid_until.ToDatetime(UTC)) if answer.HasField("valid_until") else None
    return Decision(
        answer.decision,
        tuple(treatments),
        answer.defaulted,
        until,
        tuple(Degradation(d.name, Lack(d.cause)) for d in answer.degraded),
        tuple(outcomes),
    )


def timeless(decision: Decision) -> Decision:
    """The decision without the order keys for people: they tell when attributes changed, by the server's clock."""
    keyed = {Reason.WON, Reason.LOST_SLOT, Reason.LOST_GROUP}
    outcomes = [msgspec.structs.replace(o, detail="") if o.reason in keyed else o for o in decision.explanation]
    return msgspec.structs.replace(decision, explanation=tuple(outcomes))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    rules, models = folder / "rules", folder / "models"
    rules.mkdir()
    for manifest in SHIPPED.glob("*/manifest.yaml"):
        shutil.copytree(manifest.parent, models / manifest.parent.name)
    (rules / "case.yaml").write_text("decisions: {d: {}}\n")
    counters = Counters()
    engine, admin = open_local(rules, models, folder / "data", counters=counters)
    with closing(engine.store):
        server = Server(Backing(engine, admin, counters), "127.0.0.1:0")
        try:
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                yield Served(rules, channel)
        finally:
            server.stop(5)


@pytest.mark.parametrize(("name", "number"), QUESTIONS)
def test_the_server_decides(name: str, number: int, served: Served, shipped_models: dict[str, Model]) -> None:
    question = asked(name, number)
    served.load(question.case)
    served.tell(question)
    decisions = served.decide(question)
    snapshot = build(question.case, shipped_models)
    compare(decisions, question, snapshot)
    assert list(map(timeless, decisions)) == list(map(timeless, decide_in_core(snapshot, question)))


def test_there_are_cases() -> None:
    assert len(CASES) >= 40
