"""The walk: from the survivors of the index, best first, to a Decision.

Law: pure. Clock, profile and scores are arguments. A model is asked for by returning `Need`: the caller puts the
scores into the view and calls `advance` again, which goes on where it stopped. Gates in order: residual checks,
consent, dates and rollout, cap, models, group, rendering, duplicate, slot.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import msgspec

from arbiter.decision.capping import frees, has_room
from arbiter.decision.dates import in_time
from arbiter.decision.hashing import share
from arbiter.decision.lots import draw
from arbiter.decision.ranking import last_change, order_key
from arbiter.expr.ops import FAILURES, eq
from arbiter.ruleset.render import text
from arbiter.types import Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from arbiter.expr.view import View
    from arbiter.ruleset.compiled import CompiledBranch, CompiledRule, Entry, Point
    from arbiter.types import Treatment

_NOTHING: frozenset[str] = frozenset()
# Bits that are looked at ahead of a model's run: more would take longer than running apart does.
_AHEAD = 64
# Rules that are left when a check fails, or that compete, from which on many more values are likely to be read singly.
_MANY = 8


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
    change by themselves (None: never); `changes` gives change times for `recency`; `off` are the ids of rules that are
    switched off.
    """

    __slots__ = (
        "_block",
        "_changes",
        "_delivered",
        "_drawn",
        "_eligible",
        "_entries",
        "_frees",
        "_groups",
        "_horizon",
        "_mask",
        "_off",
        "_placed",
        "_point",
        "_rank",
        "_rest",
        "_slots",
        "_subject",
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
        off: frozenset[str] = _NOTHING,
    ) -> None:
        self._point = point
        self._view = view
        self._subject = subject_id
        self._slots = min(slots, point.slots) if slots else point.slots
        self._delivered = delivered
        self._horizon = horizon
        self._changes = changes
        self._off = off
        self._frees: int | None = None  # when the first cap that kept a rule out has room again
        self._groups: set[str] | None = None  # made when first needed: most decisions have no group
        self._placed: list[Treatment] = []
        found = point.index.match(view)
        if point.single:
            self._mask: int = found
            self._rest: Iterator[tuple[int, int]] | None = None
            self._block = 0
            self._entries = point.entries[0]
        else:
            self._mask = 0
            self._rest = found
        if point.gathers:
            self._drawn: dict[str, float] = {}
            self._eligible: list[Candidate] = []
            self._rank: tuple[int, ...] | None = None  # of the tier that is being collected

    def advance(self) -> Decision | Need:
        """The Decision, or the models that are needed first."""
        if self._point.gathers:
            return self._advance_by_tiers()
        while True:
            found = self._next(None)
            if found is None:
                break
            if isinstance(found, Need):
                return found
            _, rule, behind = found
            if rule.models and (lacking := self._lacking(rule.models)) and not self._is_out(rule):
                return self._need(lacking, rule, behind)
            self._mask &= behind
            if self._place(rule, None):
                break
        return self._decision()

    def _advance_by_tiers(self) -> Decision | Need:
        whole = bool(self._point.bandits)  # all is one tier then: a lot is drawn among rules of any rank
        while True:
            found = self._next(None if whole else self._rank)
            if found is None:
                # The tier is complete; without one there is nothing left.
                if self._rank is None or self._settle():
                    decision = self._decision()
                    return msgspec.structs.replace(decision, drawn=self._drawn) if self._drawn else decision
                self._rank = None
                continue
            if isinstance(found, Need):
                return found
            _, rule, behind = found
            out = (rule.group or rule.table) and self._is_out(rule)
            if rule.sure and not out and (lacking := self._lacking(rule.sure)):
                return self._need(lacking, rule, behind)
            self._mask &= behind
            self._rank = rule.rank
            if not out:
                self._eligible.append(Candidate(rule, *self._dynamic_keys(rule)))
                if len(self._eligible) == _MANY:
                    self._view.unfold()

    def _settle(self) -> bool:
        """Arbitrate within the tier that was collected; True when all slots are full."""
        tier, self._eligible = self._eligible, []
        tier.sort(key=self._sort_key)
        if not self._point.bandits:
            return any(self._place(candidate.rule, candidate.value) for candidate in tier)
        for candidate in tier:
            group = candidate.rule.group
            chosen = candidate
            if group in self._point.bandits and not (self._groups and group in self._groups):
                chosen = self._by_lot(group, tier) or candidate
            if self._place(chosen.rule, chosen.value):
                return True
        return False

    def _by_lot(self, group: str, tier: list[Candidate]) -> Candidate | None:
        """The one of the group that is drawn of those that can be delivered; None where none can be."""
        before = (*self._placed, *self._delivered)
        own = [each for each in tier if each.rule.group == group]
        arms = {each.rule.id: each for each in own if anew(each.rule, self._view, each.value, before)}
        if len(arms) < 2:  # noqa: PLR2004 - there is nothing to draw
            return next(iter(arms.values()), None)
        found, chance = draw(self._point, group, arms, self._view, self._subject)
        self._drawn[found] = chance
        return arms[found]

    def _next(self, rank: tuple[int, ...] | None) -> Entry | Need | None:
        """The best rule that passes checks, consent, dates, rollout and models; None when there is none, or none of
        `rank`.

        Its bits stay set until it is dealt with.
        """
        view, mask, folded = self._view, self._mask, True
        while mask or (mask := self._next_block()):
            low = mask & -mask
            bit = low.bit_length() - 1
            entry = self._entries[bit] or self._point.entry(self._block, bit)
            branch, rule, behind = entry
            if rank is not None and rule.rank != rank:
                self._mask = mask
                return None
            if branch.before is not None and not branch.before(view):
                mask ^= low
                if folded and mask.bit_count() > _MANY:
                    view.unfold()
                    folded = False
                continue
            if (rule.guarded and not let_in(rule, view, self._subject)) or (self._off and rule.id in self._off):
                self._note_full(rule)
                mask &= behind
                continue
            if branch.after is not None:
                lacking = self._lacking(branch.models) if view.models else branch.models
                if lacking:
                    if (rule.group or rule.table) and self._is_out(rule):
                        mask &= behind
                        continue
                    self._mask = mask
                    return self._need(lacking, rule, behind)
                if not branch.after(view):
                    mask ^= low
                    continue
            self._mask = mask
            return entry
        self._mask = 0
        return None

    def _note_full(self, rule: CompiledRule, given: Iterable[Treatment] = ()) -> None:
        """Know when a cap has room again, where one keeps the rule out."""
        if not rule.limits:
            return
        free = frees(rule, self._view, given)
        if free is not None and (self._frees is None or free < self._frees):
            self._frees = free

    def _next_block(self) -> int:
        """The survivors of the next block that has any; 0 when none has."""
        found = next(self._rest, None) if self._rest else None
        if found is None:
            self._rest = None
            return 0
        self._block, mask = found
        self._entries = self._point.entries[self._block]
        return mask

    def _lacking(self, models: tuple[str, ...]) -> tuple[str, ...]:
        known = self._view.models
        if len(models) == 1:
            return () if models[0] in known else models
        return tuple([m for m in models if m not in known])

    def _is_out(self, rule: CompiledRule) -> bool:
        """Whether the rule cannot be placed any more, whatever its models say: its group has a winner, or it is a row
        of a table of which another competes in this tier. Of rows that tie on the static keys only the first competes
        on the dynamic ones.
        """
        if rule.table and self._point.dynamic:
            return any(rule.table == other.rule.table and rule.rank == other.rule.rank for other in self._eligible)
        return bool(rule.group and self._groups and rule.group in self._groups)

    def _need(self, lacking: tuple[str, ...], rule: CompiledRule, behind: int) -> Need:
        """What `rule`, the next one, lacks, and what rules behind it are sure to need, whatever any model says.

        That is what they need when they are reached, as long as the ones before cannot have filled the slots; in a tier
        all are reached, since it is settled as a whole. A rule is looked at whose other checks hold, and no further
        than this block of the index reaches.
        """
        point = self._point
        if len(point.models) == len(lacking):
            return Need(lacking)
        room = _AHEAD if point.gathers else self._slots - len(self._placed) - 1
        if not room:
            return Need(lacking)
        # In a tier the conditions of all hold or not before any of them takes a group; otherwise the first of a group
        # may leave nothing to the next, as the first row of a table may in a tier.
        rivals = {*(self._groups or ()), *((each.rule.table for each in self._eligible) if point.gathers else ())}
        rivals.add(rule.table if point.gathers else rule.group)
        wanted = set(lacking)
        tier = rule.rank if point.dynamic and not point.bandits else None
        for branch, other in self._reached(self._mask & behind, room, tier):
            if (other.group and other.group in rivals) or (other.table and other.table in rivals):
                continue
            wanted.update(branch.models or other.sure)
            rivals.add(other.table if point.gathers else other.group)
        return Need(tuple(sorted(wanted.difference(self._view.models))))

    def _reached(
        self, mask: int, room: int, tier: tuple[int, ...] | None
    ) -> Iterator[tuple[CompiledBranch, CompiledRule]]:
        """The next rules of `mask`, by their first branches, whose checks hold that need no model: as many as have
        `room`, and no further than the tier goes.
        """
        entries, view = self._entries, self._view
        for _ in range(_AHEAD):
            if not mask or not room:
                return
            low = mask & -mask
            bit = low.bit_length() - 1
            branch, rule, behind = entries[bit] or self._point.entry(self._block, bit)
            if tier is not None and rule.rank != tier:
                return
            if branch.before is not None and not branch.before(view):
                mask ^= low
                continue
            mask &= behind
            if (rule.guarded and not let_in(rule, view, self._subject)) or (self._off and rule.id in self._off):
                continue
            room -= 1
            yield branch, rule

    def _dynamic_keys(self, rule: CompiledRule) -> tuple[float | None, int | None]:
        value = rule.value(self._view) if rule.valued else None
        return value, last_change(rule, self._changes(), self._view) if "recency" in self._point.dynamic else None

    def _sort_key(self, candidate: Candidate) -> tuple[float | str, ...]:
        return order_key(self._point, candidate.rule, candidate.value, candidate.change)

    def _place(self, rule: CompiledRule, value: float | None) -> bool:
        """Deliver the rule's treatment unless its group, what was given before it in the same answer, rendering or a
        duplicate forbids it; True when all slots are full.
        """
        if rule.group and self._groups and rule.group in self._groups:
            return False
        if rule.takes and (self._placed or self._delivered):
            given = (*self._delivered, *self._placed)
            if not has_room(rule, self._view, given):
                self._note_full(rule, given)
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
        if point.timeless and self._frees is not None and (until is None or self._frees < until):
            until = self._frees
        if self._placed:
            return Decision(point.name, tuple(self._placed), False, until)
        return Decision(point.name, (point.default,) if point.default else (), True, until)


def let_in(rule: CompiledRule, view: View, subject_id: str) -> bool:
    """Whether consent, dates, rollout and cap let the rule in."""
    return (
        rule.requires <= view.consent.granted
        and in_time(rule.active, view)
        and in_rollout(rule, view, subject_id)
        and has_room(rule, view)
    )


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
    return rule.given(params, value)


def anew(rule: CompiledRule, view: View, value: float | None, before: tuple[Treatment, ...]) -> Treatment | None:
    """The rule's treatment; None when it cannot be rendered, was delivered `before`, or a cap has no room for it."""
    if rule.takes and not has_room(rule, view, before):
        return None
    treatment = rule.treatment or rendered(rule, view, value)
    return None if treatment is None or repeated(treatment, before) else treatment


def repeated(treatment: Treatment, delivered: Iterable[Treatment]) -> bool:
    """Whether the same action with the same parameters was delivered already; ``1`` and ``true`` are not the same."""
    return any(treatment.action == t.action and eq(treatment.params, t.params) for t in delivered)
