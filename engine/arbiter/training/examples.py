"""Rows out of events: what was known of a subject at a moment, and what became of it afterwards.

Law: pure. A row's inputs are made of events up to its moment and of nothing later, by the very code that computes
features for decisions; its label, of events after it alone. A moment that is itself an event's is the last before it:
what is decided about an event is decided before it happens, and the event is no part of its own past.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.compile import event_filter
from arbiter.profiles import windows
from arbiter.profiles.features import FeatureSet
from arbiter.ruleset.reads import reads_by_name
from arbiter.training.table import LABELS, NO_LABEL, Table, TrainingFailed, value_of
from arbiter.types import Event  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from arbiter.ruleset.rules import Feature
    from arbiter.training.spec import Spec

_at = attrgetter("at")
# Why there is no row where there might have been one.
TOO_LATE = "what became of it is not known yet"
TOO_EARLY = "the log does not reach back far enough"


class History(msgspec.Struct, frozen=True):
    """What is known of one subject: its events in order of time, and a function from a moment (µs) to its attributes
    then, None where those are not known any more.
    """

    subject: str
    events: list[Event]
    attributes: Callable[[int], Mapping[str, Any] | None] = lambda _: {}


class Reader:
    """Features of one subject at several moments. `features` are all that are declared; `names` those wanted."""

    def __init__(self, features: Sequence[Feature], names: Iterable[str]) -> None:
        known = {feature.name: feature for feature in features}
        self._wanted = {name: known[name] for name in names}
        parts = {part for feature in self._wanted.values() for part in feature.of}
        needed = [*self._wanted.values(), *(known[part] for part in parts - self._wanted.keys())]
        self._reads = reads_by_name(needed)
        self._set = FeatureSet(needed)
        # How far (µs) the longest window reaches back; None: to the beginning.
        spans = [feature.window for feature in needed if feature.aggregate != "ratio"]
        self.reach: int | None = None if None in spans else max((span for span in spans if span), default=0)

    def at(self, events: Sequence[Event], clocks: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The values by name at each of `clocks` (µs), which must rise; what is missing is left out."""
        states = self._set.fresh()
        known = 0
        for clock in clocks:
            end = bisect_right(events, clock, key=_at)
            for number in range(known, end):
                self._set.insert(states, events[number])
                if number % windows.MOST == 0:
                    self._set.compact(states, events[number].at)
            known = end

            def fetch(first: int | None, last: int | None, end: int = end) -> Iterable[Event]:
                start = 0 if first is None else bisect_left(events, first, 0, end, key=_at)
                stop = end if last is None else bisect_right(events, last, 0, end, key=_at)
                return events[start:stop]

            stored = self._set.read(states, clock, fetch).values
            values = {}
            for name, read in self._reads.items():
                value = read.value(stored.get(read.key), clock)
                if value is not None and name in self._wanted:
                    values[name] = value
            yield values


def assemble(
    spec: Spec,
    histories: Iterable[History],
    features: Sequence[Feature],
    *,
    until: int | None,
    defaults: Mapping[str, Any] | None = None,
) -> Table:
    """The rows of all subjects, in the order in which they come, each subject's by time.

    The log is whole from `spec.source.since` up to `until` (µs), None for the newest event that comes. `defaults` stand
    for absent attributes, by dotted name. Raises TrainingFailed when there is not one row.
    """
    wanted = [each.attribute for each in spec.inputs if each.root == "features"]
    reader = Reader(features, dict.fromkeys(wanted))
    label = spec.label if spec.label is not None and not isinstance(spec.label, str) else None
    after = None if label is None else Reader([label], [label.name])
    ahead = 0 if label is None or label.window is None else label.window
    rows = _Rows(spec, defaults or {})
    if until is None:
        histories = list(histories)
        until = max((each.events[-1].at for each in histories if each.events), default=0)
    instants = spec.moments.instants(until - ahead)
    for history in histories:
        found = list(_moments(spec, history.events, instants))
        known = [each for each in found if each[0] + ahead <= until]
        rows.table.leave_out(TOO_LATE, len(found) - len(known))
        whole = [each for each in known if _reaches(spec, reader, each[0])]
        rows.table.leave_out(TOO_EARLY, len(known) - len(whole))
        if not whole:
            continue
        # An event of the row's own moment is not known yet, if the row is about it.
        clocks = [at - (event is not None) for at, event in whole]
        outcomes = _outcomes(after, label, history.events, [at + ahead for at, _ in whole])
        for (at, event), values, outcome in zip(whole, reader.at(history.events, clocks), outcomes, strict=True):
            rows.add(history, at, event, values, outcome)
    if not rows.table.rows:
        why = "; ".join(f"{count:,}: {reason}" for reason, count in rows.table.left_out.items())
        raise TrainingFailed(f"there is no row to learn from{': ' + why if why else ', since no event is before it'}")
    return rows.table


