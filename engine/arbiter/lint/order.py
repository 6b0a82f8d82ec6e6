"""Which rule of a decision point certainly comes before which, and which rules can take each other's place.

Law: what holds of every subject and every moment. Where a dynamic order key decides, only rules whose keys cannot
differ are said to be in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.expr.tree import Const
from arbiter.lint.masks import mask_of
from arbiter.ruleset.branches import reads_of
from arbiter.ruleset.image import tie_break
from arbiter.ruleset.render import plain_params

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arbiter.lint.masks import Mask
    from arbiter.lint.space import Space, Trees
    from arbiter.ruleset.rules import DecisionPoint, Effect, OrderKey, Rule

Gift = tuple[Any, ...]
"""What a treatment is, up to what counts as the same one; of an effect with `${}` only its action is known."""

KNOWN_FIELDS = frozenset(
    [
        "id",
        "decision",
        "priority",
        "when",
        "then",
        "value",
        "group",
        "rollout",
        "active",
        "tags",
        "enabled",
        "position",
        "specificity",
        "table",
        "row",
        "requires_consent",
        "cap",
        "caps",
    ]
)
"""The fields of `Rule` that the lint accounts for. Another one may be a gate, and then claims would be wrong."""

_FULL = 100
_ANY = "*"


class Ranks:
    """The enabled rules of a point, sorted: `keys` has what makes two rules tie when it is equal."""

    def __init__(self, point: DecisionPoint, rules: Iterable[Rule], trees: Trees) -> None:
        enabled = [rule for rule in rules if rule.enabled]
        fixed = all(rule.value is None or _constant(rule) is not None for rule in enabled)
        static: set[OrderKey] = {"priority", "specificity", *(("value",) if fixed else ())}
        cut = next((i for i, key in enumerate(point.order) if key not in static), len(point.order))
        self._dynamic = [key for key in point.order[cut:] if key not in static]
        first, last = point.order[:cut], [key for key in point.order[cut:] if key in static]
        ranked = [(_rank(rule, first), _rank(rule, last), tie_break(rule), rule) for rule in enabled]
        ranked.sort(key=lambda each: each[:3])
        self.rules = [rule for *_, rule in ranked]
        self.tiers = [tier for tier, *_ in ranked]
        signatures = [self._signature(rule, trees) for rule in self.rules]
        self.classes = list(zip(self.tiers, signatures, strict=True))
        self.keys = [(tier, signature, rest) for (tier, rest, *_), signature in zip(ranked, signatures, strict=True)]
        self.is_static = not self._dynamic

    def _signature(self, rule: Rule, trees: Trees) -> Any:
        """Equal for rules whose dynamic keys are equal whatever the subject."""
        found: list[Any] = []
        for key in self._dynamic:
            if key == "value":
                found.append(None if rule.value is None else trees.of(rule.value))
            else:
                reads = reads_of([expression.root for expression in rule.when], trees.symbols)
                found.append(frozenset(path for path in reads if path[0] not in {"context", "now"}))
        return tuple(found)


class Rivals:
    """Of each way of each rule, by bit: who comes before, who certainly takes a slot, and from whom."""

    def __init__(self, space: Space, ranks: Ranks, elsewhere: set[Gift]) -> None:
        self.ways = [way for of_rule in space.ways for way in of_rule]
        self.first: list[int] = []
        bit = 0
        for of_rule in space.ways:
            self.first.append(bit)
            bit += len(of_rule)
        self._ranks = ranks
        gifts = [gift_of(rule.then) for rule in ranks.rules]
        self.conflicts, pure = _conflicts(ranks.rules, gifts)
        self._pure = {number for number in set(self.conflicts) if pure[number]}
        shared = [repeatable(gift, elsewhere) for gift in gifts]
        members: dict[int, list[int]] = {}
        rollouts: dict[tuple[str, str], list[tuple[float, int]]] = {}
        consents: dict[frozenset[str], list[int]] = {}
        sure: list[int] = []
        groups: dict[Any, list[int]] = {}
        self._tier_start: dict[Any, int] = {}
        for bit, way in enumerate(self.ways):
            rule = ranks.rules[way.rule]
            self._tier_start.setdefault(ranks.tiers[way.rule], bit)
            groups.setdefault(ranks.classes[way.rule], []).append(bit)
            members.setdefault(self.conflicts[way.rule], []).append(bit)
            if way.sure is None or shared[way.rule]:
                continue
            if limited(rule) and rule.requires_consent:
                continue  # whom two gates let in is more than is compared here
            if limited(rule):
                assert rule.rollout is not None  # noqa: S101 - for the type checker
                rollouts.setdefault((rule.rollout.salt, rule.rollout.by), []).append((rule.rollout.percent, bit))
            elif rule.requires_consent:
                consents.setdefault(frozenset(rule.requires_consent), []).append(bit)
            else:
                sure.append(bit)
        self._sure = mask_of(sure)
        self._rollouts = {key: sorted(found) for key, found in rollouts.items()}
        self._consents = {purposes: mask_of(bits) for purposes, bits in consents.items()}
        self._groups = {} if ranks.is_static else {key: mask_of(bits) for key, bits in groups.items()}
        self._members = {number: mask_of(bits) for number, bits in members.items() if number in self._pure}
        alone = self._checks_of_one(space)
        self.boxes = [
            None if shared[way.rule] or (way.sure and not alone.isdisjoint(way.sure)) else way.sure for way in self.ways
        ]

    def _checks_of_one(self, space: Space) -> set[int]:
        """The residual checks of one rule alone: nobody else knows what they come to, so they cover nothing."""
        users: dict[int, set[int]] = {}
        for way in self.ways:
            for number in way.box:
                if space.is_check(number):
                    users.setdefault(number, set()).add(way.rule)
        return {number for number, rules in users.items() if len(rules) == 1}

    @property
    def all_sure(self) -> Mask:
        """The ways of all rules that certainly take a slot from somebody, whatever the rollouts and consents."""
        return self._sure

    def before(self, rule: int) -> Mask:
        """The ways of rules that come before this one and are eligible whenever one of them and it hold."""
        lower = (1 << self.first[rule]) - 1
        if self._ranks.is_static:
            mask = lower
        else:
            above = (1 << self._tier_start.get(self._ranks.tiers[rule], 0)) - 1
            mask = above | (lower & self._groups.get(self._ranks.classes[rule], 0))
        return mask & (self._sure | self._rolled_out_with(rule) | self._consented_with(rule))

    def _rolled_out_with(self, rule: int) -> Mask:
        """The ways of rules whose rollout includes everybody whom this rule's rollout does."""
        rollout = self._ranks.rules[rule].rollout
        if rollout is None:
            return 0
        found = self._rollouts.get((rollout.salt, rollout.by), [])
        return mask_of(bit for percent, bit in found if percent >= rollout.percent)

    def _consented_with(self, rule: int) -> Mask:
        """The ways of rules that need no more consent than this one."""
        own = frozenset(self._ranks.rules[rule].requires_consent)
        found = 0
        for purposes, mask in self._consents.items():
            if purposes <= own:
                found |= mask
        return found

    def blocking(self, rule: int) -> Mask:
        """The ways of rules beside which this one never wins, however many slots there are."""
        return self._members.get(self.conflicts[rule], 0)


