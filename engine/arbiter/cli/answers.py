"""Decisions as the command line shows them, wherever they were made.

Law: plain data under the API's names, and the tables made of it. A server's answer and one made in this process print
alike; JSON is these structs.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - a field's type at run time
from typing import TYPE_CHECKING, Any, Self

import msgspec
from rich.text import Text

from arbiter.cli.terminal import out, print_table
from arbiter.decision.wording import answered, entered, shown, unconsented
from arbiter.types import ExperimentOutcome, ExplainLevel, ModelOutcome, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.types import RuleOutcome, Treatment

_TONES = {"won": "bold green", "failed": "", "unknown": "yellow", "lost": "cyan", "group": "cyan", "slots_full": "cyan",
          "render_failed": "red", "overridden": "magenta"}  # fmt: skip
_WIDE = 110  # columns of a terminal that has room for where a rule is written
# The API's words for what became of a rule.
_OUTCOMES = {
    Reason.WON: "won",
    Reason.LOST_SLOT: "lost",
    Reason.FAILED: "failed",
    Reason.UNKNOWN: "unknown",
    Reason.DISABLED: "disabled",
    Reason.INACTIVE: "inactive",
    Reason.ROLLED_OUT_OF: "rollout",
    Reason.LOST_GROUP: "group",
    Reason.DUPLICATE: "duplicate",
    Reason.RENDER_FAILED: "render_failed",
    Reason.OVERRIDDEN: "overridden",
    Reason.NO_CONSENT: "no_consent",
    Reason.CAPPED: "capped",
}


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, as it was written. An empty `at` is now."""

    subject_id: str
    decisions: tuple[str, ...]
    context: str = "{}"
    slots: int = 0
    at: str = ""
    explain: ExplainLevel = ExplainLevel.NONE
    explain_rules: tuple[str, ...] = ()


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A treatment. `rule_id` is empty for the default; `reason` is ``rule`` or ``default``."""

    rule_id: str
    action: str
    params: dict[str, Any]
    priority: int
    value: float | None
    reason: str
    variant: str = ""

    @classmethod
    def of(cls, treatment: Treatment) -> Self:
        """A treatment of the engine's."""
        return cls(
            rule_id=treatment.rule_id,
            action=treatment.action,
            params=treatment.params,
            priority=treatment.priority,
            value=treatment.value,
            reason="default" if treatment.reason is Reason.DEFAULT else "rule",
            variant=treatment.variant,
        )


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one rule. `outcome` is the API's enum in lower case, without its prefix."""

    rule_id: str
    outcome: str
    lost_to: str
    lost_on: str
    expression: str
    values: dict[str, Any]
    missing: tuple[str, ...]
    withheld: tuple[str, ...]
    denied: dict[str, tuple[str, ...]]
    detail: str
    position: str

    @classmethod
    def of(cls, outcome: RuleOutcome) -> Self:
        """An outcome of the engine's."""
        return cls(
            rule_id=outcome.rule_id,
            outcome=_OUTCOMES[outcome.reason],
            lost_to=outcome.lost_to,
            lost_on=outcome.lost_on,
            expression=outcome.expression,
            values=outcome.values,
            missing=outcome.missing,
            withheld=outcome.withheld,
            denied=outcome.denied,
            detail=outcome.detail,
            position=outcome.position,
        )

    def why(self) -> str:
        """One sentence, or nothing where the outcome says it all."""
        lacking = [unconsented(self.denied)] if self.denied else []
        if self.outcome == "render_failed" and self.missing:
            return "; ".join([self.detail, *lacking])  # which says what is missing
        parts = []
        if self.lost_to:
            parts.append(f"to {self.lost_to}" + (f" on {self.lost_on}" if self.lost_on else ""))
        if self.expression:
            seen = ", ".join(
                [f"{name} = {shown(value)}" for name, value in self.values.items()]
                + [f"{name} is withheld" for name in self.withheld]
            )
            parts.append(f"{self.expression}  where {seen}" if seen else self.expression)
        if self.missing:
            parts.append(f"for lack of {', '.join(self.missing)}")
        if self.detail:
            parts.append(self.detail)
        return "; ".join([*parts, *lacking])


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. `explanation`, `models` and `standings` are empty when none was asked for."""

    subject_id: str
    decision: str
    treatments: list[Given]
    defaulted: bool
    degraded: list[str]
    valid_until: datetime | None
    snapshot: str
    decision_id: str = ""
    explanation: list[Judged] = []
    models: list[ModelOutcome] = []
    experiments: dict[str, str] = {}
    standings: list[ExperimentOutcome] = []


def print_treatments(answers: Iterable[Answer]) -> None:
    """A row per treatment; a decision without one has a row that says so."""
    rows: list[Sequence[str]] = []
    for answer in answers:
        for given in answer.treatments:
            params = ", ".join(f"{name}: {shown(value)}" for name, value in sorted(given.params.items()))
            value = "" if given.value is None else shown(given.value)
            rule = given.rule_id or f"({given.reason})"
            rows.append((answer.decision, rule, given.action, params, str(given.priority), value, given.variant))
        if not answer.treatments:
            rows.append((answer.decision, "(nothing)", "", "", "", "", ""))
    heads = ("decision", "rule", "action", "params", "priority", "value", "variant")
    shown_heads = heads if any(row[-1] for row in rows) else heads[:-1]
    print_table(shown_heads, [row[: len(shown_heads)] for row in rows], prose=("params",))


def print_notes(answers: Sequence[Answer]) -> None:
    """On a terminal, what else there is to know: the snapshot, until when the answers hold, what they did without."""
    if not out().is_terminal:
        return
    for answer in answers:
        if answer.degraded:
            out().print(f"{answer.decision} did without {', '.join(answer.degraded)}", style="yellow")
        if answer.valid_until is not None:
            out().print(f"{answer.decision} holds until {shown(answer.valid_until)}", style="dim")
    out().print(f"snapshot {answers[0].snapshot}", style="dim")


def print_explanation(answer: Answer) -> None:
    """A row per rule: what became of it, and why; and a row per model: what it answered, and what it saw."""
    narrow = out().is_terminal and out().width < _WIDE
    heads = ("rule", "outcome", "why") if narrow else ("rule", "outcome", "why", "written in")
    rows = [
        (rule.rule_id, Text(rule.outcome, _TONES.get(rule.outcome, "dim")), rule.why(), rule.position)[: len(heads)]
        for rule in answer.explanation
    ]
    title = f"{answer.decision} for {answer.subject_id}"
    print_table(heads, rows, title=title, prose=("why",))
    if answer.models:
        seen = [(f"{each.model} {each.version}", answered(each), entered(each)) for each in answer.models]
        print_table(("model", "answered", "from"), seen, prose=("answered", "from"))
    if answer.standings:
        stands = [
            (each.name, each.variant, str(each.standing), "yes" if each.mattered else "no", each.detail)
            for each in answer.standings
        ]
        print_table(("experiment", "variant", "by", "mattered", "why"), stands, prose=("why",))
