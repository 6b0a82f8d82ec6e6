"""Trees compiled to Python functions, once, when a snapshot is built or first needs them.

Law: two forms. The *truth* form answers "is it true" (or "is it false") and never raises: unknown answers no to both,
which is what the negation normal form makes possible without a third value. The *value* form gives the value or
raises one of `ops.FAILURES`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from arbiter.expr import functions, ops
from arbiter.expr.cost import metered, weight_of
from arbiter.expr.generated import function_of
from arbiter.expr.limits import STEPS, meter
from arbiter.expr.syntax import constant_value
from arbiter.expr.tree import AnyNode, Call, Const, Expression, Fold, ListOf, Local, MapOf, Name, Select
from arbiter.expr.view import EXACT, Symbols, now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arbiter.expr.reads import FeatureRead
    from arbiter.expr.view import Occasion, View

_OPERATORS = {"_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">="}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_MISSING = object()


def truth_function(nodes: Sequence[tuple[AnyNode, bool]], symbols: Symbols, label: str) -> Callable[[View], bool]:
    """A function that is true when every (node, polarity) holds: the node is true, or false where its polarity is
    False.

    `label` names the generated source in tracebacks.
    """
    writer = _Writer(symbols)
    tests = [writer.truth(node, wanted) for node, wanted in nodes]
    return writer.build(" and ".join(tests) or "True", label)


def value_function(node: AnyNode, symbols: Symbols, label: str) -> Callable[[View], Any]:
    """A function that gives the node's value or raises one of `ops.FAILURES`."""
    writer = _Writer(symbols)
    body = writer.value(node)
    if metered(node, symbols):
        body = writer.metered(body)
    return writer.build(body, label)


def event_filter(where: Expression | None) -> Callable[[Mapping[str, Any]], bool] | None:
    """The test of a condition on an event's properties; None when there is none."""
    if where is None:
        return None
    writer = _Writer(Symbols(), event="v")
    return writer.build(writer.truth(where.root, True), where.position)


def occasion_filter(where: Expression) -> Callable[[Occasion], bool]:
    """The test of a condition on an event and on those that came before it."""
    writer = _Writer(Symbols(), event="v.event")
    return writer.build(writer.truth(where.root, True), where.position)


def _experiment(names: Sequence[str]) -> str:
    return f"v.experiments.of({'.'.join(names)!r}, v)"


