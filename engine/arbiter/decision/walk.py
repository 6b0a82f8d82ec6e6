"""The walk: from the survivors of the index, best first, to a Decision.

Law: pure. Clock, profile and scores are arguments. A model is asked for by returning `Need`: the caller puts the
scores into the view and calls `advance` again, which goes on where it stopped. Gates in order: residual checks, dates
and rollout, models, group, rendering, duplicate, slot.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import msgspec

from arbiter.decision.hashing import share
from arbiter.expr.ops import FAILURES, eq
from arbiter.ruleset.render import text
from arbiter.types import Decision, Reason, Treatment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arbiter.expr.view import View
    from arbiter.ruleset.compiled import CompiledRule, Point


class Need(msgspec.Struct, frozen=True):
    """The walk cannot go on without the outputs of these models."""

    models: tuple[str, ...]


class Candidate(msgspec.Struct):
    """A rule that passed every gate before arbitration, with its dynamic keys. `change` is µs, None for unknown."""

    rule: CompiledRule
    value: float | None = None
    change: int | None = None


class Walk:
    """One decision at one point for one view.

    `delivered` are treatments that must not come again; `horizon` is the µs at which the profile's features next
    change by themselves (None: never); `changes` gives change times for `recency`.
    """

    __slots__ = (
        "_changes",
        "_delivered",
        "_eligible",
        "_groups",
        "_horizon",
        "_mask",
        "_placed",
        "_point",
        "_slots",
        "_subject",
        "_tier",
        "_view",
    )

    def __init__(
        self,
        point: Point,
        view: View,
        subject_id: str,
        slots: int = 0,
        delivered: Iterable[Treatment] = (),
        horizon: int | None = None,
        changes: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._point = point
        self._view = view
        self._subject = subject_id
        self._slots = min(slots, point.slots) if slots else point.slots
        self._delivered = delivered
        self._horizon = horizon
        self._changes = changes
        self._mask = point.index.match(view)
        self._tier = 0
        self._groups: set[str] | None = None  # made when first needed: most decisions have no group
        self._placed: list[Treatment] = []
        if point.dynamic:
            self._eligible: list[Candidate] = []

    def advance(self) -> Decision | Need:
        """The Decision, or the models that are needed first."""
        if self._point.dynamic:
            return self._advance_by_tiers()
        while self._mask:
            rule = self._next(-1)
            if rule is None:
                break
            if isinstance(rule, Need):
                return rule
            if rule.models and (need := self._lacking(rule.models)):
                return need
            self._mask &= rule.others
            if self._place(rule, None):
                break
        return self._decision()

    def _advance_by_tiers(self) -> Decision | Need:
        point = self._point
        while self._mask or self._tier:
            if not self._tier:
                low = self._mask & -self._mask
                self._tier = point.tier_masks[point.branches[low.bit_length() - 1].rule.tier]
            while self._mask & self._tier:
                rule = self._next(self._tier)
                if rule is None:
                    break
                if isinstance(rule, Need):
                    return rule
                models = rule.models + rule.value_models
                if models and (need := self._lacking(models)):
                    return need
                self._mask &= rule.others
                self._eligible.append(Candidate(rule, *self._dynamic_keys(rule)))
            self._eligible.sort(key=self._sort_key)
            for candidate in self._eligible:
                if self._place(candidate.rule, candidate.value):
                    return self._decision()
            self._eligible = []
            self._tier = 0
        return self._decision()

    def _next(self, among: int) -> CompiledRule | Need | None:
        """The best rule among these bits that passes checks, dates, rollout and models. Its bits stay set until it is
        dealt with.
        """
        view, branches = self._view, self._point.branches
        mask = self._mask
        while candidates := mask & among:
            low = candidates & -candidates
            branch = branches[low.bit_length() - 1]
            if branch.before is not None and not branch.before(view):
                mask ^= low
                continue
            rule = branch.rule
            if rule.guarded and not (in_time(rule, view) and in_rollout(rule, view, self._subject)):
                mask &= rule.others
                continue
            if branch.after is not None:
                need = self._lacking(branch.models)
                if need:
                    self._mask = mask
                    return need
                if not branch.after(view):
                    mask ^= low
                    continue
            self._mask = mask
            return rule
        self._mask = mask
        return None

    def _lacking(self, models: tuple[str, ...]) -> Need | None:
        known = self._view.models
        if not known:
            return Need(models)
        lacking = tuple([m for m in models if m not in known])
        return Need(lacking) if lacking else None

    def _dynamic_keys(self, rule: CompiledRule) -> tuple[float | None, int | None]:
        value = rule.value(self._view) if rule.value is not None else None
        return value, last_change(rule, self._changes()) if "recency" in self._point.dynamic else None

    def _sort_key(self, candidate: Candidate) -> tuple[float | str, ...]:
        return order_key(self._point, candidate.rule, candidate.value, candidate.change)

    def _place(self, rule: CompiledRule, value: float | None) -> bool:
        """Deliver the rule's treatment unless its group, rendering or a duplicate forbids it; True when all slots are
        full.
        """
        if rule.group and self._groups and rule.group in self._groups:
            return False
        treatment = rule.treatment or rendered(rule, self._view, value)
        if treatment is None:
            return False
        if (self._placed or self._delivered) and repeated(treatment, (*self._placed, *self._delivered)):
            return False
        if rule.group:
            self._groups = {rule.group, *(self._groups or ())}
        self._placed.append(treatment)
        return len(self._placed) >= self._slots

    def _decision(self) -> Decision:
        point = self._point
        until = self._horizon if point.timeless else None
        if point.timeless and point.edges:
            after = bisect_right(point.edges, self._view.clock)
            if after < len(point.edges) and (until is None or point.edges[after] < until):
                until = point.edges[after]
        if self._placed:
            return Decision(point.name, tuple(self._placed), False, until)
        return Decision(point.name, (point.default,) if point.default else (), True, until)


def in_time(rule: CompiledRule, view: View) -> bool:
    """Whether the clock lies in the rule's half-open range of dates."""
    active = rule.active
    if active is None:
        return True
    return (active.start is None or view.clock >= active.start) and (active.until is None or view.clock < active.until)


