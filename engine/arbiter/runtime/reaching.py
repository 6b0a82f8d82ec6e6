"""Whom a rule would reach: of everybody in a store, for whom its condition holds, who is let in, and for whom it wins.

Law: decides as the engine does, for each profile that it meets, and writes nothing. What is kept is counts, of names
and rules that the files have, so memory does not grow with the store; of subjects nothing is kept but the examples that
are asked for. A few profiles are read at a time, in a state of the store that is let go before the next.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.decision.explain import explain
from arbiter.decision.parts import Part, gate, missing, parts_of
from arbiter.decision.walk import Need, Walk
from arbiter.errors import NotFound, did_you_mean
from arbiter.models.seen import inputs_lacking
from arbiter.profiles import census
from arbiter.ruleset.visibility import hiding
from arbiter.runtime.audience import Audience, Condition, Example, Lost, Missing, Variant
from arbiter.runtime.views import view_of
from arbiter.snapshot import finished
from arbiter.types import ExplainLevel, Reason, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from arbiter.expr.view import View
    from arbiter.profiles.records import Profile
    from arbiter.ruleset.compiled import CompiledRule, Point
    from arbiter.runtime.active import Active
    from arbiter.runtime.engine import Engine
    from arbiter.snapshot import Snapshot
    from arbiter.types import Decision

_AT_ONCE: Final = 512  # records that are read in one transaction, and decided together
_KEY_BYTES: Final = 16


class _Asked(msgspec.Struct):
    """A profile that the rule is asked of."""

    subject: str
    known: bool
    key: bytes
    profile: Profile
    active: Active
    view: View
    variants: tuple[tuple[str, str], ...] = ()
    unknown: tuple[Part, ...] = ()


class Reach:
    """Goes through the store of an engine, `step` by step, for one rule as of `at` (µs). `context` is what requests
    would send, `sample` how many profiles are enough, 0 for all, and `examples` how many of each outcome are named.
    """

    def __init__(
        self,
        engine: Engine,
        rule_id: str,
        at: int,
        context: Mapping[str, Any] | None = None,
        *,
        sample: int = 0,
        examples: int = 0,
        start: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Raises NotFound for a rule that is not there, with the closest that are."""
        self._engine = engine
        self._active = active = engine.current()
        snapshot = active.snapshot
        self._point, self._rule = _find(snapshot, rule_id)
        self._at, self._context = at, dict(context or {})
        self._sample, self._examples = sample, examples
        self._parts = parts_of(self._rule.rule, snapshot.symbols)
        self._conditions = [Condition(part.text) for part in self._parts]
        self._request = Request("", (self._point.name,), at, self._context)
        self._members = self._point.accounts
        self._accounts: set[bytes] = set()
        self._naming: bytes | None = b""  # how far accounts were looked for, None for to the end
        self._first = start(_KEY_BYTES) if sample else b""  # where to begin, and to end at the latest
        self._place: bytes | None = self._first
        self._wrapped = not sample
        self._whole = False
        self._profiles = self._ids = self._holds = self._eligible = 0
        self._outcomes: Counter[Reason] = Counter()
        self._missing: Counter[str] = Counter()
        self._denied: Counter[str] = Counter()
        self._lost: Counter[tuple[str, Reason]] = Counter()
        self._variants: Counter[tuple[str, str, str]] = Counter()
        self._degraded: Counter[str] = Counter()
        self._named: list[Example] = []
        with engine.store.reading(active.features) as read:
            self.records = census.entries(read)

    @property
    def expected(self) -> int:
        """About how many records there are to look at."""
        return min(self._sample, self.records) if self._sample else self.records

    def step(self) -> int | None:
        """Go on a little: how many records were looked at, None when there are no more. Raises StoreError."""
        if self._naming is not None:
            with self._engine.store.reading(self._active.features) as read:
                self._naming = census.named_accounts(read, self._naming, self._accounts)
            return 0
        if self._place is None:
            return None
        limit = min(_AT_ONCE, self._sample - self._profiles) if self._sample else _AT_ONCE
        with self._engine.store.reading(self._active.features) as read:
            found, looked, place = census.some(
                read, self._place, self._at, limit, self._accounts, members=self._members
            )
        if self._wrapped and self._first:
            found = [each for each in found if each.key < self._first]
        self._count([self._asked(each) for each in found])
        self._go_on(place)
        return looked

    def _go_on(self, place: bytes | None) -> None:
        """Know where to: a sample begins somewhere, comes from the last key to the first, and ends where it began."""
        if place is None and not self._wrapped:
            self._wrapped, place = True, b""
        elif place is None or (self._wrapped and self._first and place >= self._first):
            self._whole, place = True, None
        if self._sample and self._profiles >= self._sample:
            place = None
        self._place = place

    def _asked(self, subject: census.Subject) -> _Asked:
        # In place of an id that is not kept stands one that is as good for hashing as any.
        subject_id = subject.id or subject.key.hex()
        active = self._active.of(subject_id) if self._active.split else self._active
        request = msgspec.structs.replace(self._request, subject_id=subject_id)
        view = view_of(subject.profile, request, active)
        asked = _Asked(subject_id, bool(subject.id), subject.key, subject.profile, active, view)
        if self._point.experiments:
            asked.variants = tuple(
                (name, view.experiments.assignment(name, view).variant) for name in self._point.experiments
            )
        return asked

    def _count(self, asked: list[_Asked]) -> None:
        self._profiles += len(asked)
        for each in asked:
            self._ids += each.known
            self._note(each, "profiles")
        eligible = [each for each in self._holding(asked) if self._is_let_in(each)]
        self._eligible += len(eligible)
        for each in eligible:
            self._note(each, "eligible")
        if self._rule.rule.enabled:
            self._compete(eligible)
        else:
            for each in eligible:
                self._end(each, Reason.DISABLED)
        for each in asked:
            self._degraded.update(each.view.failed.keys())

    def _holding(self, asked: list[_Asked]) -> list[_Asked]:
        """Those for whom the condition holds, who consent to what the rule asks for; what became of the others."""
        going = []
        for each in asked:
            if self._rule.requires <= each.view.consent.granted:
                going.append(each)
            else:
                self._end(each, Reason.NO_CONSENT)
        for part, condition in zip(self._parts, self._conditions, strict=True):
            if part.models:
                self._score([(each, part.models) for each in going])
            left = []
            for each in going:
                if part.is_true(each.view):
                    condition.true += 1
                elif part.is_false(each.view):
                    condition.false += 1
                    self._end(each, Reason.FAILED, part.text)
                    continue
                else:
                    condition.unknown += 1
                    each.unknown += (part,)
                left.append(each)
            going = left
        holding = []
        for each in going:
            if each.unknown:
                self._lacks(each)
            else:
                holding.append(each)
                self._note(each, "holds")
        self._holds += len(holding)
        return holding

    def _lacks(self, each: _Asked) -> None:
        lacking = missing(each.unknown, each.view, each.active.snapshot.symbols)
        names = tuple(dict.fromkeys(self._behind(lacking, each))) or ("",)
        denied = each.view.consent.denied
        if denied:
            self._denied.update(name for name in names if not denied.keys().isdisjoint(hiding(tuple(name.split(".")))))
        self._missing.update(names)
        self._end(each, Reason.UNKNOWN, ", ".join(names))

    def _behind(self, names: Iterable[str], each: _Asked) -> Iterator[str]:
        """The names, and in place of a model's outputs the inputs for lack of which it has none, where that is why."""
        snapshot = each.active.snapshot
        for name in names:
            root, _, rest = name.partition(".")
            model = snapshot.models[rest.partition(".")[0]] if root == "models" else None
            yield from (model and inputs_lacking(model, each.view, snapshot.symbols)) or (name,)

    def _is_let_in(self, each: _Asked) -> bool:
        reason = gate(self._rule, each.view, each.subject)
        if reason is not None:
            self._end(each, reason)
        return reason is None

    def _compete(self, eligible: Iterable[_Asked]) -> None:
        """Count for whom the rule wins, and for whom it loses."""
        losers = []
        for each, decision in self._decided(eligible):
            if any(treatment.rule_id == self._rule.id for treatment in decision.treatments):
                self._note(each, "shown")
                self._end(each, Reason.WON)
            else:
                losers.append(each)
        self._explain(losers)

    def _decided(self, eligible: Iterable[_Asked]) -> list[tuple[_Asked, Decision]]:
        """What a decision at the rule's point gives each."""
        done: list[tuple[_Asked, Decision]] = []
        waiting = [
            (each, Walk(self._point, view, each.subject, 0, (), None, each.profile.changes, each.active.off))
            for each, view in ((each, each.view.elsewhere(each.view.experiments)) for each in eligible)
        ]
        while waiting:
            needed, still = [], []
            for each, walk in waiting:
                outcome = walk.advance()
                if isinstance(outcome, Need):
                    needed.append((each, outcome.models))
                    still.append((each, walk))
                else:
                    done.append((each, outcome))
            self._score(needed)
            waiting = still
        return done

    def _explain(self, losers: Sequence[_Asked]) -> None:
        """Count to whom the rule is lost, and how."""
        if self._point.models:
            self._score([(each, self._point.models) for each in losers])
        for each in losers:
            (outcome,) = explain(
                self._point, each.view, each.subject, 0, (), each.profile.changes, ExplainLevel.ALL, (self._rule.id,)
            )
            if outcome.lost_to:
                self._lost[outcome.lost_to, outcome.reason] += 1
            self._end(each, outcome.reason, outcome.lost_to or ", ".join(outcome.missing))

    def _score(self, asked: Iterable[tuple[_Asked, Sequence[str]]]) -> None:
        """Have the outputs of these models in the views, each model in as few runs as can be."""
        apart: dict[int, tuple[Active, list[tuple[View, Sequence[str]]]]] = {}
        for each, models in asked:
            lacking = tuple(name for name in models if name not in each.view.models)
            if lacking:
                apart.setdefault(id(each.active), (each.active, []))[1].append((each.view, lacking))
        for active, views in apart.values():
            finished(self._engine.scorer.score_all(active, views, None))

    def _note(self, each: _Asked, what: str) -> None:
        for name, variant in each.variants:
            self._variants[name, variant, what] += 1

    def _end(self, each: _Asked, reason: Reason, detail: str = "") -> None:
        self._outcomes[reason] += 1
        if self._examples and self._outcomes[reason] <= self._examples:
            subject = each.subject if each.known else each.key.hex()
            self._named.append(Example(subject, each.known, reason.name.lower(), detail))

    def result(self) -> Audience:
        """What was counted up to now."""
        rule, point = self._rule.rule, self._point
        own = {name for name in point.names_of(rule) if name.startswith("context.")}
        all_names = {f"context.{name}" for root, name in point.reads if root == "context"}
        given = {f"context.{name}" for name in self._context}
        return Audience(
            rule=rule.id,
            decision=point.name,
            position=rule.position,
            enabled=rule.enabled,
            snapshot=self._active.snapshot.digest,
            at=self._at,
            profiles=self._profiles,
            records=self.records,
            whole=self._whole,
            consent=rule.requires_consent,
            conditions=tuple(msgspec.structs.replace(each) for each in self._conditions),
            holds=self._holds,
            eligible=self._eligible,
            shown=self._outcomes[Reason.WON],
            outcomes={reason.name.lower(): self._outcomes[reason] for reason in Reason if self._outcomes[reason]},
            missing=tuple(Missing(name, count, self._denied[name]) for name, count in _ordered(self._missing)),
            lost=tuple(Lost(to, reason.name.lower(), count) for (to, reason), count in _ordered(self._lost)),
            variants=self._by_variant(),
            degraded=dict(sorted(self._degraded.items())),
            ids=self._ids,
            by_id=_hashes_ids(self._active, point),
            lacking=tuple(sorted(own - given)),
            lacking_beside=tuple(sorted(all_names - own - given)),
            examples=tuple(self._named),
        )

    def _by_variant(self) -> tuple[Variant, ...]:
        pairs = sorted({(name, variant) for name, variant, _ in self._variants})
        return tuple(
            Variant(
                name,
                variant,
                *(self._variants[name, variant, what] for what in ("profiles", "holds", "eligible", "shown")),
            )
            for name, variant in pairs
        )


def _find(snapshot: Snapshot, rule_id: str) -> tuple[Point, CompiledRule]:
    for point in snapshot.points.values():
        if point.named(rule_id) is not None:
            return point, next(rule for rule in point.rules if rule.id == rule_id)
    known = [rule.id for point in snapshot.points.values() for rule in point.all_rules]
    hint = did_you_mean(rule_id, known) or f"the rules have {len(known):,}"
    raise NotFound(f"there is no rule `{rule_id}`; {hint}", field="rule")


def _hashes_ids(active: Active, point: Point) -> bool:
    """Whether what becomes of rules at the point hangs on ids of subjects."""
    return bool(point.salts or point.experiments or point.bandits or active.split)


def _ordered(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))