class _Rows:
    """Puts rows into a table."""

    def __init__(self, spec: Spec, defaults: Mapping[str, Any]) -> None:
        self._spec = spec
        self._defaults = defaults
        self._profile = any(each.root == "profile" for each in spec.inputs)
        labelled = spec.label is not None
        self.table = Table({each.name: [] for each in spec.inputs}, [] if labelled else None, [], [])

    def add(self, history: History, at: int, event: Event | None, features: Mapping[str, Any], outcome: Any) -> None:
        """The row of one moment, if it can be one."""
        table = self.table
        found = LABELS[self._spec.kind](_told(self._spec.kind, outcome)) if table.label is not None else None
        if table.label is not None and found is None:
            table.leave_out(NO_LABEL)
            return
        attributes = history.attributes(at) if self._profile else {}
        if attributes is None:
            table.leave_out(TOO_EARLY)
            return
        context = {} if event is None else event.properties
        of = {"features": features, "profile": attributes, "context": context}
        for each in self._spec.inputs:
            value = of[each.root].get(each.attribute, self._defaults.get(f"{each.root}.{each.attribute}"))
            table.columns[each.name].append(_served(each, value))
        if table.label is not None:
            table.label.append(found)
        assert table.times is not None  # noqa: S101 - made with both
        assert table.subjects is not None  # noqa: S101
        table.times.append(at)
        table.subjects.append(history.subject)


def _served(each: Any, value: Any) -> Any:
    """The value as serving would take it: what is of another type is missing there."""
    if each.encoding is not None:
        return value if isinstance(value, str) else None
    return value_of(each, value) if isinstance(value, (bool, int, float)) else None


def _told(kind: str, outcome: Any) -> Any:
    """A label's value as the kind has it: of a propensity, whether there was anything."""
    if kind == "propensity":
        return outcome is not None and (outcome > 0 if isinstance(outcome, (int, float)) else bool(outcome))
    return outcome


def _moments(spec: Spec, events: Sequence[Event], instants: Sequence[int]) -> Iterator[tuple[int, Event | None]]:
    """When the subject is looked at, with the event that it is for: at `instants`, where it is for none."""
    if spec.moments.each:
        wanted = event_filter(spec.moments.where)
        for event in events:
            if event.type == spec.moments.each and (wanted is None or wanted(event.properties)):
                yield event.at, event
        return
    for at in instants:
        if events and events[0].at <= at:
            yield at, None


def _reaches(spec: Spec, reader: Reader, at: int) -> bool:
    """Whether the log holds all that the row's features look back on."""
    since = spec.source.since
    return since is None or (reader.reach is not None and at - reader.reach >= since)


def _outcomes(
    after: Reader | None, label: Feature | None, events: Sequence[Event], clocks: Sequence[int]
) -> Iterator[Any]:
    if after is None or label is None:
        yield from (None for _ in clocks)
        return
    for values in after.at(events, clocks):
        yield values.get(label.name)
