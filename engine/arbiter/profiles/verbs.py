"""What each verb of an update makes of one value: from what is stored, or `ABSENT`, and what is given, to what holds
then.

Law: pure; nothing is changed in place. Whether a verb's argument is sound on its own is `check_given`'s matter, whether
it suits what is stored that of the verb.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from arbiter.errors import InvalidField
from arbiter.profiles.totals import INT64
from arbiter.profiles.values import check_type, check_value, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.profiles.declared import Declared
    from arbiter.profiles.values import Limits

# The reason of an InvalidField that is due to what is stored, not to the request alone.
STORED: Final = "stored_value"
ABSENT: Final[Any] = object()
_LISTS: Final = frozenset({"append", "add_to_set", "remove"})
_ORDERINGS: Final = frozenset({"min", "max"})
_NUMBERS: Final = (int, float)
_ORDERED: Final = {int: "number", float: "number", str: "string", datetime: "timestamp"}


def check_given(verb: str, name: str, given: Any, declared: Declared, limits: Limits) -> None:
    """Raise InvalidField or LimitExceeded for what `verb` cannot do to the attribute, whatever is stored."""
    field = f"{verb}.{name}"
    check_value(given, field, limits, depth=2 if verb in _LISTS else 1)
    if verb == "increment" and type(given) not in _NUMBERS:
        raise InvalidField(f"{field} is {kind_of(given)}: only numbers can be added", field=field)
    if verb in _ORDERINGS and type(given) not in _ORDERED:
        raise InvalidField(
            f"{field} is {kind_of(given)}: only numbers, strings and timestamps have a smallest and a largest",
            field=field,
        )
    if verb == "set" or verb in _ORDERINGS:
        declared.check(name, given, field)
    elif verb == "increment":
        check_type(given, declared.types.get(name), field)
    elif declared.types.get(name, "list") not in {"list", "dyn"}:
        raise InvalidField(f"{field}: it is declared as {declared.types[name]}, which is no list", field=field)


def equal(a: Any, b: Any) -> bool:
    """Whether two values are one element of a list that `add_to_set` and `remove` look for: as ``==`` in rules, 1 and
    1.0 are, 1 and true are not.
    """
    kind, other = type(a), type(b)
    if kind is not other:
        return kind in _NUMBERS and other in _NUMBERS and bool(a == b)
    if kind is list:
        return len(a) == len(b) and all(map(equal, a, b))
    if kind is dict:
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return bool(a == b)


def _set(_before: Any, given: Any, _field: str) -> Any:
    return given


def _increment(before: Any, given: Any, field: str) -> Any:
    if before is ABSENT:
        before = 0
    if type(before) not in _NUMBERS:
        raise InvalidField(f"{field}: the stored value is {kind_of(before)}, no number", field=field, reason=STORED)
    result = before + given
    if type(result) is int:
        if result not in INT64:
            raise InvalidField(f"{field}: {before} + {given} leaves 64 bits", field=field, reason=STORED)
    elif not math.isfinite(result):
        raise InvalidField(f"{field}: {before} + {given} is not finite", field=field, reason=STORED)
    return result


def _append(before: Any, given: Any, field: str) -> Any:
    return [*_list(before, field, "append to"), given]


def _add_to_set(before: Any, given: Any, field: str) -> Any:
    items = _list(before, field, "add to")
    return items if any(equal(item, given) for item in items) else [*items, given]


def _remove(before: Any, given: Any, field: str) -> Any:
    if before is ABSENT:
        return ABSENT
    return [item for item in _list(before, field, "remove from") if not equal(item, given)]


def _min(before: Any, given: Any, field: str) -> Any:
    return given if before is ABSENT or _comparable(given, before, field) < before else before


def _max(before: Any, given: Any, field: str) -> Any:
    return given if before is ABSENT or _comparable(given, before, field) > before else before


# In the order in which an update's verbs are told of; an attribute is named by one of them.
VERBS: Final[dict[str, Callable[[Any, Any, str], Any]]] = {
    "set": _set,
    "increment": _increment,
    "append": _append,
    "add_to_set": _add_to_set,
    "remove": _remove,
    "min": _min,
    "max": _max,
}


def _list(before: Any, field: str, what: str) -> list[Any]:
    if before is ABSENT:
        return []
    if type(before) is not list:
        name = field.partition(".")[2]
        raise InvalidField(f"`{name}` is {kind_of(before)}, not a list to {what}", field=field, reason=STORED)
    return before


def _comparable(given: Any, before: Any, field: str) -> Any:
    """What is given, if it has an order with what is stored."""
    if _ORDERED[type(given)] != _ORDERED.get(type(before)):
        raise InvalidField(
            f"{field} is {kind_of(given)}, and the stored value is {kind_of(before)}: the two have no order",
            field=field,
            reason=STORED,
        )
    return given
