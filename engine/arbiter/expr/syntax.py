"""From cel-cpp's parse tree to ours.

Law: shape only. Names are not resolved and types not looked at here, except that dotted paths on outside names become
one `Name`, macros become `Fold`, and constant timestamps and durations become constants. Spans are computed here, since
cel-cpp gives one position a node.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.expr import cel
from arbiter.expr.ops import INT_MIN
from arbiter.expr.tree import AnyNode, Call, Const, Fold, ListOf, Local, MapOf, Name, Select, Span
from arbiter.types import from_micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.expr.v1.syntax_pb2 import Expr, ParsedExpr

# The longest path that names something, by root; what follows selects inside the value.
PATH_LENGTH = {
    "profile": 2,
    "account": 2,
    "context": 2,
    "features": 2,
    "segments": 2,
    "experiments": 3,
    "models": 3,
    "event": 2,
    "now": 1,
}
NAMESPACES: Final = frozenset({"math", "strings", "base64"})
_MACRO_CALLS = {"math.@max": "math.greatest", "math.@min": "math.least"}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|[0-9.]+(?:[eE][+-]?[0-9]+)?)[uU]?")
_STRING = re.compile(
    r"""[rRbB]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""",
    re.DOTALL,
)


# Fractions of a second, and of the units of durations, that are finer than a microsecond.
_FINE = re.compile(r"\.[0-9]{6}[0-9]*[1-9]|[0-9]ns|\.[0-9]*[1-9][0-9]*us|\.[0-9]{3}[0-9]*[1-9][0-9]*ms")


class Unreadable(Exception):
    """Part of an expression is valid CEL that Arbiter does not take, or a constant that has no value."""

    def __init__(self, span: Span, message: str, hint: str = "") -> None:
        self.span, self.hint = span, hint
        super().__init__(message)


def convert(parsed: ParsedExpr, source: str, labels: frozenset[str] = frozenset()) -> AnyNode:
    """Our tree of a parsed expression; raises Unreadable. `labels` are roots beyond those of `PATH_LENGTH`."""
    return _Converter(parsed, source, labels).node(parsed.expr, frozenset())


def path_length(root: str) -> int:
    """How long a path is that begins with a root: one that is not ours is a label, with one name behind it."""
    return PATH_LENGTH.get(root, 2)


class _Converter:
    def __init__(self, parsed: ParsedExpr, source: str, labels: frozenset[str]) -> None:
        self._lengths = PATH_LENGTH | {label: path_length(label) for label in labels}
        self._positions = dict(parsed.source_info.positions)
        self._source = source

    def node(self, expr: Expr, local: frozenset[str]) -> AnyNode:
        kind = expr.WhichOneof("expr_kind")
        at = self._positions.get(expr.id, 0)
        match kind:
            case "const_expr":
                return self._constant(expr, at)
            case "ident_expr":
                name = expr.ident_expr.name
                # A dot before a name passes over what macros bind.
                outer = name.removeprefix(".")
                span = self._token(at, _WORD) if outer == name else (at, at + len(name))
                return Local(name, span) if name in local else Name((outer,), span=span)
            case "select_expr":
                return self._select(expr, at, local)
            case "call_expr":
                return self._call(expr, at, local)
            case "list_expr":
                items = tuple(self.node(e, local) for e in expr.list_expr.elements)
                return ListOf(items, self._bracket(at))
            case "struct_expr":
                if expr.struct_expr.message_name:
                    raise Unreadable((at, at + 1), "messages cannot be built in a rule", "use a map: {'key': value}")
                entries = tuple(
                    (self.node(e.map_key, local), self.node(e.value, local)) for e in expr.struct_expr.entries
                )
                _check_keys(entries)
                return MapOf(entries, self._bracket(at))
            case "comprehension_expr":
                return self._fold(expr, at, local)
        raise Unreadable((at, at + 1), "this form of expression is not understood")

    def _constant(self, expr: Expr, at: int) -> Const:
        constant = expr.const_expr
        field = constant.WhichOneof("constant_kind")
        match field:
            case "null_value" | None:
                return Const("null", None, (at, at + 4))
            case "bool_value":
                return Const("bool", constant.bool_value, self._token(at, _WORD))
            case "int64_value":
                return Const("int", constant.int64_value, self._token(at, _NUMBER))
            case "double_value" if isfinite(constant.double_value):
                return Const("double", constant.double_value, self._token(at, _NUMBER))
            case "double_value":
                raise Unreadable(self._token(at, _NUMBER), "this number is too large for a double")
            case "string_value":
                return Const("string", constant.string_value, self._token(at, _STRING))
            case "bytes_value":
                return Const("bytes", constant.bytes_value, self._token(at, _STRING))
        span = self._token(at, _NUMBER)
        raise Unreadable(span, "unsigned numbers are not used in rules", "drop the `u`")

    def _select(self, expr: Expr, at: int, local: frozenset[str]) -> AnyNode:
        select = expr.select_expr
        operand = self.node(select.operand, local)
        end = self._source.find(select.field, max(at, operand.span[1])) + len(select.field)
        span = (operand.span[0], max(end, operand.span[1]))
        if isinstance(operand, Name) and len(operand.path) < self._lengths.get(operand.path[0], 1):
            name = Name((*operand.path, select.field), span=span)
            return Call("has", (name,), span=self._call_span(at, span)) if select.test_only else name
        if select.test_only:
            span = self._call_span(at, span)
        return Select(operand, select.field, test=select.test_only, span=span)

    def _call(self, expr: Expr, at: int, local: frozenset[str]) -> AnyNode:
        call = expr.call_expr
        function = _MACRO_CALLS.get(call.function, call.function)
        method = call.HasField("target")
        args = [self.node(a, local) for a in call.args]
        if method and call.target.ident_expr.name in NAMESPACES - local:
            function, method = f"{call.target.ident_expr.name}.{function}", False
            start = self._positions.get(call.target.id, at)
        elif method:
            args.insert(0, self.node(call.target, local))
            start = args[0].span[0]
        else:
            start = min([at, *(a.span[0] for a in args)])
        end = max([at + 1, *(a.span[1] for a in args)])
        if function[0].isalpha() and function not in _MACRO_CALLS.values():
            start, end = self._call_span(at, (start, end))
        elif function == "_[_]":
            end = self._closing(at) or end
        elif function in {"!_", "-_"} and self._source[at + 1 : args[0].span[0]].strip().startswith("("):
            end = self._closing(self._source.index("(", at)) or end
        span = (start, end)
        if function in {"timestamp", "duration"} and len(args) == 1 and isinstance(args[0], Const):
            return self._constant_time(function, args[0], span)
        # The least int has no positive twin: cel-cpp's overflow must stay one.
        if (
            function == "-_"
            and isinstance(args[0], Const)
            and args[0].kind in {"int", "double"}
            and args[0].value != INT_MIN
        ):
            return Const(args[0].kind, -args[0].value, span)
        return Call(function, tuple(args), method, span)

    def _constant_time(self, function: str, arg: Const, span: Span) -> Const:
        try:
            value = cel.call(function, [arg.value], method=False)
        except (cel.CelFailure, OverflowError, ValueError):
            form = (
                '"2026-11-01T00:00:00Z"' if function == "timestamp" else '"36h" or "1h30m" (days are not a unit of CEL)'
            )
            raise Unreadable(span, f"`{arg.value}` is not a {function}", f"write it as {form}") from None
        if isinstance(arg.value, str) and _FINE.search(arg.value):
            raise Unreadable(span, "times are counted in microseconds here", "write at most six digits of a second")
        if isinstance(value, datetime):
            return Const("timestamp", to_micros(value), span)
        return Const("duration", value // timedelta(microseconds=1), span)

    def _fold(self, expr: Expr, at: int, local: frozenset[str]) -> Fold:
        fold = expr.comprehension_expr
        if fold.iter_var2:
            raise Unreadable((at, at + 1), "macros with two variables are not taken", "use one variable")
        over = self.node(fold.iter_range, local)
        inner = local | {fold.iter_var}
        step = fold.loop_step.call_expr
        where: Expr | None = None
        match step.function:
            case "_&&_":
                kind, body = "all", step.args[1]
            case "_||_":
                kind, body = "exists", step.args[1]
            case "_+_":
                kind, body = "map", step.args[1].list_expr.elements[0]
            case "_?_:_":
                taken = step.args[1].call_expr.args[1]
                if taken.WhichOneof("expr_kind") == "const_expr":
                    kind, body = "exists_one", step.args[0]
                else:
                    element = taken.list_expr.elements[0]
                    if self._positions.get(element.id) == self._positions.get(taken.id) or (
                        element.ident_expr.name == fold.iter_var and not self._has_own_position(element, step.args[0])
                    ):
                        kind, body = "filter", step.args[0]
                    else:
                        kind, body, where = "map", element, step.args[0]
            case _:
                raise Unreadable((at, at + 1), "this form of macro is not understood")
        span = self._call_span(at, (over.span[0], at + 1))
        test = self.node(where, inner) if where is not None else None
        return Fold(kind, fold.iter_var, over, self.node(body, inner), test, span)

    def _has_own_position(self, element: Expr, predicate: Expr) -> bool:
        """Whether the author wrote `element` (``map(x, p, x)``) rather than the expansion of ``filter(x, p)``."""
        return self._positions.get(element.id, -1) > self._positions.get(predicate.id, -1)

    def _token(self, at: int, pattern: re.Pattern[str]) -> Span:
        found = pattern.match(self._source, at)
        return (at, found.end() if found else at + 1)

    def _bracket(self, at: int) -> Span:
        return (at, self._closing(at) or at + 1)

    def _call_span(self, at: int, inner: Span) -> Span:
        """The span of a call whose position is its opening parenthesis, or a name before it."""
        opening = self._source.find("(", at)
        if opening < 0:
            return inner
        word = re.search(r"[A-Za-z_][A-Za-z0-9_.]*\s*\Z", self._source[:opening])
        start = min(inner[0], word.start() if word else opening)
        return (start, max(inner[1], self._closing(opening) or opening + 1))

    def _closing(self, opening: int) -> int | None:
        """The offset after the bracket that closes the one at `opening`, strings skipped."""
        depth, i, source = 0, opening, self._source
        while i < len(source):
            string = _STRING.match(source, i) if source[i] in "\"'" else None
            if string:
                i = string.end()
                continue
            if source[i] in "([{":
                depth += 1
            elif source[i] in ")]}":
                depth -= 1
                if depth == 0:
                    return i + 1
            i += 1
        return None


def _check_keys(entries: tuple[tuple[AnyNode, AnyNode], ...]) -> None:
    """Refuse keys that are two in CEL and one in Python, which takes `1` for `true`."""
    known: dict[Any, str] = {}
    for key, _ in entries:
        if isinstance(key, Const) and key.kind in {"int", "bool"} and known.setdefault(key.value, key.kind) != key.kind:
            raise Unreadable(key.span, "`true` and `1`, `false` and `0` cannot both be keys of one map")


def walk(node: AnyNode) -> list[AnyNode]:
    """The node and everything below it, parents first."""
    found: list[AnyNode] = [node]
    for child in children(node):
        found += walk(child)
    return found


def children(node: AnyNode) -> tuple[AnyNode, ...]:
    """The direct children, in source order."""
    match node:
        case Call(args=args):
            return args
        case Select(operand=operand):
            return (operand,)
        case ListOf(items=items):
            return items
        case MapOf(entries=entries):
            return tuple(n for pair in entries for n in pair)
        case Fold(over=over, body=body, where=where):
            return (over, body) if where is None else (over, where, body)
    return ()


def with_children(node: AnyNode, each: Callable[[AnyNode], AnyNode]) -> AnyNode:
    """The node with `each` of every direct child in its place."""
    match node:
        case Call(args=args):
            return msgspec.structs.replace(node, args=tuple(map(each, args)))
        case Select(operand=operand):
            return msgspec.structs.replace(node, operand=each(operand))
        case ListOf(items=items):
            return msgspec.structs.replace(node, items=tuple(map(each, items)))
        case MapOf(entries=entries):
            return msgspec.structs.replace(node, entries=tuple((each(k), each(v)) for k, v in entries))
        case Fold(over=over, body=body, where=where):
            test = each(where) if where is not None else None
            return msgspec.structs.replace(node, over=each(over), body=each(body), where=test)
    return node


def constant_value(node: Const) -> Any:
    """The Python value of a constant: timestamps and durations are stored as µs."""
    match node.kind:
        case "timestamp":
            return from_micros(node.value)
        case "duration":
            return timedelta(microseconds=node.value)
    return node.value


def conjuncts(node: AnyNode) -> list[AnyNode]:
    """The conditions that `&&` joins at the top of a tree, in source order; the node itself when it joins none."""
    match node:
        case Call(function="_&&_", args=sides):
            return [each for side in sides for each in conjuncts(side)]
    return [node]
