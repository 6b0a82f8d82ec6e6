"""A decision point ready to decide: its index, and its rules, each decoded and compiled when a survivor first needs it.

Law: what an image says never changes; a rule or a function that was not needed yet takes its place on first use, and
whoever comes at the same moment makes an equal one. Nothing here decides: `decision` walks these structures.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.compile import truth_function, value_function
from arbiter.expr.ops import FAILURES
from arbiter.expr.tree import Name
from arbiter.ruleset.branches import branches_of, models_of, reads_of
from arbiter.ruleset.caps.tallies import limits_of, takes_of
from arbiter.ruleset.image import names_read, rank_of, salts_of, static_order, stored_names
from arbiter.ruleset.render import expressions_of, plain_params, renderer
from arbiter.ruleset.rules import Rule
from arbiter.types import Reason, Treatment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.branches import Branch, Check
    from arbiter.ruleset.image import Pack, PointPart
    from arbiter.ruleset.index import Index
    from arbiter.ruleset.rules import DecisionPoint, OrderKey
    from arbiter.ruleset.terms import Bandit

_decode = msgspec.msgpack.Decoder(Rule).decode


class _Named(msgspec.Struct):
    """As much of a rule as its id."""

    id: str


_name = msgspec.msgpack.Decoder(_Named).decode


class CompiledRule:
    """One rule with the functions that it needs. `rank` sorts by the static prefix of the point's order; rules of one
    rank form a tier. `models` and `value_models` are asked for before rendering and valuing, as a condition's are;
    `sure` are both. `limits` are what its caps ask, `takes` and `strict` what they note of it, see
    `Treatment`.
    """

    def __init__(self, rule: Rule, symbols: Symbols, order: Sequence[OrderKey], static: Iterable[OrderKey]) -> None:
        self.rule = rule
        self.id = rule.id
        self.priority = rule.priority
        self.specificity = rule.specificity
        self.group = rule.group
        self.table = rule.table
        self.active = rule.active
        self.requires = frozenset(rule.requires_consent)
        self.limits = limits_of(rule, symbols.features)
        self.guarded = bool(self.requires or self.limits or rule.active is not None or rule.rollout is not None)
        self.rank = rank_of(rule, static)
        self.valued = rule.value is not None and "value" in order
        params = plain_params(rule.then)
        self.takes = takes_of(self.limits)
        self.strict = any(limit.strict for limit in self.limits)
        self.treatment = None if params is None or self.valued else self.given(params, None)
        rendered = [e.root for p in rule.then.params.values() for e in expressions_of(p)]
        self.models = tuple(sorted(models_of(rendered, symbols)))
        self.value_models = tuple(sorted(models_of([rule.value.root], symbols))) if rule.value and self.valued else ()
        self.sure = self.models + self.value_models
        self._symbols = symbols
        self._compiled: dict[int, CompiledBranch] = {}

    def given(self, params: dict[str, Any], value: float | None) -> Treatment:
        """The treatment with these parameters."""
        action, priority = self.rule.then.action, self.priority
        if self.takes:
            return Treatment(
                self.id, action, params, priority, value, group=self.group, takes=self.takes, strict=self.strict
            )
        return Treatment(self.id, action, params, priority, value)

    @cached_property
    def branches(self) -> list[Branch]:
        """The ways in which the rule's condition can be true, in the order of the image's bits."""
        return branches_of([e.root for e in self.rule.when], self._symbols)

    def branch(self, number: int) -> CompiledBranch:
        """One of them, compiled."""
        found = self._compiled.get(number)
        if found is None:
            found = self._compiled[number] = CompiledBranch(self.branches[number], self.id, self._symbols)
        return found

    @cached_property
    def render(self) -> Callable[[View], dict[str, Any]]:
        """What renders the parameters; raises one of `FAILURES` when one has no value."""
        return renderer(self.rule.then, self._symbols, f"params of {self.id}")

    @cached_property
    def value(self) -> Callable[[View], float | None]:
        """What computes the value; of `valued` rules only."""
        return _number(self.rule, self._symbols)

    @cached_property
    def unit(self) -> Callable[[View], Any] | None:
        """What gives a rollout's unit, where that is not the subject."""
        rollout = self.rule.rollout
        if rollout is None or rollout.by == "subject":
            return None
        return value_function(Name(tuple(rollout.by.split("."))), self._symbols, f"rollout of {self.id}")

    @cached_property
    def change_keys(self) -> tuple[str, ...]:
        """The keys under which a profile tells when the names changed that the condition reads."""
        return _change_keys(reads_of([e.root for e in self.rule.when], self._symbols), self._symbols)


