"""Explanations on the wire.

Law: says what the core found, in the API's words; finds nothing itself. Slow, and only on calls that ask for it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from arbiter.decision.wording import answered, entered, shown, stood, unconsented
from arbiter.errors import InvalidField, did_you_mean
from arbiter.types import Reason
from arbiter.v1 import decision_pb2, value_pb2
from arbiter.wire.numbers import OUTCOMES, STANDINGS
from arbiter.wire.values import write_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.snapshot import Snapshot
    from arbiter.types import Decision, ExperimentOutcome, ModelInput, ModelOutcome, Request, RuleOutcome

_WORDS = {
    Reason.WON: "won",
    Reason.LOST_SLOT: "lost its slot",
    Reason.FAILED: "is false",
    Reason.UNKNOWN: "is unknown",
    Reason.DISABLED: "is disabled",
    Reason.INACTIVE: "is inactive",
    Reason.ROLLED_OUT_OF: "is not rolled out to this subject",
    Reason.LOST_GROUP: "lost its group",
    Reason.DUPLICATE: "repeats a treatment",
    Reason.RENDER_FAILED: "could not be rendered",
    Reason.OVERRIDDEN: "is overridden",
    Reason.NO_CONSENT: "is out for lack of consent",
    Reason.CAPPED: "is capped",
}


def check_rules(request: Request, snapshot: Snapshot) -> None:
    """Raise InvalidField when the request's rule filter names a rule that none of its decision points has."""
    known = {rule.id for name in request.decisions for rule in snapshot.point(name).all_rules}
    for place, rule in enumerate(request.explain_rules):
        if rule not in known:
            field = f"explain.rules[{place}]"
            points = ", ".join(f"`{name}`" for name in request.decisions)
            hint = did_you_mean(rule, known) or "check the id, or leave it out"
            raise InvalidField(f"{field}: {points} has no rule `{rule}`: {hint}", field=field)


def write_explanation(decision: Decision, snapshot: Snapshot) -> decision_pb2.Explanation:
    """Return what became of the rules of one decision point."""
    priorities = {rule.id: rule.priority for rule in snapshot.point(decision.point).all_rules}
    return decision_pb2.Explanation(
        rules=[
            decision_pb2.RuleExplanation(
                rule_id=outcome.rule_id,
                outcome=OUTCOMES[outcome.reason],
                lost_to=outcome.lost_to,
                lost_on=outcome.lost_on,
                expression=outcome.expression,
                values={name: write_value(_plain(value)) for name, value in outcome.values.items()},
                missing=outcome.missing,
                withheld=outcome.withheld,
                denied=write_denials(outcome.denied),
                detail=outcome.detail,
                position=outcome.position,
                priority=priorities.get(outcome.rule_id, 0),
                value=outcome.value,
            )
            for outcome in decision.explanation
        ],
        text=as_text(decision.explanation, decision.models, decision.standings),
        models=[
            decision_pb2.ModelExplanation(
                name=model.model,
                version=model.version,
                inputs=map(_input, model.inputs),
                outputs={name: write_value(value) for name, value in model.outputs.items()},
                detail=model.detail,
                denied=write_denials(model.denied),
            )
            for model in decision.models
        ],
        experiments=[
            decision_pb2.ExperimentExplanation(
                name=each.name,
                variant=each.variant,
                standing=STANDINGS[each.standing],
                detail=each.detail,
                mattered=each.mattered,
            )
            for each in decision.standings
        ],
    )


def _input(each: ModelInput) -> decision_pb2.ModelInput:
    return decision_pb2.ModelInput(
        name=each.name,
        source=each.source,
        value=None if each.value is None else write_value(each.value),
        columns=[float(one) for one in each.columns if not isinstance(one, str)],
        imputed=each.imputed,
        withheld=each.withheld,
    )


def write_denials(denied: Mapping[str, Iterable[str]]) -> list[value_pb2.Denial]:
    """Return what lacks consent, and to what."""
    return [value_pb2.Denial(name=name, purposes=purposes) for name, purposes in sorted(denied.items())]


def as_text(
    outcomes: Iterable[RuleOutcome],
    models: Iterable[ModelOutcome] = (),
    experiments: Iterable[ExperimentOutcome] = (),
) -> str:
    """Return the outcomes for people, a line each, what models saw, and how the subject stands with experiments."""
    return "\n".join([*map(_line, outcomes), *map(_model_line, models), *map(stood, experiments)])


def _line(outcome: RuleOutcome) -> str:
    parts = [f"{outcome.rule_id} {_WORDS[outcome.reason]}"]
    if outcome.reason is Reason.NO_CONSENT:
        return f"{parts[0]} to {' and '.join(outcome.denied[outcome.rule_id])}"
    if outcome.reason is Reason.RENDER_FAILED and outcome.missing:
        return f"{parts[0]}: {outcome.detail}{_lacking(outcome)}"  # which says what is missing
    if outcome.lost_to:
        parts.append(f" to {outcome.lost_to}" + (f" on {outcome.lost_on}" if outcome.lost_on else ""))
    if outcome.expression:
        parts.append(f": {outcome.expression}{_seen(outcome)}")
    if outcome.missing:
        parts.append(f", for lack of {', '.join(outcome.missing)}")
    if outcome.detail:
        parts.append(f" ({outcome.detail})")
    return "".join(parts) + _lacking(outcome)


def _model_line(model: ModelOutcome) -> str:
    return f"model {model.model} {model.version} answered {answered(model)} to {entered(model)}"


def _lacking(outcome: RuleOutcome) -> str:
    return f"; {unconsented(outcome.denied)}" if outcome.denied else ""


def _seen(outcome: RuleOutcome) -> str:
    said = [f"{name} = {shown(value)}" for name, value in outcome.values.items()]
    said += [f"{name} is withheld" for name in outcome.withheld]
    return f" where {', '.join(said)}" if said else ""


def _plain(value: Any) -> Any:
    """Durations live in expressions only; on the wire they are the text that CEL's `string()` gives."""
    return shown(value) if isinstance(value, timedelta) else value
