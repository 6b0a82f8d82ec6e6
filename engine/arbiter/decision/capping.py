"""Whether a cap that holds for a rule is full for a subject, and when there is room again.

Law: pure. What was counted is the newest times of each thing, oldest first, as many as its caps allow: a cap is full
while the first of so many lies inside the period. A time that is ahead of the clock counts. Where decisions are
counted, what the same answer gave before counts too, at the clock.
"""

from __future__ import annotations

from datetime import UTC
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from arbiter.decision.dates import zone_name
from arbiter.decision.wording import shown
from arbiter.expr.zones import instant_of, zone_of
from arbiter.types import from_micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arbiter.expr.view import View
    from arbiter.ruleset.caps.tallies import Limit
    from arbiter.ruleset.compiled import CompiledRule
    from arbiter.types import Treatment

_DAY: Final = 86_400_000_000
_DAYS: Final = {"day": 1, "week": 7}
_MONDAY: Final = 3  # days from a Monday to 1970-01-01
_EARLIEST: Final = -62_130_000_000_000_000  # a year 1 and a year 9999 whose days a datetime still holds in every zone
_LATEST: Final = 253_400_000_000_000_000
_NOTHING: Mapping[str, Any] = {}


def has_room(rule: CompiledRule, view: View, given: Iterable[Treatment] = ()) -> bool:
    """Whether the rule may be given once more; it may where it has no cap."""
    return not any(_is_full(limit, view, given) for limit in rule.limits)


def frees(rule: CompiledRule, view: View, given: Iterable[Treatment] = ()) -> int | None:
    """When (µs) the caps that are full all have room again; None for not by time, and where none is full."""
    found = [_frees(limit, view, given) for limit in rule.limits if _is_full(limit, view, given)]
    times = [at for at in found if at is not None]
    return max(times) if times and len(times) == len(found) else None


def fullness(rule: CompiledRule, view: View, given: Iterable[Treatment] = ()) -> str:
    """How full those caps are that are full, in words."""
    return "; ".join(_told(limit, view, given) for limit in rule.limits if _is_full(limit, view, given))


def _is_full(limit: Limit, view: View, given: Iterable[Treatment]) -> bool:
    times = _counting(limit, view, given)
    return len(times) >= limit.most and _counts(limit, times[-limit.most], view)


def _frees(limit: Limit, view: View, given: Iterable[Treatment]) -> int | None:
    """When a limit that is full no longer is: when the first of the times that fill it does not count any more."""
    first = _counting(limit, view, given)[-limit.most]
    if limit.span:
        return first + limit.span
    if limit.per in _DAYS:
        _, following = _calendar(limit, view, max(first, view.clock))
        return max(following, view.clock + 1)  # a clock that is put back past midnight reads a day again
    return None


def _told(limit: Limit, view: View, given: Iterable[Treatment]) -> str:
    again = _frees(limit, view, given)
    free = "never free again" if again is None else f"free again {shown(from_micros(again))}"
    of = f"{limit.what}: " if limit.what else ""
    if limit.cools:
        return f"{of}cools down for {limit.per} after the last {limit.on}, {free}"
    if limit.mark:
        free = "free again when something else comes between" + (f", or {free[11:]}" if again is not None else "")
        return f"{of}the last {limit.most} in a row, {free}"
    counted = sum(_counts(limit, at, view) for at in _counting(limit, view, given)[-limit.most :])
    period = "in all" if limit.per == "lifetime" else f"in {limit.per}" if limit.span else f"this {limit.per}"
    return f"{of}{counted} of {limit.most} {limit.on}{'s' * (limit.most > 1)} {period}, {free}"


def _counting(limit: Limit, view: View, given: Iterable[Treatment]) -> Sequence[int]:
    """The times that a limit counts, oldest first; of what may not come running those since something else came."""
    tally = view.features.get(limit.tally, _NOTHING)
    if len(limit.names) == 1:
        found: Sequence[Any] = tally.get(limit.names[0], ())
    else:
        found = sorted(at for name in limit.names for at in tally.get(name, ()))
    if limit.mark:
        return _running(found, limit.mark)
    now = [view.clock for each in given for tally, name in each.takes if tally == limit.tally and name in limit.names]
    return sorted([*found, *now]) if now else found


def _running(found: Sequence[tuple[int, str]], mark: str) -> list[int]:
    """The newest moments at each of which the marked was given, alone or with others."""
    moments: list[int] = []
    for at, together in groupby(reversed(found), key=itemgetter(0)):
        if all(name != mark for _, name in together):
            break
        moments.append(at)
    return moments[::-1]


def _counts(limit: Limit, at: int, view: View) -> bool:
    """Whether something at `at` (µs) is inside the period."""
    if limit.span:
        return at > view.clock - limit.span
    return limit.per not in _DAYS or at >= _calendar(limit, view, view.clock)[0]


def _calendar(limit: Limit, view: View, at: int) -> tuple[int, int]:
    """Where (µs) the subject's day or week begins that `at` lies in, and where the next one does. Weeks begin on
    Mondays.
    """
    name = zone_name(limit.zone, view) if limit.zone is not None else "UTC"
    inside = min(max(at, _EARLIEST), _LATEST)
    day = to_micros(from_micros(inside).astimezone(zone_of(name)).replace(tzinfo=UTC)) // _DAY
    if limit.per == "week":
        day -= (day + _MONDAY) % 7
    return instant_of(name, day * _DAY), instant_of(name, (day + _DAYS[limit.per]) * _DAY)
