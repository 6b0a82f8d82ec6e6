"""Whether a rule's cap is full for a subject, and when there is room again.

Law: pure. What was counted is the newest times of each rule, oldest first, as many as its cap allows: a cap is full
while the first of so many lies inside the period. A time that is ahead of the clock counts.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from arbiter.decision.dates import zone_name
from arbiter.decision.wording import shown
from arbiter.expr.zones import instant_of, zone_of
from arbiter.types import from_micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbiter.expr.view import View
    from arbiter.ruleset.compiled import CompiledRule
    from arbiter.ruleset.terms import Cap

_DAY: Final = 86_400_000_000
_DAYS: Final = {"day": 1, "week": 7}
_MONDAY: Final = 3  # days from a Monday to 1970-01-01
_EARLIEST: Final = -62_130_000_000_000_000  # a year 1 and a year 9999 whose days a datetime still holds in every zone
_LATEST: Final = 253_400_000_000_000_000
_NOTHING: Mapping[str, Any] = {}


def has_room(rule: CompiledRule, view: View) -> bool:
    """Whether the rule may be shown once more; it may where it has no cap."""
    cap = rule.cap
    if cap is None:
        return True
    times = _times(rule, view)
    return len(times) < cap.most or not _counts(cap, times[-cap.most], view)


def frees(rule: CompiledRule, view: View) -> int | None:
    """When (µs) a cap that is full has room again; None for never, and where it is not full."""
    cap = rule.cap
    if cap is None or has_room(rule, view):
        return None
    first = _times(rule, view)[-cap.most]  # of those that fill it: when it no longer counts, there is room
    if cap.span:
        return first + cap.span
    if cap.per in _DAYS:
        _, following = _calendar(cap, view, max(first, view.clock))
        return max(following, view.clock + 1)  # a clock that is put back past midnight reads a day again
    return None


def fullness(rule: CompiledRule, view: View) -> str:
    """How full a rule's cap is, in words."""
    cap = rule.cap
    if cap is None:
        return ""
    counted = sum(_counts(cap, at, view) for at in _times(rule, view)[-cap.most :])
    period = "in all" if cap.per == "lifetime" else f"in {cap.per}" if cap.span else f"this {cap.per}"
    again = frees(rule, view)
    return (
        f"{counted} of {cap.most} {cap.on}{'s' * (cap.most > 1)} {period}, "
        f"{'never free again' if again is None else f'free again {shown(from_micros(again))}'}"
    )


def _times(rule: CompiledRule, view: View) -> Sequence[int]:
    times: Sequence[int] = view.features.get(rule.tally, _NOTHING).get(rule.id, ())
    return times


def _counts(cap: Cap, at: int, view: View) -> bool:
    """Whether something at `at` (µs) is inside the period."""
    if cap.span:
        return at > view.clock - cap.span
    return cap.per not in _DAYS or at >= _calendar(cap, view, view.clock)[0]


def _calendar(cap: Cap, view: View, at: int) -> tuple[int, int]:
    """Where (µs) the subject's day or week begins that `at` lies in, and where the next one does. Weeks begin on
    Mondays.
    """
    name = zone_name(cap.zone, view) if cap.zone is not None else "UTC"
    inside = min(max(at, _EARLIEST), _LATEST)
    day = to_micros(from_micros(inside).astimezone(zone_of(name)).replace(tzinfo=UTC)) // _DAY
    if cap.per == "week":
        day -= (day + _MONDAY) % 7
    return instant_of(name, day * _DAY), instant_of(name, (day + _DAYS[cap.per]) * _DAY)
