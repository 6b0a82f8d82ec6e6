"""The operators of the language on plain Python values.

Law: every operator either returns a value or raises Unknown; none looks anything up. Compiled functions and the slow
evaluator share these, so that they cannot differ in what an operator means. Semantics are cel-cpp's, with two widenings
that RULES states: mixed arithmetic promotes to double, and an error is the same as unknown.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from arbiter.expr import limits
from arbiter.expr.limits import meter, spend_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
NUMBERS = frozenset({int, float})
_ORDERED_KINDS = frozenset({int, float, str, bytes, bool, datetime, timedelta})
# What 64 bits of nanoseconds hold, as in cel-cpp.
_DURATION_LIMIT = timedelta(microseconds=2**63 // 1000)


Unknown = limits.Unknown
# What evaluating a compiled form may raise when a value is missing or does not fit. LookupError covers absent names.
FAILURES = (Unknown, LookupError, TypeError, OverflowError, ValueError, ZeroDivisionError)


def eq(a: Any, b: Any) -> bool:
    """CEL equality: numbers compare across types, other types only with themselves."""
    kind, other = a.__class__, b.__class__
    if kind is other:
        if kind is list:
            meter.spend(len(a))
            return len(a) == len(b) and all(map(eq, a, b))
        if kind is dict:
            meter.spend(len(a))
            return len(a) == len(b) and all(key in b and eq(value, b[key]) for key, value in a.items())
        return bool(a == b)
    # Python would compare exactly; cel-cpp compares an int with a double as doubles.
    return kind in NUMBERS and other in NUMBERS and float(a) == float(b)


def ne(a: Any, b: Any) -> bool:
    """The negation of `eq`."""
    return not eq(a, b)


def _ordered(a: Any, b: Any) -> tuple[Any, Any]:
    kind, other = a.__class__, b.__class__
    if kind is other and kind in _ORDERED_KINDS:
        return a, b
    if kind in NUMBERS and other in NUMBERS:
        return float(a), float(b)
    raise Unknown(f"{type_name(a)} and {type_name(b)} have no order")


def lt(a: Any, b: Any) -> bool:
    """``a < b`` within one family of types."""
    a, b = _ordered(a, b)
    return bool(a < b)


def le(a: Any, b: Any) -> bool:
    """``a <= b`` within one family of types."""
    a, b = _ordered(a, b)
    return bool(a <= b)


def gt(a: Any, b: Any) -> bool:
    """``a > b`` within one family of types."""
    a, b = _ordered(a, b)
    return bool(a > b)


def ge(a: Any, b: Any) -> bool:
    """``a >= b`` within one family of types."""
    a, b = _ordered(a, b)
    return bool(a >= b)


def _int(value: int) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise Unknown("the result does not fit 64 bits")


def _duration(value: timedelta) -> timedelta:
    if -_DURATION_LIMIT <= value <= _DURATION_LIMIT:
        return value
    raise Unknown("the duration is out of range")


def refuse(operator: str, *values: Any) -> Unknown:
    """Why an operator has no value for these."""
    return Unknown(f"`{operator}` cannot take {' and '.join(type_name(v) for v in values)}")


def add(a: Any, b: Any) -> Any:
    """Numbers, strings, bytes, lists, durations, a timestamp and a duration."""
    kind, other = a.__class__, b.__class__
    if kind is int and other is int:
        return _int(a + b)
    if kind in NUMBERS and other in NUMBERS:
        return float(a) + float(b)
    if kind is other and kind in {str, bytes, list}:
        joined = a + b
        spend_size(joined)
        return joined
    if kind is timedelta and other is timedelta:
        return _duration(a + b)
    if {kind, other} == {datetime, timedelta}:
        return a + b
    raise refuse("+", a, b)


def sub(a: Any, b: Any) -> Any:
    """Numbers, durations, timestamps."""
    kind, other = a.__class__, b.__class__
    if kind is int and other is int:
        return _int(a - b)
    if kind in NUMBERS and other in NUMBERS:
        return float(a) - float(b)
    if (kind is timedelta and other is timedelta) or (kind is datetime and other is datetime):
        return _duration(a - b)
    if kind is datetime and other is timedelta:
        return a - b
    raise refuse("-", a, b)


def mul(a: Any, b: Any) -> Any:
    """Numbers."""
    kind, other = a.__class__, b.__class__
    if kind is int and other is int:
        return _int(a * b)
    if kind in NUMBERS and other in NUMBERS:
        return float(a) * float(b)
    raise refuse("*", a, b)


def div(a: Any, b: Any) -> Any:
    """Numbers: of ints truncated towards zero, of doubles by IEEE 754 (a division by zero is infinite or not a
    number).
    """
    kind, other = a.__class__, b.__class__
    if kind is int and other is int:
        if b == 0:
            raise Unknown("division by zero")
        quotient = abs(a) // abs(b)
        return _int(quotient if (a < 0) == (b < 0) else -quotient)
    if kind in NUMBERS and other in NUMBERS:
        a, b = float(a), float(b)
        if b == 0.0:
            if a == 0.0 or a != a:  # noqa: PLR0124 - not a number is what differs from itself
                return float("nan")
            return float("inf") if (a > 0) == (str(b) == "0.0") else float("-inf")
        return a / b
    raise refuse("/", a, b)


def mod(a: Any, b: Any) -> int:
    """Ints; the sign is the dividend's."""
    if a.__class__ is int and b.__class__ is int:
        if b == 0:
            raise Unknown("division by zero")
        rest: int = abs(a) % abs(b)
        return rest if a >= 0 else -rest
    raise refuse("%", a, b)


