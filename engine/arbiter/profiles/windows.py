"""The state from which one feature of one subject is read at any clock: bounded, and always exact.

Law: pure; knows times, values and aggregates, nothing of events, subjects or disks. A state covers every event after
`floor`. Events are kept in time order as buckets; events at one time share a bucket, so bucket ranges never touch.
While there are few, each bucket is one instant. Past `MOST` buckets, old neighbours are coalesced (all-time features:
to one bucket and the newest `NEWEST`). A bucket that an edge of a window later cuts through is replaced by its own
events, fetched again from the log: at most 1/`GOAL` of the window's events, and mostly a few, since the buckets next to
the edge are kept small. So the state is bounded, reads are exact, and no event leaves a window late. `distinct` keeps
the newest time of each value and counts to `DISTINCT`, exactly; for more values it says `DISTINCT`.
A `tally` keeps the newest times of each name, those ahead of the clock too, and reads the same at every clock.

Events may leave the log. What an all-time feature had of them is kept in a state of its own, `gone`, and stands in for
them wherever events are fetched again. A window never needs one: its events leave the log after they left the window.
"""

from __future__ import annotations

import copy
from bisect import bisect_right, insort
from heapq import nlargest
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.profiles import decays, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arbiter.ruleset.rules import Aggregate

    # (first, last) inclusive µs, None open → the feature's own (time, value) pairs, by time, then position.
    Fetch = Callable[[int | None, int | None], Iterable[tuple[int, Any]]]

MOST = 128
NEWEST = 16
GOAL = 24
DISTINCT = 1024

_FOLDS: dict[Aggregate, Callable[[list[Any]], Any]] = {
    "count": lambda _: None,
    "since": lambda _: None,
    "first": itemgetter(0),
    "last": itemgetter(-1),
    "min": min,
    "max": max,
    "sum": totals.fold,
    "mean": totals.fold,
    "decay": decays.fold,
    "tally": lambda parts: {name: sorted(at for p in parts for at in p.get(name, ())) for name in set().union(*parts)},
}


class Bucket(msgspec.Struct, array_like=True, gc=False):
    """Neighbouring events: the times of the first and the last (µs), how many, and what the aggregate needs of them."""

    first: int
    last: int
    count: int
    data: Any


class State(msgspec.Struct, array_like=True, gc=False):
    """What is kept of one feature: right for every clock from `floor` + window on. `latest` is for ``distinct``."""

    floor: int | None = None
    buckets: list[Bucket] = []
    latest: dict[bytes, int] = {}


class Reading(msgspec.Struct, array_like=True, gc=False):
    """A feature at one clock. `value` None is missing; of ``decay`` it is the parts of the total, in order of time.

    `changed` is the time of the newest event that counts.
    The value holds from `since` (None: ever) up to, not including, `until` (None: for good). All in µs.
    """

    value: Any
    changed: int | None
    since: int | None
    until: int | None


_first = attrgetter("first")
_last = attrgetter("last")
_time = itemgetter(1)


def covers(state: State, window: int | None, now: int) -> bool:
    """Whether `state` can answer for the clock `now`."""
    return window is None or state.floor is None or now - window >= state.floor


def insert(state: State, aggregate: Aggregate, at: int, value: Any) -> None:
    """Count an event at its place in time; among equal times it is the last. `distinct` wants `value` as bytes."""
    if state.floor is not None and at <= state.floor:
        return
    if aggregate == "distinct":
        known = state.latest.get(value)
        if known is None or at > known:
            state.latest[value] = at
        return
    if aggregate == "tally":
        _keep(state.buckets, at, *value)
        return
    buckets = state.buckets
    index = bisect_right(buckets, at, key=_first) - 1
    if index < 0 or at > buckets[index].last:
        buckets.insert(index + 1, Bucket(at, at, 1, value))
        return
    bucket = buckets[index]
    bucket.count += 1
    if aggregate == "first" or (aggregate == "last" and at < bucket.last):
        return
    bucket.data = _FOLDS[aggregate]([bucket.data, value])


