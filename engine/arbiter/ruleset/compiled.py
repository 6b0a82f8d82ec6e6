"""A decision point compiled: rules in their static order, one bit a branch, the index, and the residual checks.

Law: built once per snapshot and never changed, except that a generated function takes the place of the stub that
compiles it on its first call. Nothing here decides: `decision` walks these structures.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from arbiter.expr.compile import truth_function, value_function
from arbiter.expr.ops import FAILURES
from arbiter.expr.tree import AnyNode, Name
from arbiter.ruleset.branches import Branch, Check, branches_of, models_of, reads_of
from arbiter.ruleset.index import Index
from arbiter.ruleset.render import expressions_of, plain_params, renderer
from arbiter.ruleset.rules import DYNAMIC_KEYS
from arbiter.types import Reason, Treatment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.rules import DecisionPoint, Rule


class CompiledRule:
    """One enabled rule. `tier` numbers the rules that are equal on the static prefix of the order; `others` is the mask
    of every bit that is not this rule's.
    """

    __slots__ = (
        "active", "change_keys", "group", "guarded", "id", "models", "others", "priority", "render", "rule",
        "specificity", "tier", "treatment", "unit", "value", "value_models",
    )  # fmt: skip

    def __init__(self, rule: Rule, symbols: Symbols, *, values_wanted: bool) -> None:
        self.rule = rule
        self.id = rule.id
        self.priority = rule.priority
        self.group = rule.group
        self.active = rule.active
        self.guarded = rule.active is not None or rule.rollout is not None
        self.tier = self.others = 0
        self.specificity = rule.specificity
        roots = [e.root for e in rule.when]
        self.change_keys = _change_keys(reads_of(roots, symbols), symbols)
        params = plain_params(rule.then)
        valued = rule.value is not None and values_wanted
        self.treatment = (
            None if params is None or valued else Treatment(rule.id, rule.then.action, params, rule.priority)
        )
        rendered = [e.root for p in rule.then.params.values() for e in expressions_of(p)]
        # What rendering and valuing read is asked for before they run, as a condition's models are.
        self.models = tuple(sorted(models_of(rendered, symbols)))
        self.value_models = tuple(sorted(models_of([rule.value.root], symbols))) if rule.value and valued else ()
        self.render = renderer(rule.then, symbols, f"params of {rule.id}")
        self.value = _number(rule, symbols) if valued else None
        self.unit = _unit(rule, symbols)


class CompiledBranch:
    """One bit: `before` checks what needs no model, `after` what needs `models`; None where there is nothing to
    check.
    """

    __slots__ = ("__weakref__", "after", "before", "models", "rule")

    def __init__(self, branch: Branch, rule: CompiledRule, symbols: Symbols) -> None:
        self.rule = rule
        self.models = tuple(sorted(branch.models))
        self.before = self._lazily("before", [c for c in branch.checks if not c.models], symbols)
        self.after = self._lazily("after", [c for c in branch.checks if c.models], symbols)

    def _lazily(self, name: str, checks: list[Check], symbols: Symbols) -> Callable[[View], bool] | None:
        if not checks:
            return None

        # Weak, since a branch that held itself through this function would wait for the collector when it goes.
        branch, rule_id = weakref.ref(self), self.rule.id

        def first_call(view: View) -> bool:
            function = truth_function([(c.node, c.wanted) for c in checks], symbols, f"{name} of {rule_id}")
            setattr(branch(), name, function)
            return function(view)

        return first_call


class Point:
    """A compiled decision point. `dynamic` holds the order keys from the first dynamic one on; empty when the order
    is static.

    `tier_masks` has one mask a tier; `edges` are the sorted µs at which rules begin or end; `timeless` says that,
    edges and feature windows apart, time alone cannot change an answer.
    """

    def __init__(self, declared: DecisionPoint, rules: Iterable[Rule], symbols: Symbols) -> None:
        self.declared = declared
        self.name = declared.name
        self.slots = declared.slots
        self.symbols = symbols
        cut = next((i for i, key in enumerate(declared.order) if key in DYNAMIC_KEYS), len(declared.order))
        self.static, self.dynamic = declared.order[:cut], declared.order[cut:]
        self.all_rules = tuple(sorted(rules, key=lambda r: (*self._static_key(r.priority, r.specificity), r.id)))
        wanted = "value" in declared.order
        self.rules = tuple(CompiledRule(r, symbols, values_wanted=wanted) for r in self.all_rules if r.enabled)
        self.default = _default(declared)
        self.tier_masks: list[int] = []
        branches = self._number(symbols)
        self.index = Index([b for b, _ in branches], symbols, self.name)
        self.branches = tuple(CompiledBranch(b, rule, symbols) for b, rule in branches)
        reads = reads_of(self._nodes(), symbols)
        self.models = tuple(sorted({path[1] for path in reads if path[0] == "models"}))
        reads |= {path for model in self.models for path in symbols.model_inputs.get(model, ())}
        self.timeless = not any(path == ("now",) or _ages(path, symbols) for path in reads)
        actives = [r.active for r in self.rules if r.active]
        self.edges = sorted({t for a in actives for t in (a.start, a.until) if t is not None})

    def _static_key(self, priority: int, specific: int) -> tuple[int, ...]:
        return tuple(-priority if key == "priority" else -specific for key in self.static)

    def _number(self, symbols: Symbols) -> list[tuple[Branch, CompiledRule]]:
        """Tiers and bits: the lowest bit is the best rule's cheapest branch."""
        numbered: list[tuple[Branch, CompiledRule]] = []
        previous: tuple[int, ...] | None = None
        for rule in self.rules:
            key = self._static_key(rule.priority, rule.specificity)
            if key != previous:
                self.tier_masks.append(0)
                previous = key
            own = branches_of([e.root for e in rule.rule.when], symbols)
            mask = ((1 << len(own)) - 1) << len(numbered)
            numbered += [(branch, rule) for branch in own]
            rule.tier, rule.others = len(self.tier_masks) - 1, ~mask
            self.tier_masks[-1] |= mask
        return numbered

    def _nodes(self) -> list[AnyNode]:
        nodes: list[AnyNode] = []
        for rule in self.all_rules:
            expressions = [*rule.when, *(e for p in rule.then.params.values() for e in expressions_of(p))]
            nodes += [e.root for e in expressions] + ([rule.value.root] if rule.value else [])
        return nodes


def _change_keys(paths: Iterable[tuple[str, ...]], symbols: Symbols) -> tuple[str, ...]:
    """The keys under which a profile tells when these names changed; models stand for their inputs, context does not
    count.
    """
    found: set[str] = set()
    for path in paths:
        inputs = symbols.model_inputs.get(path[1], ()) if path[0] == "models" else (path,)
        for root, name in (p for p in inputs if p[0] in {"profile", "features"}):
            found.add(f"features.{symbols.features[name].key}" if root == "features" else f"profile.{name}")
    return tuple(sorted(found))


def _ages(path: Sequence[str], symbols: Symbols) -> bool:
    return path[0] == "features" and symbols.features[path[1]].unit != 0


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


def _unit(rule: Rule, symbols: Symbols) -> Callable[[View], Any] | None:
    """What gives a rollout's unit, where that is not the subject."""
    if rule.rollout is None or rule.rollout.by == "subject":
        return None
    return value_function(Name(tuple(rule.rollout.by.split("."))), symbols, f"rollout of {rule.id}")
