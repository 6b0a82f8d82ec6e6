"""An update of attributes: what is wrong with it as it stands, and what it makes of the attributes that are stored.

Law: pure; nothing is changed in place, so a refused update leaves no trace. What one verb makes of one value is
`verbs`' matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.profiles.values import check_id, check_name
from arbiter.profiles.verbs import ABSENT, STORED, VERBS, check_given

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arbiter.profiles.declared import Declared
    from arbiter.profiles.records import Update
    from arbiter.profiles.values import Limits

LONGEST_TTL: Final = 36_525 * 86_400 * 1_000_000  # µs: a hundred years
_BOUNDED = ("append", "add_to_set")


def check_update(update: Update, declared: Declared, limits: Limits) -> None:
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
    for verb, name in _named(update):
        field = f"{verb}.{name}"
        check_name(name, field)
        if name in seen:
            raise InvalidField(f"`{name}` stands in {seen[name]} and in {verb}: name an attribute once", field=field)
        seen[name] = verb
    for verb in VERBS:
        for name, given in getattr(update, verb).items():
            check_given(verb, name, given, declared, limits)
    _check_segments(update, declared)
    _check_keep(update, limits)
    _check_ttl(update)


def check_owner(subject_id: str, account_id: str) -> None:
    """Raise InvalidField unless one of the two ids is given, and fit."""
    if account_id and subject_id:
        message = "subject_id and account_id are both given: a call is about a subject or about an account"
        raise InvalidField(message, field="account_id")
    if account_id:
        check_id(account_id, "account_id")
    else:
        check_id(subject_id, "subject_id")


def _named(update: Update) -> Iterator[tuple[str, str]]:
    """Each name that an update changes, behind its verb."""
    for verb in (*VERBS, "unset"):
        for name in getattr(update, verb):
            yield verb, name


def _check_segments(update: Update, declared: Declared) -> None:
    for place in ("enter_segments", "leave_segments"):
        for index, name in enumerate(getattr(update, place)):
            field = f"{place}[{index}]"
            if name not in declared.segments:
                raise InvalidField(
                    f"`{name[:64]}` is no managed segment that the rules declare: declare it, `segments: {{NAME: "
                    "managed}`, or name one that is",
                    field=field,
                )
            if place == "leave_segments" and name in update.enter_segments:
                raise InvalidField(f"`{name}` is entered and left: name a segment once", field=field)


def managed_segments(before: tuple[str, ...], update: Update) -> tuple[str, ...]:
    """The managed segments that a subject is in after a checked update, sorted."""
    if not update.enter_segments and not update.leave_segments:
        return before
    return tuple(sorted({*before, *update.enter_segments} - set(update.leave_segments)))


def _check_keep(update: Update, limits: Limits) -> None:
    for name, newest in update.keep.items():
        field = f"keep.{name}"
        if not any(name in getattr(update, verb) for verb in _BOUNDED):
            raise InvalidField(f"{field} bounds a list, and neither append nor add_to_set names it", field=field)
        if not 1 <= newest <= limits.list_items:
            raise InvalidField(
                f"{field} is {newest}: keep 1 to {limits.list_items:,} items, as many as `list_items` allows",
                field=field,
            )


def _check_ttl(update: Update) -> None:
    for name, ttl in update.ttl.items():
        field = f"ttl.{name}"
        if not any(name in getattr(update, verb) for verb in VERBS):
            raise InvalidField(
                f"{field} is for an attribute that this update does not write: write it too", field=field
            )
        if not 0 < ttl <= LONGEST_TTL:
            raise InvalidField(f"{field} is {ttl} µs: give more than nothing, and at most a hundred years", field=field)


def changed_attributes(stored: Mapping[str, Any], update: Update, declared: Declared, limits: Limits) -> dict[str, Any]:
    """The attributes after a checked update. A verb that starts from what is there starts from the declared default
    where nothing is. Raises InvalidField with reason `STORED`, or LimitExceeded.
    """
    result = dict(stored)
    for name in update.unset:
        result.pop(name, None)
    for verb, change in VERBS.items():
        for name, given in getattr(update, verb).items():
            field = f"{verb}.{name}"
            before = stored.get(name, declared.defaults.get(name, ABSENT))
            value = change(_stored(name, before, declared), declared.stored(name, given), field)
            if value is ABSENT:
                continue
            if type(value) is list and verb != "set":
                value = _bounded(name, declared.newest(name, value), update, limits, field)
            if verb != "set":
                declared.check(name, value, field, STORED)
            result[name] = declared.stored(name, value)
    return result


def _stored(name: str, before: Any, declared: Declared) -> Any:
    return before if before is ABSENT else declared.stored(name, before)


def _bounded(name: str, items: list[Any], update: Update, limits: Limits, field: str) -> list[Any]:
    """The newest items of a list, as many as are kept."""
    newest = update.keep.get(name)
    if newest is not None:
        return items[-newest:]
    if len(items) > limits.list_items:
        raise LimitExceeded(
            f"`{name}` is full: `list_items` allows {limits.list_items:,}; give `keep`, or declare `max_items`, to "
            "drop the oldest",
            field=field,
            reason="list_items",
        )
    return items


def expiries(before: Mapping[str, int], update: Update, attributes: Mapping[str, Any], now: int) -> dict[str, int]:
    """When attributes go (µs), by name, after an update at `now` that made `attributes`: what is written without a time
    to live keeps none.
    """
    if not before and not update.ttl:  # of most subjects
        return {}
    written = {name for _, name in _named(update)}
    kept = {name: at for name, at in before.items() if name not in written}
    return kept | {name: now + ttl for name, ttl in update.ttl.items() if name in attributes}


def same(a: Any, b: Any) -> bool:
    """Whether two stored values are one value, to the type: 1, 1.0 and true differ."""
    if type(a) is not type(b):
        return False
    if type(a) is list:
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is dict:
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)