def in_rollout(rule: CompiledRule, view: View, subject_id: str) -> bool:
    """Whether the rule's rollout includes this unit; a unit that is missing is outside."""
    rollout = rule.rule.rollout
    if rollout is None:
        return True
    try:
        unit = subject_id if rule.unit is None else text(rule.unit(view))
    except FAILURES:
        return False
    return share(rollout.salt, unit) * 100 < rollout.percent


def rendered(rule: CompiledRule, view: View, value: float | None) -> Treatment | None:
    """The rule's treatment for this view; None when a parameter has no value."""
    try:
        params = rule.render(view)
    except FAILURES:
        return None
    return Treatment(rule.id, rule.rule.then.action, params, rule.priority, value, Reason.WON)


def repeated(treatment: Treatment, delivered: Iterable[Treatment]) -> bool:
    """Whether the same action with the same parameters was delivered already; ``1`` and ``true`` are not the same."""
    return any(treatment.action == t.action and eq(treatment.params, t.params) for t in delivered)


def last_change(rule: CompiledRule, changes: dict[str, int]) -> int | None:
    """The newest change (µs) among the names that the rule's condition reads, context not counted; None when none is
    known.
    """
    return max((changes[key] for key in rule.change_keys if key in changes), default=None)


def order_key(point: Point, rule: CompiledRule, value: float | None, change: int | None) -> tuple[float | str, ...]:
    """What sorts rules of one point, best first: its order keys, then the rule id. Unknown sorts last."""
    keys: list[float | str] = []
    for name in point.declared.order:
        match name:
            case "priority":
                keys.append(-rule.priority)
            case "specificity":
                keys.append(-rule.specificity)
            case "value":
                keys.append(float("inf") if value is None else -value)
            case "recency":
                keys.append(float("inf") if change is None else -change)
    return (*keys, rule.id)
