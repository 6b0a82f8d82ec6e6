"""Parameters compiled to what renders them.

Law: a parameter without templates is a constant and costs nothing; one with templates is a function of a view that
gives a value or raises one of `FAILURES`. Text made from a value is what CEL's ``string()`` gives for it.
"""

from __future__ import annotations

from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

from arbiter.expr.compile import value_function
from arbiter.expr.evaluate import evaluate
from arbiter.expr.ops import Unknown, type_name
from arbiter.ruleset.terms import Fields, Items, Param, Plain, Template

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbiter.expr.tree import Expression
    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.rules import Effect


_DELIVERABLE = frozenset({bool, int, float, str, bytes, datetime})


def plain_params(effect: Effect) -> dict[str, Any] | None:
    """The parameters of an effect without templates; None when it has any."""
    values = {name: param.value for name, param in effect.params.items() if isinstance(param, Plain)}
    return values if len(values) == len(effect.params) else None


def renderer(effect: Effect, symbols: Symbols, label: str) -> Callable[[View], dict[str, Any]]:
    """A function that renders all parameters; raises one of `ops.FAILURES` when one has no value."""
    return params_renderer(effect.params, symbols, label)


def params_renderer(params: Mapping[str, Param], symbols: Symbols, label: str) -> Callable[[View], dict[str, Any]]:
    """The same of parameters alone."""
    parts = {name: _render(param, symbols, f"{label} {name}") for name, param in params.items()}
    return lambda view: {name: part(view) for name, part in parts.items()}


def expressions_of(param: Param) -> list[Expression]:
    """Every expression inside a parameter."""
    match param:
        case Template(parts=parts):
            return [p for p in parts if not isinstance(p, str)]
        case Items(items=items):
            return [e for item in items for e in expressions_of(item)]
        case Fields(fields=fields):
            return [e for item in fields.values() for e in expressions_of(item)]
        case Plain():
            return []


def failure_of(param: Param, view: View, symbols: Symbols) -> tuple[Expression, Unknown] | None:
    """The first expression inside a parameter whose value cannot be delivered, and why; slow, for explanations."""
    match param:
        case Template(parts=parts):
            for part in parts:
                if isinstance(part, str):
                    continue
                try:
                    value = evaluate(part.root, view, symbols)
                    if len(parts) == 1:
                        _deliverable(value)
                    else:
                        text(value)
                except Unknown as failure:
                    return part, failure.with_traceback(None)  # kept, its frames would keep the caller's
        case Items(items=items):
            return next(filter(None, (failure_of(item, view, symbols) for item in items)), None)
        case Fields(fields=fields):
            return next(filter(None, (failure_of(item, view, symbols) for item in fields.values())), None)
    return None


def _render(param: Param, symbols: Symbols, label: str) -> Callable[[View], Any]:
    match param:
        case Plain(value=value):
            return lambda _view: value
        case Items(items=items):
            inner = [_render(item, symbols, label) for item in items]
            return lambda view: [part(view) for part in inner]
        case Fields(fields=fields):
            named = {name: _render(item, symbols, label) for name, item in fields.items()}
            return lambda view: {name: part(view) for name, part in named.items()}
        case Template(parts=parts):
            return _template(parts, symbols, label)


def _template(parts: tuple[str | Expression, ...], symbols: Symbols, label: str) -> Callable[[View], Any]:
    if len(parts) == 1 and not isinstance(parts[0], str):
        whole = value_function(parts[0].root, symbols, label)
        return lambda view: _deliverable(whole(view))
    pieces = [p if isinstance(p, str) else value_function(p.root, symbols, label) for p in parts]
    return lambda view: "".join(p if isinstance(p, str) else text(p(view)) for p in pieces)


def _deliverable(value: Any) -> Any:
    """The value, when everything in it is of a type that an answer can carry."""
    kind = value.__class__
    if kind is list:
        for item in value:
            _deliverable(item)
    elif kind is dict:
        for key, item in value.items():
            if key.__class__ is not str:
                raise Unknown(f"a map whose key is {key!r} cannot be delivered")
            _deliverable(item)
    elif kind not in _DELIVERABLE or (kind is float and not isfinite(value)):
        raise Unknown(f"{value if kind is float else type_name(value)} cannot be delivered")
    return value


def text(value: Any) -> str:
    """A value inside a longer text: numbers in their shortest form, times as RFC 3339; raises Unknown for lists and
    maps.
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if isfinite(value):
            return repr(value).removesuffix(".0")
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
    raise Unknown(f"{type_name(value)} cannot stand inside a text")
