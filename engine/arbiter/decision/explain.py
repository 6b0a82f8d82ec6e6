"""Explanations: for every rule of a decision point, what became of it and why.

Law: pure and slow. It judges rules with the three-valued evaluator, all of them where all are asked for, and replays
arbitration with the same functions that the walk uses, so that it must agree with the walk about who won; a property
test holds the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.decision.capping import fullness, has_room
from arbiter.decision.dates import in_time, outside
from arbiter.decision.lots import draw
from arbiter.decision.ranking import last_change, order_key
from arbiter.decision.walk import anew, in_rollout, rendered, repeated
from arbiter.decision.wording import shown
from arbiter.expr.evaluate import Verdict, judge
from arbiter.expr.syntax import walk as nodes_of
from arbiter.expr.tree import Name
from arbiter.ruleset.branches import reads_of
from arbiter.ruleset.render import failure_of, text
from arbiter.ruleset.segments import is_managed
from arbiter.ruleset.visibility import hiding
from arbiter.types import ExplainLevel, Reason, RuleOutcome, Treatment, from_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arbiter.expr.tree import AnyNode, Expression
    from arbiter.expr.view import View
    from arbiter.ruleset.compiled import CompiledRule, Point
    from arbiter.ruleset.rules import Rule


_NONE: Mapping[str, str] = {}
_WITHHELD = "why is withheld, since it reads personal values"


class _Judged(msgspec.Struct):
    compiled: CompiledRule
    outcome: RuleOutcome | None
    value: float | None = None
    change: int | None = None


def explain(
    point: Point,
    view: View,
    subject_id: str,
    slots: int,
    delivered: Iterable[Treatment],
    changes: Callable[[], dict[str, int]],
    level: ExplainLevel,
    only: tuple[str, ...] = (),
    off: Mapping[str, str] = _NONE,
) -> tuple[RuleOutcome, ...]:
    """The outcomes at `point`, best rule first. `view` must hold every model of the point. `level` WINNERS keeps what
    was delivered, LOSERS also what matched, ALL everything; `only` filters by rule id.
    `off` says of rules that are switched off, by id, until when and why.
    """
    wanted = _worth_judging(point, view, level, only)
    judged = [_judge(rule, point, view, subject_id, changes, off) for rule in wanted]
    matched = [j for j in judged if j.outcome is None]
    if point.dynamic:
        _settle_rows_behind(matched)
    competing = [j for j in matched if j.outcome is None]
    competing.sort(key=lambda j: order_key(point, j.compiled, j.value, j.change))
    outcomes = [
        *_Arbitration(point, view, subject_id, slots, delivered).run(competing),
        *(j.outcome for j in judged if j.outcome),
    ]
    kept = {
        ExplainLevel.NONE: frozenset[Reason](),
        ExplainLevel.WINNERS: frozenset({Reason.WON}),
        ExplainLevel.LOSERS: frozenset(
            {Reason.WON, Reason.LOST_GROUP, Reason.LOST_SLOT, Reason.DUPLICATE, Reason.RENDER_FAILED, Reason.CAPPED}
        ),
        ExplainLevel.ALL: frozenset(Reason),
    }[level]
    return tuple(o for o in outcomes if o.reason in kept and (not only or o.rule_id in only))


def _worth_judging(point: Point, view: View, level: ExplainLevel, only: tuple[str, ...]) -> Iterable[CompiledRule]:
    """The rules of whom something may be told and those that compete with them, in static order."""
    if level is ExplainLevel.ALL and not only:
        return point.rules
    survivors = point.survivors(view)
    if level is not ExplainLevel.ALL:
        return survivors
    competing = set(survivors)
    return [rule for rule in point.rules if rule in competing or rule.id in only]


def _judge(
    compiled: CompiledRule,
    point: Point,
    view: View,
    subject_id: str,
    changes: Callable[[], dict[str, int]],
    off: Mapping[str, str],
) -> _Judged:
    rule = compiled.rule
    if not rule.enabled:
        return _Judged(compiled, RuleOutcome(rule.id, Reason.DISABLED, rule.position, detail="`enabled` is false"))
    if rule.id in off:
        return _Judged(compiled, RuleOutcome(rule.id, Reason.OVERRIDDEN, rule.position, detail=off[rule.id]))
    lacking = tuple(purpose for purpose in rule.requires_consent if purpose not in view.consent.granted)
    if lacking:
        return _Judged(compiled, RuleOutcome(rule.id, Reason.NO_CONSENT, rule.position, denied={rule.id: lacking}))
    failed = judge_condition(rule, point, view)
    if failed is not None:
        return _Judged(compiled, failed)
    active, rollout = compiled.active, rule.rollout
    if not in_time(active, view):
        zone = [Name(("profile", active.local.zone.attribute))] if active and active.local else []
        inactive = RuleOutcome(rule.id, Reason.INACTIVE, rule.position, detail=outside(active, view))
        return _Judged(compiled, _with_denied(inactive, zone, point, view))
    if not in_rollout(compiled, view, subject_id):
        detail = f"outside the rollout of {rollout.percent:g} %" if rollout else ""
        unit = [Name(tuple(rollout.by.split(".")))] if rollout else []
        outer = RuleOutcome(rule.id, Reason.ROLLED_OUT_OF, rule.position, detail=detail)
        return _Judged(compiled, _with_denied(outer, unit, point, view))
    if not has_room(compiled, view):
        full = RuleOutcome(rule.id, Reason.CAPPED, rule.position, detail=fullness(compiled, view))
        return _Judged(compiled, full)
    value = compiled.value(view) if compiled.valued else None
    change = last_change(compiled, changes(), view) if "recency" in point.dynamic else None
    return _Judged(compiled, None, value, change)


def _settle_rows_behind(matched: Iterable[_Judged]) -> None:
    """Settle the rows of a table behind its first one that matched: of rows of one tier only that one competes."""
    first: dict[tuple[str, tuple[int, ...]], CompiledRule] = {}
    for judged in matched:
        compiled = judged.compiled
        best = first.setdefault((compiled.table, compiled.rank), compiled) if compiled.table else compiled
        if best is not compiled:
            judged.outcome = RuleOutcome(
                compiled.id, Reason.LOST_GROUP, compiled.rule.position, lost_to=best.id, lost_on="rule_id",
                detail=f"row {best.rule.row} of table `{compiled.table}` comes first", value=judged.value,
            )  # fmt: skip


def judge_condition(rule: Rule, point: Point, view: View) -> RuleOutcome | None:
    """Why the condition is not true: the first part that is false, else everything that is unknown; None when it is
    true.
    """
    verdicts = [(e, judge(e.root, view, point.symbols)) for e in rule.when]
    for expression, verdict in verdicts:
        if verdict.value is False:
            return _outcome(rule, Reason.FAILED, expression, verdict, point, view)
    for expression, verdict in verdicts:
        if verdict.value is None:
            missing = tuple(dict.fromkeys(m for _, v in verdicts if v.value is None for m in v.missing))
            return _outcome(
                rule, Reason.UNKNOWN, expression, msgspec.structs.replace(verdict, missing=missing), point, view
            )
    return None


def _outcome(
    rule: Rule, reason: Reason, expression: Expression, verdict: Verdict, point: Point, view: View
) -> RuleOutcome:
    inside = [n for n in nodes_of(expression.root) if n.span[0] >= verdict.span[0] and n.span[1] <= verdict.span[1]]
    # An operator's complaint may repeat the value that it was given.
    why = _WITHHELD if verdict.why and _is_personal(inside, point) else verdict.why
    detail = "; ".join([*([why] if why else []), *_segments_text(inside, point, view)])
    source = expression.source[slice(*verdict.span)]
    personal = point.symbols.personal
    shown_values = {name: value for name, value in verdict.values.items() if name not in personal}
    withheld = tuple(name for name in verdict.values if name in personal)
    outcome = RuleOutcome(
        rule.id, reason, rule.position, source, shown_values, verdict.missing, detail=detail, withheld=withheld
    )
    # Where several parts are unknown, `missing` speaks of more than the first of them.
    unknown = [e.root for e in rule.when] if reason is Reason.UNKNOWN else []
    return _with_denied(outcome, [*inside, *unknown], point, view)


def _with_denied(outcome: RuleOutcome, nodes: Iterable[AnyNode], point: Point, view: View) -> RuleOutcome:
    """The outcome with the names that `nodes` read and that consent hides; of a model also those that it reads."""
    denied, symbols = view.consent.denied, point.symbols
    if not denied:
        return outcome
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(reads_of(nodes, symbols)):
        behind = symbols.model_inputs.get(path[1], ()) if path[0] == "models" else ()
        found |= {name: denied[name] for each in (path, *behind) for name in hiding(each) if name in denied}
    return msgspec.structs.replace(outcome, denied=found) if found else outcome


def _with_denied_value(outcome: RuleOutcome, judged: _Judged, point: Point, view: View) -> RuleOutcome:
    """The outcome with what consent hides of a value that is unknown."""
    value = judged.compiled.rule.value
    unknown = [value.root] if value is not None and judged.compiled.valued and judged.value is None else []
    return _with_denied(outcome, unknown, point, view)


def _is_personal(nodes: Iterable[AnyNode], point: Point) -> bool:
    """Whether personal values are read here, or by the segments that are named here."""
    pending = [n for n in nodes if isinstance(n, Name)]
    seen: set[str] = set()
    while pending:
        dotted = ".".join(pending.pop().path)
        if dotted in point.symbols.personal:
            return True
        root, _, name = dotted.partition(".")
        if root == "segments" and dotted not in seen:
            seen.add(dotted)
            pending += [n for n in nodes_of(point.symbols.segment(name)) if isinstance(n, Name)]
    return False


def _segments_text(nodes: Iterable[AnyNode], point: Point, view: View) -> list[str]:
    """What decided inside each segment that is named here, and inside the segments that decided there."""
    found: dict[str, str] = {}
    pending = [n.path[1] for n in nodes if isinstance(n, Name) and n.path[0] == "segments"]
    while pending:
        name = pending.pop(0)
        if name in found:
            continue
        inner = judge(point.symbols.segment(name), view, point.symbols)
        said = [
            f"{k} is withheld" if k in point.symbols.personal else f"{k} = {shown(v)}" for k, v in inner.values.items()
        ] + [f"{m} is missing" for m in inner.missing]
        if is_managed(point.symbols.segment(name)):
            said = ["the subject is in it" if inner.value else "the subject is not in it"]
        found[name] = f"segment {name}: {', '.join(said)}"
        pending += [k.partition(".")[2] for k in (*inner.values, *inner.missing) if k.startswith("segments.")]
    return list(found.values())


class _Arbitration:
    """Deals with rules that compete, best first; `outcomes` says what became of each."""

    def __init__(self, point: Point, view: View, subject_id: str, slots: int, delivered: Iterable[Treatment]) -> None:
        self.outcomes: list[RuleOutcome] = []
        self._point = point
        self._view = view
        self._subject = subject_id
        self._slots = min(slots or point.slots, point.slots)
        self._delivered = tuple(delivered)
        self._groups: dict[str, _Judged] = {}
        self._placed: list[tuple[_Judged, Treatment]] = []
        self._lots: dict[str, str] = {}  # by the id of a rule that was drawn, how

    def run(self, ranked: list[_Judged]) -> list[RuleOutcome]:
        """Deal with all of them."""
        for judged in ranked:
            if judged.compiled.group not in self._point.bandits or not self._by_lot(judged, ranked):
                self._settle(judged)
        return self.outcomes

    def _settle(self, judged: _Judged) -> None:
        rule = judged.compiled
        if len(self._placed) >= self._slots:
            self._lost(Reason.LOST_SLOT, judged, self._placed[-1][0], _keys_text(self._point, judged))
            return
        if rule.group and rule.group in self._groups:
            detail = f"group `{rule.group}`: {_keys_text(self._point, judged)}"
            self._lost(Reason.LOST_GROUP, judged, self._groups[rule.group], detail)
            return
        given = self._before()
        if rule.takes and not has_room(rule, self._view, given):
            full = fullness(rule, self._view, given)
            capped = RuleOutcome(rule.id, Reason.CAPPED, rule.rule.position, detail=full, value=judged.value)
            self.outcomes.append(capped)
            return
        treatment = rule.treatment or rendered(rule, self._view, judged.value)
        if treatment is None:
            self.outcomes.append(_render_failure(judged, self._point, self._view))
            return
        if repeated(treatment, given):
            same = next((j for j, t in self._placed if repeated(treatment, [t])), None)
            self._lost(Reason.DUPLICATE, judged, same, "the same treatment was delivered already")
            return
        self._deliver(judged, treatment)
        self._won(judged, _keys_text(self._point, judged))

    def _by_lot(self, judged: _Judged, ranked: list[_Judged]) -> bool:
        """Whether a lot has decided on this one; it is drawn when the best rule of its group is dealt with."""
        group = judged.compiled.group
        if group not in self._groups and len(self._placed) < self._slots:
            self._draw(group, ranked)
        winner = self._groups.get(group)
        if winner is None or winner.compiled.id not in self._lots:
            return False
        drawn = self._lots[winner.compiled.id]
        if winner is judged:
            self._won(judged, f"{drawn}; {_keys_text(self._point, judged)}")
        else:
            self._lost(Reason.LOST_GROUP, judged, winner, drawn, on="lot")
        return True

    def _draw(self, group: str, ranked: list[_Judged]) -> None:
        before = self._before()
        own = [(j, anew(j.compiled, self._view, j.value, before)) for j in ranked if j.compiled.group == group]
        arms = {j.compiled.id: (j, treatment) for j, treatment in own if treatment is not None}
        if len(arms) > 1:
            drawn, chance = draw(self._point, group, arms, self._view, self._subject)
            self._lots[drawn] = f"drawn of {len(arms)} rules of group `{group}`, with probability {chance:.3g}"
            self._deliver(*arms[drawn])

    def _before(self) -> tuple[Treatment, ...]:
        return (*(treatment for _, treatment in self._placed), *self._delivered)

    def _deliver(self, judged: _Judged, treatment: Treatment) -> None:
        if judged.compiled.group:
            self._groups[judged.compiled.group] = judged
        self._placed.append((judged, treatment))

    def _won(self, judged: _Judged, detail: str) -> None:
        rule = judged.compiled.rule
        outcome = RuleOutcome(rule.id, Reason.WON, rule.position, detail=detail, value=judged.value)
        self.outcomes.append(_with_denied_value(outcome, judged, self._point, self._view))

    def _lost(self, reason: Reason, loser: _Judged, winner: _Judged | None, detail: str, on: str = "") -> None:
        to = winner.compiled.id if winner else ""
        key = on or (_decisive_key(self._point, winner, loser) if winner else "")
        rule = loser.compiled.rule
        outcome = RuleOutcome(rule.id, reason, rule.position, lost_to=to, lost_on=key, detail=detail, value=loser.value)
        self.outcomes.append(_with_denied_value(outcome, loser, self._point, self._view))


def _render_failure(judged: _Judged, point: Point, view: View) -> RuleOutcome:
    rule = judged.compiled.rule
    plain = RuleOutcome(rule.id, Reason.RENDER_FAILED, rule.position, value=judged.value)
    for name, param in rule.then.params.items():
        found = failure_of(param, view, point.symbols)
        if found is not None:
            expression, failure = found
            why = str(failure)
            if not failure.names and _is_personal(nodes_of(expression.root), point):
                why = _WITHHELD
            outcome = msgspec.structs.replace(
                plain, expression=expression.source, missing=failure.names, detail=f"param `{name}`: {why}"
            )
            return _with_denied(outcome, [expression.root], point, view)
    return plain


def _key_value(name: str, judged: _Judged) -> Any:
    match name:
        case "priority":
            return judged.compiled.rule.priority
        case "specificity":
            return judged.compiled.rule.specificity
        case "value":
            return judged.value
        case "recency":
            return judged.change
    return judged.compiled.rule.id


def _decisive_key(point: Point, winner: _Judged, loser: _Judged) -> str:
    """The first order key on which the two differ; ``rule_id`` when they tie on all."""
    return next((k for k in point.declared.order if _key_value(k, winner) != _key_value(k, loser)), "rule_id")


def _keys_text(point: Point, judged: _Judged) -> str:
    return ", ".join(f"{key} {_key_text(key, judged)}" for key in point.declared.order)


def _key_text(name: str, judged: _Judged) -> str:
    value = _key_value(name, judged)
    if value is None:
        return "unknown"
    return text(from_micros(value)) if name == "recency" else shown(value)