def _keep(buckets: list[Bucket], at: int, name: str, most: int, mark: str | None) -> None:
    """Keep `at` among the newest `most` times of a name: a tally is one bucket with the times of each name. With marks
    each of so many times stands there once with each mark that it had.
    """
    if not buckets:
        buckets.append(Bucket(at, at, 0, {}))
    bucket = buckets[0]
    bucket.first, bucket.last, bucket.count = min(bucket.first, at), max(bucket.last, at), bucket.count + 1
    times = bucket.data.setdefault(name, [])
    if mark is None:
        insort(times, at)
        del times[:-most]
    elif [at, mark] not in times:
        insort(times, [at, mark])
        oldest = sorted({moment for moment, _ in times})[-most:][0]
        times[:] = [each for each in times if each[0] >= oldest]


def compact(state: State, aggregate: Aggregate, window: int | None, now: int) -> None:
    """Bound the state. Past and future stay apart, and so do the newest few: clocks of workers differ a little."""
    if len(state.latest) > 2 * DISTINCT:
        state.latest = dict(nlargest(DISTINCT, state.latest.items(), key=_time))
    buckets = state.buckets
    if len(buckets) <= (MOST if window is not None else 2 * NEWEST):
        return
    middle = bisect_right(buckets, now, key=_last)
    old = max(0, middle - NEWEST)
    goal = 1 if window is None else GOAL
    state.buckets = [
        *_coalesce(buckets[:old], goal, _FOLDS[aggregate]),
        *buckets[old : middle + NEWEST],
        *_coalesce(buckets[middle + NEWEST :], GOAL, _FOLDS[aggregate]),
    ]


