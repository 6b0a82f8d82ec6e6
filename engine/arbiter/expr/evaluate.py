"""The slow, obvious evaluator: three-valued, with reasons.

Law: explains what the compiled forms only answer. It walks the tree, tells false from unknown, and names the
sub-expression that decided, what it read, and what was missing. Used by explanations and by tests, never on the fast
path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr import functions, ops
from arbiter.expr.cost import weight_of
from arbiter.expr.limits import STEPS, meter
from arbiter.expr.ops import FAILURES, Unknown, truth
from arbiter.expr.syntax import constant_value, walk
from arbiter.expr.tree import AnyNode, Call, Const, Fold, ListOf, Local, MapOf, Name, Select, Span
from arbiter.expr.view import Symbols, View, now

if TYPE_CHECKING:
    from collections.abc import Callable

Locals = dict[str, Any]


class Verdict(msgspec.Struct, frozen=True):
    """What a condition came to: `value` True, False, or None for unknown. `span` is the sub-expression that decided
    (of a segment, the span of its name), `values` what was read there by dotted name, `missing` the names that had no
    value, `why` an operator's complaint.
    """

    value: bool | None
    span: Span
    values: dict[str, Any] = {}
    missing: tuple[str, ...] = ()
    why: str = ""


def read(path: tuple[str, ...], view: View, symbols: Symbols) -> Any:  # noqa: C901 - a row a root
    """The value of an outside name; raises Unknown that names it when it has none."""
    dotted = ".".join(path)
    try:
        match path[0]:
            case "profile":
                return view.profile[path[1]]
            case "account":
                return view.account[path[1]]
            case "context":
                return view.context[path[1]]
            case "features":
                feature = symbols.features[path[1]]
                value = feature.value(view.features[feature.key], view.clock)
                if value is not None:
                    return value
            case "segments":
                return _value(symbols.segment(path[1]), view, symbols, {})
            case "models":
                return view.models[path[1]][path[2]]
            case "managed":
                return view.managed[path[1]]
            case "experiments":
                return view.experiments.of(".".join(path[1:]), view)
            case "now":
                return now(view)
            case label:
                return view.events[label][path[1]]
    except KeyError:
        pass
    raise Unknown(f"`{dotted}` has no value", (dotted,))


def evaluate(node: AnyNode, view: View, symbols: Symbols) -> Any:
    """The value of a tree; raises Unknown, which names everything that was missing where a logical operator met
    several, or says that the value takes too many steps.
    """
    # Steps are counted anew each time, so that looking on never changes what is seen.
    meter.start(STEPS)
    try:
        return _value(node, view, symbols, {})
    finally:
        meter.stop()


def _value(node: AnyNode, view: View, symbols: Symbols, bound: Locals) -> Any:  # noqa: C901, PLR0912 - a row a kind
    def value(inner: AnyNode) -> Any:
        return _value(inner, view, symbols, bound)

    match node:
        case Const():
            return constant_value(node)
        case Name(path=path):
            return read(path, view, symbols)
        case Local(name=name):
            return bound[name]
        case Select(operand=operand, field=field, test=test):
            return ops.has_field(value(operand), field) if test else ops.field(value(operand), field)
        case ListOf(items=items):
            return [value(item) for item in items]
        case MapOf(entries=entries):
            return ops.map_of(*((value(k), value(v)) for k, v in entries))
        case Fold():
            return _fold(node, view, symbols, bound)
        case Call(function="_&&_", args=(left, right)):
            return _connective(False, lambda: value(left), lambda: value(right))
        case Call(function="_||_", args=(left, right)):
            return _connective(True, lambda: value(left), lambda: value(right))
        case Call(function="!_", args=(arg,)):
            return not truth(value(arg))
        case Call(function="_?_:_", args=(test_node, yes, no)):
            return value(yes) if truth(value(test_node)) else value(no)
        case Call(function="has", args=(arg,)):
            try:
                value(arg)
            except Unknown:
                return False
            return True
        case Call(function=function, method=method, args=args):
            return _apply(function, method, [value(a) for a in args])
    raise AssertionError(node)


def _apply(function: str, method: bool, args: list[Any]) -> Any:  # noqa: FBT001 - as in the tree
    native = functions.NATIVE.get(function)
    try:
        return native(*args) if native else functions.delegate(function, method, *args)
    except Unknown:
        raise
    except FAILURES as error:
        raise Unknown(str(error)) from error


def _connective(decides: bool, left: Callable[[], Any], right: Callable[[], Any]) -> bool:  # noqa: FBT001
    """``&&`` (decided by False) or ``||`` (decided by True); both sides' missing names are told when neither
    decides.
    """
    failures: list[Unknown] = []
    for side in (left, right):
        try:
            if truth(side()) is decides:
                return decides
        except Unknown as failure:
            failures.append(failure.with_traceback(None))  # its frames would keep this list, and it them
    if failures:
        raise Unknown("; ".join(str(f) for f in failures), tuple(dict.fromkeys(n for f in failures for n in f.names)))
    return not decides


def _fold(node: Fold, view: View, symbols: Symbols, bound: Locals) -> Any:
    def on(body: AnyNode) -> Callable[[Any], Any]:
        return lambda element: _value(body, view, symbols, {**bound, node.variable: element})

    container = _value(node.over, view, symbols, bound)
    body, weight = on(node.body), weight_of(node)
    match node.kind:
        case "exists":
            return ops.fold_exists(container, body, weight)
        case "all":
            return ops.fold_all(container, body, weight)
        case "exists_one":
            return ops.fold_exists_one(container, body, weight)
        case "filter":
            return ops.fold_filter(container, body, weight)
    return ops.fold_map(container, body, weight, on(node.where) if node.where is not None else None)


def judge(node: AnyNode, view: View, symbols: Symbols) -> Verdict:
    """Whether a condition holds, and what decided it."""
    match node:
        case Call(function="_&&_", args=sides) | Call(function="_||_", args=sides):
            decides = node.function == "_||_"
            verdicts = [judge(side, view, symbols) for side in sides]
            for verdict in verdicts:
                if verdict.value is decides:
                    return verdict
            unknown = [v for v in verdicts if v.value is None]
            chosen = unknown or verdicts
            if len(chosen) == 1:
                return chosen[0]
            values = {k: value for v in chosen for k, value in v.values.items()}
            missing = tuple(dict.fromkeys(m for v in chosen for m in v.missing))
            span = (chosen[0].span[0], chosen[-1].span[1])
            return Verdict(chosen[0].value, span, values, missing, "; ".join(v.why for v in chosen if v.why))
        case Call(function="!_", args=(arg,)) if isinstance(arg, Call) and arg.function in {"_&&_", "_||_", "!_"}:
            inner = judge(arg, view, symbols)
            return inner if inner.value is None else msgspec.structs.replace(inner, value=not inner.value)
    values, absent = _read_names(node, view, symbols)
    try:
        value = _truth_of(node, view, symbols)
    except Unknown as failure:
        missing = failure.names or absent
        return Verdict(None, node.span, values, missing, "" if missing else str(failure))
    return Verdict(value, node.span, values)


def _truth_of(node: AnyNode, view: View, symbols: Symbols) -> bool:
    """The truth of one test. A segment's tests are counted each on its own, as those of a condition are."""
    match node:
        case Name(path=("segments", name)):
            inner = judge(symbols.segment(name), view, symbols)
            if inner.value is None:
                raise Unknown(inner.why, inner.missing)
            return inner.value
    return truth(evaluate(node, view, symbols))


def _read_names(node: AnyNode, view: View, symbols: Symbols) -> tuple[dict[str, Any], tuple[str, ...]]:
    values: dict[str, Any] = {}
    missing: list[str] = []
    for name in walk(node):
        if isinstance(name, Name):
            dotted = ".".join(name.path)
            try:
                values[dotted] = evaluate(name, view, symbols)
            except Unknown:
                missing.append(dotted)
    return values, tuple(dict.fromkeys(missing))