def neg(a: Any) -> Any:
    """Numbers and durations."""
    if a.__class__ is int:
        return _int(-a)
    if a.__class__ in {float, timedelta}:
        return -a
    raise refuse("-", a)


def contains(item: Any, container: Any) -> bool:
    """``item in container``: elements of a list, keys of a map."""
    if container.__class__ is list or container.__class__ is dict:
        meter.spend(len(container))
        return any(eq(item, element) for element in container)
    raise refuse("in", item, container)


def index(container: Any, key: Any) -> Any:
    """``container[key]``."""
    if container.__class__ is list:
        if key.__class__ is float and key.is_integer():
            key = int(key)
        if key.__class__ is int and 0 <= key < len(container):
            return container[key]
        raise Unknown(f"there is no element {key!r}")
    if container.__class__ is dict:
        meter.spend(len(container))
        for name, value in container.items():
            if eq(name, key):
                return value
        raise Unknown(f"there is no key {key!r}")
    raise refuse("[]", container, key)


def field(container: Any, name: str) -> Any:
    """``container.name``."""
    if container.__class__ is dict and name in container:
        return container[name]
    raise Unknown(f"there is no field `{name}`")


def map_of(*entries: tuple[Any, Any]) -> dict[Any, Any]:
    """``{key: value}``: keys are text, ints and bools, none twice."""
    built: dict[Any, Any] = {}
    for key, value in entries:
        # Python holds True == 1: a map with both cannot be built either.
        if key.__class__ not in {str, int, bool} or key in built:
            raise Unknown(f"{key!r} cannot be a key here")
        built[key] = value
    return built


def has_field(container: Any, name: str) -> bool:
    """``has(container.name)``."""
    if container.__class__ is dict:
        return name in container
    raise Unknown(f"{type_name(container)} has no fields")


def truth(value: Any) -> bool:
    """The value when it is a bool."""
    if value is True or value is False:
        return bool(value)
    raise Unknown(f"{type_name(value)} is neither true nor false")


def both(left: Callable[[], Any], right: Callable[[], Any]) -> bool:
    """CEL's commutative ``&&``: false on either side decides, whatever the other is."""
    try:
        if not truth(left()):
            return False
    except FAILURES:
        if truth(right()):
            raise
        return False
    return truth(right())


def either(left: Callable[[], Any], right: Callable[[], Any]) -> bool:
    """CEL's commutative ``||``: true on either side decides, whatever the other is."""
    try:
        if truth(left()):
            return True
    except FAILURES:
        if not truth(right()):
            raise
        return True
    return truth(right())


def _elements(container: Any, weight: int) -> Iterable[Any]:
    """What a macro runs over: the elements of a list, the keys of a map. `weight` is the number of nodes of its body.

    All are paid for at the start, whatever decides: so the cost is that of the data, and counting takes no time.
    """
    if container.__class__ is list or container.__class__ is dict:
        meter.spend(len(container) * weight)
        return container
    raise Unknown(f"{type_name(container)} has no elements")


def fold_exists(container: Any, test: Callable[[Any], Any], weight: int) -> bool:
    """True if any element passes; unknown if none does but one is unknown."""
    failure: BaseException | None = None
    for element in _elements(container, weight):
        try:
            if truth(test(element)):
                return True
        except FAILURES as error:
            failure = error
    if failure:
        try:
            raise failure
        finally:
            failure = None  # what is raised keeps this frame
    return False


def fold_all(container: Any, test: Callable[[Any], Any], weight: int) -> bool:
    """False if any element fails; unknown if none does but one is unknown."""
    return not fold_exists(container, lambda element: not truth(test(element)), weight)


def fold_exists_one(container: Any, test: Callable[[Any], Any], weight: int) -> bool:
    """True if exactly one element passes."""
    return sum(truth(test(element)) for element in _elements(container, weight)) == 1


def fold_filter(container: Any, test: Callable[[Any], Any], weight: int) -> list[Any]:
    """The elements that pass."""
    return [element for element in _elements(container, weight) if truth(test(element))]


def fold_map(
    container: Any, body: Callable[[Any], Any], weight: int, where: Callable[[Any], Any] | None = None
) -> list[Any]:
    """What `body` makes of each element, of those that pass `where` if that is given."""
    return [body(element) for element in _elements(container, weight) if where is None or truth(where(element))]


_TYPE_NAMES: dict[type, str] = {
    bool: "bool", int: "int", float: "double", str: "string", bytes: "bytes", datetime: "timestamp",
    timedelta: "duration", list: "list", dict: "map", type(None): "null",
}  # fmt: skip


def type_name(value: Any) -> str:
    """The name of a value's type, as authors write it."""
    kind: type = value.__class__
    return _TYPE_NAMES.get(kind, kind.__name__)