def _coalesce(buckets: list[Bucket], goal: int, fold: Callable[[list[Any]], Any]) -> list[Bucket]:
    """Join neighbours while a bucket keeps to an even share of 1/`goal`: one for goal 1, else about 3 x `goal` at most.

    The oldest stay small (1, 1, 2, 2, 4, 4 ...): they are the next that a moving edge cuts, and what is cut is fetched.
    """
    share = -(-sum(bucket.count for bucket in buckets) // goal)
    groups: list[list[Bucket]] = []
    held = 0
    for bucket in buckets:
        room = share if goal == 1 else min(share, 1 << ((len(groups) - 1) // 2 if groups else 0))
        if groups and held + bucket.count <= room:
            groups[-1].append(bucket)
            held += bucket.count
        else:
            groups.append([bucket])
            held = bucket.count
    return [
        group[0]
        if len(group) == 1
        else Bucket(group[0].first, group[-1].last, sum(b.count for b in group), fold([b.data for b in group]))
        for group in groups
    ]


def settle(gone: State, aggregate: Aggregate) -> None:
    """Bring the state of events that left the log to its smallest form: nothing cuts through them any more."""
    if gone.buckets:
        gone.buckets = _coalesce(gone.buckets, 1, _FOLDS[aggregate])
    gone.latest = dict(nlargest(DISTINCT, gone.latest.items(), key=_time))


def joined(gone: State, other: State, aggregate: Aggregate) -> State:
    """What left the log of one subject and of another, when the two are one. Of one time the first comes first."""
    latest = gone.latest | {value: at for value, at in other.latest.items() if at > gone.latest.get(value, at - 1)}
    buckets = sorted([*gone.buckets, *other.buckets], key=_last if aggregate == "last" else _first)
    if len(buckets) > 1:
        first, last = min(map(_first, buckets)), max(map(_last, buckets))
        data = _FOLDS[aggregate]([bucket.data for bucket in buckets])
        buckets = [Bucket(first, last, sum(bucket.count for bucket in buckets), data)]
    found = State(None, buckets, latest)
    settle(found, aggregate)
    return found


def copied(gone: State) -> State:
    """A state that begins with what left the log, and may be changed."""
    buckets = [msgspec.structs.replace(each, data=copy.deepcopy(each.data)) for each in gone.buckets]
    return State(gone.floor, buckets, dict(gone.latest))


def read(
    state: State, aggregate: Aggregate, window: int | None, now: int, fetch: Fetch, gone: State | None = None
) -> Reading:
    """The feature at `now`, which `state` must cover. Forgets what has left the window.

    What is `gone` counts from the time of its oldest event on; so a clock that stands before its newest sees too much.
    """
    lower = None if window is None else now - window
    if aggregate == "distinct":
        return _read_distinct(state, window, now, fetch, gone)
    if aggregate == "tally":
        return Reading(copy.deepcopy(state.buckets[0].data) if state.buckets else None, None, None, None)
    for edge in (lower, now):
        if edge is not None:
            _split(state.buckets, aggregate, edge, fetch, gone)
    buckets = state.buckets
    if lower is not None:
        left = bisect_right(buckets, lower, key=_last)
        if left:
            state.floor = buckets[left - 1].last
            del buckets[:left]
    end = bisect_right(buckets, now, key=_first)
    inside = buckets[:end]
    floor = None if window is None or state.floor is None else state.floor + window
    until = buckets[end].first if end < len(buckets) else None
    if not inside:
        return Reading(0 if aggregate in {"count", "sum"} else None, None, floor, until)
    newest = inside[-1].last
    if window is not None:
        leaves = inside[0].first + window
        until = leaves if until is None else min(until, leaves)
    return Reading(_result(aggregate, inside), newest, newest if floor is None else max(newest, floor), until)


def _split(buckets: list[Bucket], aggregate: Aggregate, edge: int, fetch: Fetch, gone: State | None) -> None:
    """Replace the bucket that has events on both sides of `edge` by its events; all, if some of its events are gone."""
    index = bisect_right(buckets, edge, key=_first) - 1
    if index < 0 or buckets[index].last <= edge:
        return
    first: int | None = buckets[index].first
    last: int | None = buckets[index].last
    replaced, exact = slice(index, index + 1), State()
    if gone is not None and gone.buckets and buckets[index].first <= gone.buckets[-1].last:
        replaced, exact, first, last = slice(None), copied(gone), None, None
    for at, value in fetch(first, last):
        insert(exact, aggregate, at, value)
    buckets[replaced] = exact.buckets


def _result(aggregate: Aggregate, inside: list[Bucket]) -> Any:
    match aggregate:
        case "count":
            return sum([bucket.count for bucket in inside])
        case "since":
            return inside[-1].last
        case "sum":
            return totals.total([bucket.data for bucket in inside])
        case "mean":
            sum_ = totals.total([bucket.data for bucket in inside])
            return None if sum_ is None else sum_ / sum([bucket.count for bucket in inside])
        case "decay":
            return [bucket.data for bucket in inside]
        case _:
            return _FOLDS[aggregate]([bucket.data for bucket in inside])


def _read_distinct(state: State, window: int | None, now: int, fetch: Fetch, gone: State | None) -> Reading:
    lower = None if window is None else now - window
    if lower is not None:
        left = [(value, at) for value, at in state.latest.items() if at <= lower]
        for value, at in left:
            del state.latest[value]
            state.floor = at if state.floor is None else max(state.floor, at)
    latest, until = state.latest, None
    if latest and max(latest.values()) > now:
        # A value's newest event is yet to come and may hide one inside the window: only the log knows.
        latest = {} if gone is None else {value: at for value, at in gone.latest.items() if at <= now}
        for at, value in fetch(None if lower is None else lower + 1, None):
            if at > now:
                until = at
                break
            latest[value] = at
    floor = None if window is None or state.floor is None else state.floor + window
    if not latest:
        return Reading(None, None, floor, until)
    times = sorted(latest.values())[-DISTINCT:]
    if window is not None:
        until = times[0] + window if until is None else min(until, times[0] + window)
    return Reading(len(times), times[-1], times[-1] if floor is None else max(times[-1], floor), until)