class _Writer:
    """Writes the source of one function and of the small functions that it calls."""

    def __init__(self, symbols: Symbols, *, event: str = "") -> None:
        self._event = event  # what gives an event's properties, where one is looked at
        self._symbols = symbols
        self._definitions: list[str] = []
        self._names: dict[str, Any] = {
            "M": _MISSING, "NUMBERS": ops.NUMBERS, "FAILURES": ops.FAILURES, "now": now, "meter": meter
        }  # fmt: skip
        # A view allows so many steps to all that is asked of it, an event so many to each that is asked.
        self._start = f"meter.start({STEPS if event else 'v.allowance'})"
        self._stop = "meter.stop()" if event else "v.allowance = meter.stop()"
        self._segments: dict[tuple[str, str], str] = {}
        self._counter = itertools.count()

    def build(self, body: str, label: str) -> Callable[[Any], Any]:
        """Compile what was written into a function of one view that returns `body`."""
        return function_of([*self._definitions, f"def f(v):\n    return {body}\n"], self._names, label)

    def truth(self, node: AnyNode, wanted: bool) -> str:  # noqa: FBT001 - the wanted truth
        """A Python expression that is true exactly when the node is `wanted`."""
        match node:
            case Call(function="_&&_" | "_||_", args=(left, right)):
                word = "and" if (node.function == "_&&_") is wanted else "or"
                return f"({self.truth(left, wanted)} {word} {self.truth(right, wanted)})"
            case Call(function="!_", args=(arg,)):
                return self.truth(arg, not wanted)
            case Name(path=("segments", name)):
                return f"{self._segment(name, 'true' if wanted else 'false')}(v)"
            case Name(path=path) if self._fetch(path):
                return f"({self._fetch(path)} is {wanted})"
            case Call(function="has", args=(Name(path=path),)) if path[0] not in {"segments", "now"}:
                return f"({'' if wanted else 'not '}{self.value(node)})"
            case Call(args=(Name(path=path), Const())) if self._fetch(path):
                simple = self._comparison(node, wanted)
                if simple:
                    return simple
        return self._guarded(node, wanted)

    def _comparison(self, node: Call, wanted: bool) -> str:  # noqa: FBT001 - the wanted truth
        """An inline test of a name against a constant, or an empty string where the general form is needed."""
        name, constant = node.args
        assert isinstance(name, Name)  # noqa: S101 - for the type checker
        assert isinstance(constant, Const)  # noqa: S101 - for the type checker
        fetch = self._fetch(name.path)
        operator = _OPERATORS.get(node.function)
        if operator and constant.kind in {"int", "double"} and abs(constant.value) <= EXACT:
            held = f"x{next(self._counter)}"
            compare = operator if wanted else _NEGATED[operator]
            return f"(({held} := {fetch}).__class__ in NUMBERS and {held} {compare} {constant.value!r})"
        if constant.kind == "string" and (node.function, wanted) in {("_==_", True), ("_!=_", False)}:
            return f"({fetch} == {constant.value!r})"
        return ""

    def _guarded(self, node: AnyNode, wanted: bool) -> str:  # noqa: FBT001 - the wanted truth
        name = f"t{next(self._counter)}"
        body = self.value(node)
        if metered(node, self._symbols):
            before, after = f"    {self._start}\n", f"    finally:\n        {self._stop}\n"
        else:
            before = after = ""
        self._definitions.append(
            f"def {name}(v):\n{before}    try:\n        return {body} is {wanted}\n"
            f"    except FAILURES:\n        return False\n{after}"
        )
        return f"{name}(v)"

    def metered(self, body: str) -> str:
        """The same value, counted."""
        name = f"m{next(self._counter)}"
        self._definitions.append(
            f"def {name}(v):\n    {self._start}\n    try:\n        return {body}\n    finally:\n        {self._stop}\n"
        )
        return f"{name}(v)"

    def _segment(self, name: str, form: str) -> str:
        """The name of the function that gives a segment's truth, falsehood or value."""
        known = self._segments.get((name, form))
        if known:
            return known
        function = self._segments[name, form] = f"segment_{name}_{form}"
        root = self._symbols.segment(name)
        body = self.value(root) if form == "value" else self.truth(root, form == "true")
        self._definitions.append(f"def {function}(v):\n    return {body}\n")
        return function

    def _fetch(self, path: tuple[str, ...]) -> str:
        """An expression that gives the value, or M or None where there is none; empty where there is no short one."""
        match path:
            case ("profile" | "account" | "context" as root, name):
                return f"v.{root}.get({name!r}, M)"
            case ("event", name):
                return f"{self._event}.get({name!r}, M)"
            case ("experiments", *names):
                return _experiment(names)
            case ("features", name) if self._symbols.features[name].computed:
                return self._computed(self._symbols.features[name])
            case ("features", name) if not self._symbols.features[name].unit:
                return f"v.features.get({self._symbols.features[name].key!r}, M)"
        return ""

    def value(self, node: AnyNode) -> str:
        """A Python expression that gives the node's value or raises."""
        match node:
            case Const(kind="timestamp" | "duration"):
                return self._constant(constant_value(node))
            case Const(value=value):
                return f"({value!r})"
            case Name(path=path):
                return self._read(path)
            case Local(name=name):
                return f"local_{name}"
            case Select(operand=operand, field=field, test=test):
                function = self._operator("has_field" if test else "field")
                return f"{function}({self.value(operand)}, {field!r})"
            case ListOf(items=items):
                return f"[{', '.join(map(self.value, items))}]"
            case MapOf(entries=entries):
                pairs = ", ".join(f"({self.value(k)}, {self.value(v)})" for k, v in entries)
                return f"{self._operator('map_of')}({pairs})"
            case Fold():
                return self._fold(node)
            case Call():
                return self._call(node)

    def _call(self, node: Call) -> str:
        match node:
            case Call(function="_&&_" | "_||_", args=(left, right)):
                function = self._operator("both" if node.function == "_&&_" else "either")
                return f"{function}(lambda: {self.value(left)}, lambda: {self.value(right)})"
            case Call(function="!_", args=(arg,)):
                return f"(not {self._operator('truth')}({self.value(arg)}))"
            case Call(function="_?_:_", args=(test, yes, no)):
                return f"({self.value(yes)} if {self._operator('truth')}({self.value(test)}) else {self.value(no)})"
            case Call(function="has", args=(arg,)):
                return self._has(arg)
        args = ", ".join(map(self.value, node.args))
        native = functions.NATIVE.get(node.function)
        if native:
            return f"{self._bind(native)}({args})"
        return f"{self._bind(functions.delegate)}({node.function!r}, {node.method}, {args})"

    def _has(self, arg: AnyNode) -> str:
        match arg:
            case Name(path=("profile" | "account" | "context" as root, name)):
                return f"({name!r} in v.{root})"
            case Name(path=("event", name)):
                return f"({name!r} in {self._event})"
            case Name(path=("features", name)) if self._symbols.features[name].computed:
                return f"({self._computed(self._symbols.features[name])} is not None)"
            case Name(path=("features", name)):
                return f"({self._symbols.features[name].key!r} in v.features)"
            case Name(path=("models", model, output)):
                return f"({output!r} in v.models[{model!r}])"
            case Name(path=("managed", name)):
                return f"({name!r} in v.managed)"
        name = f"h{next(self._counter)}"
        self._definitions.append(
            f"def {name}(v):\n    try:\n        {self.value(arg)}\n"
            f"    except FAILURES:\n        return False\n    return True\n"
        )
        return f"{name}(v)"

    def _read(self, path: tuple[str, ...]) -> str:
        match path:
            case ("profile" | "account" | "context" as root, name):
                return f"v.{root}[{name!r}]"
            case ("event", name):
                return f"{self._event}[{name!r}]"
            case ("features", name):
                feature = self._symbols.features[name]
                if feature.computed:
                    return self._computed(feature, known=True)
                read = f"v.features[{feature.key!r}]"
                return f"((v.clock - {read}) / {feature.unit})" if feature.unit else read
            case ("segments", name):
                return f"{self._segment(name, 'value')}(v)"
            case ("models", model, output):
                return f"v.models[{model!r}][{output!r}]"
            case ("managed", name):
                return f"v.managed[{name!r}]"
            case ("experiments", *names):
                return _experiment(names)
            case ("now",):
                return "now(v)"
        label, name = path
        return f"v.events[{label!r}][{name!r}]"

    def _computed(self, feature: FeatureRead, *, known: bool = False) -> str:
        """An expression that gives the value of a feature, or None; one that is to be `known` raises instead."""
        function = self._bind(feature.known if known else feature.value)
        return f"{function}(v.features.get({feature.key!r}), v.clock)"

    def _fold(self, node: Fold) -> str:
        function = self._operator(f"fold_{node.kind}")
        args = [self.value(node.over), self._step(node, node.body), str(weight_of(node))]
        if node.where is not None:
            args.append(self._step(node, node.where))
        return f"{function}({', '.join(args)})"

    def _step(self, node: Fold, body: AnyNode) -> str:
        return f"(lambda local_{node.variable}: {self.value(body)})"

    def _operator(self, name: str) -> str:
        return self._bind(getattr(ops, name))

    def _bind(self, function: Callable[..., Any]) -> str:
        name = next((name for name, known in self._names.items() if known is function), "")
        if not name:
            name = f"{getattr(function, '__name__', '').strip('<>')}_{next(self._counter)}"
            self._names[name] = function
        return name

    def _constant(self, value: Any) -> str:
        name = f"k{next(self._counter)}"
        self._names[name] = value
        return name
