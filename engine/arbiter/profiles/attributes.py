"""An update of attributes: what is wrong with it as it stands, and what it makes of the attributes that are stored.

Law: pure; nothing is changed in place, so a refused update leaves no trace.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.profiles.totals import INT64
from arbiter.profiles.values import as_declared, check_id, check_name, check_type, check_value, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbiter.profiles.records import Update
    from arbiter.profiles.values import Limits

# The reason of an InvalidField that is due to what is stored, not to the request alone.
STORED = "stored_value"


def check_update(update: Update, types: Mapping[str, str], limits: Limits) -> None:
    """Raise InvalidField or LimitExceeded for what is wrong whatever is stored."""
    check_owner(update.subject_id, update.account_id)
    if update.idempotency_key:
        check_id(update.idempotency_key, "idempotency_key")
    if update.expected_version is not None and update.expected_version < 0:
        raise InvalidField(
            f"expected_version is {update.expected_version}: send the version that was read, 0 for a subject without "
            "attributes",
            field="expected_version",
        )
    seen: dict[str, str] = {}
    for part in ("set", "unset", "increment", "append"):
        for name in getattr(update, part):
            field = f"{part}.{name}"
            check_name(name, field)
            if name in seen:
                raise InvalidField(
                    f"`{name}` stands in {seen[name]} and in {part}: name an attribute once", field=field
                )
            seen[name] = part
    for name, value in update.set.items():
        check_value(value, f"set.{name}", limits)
        check_type(value, types.get(name), f"set.{name}")
    for name, amount in update.increment.items():
        field = f"increment.{name}"
        check_value(amount, field, limits)
        if type(amount) not in {int, float}:
            raise InvalidField(f"{field} is {kind_of(amount)}: only numbers can be added", field=field)
    for name, value in update.append.items():
        check_value(value, f"append.{name}", limits, depth=2)


def check_owner(subject_id: str, account_id: str) -> None:
    """Raise InvalidField unless one of the two ids is given, and fit."""
    if account_id and subject_id:
        message = "subject_id and account_id are both given: a call is about a subject or about an account"
        raise InvalidField(message, field="account_id")
    if account_id:
        check_id(account_id, "account_id")
    else:
        check_id(subject_id, "subject_id")


def changed_attributes(
    stored: Mapping[str, Any], update: Update, types: Mapping[str, str], limits: Limits
) -> dict[str, Any]:
    """The attributes after a checked update. Raises InvalidField with reason `STORED`, or LimitExceeded."""
    result = dict(stored)
    result.update({name: as_declared(value, types.get(name)) for name, value in update.set.items()})
    for name in update.unset:
        result.pop(name, None)
    for name, amount in update.increment.items():
        result[name] = _added(stored.get(name, 0), amount, types.get(name), f"increment.{name}")
    for name, item in update.append.items():
        field = f"append.{name}"
        items = stored.get(name, [])
        if type(items) is not list:
            raise InvalidField(f"`{name}` is {kind_of(items)}, not a list to append to", field=field, reason=STORED)
        check_type(items, types.get(name), field)
        if len(items) >= limits.list_items:
            raise LimitExceeded(
                f"`{name}` is full: `list_items` allows {limits.list_items:,}", field=field, reason="list_items"
            )
        result[name] = [*items, item]
    return result


def _added(stored: Any, amount: float, declared: str | None, field: str) -> int | float:
    if type(stored) not in {int, float}:
        raise InvalidField(f"{field}: the stored value is {kind_of(stored)}, no number", field=field, reason=STORED)
    result: int | float = as_declared(stored, declared) + as_declared(amount, declared)
    if type(result) is int:
        if result not in INT64:
            raise InvalidField(f"{field}: {stored} + {amount} leaves 64 bits", field=field, reason=STORED)
    elif not math.isfinite(result):
        raise InvalidField(f"{field}: {stored} + {amount} is not finite", field=field, reason=STORED)
    check_type(result, declared, field)
    return result


def same(a: Any, b: Any) -> bool:
    """Whether two stored values are one value, to the type: 1, 1.0 and true differ."""
    if type(a) is not type(b):
        return False
    if type(a) is list:
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is dict:
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)