class CompiledBranch:
    """One bit: `before` checks what needs no model, `after` what needs `models`; None where there is nothing to
    check.
    """

    __slots__ = ("after", "before", "models")

    def __init__(self, branch: Branch, rule_id: str, symbols: Symbols) -> None:
        self.models = tuple(sorted(branch.models))
        self.before = _checked([c for c in branch.checks if not c.models], symbols, f"before of {rule_id}")
        self.after = _checked([c for c in branch.checks if c.models], symbols, f"after of {rule_id}")


def _checked(checks: list[Check], symbols: Symbols, label: str) -> Callable[[View], bool] | None:
    return truth_function([(c.node, c.wanted) for c in checks], symbols, label) if checks else None


Entry = tuple[CompiledBranch, CompiledRule, int]
"""A bit's branch, its rule, and the mask of the bits behind the rule's own in the block."""


class Rules:
    """The stored rules of a snapshot, by number."""

    def __init__(self, packs: Sequence[Pack]) -> None:
        self._packs = packs
        self._ends = [array("I", pack.ends) for pack in packs]
        self._starts = [0, *accumulate(len(ends) for ends in self._ends)]

    @property
    def count(self) -> int:
        """How many there are."""
        return self._starts[-1]

    def rule(self, number: int) -> Rule:
        """The rule of this number."""
        return _decode(self._written(number))

    def id(self, number: int) -> str:
        """The id of the rule of this number, the rest of which is not decoded."""
        return _name(self._written(number)).id

    def digest(self, number: int) -> bytes:
        """What names the rule's content, 16 bytes."""
        pack, place = self._find(number)
        return self._packs[pack].digests[16 * place : 16 * place + 16]

    def _written(self, number: int) -> bytes:
        pack, place = self._find(number)
        ends = self._ends[pack]
        return self._packs[pack].blob[ends[place - 1] if place else 0 : ends[place]]

    def _find(self, number: int) -> tuple[int, int]:
        pack = bisect_right(self._starts, number) - 1
        return pack, number - self._starts[pack]


