"""The functions of the language on plain Python values.

Law: as with the operators in `ops`, a function either returns a value or raises Unknown. Those that are not written
here are cel-cpp's own; what goes into it is counted.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from arbiter.expr import cel, limits, ops, timeparts
from arbiter.expr.limits import meter, spend_deep, spend_growth, spend_match, spend_size
from arbiter.expr.ops import NUMBERS, Unknown, refuse, type_name

if TYPE_CHECKING:
    from collections.abc import Callable

_CEL_TYPES: dict[type, str] = {
    type(None): "null_type", datetime: "google.protobuf.Timestamp", timedelta: "google.protobuf.Duration",
}  # fmt: skip


def size(value: Any) -> int:
    """Characters, bytes, elements or entries."""
    if value.__class__ in {str, bytes, list, dict}:
        return len(value)
    raise refuse("size", value)


def starts_with(value: Any, prefix: Any) -> bool:
    """``value.startsWith(prefix)`` of strings."""
    if value.__class__ is str and prefix.__class__ is str:
        return bool(value.startswith(prefix))
    raise refuse("startsWith", value, prefix)


def ends_with(value: Any, suffix: Any) -> bool:
    """``value.endsWith(suffix)`` of strings."""
    if value.__class__ is str and suffix.__class__ is str:
        return bool(value.endswith(suffix))
    raise refuse("endsWith", value, suffix)


def has_part(value: Any, part: Any) -> bool:
    """``value.contains(part)`` of strings."""
    if value.__class__ is str and part.__class__ is str:
        spend_size(value)
        return part in value
    raise refuse("contains", value, part)


def matches(value: Any, pattern: Any) -> bool:
    """``value.matches(pattern)`` by RE2, which never looks back: at most states times characters."""
    if value.__class__ is str and pattern.__class__ is str:
        spend_match(value, pattern)
        return bool(_ask("matches", True, value, pattern))
    raise refuse("matches", value, pattern)


def to_double(value: Any) -> float:
    """``double(value)``."""
    kind = value.__class__
    number: float = float(value) if kind in NUMBERS else delegate("double", False, value)
    return number


def to_string(value: Any) -> str:
    """``string(value)``; bytes must be UTF-8."""
    if value.__class__ is bytes:
        spend_size(value)
        return str(value, "utf-8")
    written: str = delegate("string", False, value)
    return written


def type_of(value: Any) -> str:
    """``type(value)``: the name that CEL gives the type, a text."""
    kind: type = value.__class__
    return _CEL_TYPES.get(kind) or type_name(value)


_OF_DOUBLES = frozenset(
    {"math.ceil", "math.floor", "math.round", "math.trunc", "math.isNaN", "math.isInf", "math.isFinite"}
)


def delegate(function: str, method: bool, *args: Any) -> Any:  # noqa: FBT001 - generated code calls this positionally
    """Any other function of CEL, by cel-cpp, on these values; ints become doubles where it takes only those.

    cel-cpp does not count what it does: what goes in is counted, and what may come out where that can be more.
    """
    meter.spend(limits.DELEGATED)
    size = sum(map(spend_deep, args))
    if function == "replace":
        # At most every character of the text, and the end, becomes the replacement.
        spend_growth((len(args[0]) + 1) * len(args[2]) if args[0].__class__ is args[-1].__class__ is str else size)
    elif function == "join" and len(args) > 1 and args[0].__class__ is list and args[1].__class__ is str:
        spend_growth(size + len(args[0]) * len(args[1]))
    elif function == "format":
        args = tuple(map(_with_times_written, args))
    elif function in _OF_DOUBLES:
        args = tuple(float(a) if a.__class__ is int else a for a in args)
    return _ask(function, method, *args)


def _ask(function: str, method: bool, *args: Any) -> Any:  # noqa: FBT001 - as in the tree
    try:
        return cel.call(function, args, method=method)
    except cel.CelFailure as failure:
        raise Unknown(str(failure)) from None


def _with_times_written(value: Any) -> Any:
    """cel-cpp's Python face takes no times inside a list, and writes them as CEL's `string` does."""
    match value:
        case list():
            return [_with_times_written(each) for each in value]
        case dict():
            return {key: _with_times_written(each) for key, each in value.items()}
        case datetime() | timedelta():
            return _ask("string", False, value)
    return value


NATIVE: dict[str, Callable[..., Any]] = {
    "_==_": ops.eq, "_!=_": ops.ne, "_<_": ops.lt, "_<=_": ops.le, "_>_": ops.gt, "_>=_": ops.ge,
    "_+_": ops.add, "_-_": ops.sub, "_*_": ops.mul, "_/_": ops.div, "_%_": ops.mod, "-_": ops.neg,
    "@in": ops.contains, "_[_]": ops.index, "size": size, "startsWith": starts_with, "endsWith": ends_with,
    "contains": has_part, "matches": matches, "double": to_double, "string": to_string, "type": type_of,
    "dyn": lambda value: value, **timeparts.PARTS,
}  # fmt: skip
"""The functions that run here, by CEL name; every other one goes to cel-cpp by `delegate`."""

COSTLY = frozenset({"matches", "string", "double"})
"""Those of them that may call cel-cpp."""