def limited(rule: Rule) -> bool:
    """Whether the rule's rollout or cap leaves somebody out."""
    return (
        rule.cap is not None
        or bool(rule.caps)
        or (rule.rollout is not None and (rule.rollout.percent < _FULL or rule.rollout.by != "subject"))
    )


def gift_of(effect: Effect) -> Gift:
    """What an effect gives."""
    params = plain_params(effect)
    return (effect.action,) if params is None else (effect.action, _comparable(params))


def repeatable(gift: Gift, others: set[Gift]) -> bool:
    """Whether one of `others` may give the same treatment."""
    return gift in others or gift[:1] in others or (len(gift) == 1 and (_ANY, gift[0]) in others)


def elsewhere(gifts: Mapping[str, set[Gift]], point: str) -> set[Gift]:
    """What the points other than `point` may give, as `repeatable` asks for it."""
    found = {gift for name, of_point in gifts.items() if name != point for gift in of_point}
    return found | {(_ANY, gift[0]) for gift in found}


def _comparable(value: Any) -> Any:
    """Equal and hashable for what `ops.eq` holds equal."""
    if isinstance(value, dict):
        return ("map", tuple(sorted((name, _comparable(each)) for name, each in value.items())))
    if isinstance(value, list):
        return ("list", tuple(map(_comparable, value)))
    return ("number", float(value)) if value.__class__ in {int, float} else (value.__class__.__name__, value)


def _conflicts(rules: Sequence[Rule], gifts: Sequence[Gift]) -> tuple[list[int], dict[int, bool]]:
    """A number for each rule, shared by rules of which one may keep another from a slot by group, table or treatment;
    and whether all rules of a number do so for one and the same reason.
    """
    parent = list(range(len(rules)))

    def root(of: int) -> int:
        while parent[of] != of:
            parent[of] = parent[parent[of]]
            of = parent[of]
        return of

    templated = {gift[0] for gift in gifts if len(gift) == 1}
    firsts: dict[Any, int] = {}
    for number, (rule, gift) in enumerate(zip(rules, gifts, strict=True)):
        reasons: list[Any] = [("gift", gift[:1] if gift[0] in templated else gift)]
        reasons += [("group", rule.group)] if rule.group else []
        reasons += [("table", rule.table)] if rule.table else []
        for reason in reasons:
            parent[root(number)] = root(firsts.setdefault(reason, number))
    found = [root(number) for number in range(len(rules))]
    kept: dict[int, set[Any]] = {}
    for number, (rule, gift) in enumerate(zip(rules, gifts, strict=True)):
        # A template may give something else each time: that two share an action is no reason for certain.
        own: set[Any] = {("gift", gift)} if len(gift) > 1 else set()
        own |= {("group", rule.group)} if rule.group else set()
        own |= {("table", rule.table)} if rule.table else set()
        kept[found[number]] = kept.get(found[number], own) & own
    return found, {number: bool(reasons) for number, reasons in kept.items()}


def _constant(rule: Rule) -> float | None:
    root = rule.value.root if rule.value is not None else None
    return float(root.value) if isinstance(root, Const) and root.kind in {"int", "double"} else None


def _rank(rule: Rule, keys: Iterable[OrderKey]) -> tuple[Any, ...]:
    found: list[Any] = []
    for key in keys:
        match key:
            case "priority":
                found.append(-rule.priority)
            case "specificity":
                found.append(-rule.specificity)
            case "value":
                value = _constant(rule)
                found.append(float("inf") if value is None else -value)
    return tuple(found)