class Point:
    """A decision point. `dynamic` holds the order keys from the first dynamic one on; empty when the order is static.
    `bandits` are the groups of its rules of which one is drawn, by name; `gathers` says that rules are gathered before
    any is placed.

    `entries` has for each block one entry a bit, None until `entry` makes it. `known` has compiled rules by digest;
    it may come from an earlier snapshot of the same symbols and order.
    """

    def __init__(
        self,
        declared: DecisionPoint,
        part: PointPart,
        index: Index,
        rules: Rules,
        symbols: Symbols,
        known: dict[bytes, CompiledRule],
        bandits: Mapping[str, Bandit],
    ) -> None:
        self.declared = declared
        self.name = declared.name
        self.slots = declared.slots
        self.symbols = symbols
        self.index = index
        self.single = len(index.blocks) == 1
        self.static = static_order(declared)
        self.dynamic = declared.order[len(self.static) :]
        self.default = _default(declared)
        self.models = part.models
        self.timeless = part.timeless
        self.accounts = part.accounts
        self.experiments = part.experiments
        self.bandits = bandits
        self.gathers = bool(self.dynamic or bandits)
        self.apart = part.accounts or bool(
            part.experiments or bandits
        )  # its views hold more than a profile and a context
        self.edges = part.edges
        self.known = known
        self.groups: dict[str, str] = {}  # of rules that were needed and are in one, by id
        self.entries: tuple[list[Entry | None], ...] = tuple([None] * block.size for block in index.blocks)
        self._numbers = tuple(array("I", block.rules) for block in part.blocks)
        self._branches = tuple(block.branches for block in part.blocks)
        self._ranked = array("I", part.ranked)
        self._rules = rules
        self._part = part
        self._marked: dict[tuple[str, str], tuple[Treatment, Treatment]] = {}

    def entry(self, block: int, bit: int) -> Entry:
        """The entry of one bit, made on first use."""
        rule = self._compiled(self._numbers[block][bit])
        number = self._branches[block][bit]
        made = (rule.branch(number), rule, -1 << (bit - number + len(rule.branches)))
        self.entries[block][bit] = made
        return made

    def marked(self, treatment: Treatment, variant: str) -> Treatment:
        """The treatment with a variant: of a constant one the same object each time, so that it is written once."""
        key = (treatment.rule_id, variant)
        known = self._marked.get(key)
        if known is None or known[0] is not treatment:
            known = self._marked[key] = treatment, msgspec.structs.replace(treatment, variant=variant)
        return known[1]

    def survivors(self, view: View) -> list[CompiledRule]:
        """The rules that the index does not rule out, in static order: whatever matches is among them."""
        rules: dict[CompiledRule, None] = {}
        for block, mask in self.index.survivors(view):
            rest = mask
            while rest:
                bit = (rest & -rest).bit_length() - 1
                _, rule, behind = self.entries[block][bit] or self.entry(block, bit)
                rules[rule] = None
                rest &= behind
        return list(rules)

    @cached_property
    def rules(self) -> tuple[CompiledRule, ...]:
        """Every rule in static order, disabled ones too: slow the first time, since all are decoded."""
        return tuple(self._compiled(number) for number in self._ranked)

    @cached_property
    def all_rules(self) -> tuple[Rule, ...]:
        """Every rule as it was written, in static order."""
        return tuple(rule.rule for rule in self.rules)

    @cached_property
    def reads(self) -> tuple[tuple[str, str], ...]:
        """The stored names, and those of the context, that a decision may read here: slow once for an old image."""
        if self._part.reads is not None:
            return self._part.reads
        paths = {path for rule in self.all_rules for path in names_read(rule, self.symbols)}
        return stored_names(paths, self.symbols)

    def names_of(self, rule: Rule) -> frozenset[str]:
        """The dotted names of those that a decision may read for this rule, through its models too."""
        return frozenset(".".join(path) for path in stored_names(names_read(rule, self.symbols), self.symbols))

    @cached_property
    def salts(self) -> tuple[str, ...]:
        """The salts by which its rules let in subjects by their ids: slow once for an old image."""
        return salts_of(self.all_rules) if self._part.salts is None else self._part.salts

    def named(self, rule_id: str) -> Rule | None:
        """The rule of this id as it was written: slow the first time, since all are gone through."""
        number = self._by_id.get(rule_id)
        return None if number is None else self._rules.rule(number)

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {self._rules.id(number): number for number in self._ranked}

    @property
    def size(self) -> int:
        """How many rules it has, disabled ones too."""
        return len(self._ranked)

    def some(self, start: int, count: int) -> list[Rule]:
        """`count` rules as they were written, from place `start` of the static order on, then from the first again.

        They are decoded for the caller alone, where `rules` keeps them.
        """
        places = [(start + step) % self.size for step in range(min(count, self.size))]
        return [self._rules.rule(self._ranked[place]) for place in places]

    def _compiled(self, number: int) -> CompiledRule:
        digest = self._rules.digest(number)
        found = self.known.get(digest)
        if found is None:
            found = CompiledRule(self._rules.rule(number), self.symbols, self.declared.order, self.static)
            self.known[digest] = found
        if found.group:
            self.groups[found.id] = found.group
        return found


def _change_keys(paths: Iterable[tuple[str, ...]], symbols: Symbols) -> tuple[str, ...]:
    """The keys under which a profile tells when these names changed; models stand for their inputs, context does not
    count.
    """
    found: set[str] = set()
    for path in paths:
        inputs = symbols.model_inputs.get(path[1], ()) if path[0] == "models" else (path,)
        for root, name in (p for p in inputs if p[0] in {"profile", "account", "features"}):
            found.add(f"features.{symbols.features[name].key}" if root == "features" else f"{root}.{name}")
    return tuple(sorted(found))


def _default(declared: DecisionPoint) -> Treatment | None:
    if declared.default is None:
        return None
    return Treatment("", declared.default.action, plain_params(declared.default) or {}, reason=Reason.DEFAULT)


def _number(rule: Rule, symbols: Symbols) -> Callable[[View], float | None]:
    """The rule's value as a finite double, or None for unknown."""
    assert rule.value is not None  # noqa: S101 - for the type checker
    compute = value_function(rule.value.root, symbols, f"value of {rule.id}")

    def number(view: View) -> float | None:
        try:
            value: Any = compute(view)
        except FAILURES:
            return None
        if value.__class__ is int or (value.__class__ is float and abs(value) < float("inf")):
            return float(value)
        return None

    return number
