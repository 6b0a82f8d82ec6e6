"""A set of features, compiled: what each takes from an event, and the reading of all of them at one clock.

Law: pure; knows events and feature definitions, not how either is stored. Events are handed in, or asked for by a
function.
"""

from __future__ import annotations

from collections import defaultdict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.compile import event_filter
from arbiter.profiles import decays, windows
from arbiter.profiles.windows import Reading, State
from arbiter.ruleset.reads import ratios_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from arbiter.ruleset.rules import Feature
    from arbiter.types import Event

    # (first, last) inclusive µs, None open → a subject's events, by time, then position.
    Events = Callable[[int | None, int | None], Iterable[Event]]

_NUMBERS = (int, float)
_ABSENT = object()
_NONE: Mapping[str, State] = {}
_encoder = msgspec.msgpack.Encoder(order="deterministic")


class Readings(msgspec.Struct, frozen=True, gc=False):
    """All features at one clock: values by key, the µs time each changed, and the range in which all of it holds."""

    values: dict[str, Any]
    changed: dict[str, int]
    since: int | None
    until: int | None


class _Compiled:
    """One feature. Events of another type never reach it."""

    __slots__ = (
        "aggregate", "double", "event", "half_life", "keep", "key", "marks", "number", "property", "where", "window"
    )  # fmt: skip

    def __init__(self, feature: Feature) -> None:
        self.key = feature.key
        self.aggregate = feature.aggregate
        self.event = feature.event
        self.property = feature.property
        self.window = feature.window
        self.where = event_filter(feature.where)
        self.double = _gives_double(feature)
        self.number = feature.aggregate in {"sum", "min", "max", "mean"}
        self.half_life = feature.half_life
        self.keep = feature.keep
        self.marks = feature.marks

    def take(self, event: Event) -> Any:
        """What the event adds to the feature; `_ABSENT` when it does not count."""
        if self.where is not None and not self.where(event.properties):
            return _ABSENT
        if self.keep:
            return self._kept(event.properties)
        if not self.property:
            return decays.part(1, event.at, self.half_life) if self.half_life else None
        value = event.properties.get(self.property, _ABSENT)
        if self.half_life:
            return decays.part(value, event.at, self.half_life) if type(value) in _NUMBERS else _ABSENT
        if self.number:
            return value if type(value) in _NUMBERS else _ABSENT
        if self.aggregate == "distinct" and value is not _ABSENT:
            return _token(value)
        return value

    def _kept(self, properties: Mapping[str, Any]) -> Any:
        """Under which name a tally keeps the event's time, of how many, and with what mark. What no rule gave, the
        default, takes nobody's room: it counts only where it comes between others.
        """
        name, rule = properties.get(self.property, "") if self.property else "", properties.get("rule", "")
        if type(name) is not str or name not in self.keep or type(rule) is not str or not (rule or self.marks):
            return _ABSENT
        return name, self.keep[name], properties.get(self.marks, "") if self.marks else None

    def read(self, state: State, now: int, events: Events, gone: State | None) -> Reading:
        """The feature at `now`."""

        def fetch(first: int | None, last: int | None) -> Iterable[tuple[int, Any]]:
            for event in events(first, last):
                if event.type == self.event and (value := self.take(event)) is not _ABSENT:
                    yield event.at, value

        reading = windows.read(state, self.aggregate, self.window, now, fetch, gone)
        if self.half_life:
            reading.value = decays.total(reading.value, self.half_life) if reading.value else decays.NOTHING
        elif self.double and type(reading.value) is int:
            reading.value = float(reading.value)
        return reading


class FeatureSet:
    """Features, each once by its key. `id` tells sets apart; `empty` are the values of a subject without events."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.by_key: dict[str, Feature] = {feature.key: feature for feature in sorted(features, key=lambda f: f.key)}
        self.id = blake2b("\n".join(self.by_key).encode(), digest_size=8).hexdigest()
        self._ratios = ratios_of(self.by_key.values())
        self._compiled = {
            key: _Compiled(feature) for key, feature in self.by_key.items() if feature.aggregate != "ratio"
        }
        self.empty: dict[str, Any] = self._with_ratios(
            {
                key: decays.NOTHING if feature.half_life else 0.0 if _gives_double(feature) else 0
                for key, feature in self.by_key.items()
                if feature.aggregate in {"count", "sum", "decay"}
            }
        )
        self._by_event: dict[str, list[_Compiled]] = defaultdict(list)
        # How far (µs) the longest window over events of a type reaches back.
        self.reach: dict[str, int] = {}
        for feature in self._compiled.values():
            self._by_event[feature.event].append(feature)
            if feature.window is not None:
                self.reach[feature.event] = max(feature.window, self.reach.get(feature.event, 0))

    def names(self, without: Collection[str]) -> tuple[str, ...]:
        """The names of the features but those with the keys that are named, sorted."""
        return tuple(sorted({feature.name for key, feature in self.by_key.items() if key not in without}))

    def fresh(self) -> dict[str, State]:
        """The states of a subject of whom nothing is known: nothing was left out, so they are right for every clock."""
        return {key: State() for key in self._compiled}

    def said(self, counted: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
        """`counted` values, but what is `said` in their place; a ratio follows its features unless it is said."""
        ratios = {ratio.key for ratio in self._ratios}
        values = {key: value for key, value in counted.items() if key not in ratios} | dict(said)
        return self._with_ratios(values) | dict(said)

    def _with_ratios(self, values: dict[str, Any]) -> dict[str, Any]:
        for ratio in self._ratios:
            stored = ratio.stored(values)
            if stored is not None:
                values[ratio.key] = stored
        return values

    def insert(self, states: dict[str, State], event: Event) -> None:
        """Count one event in the state of every feature that it concerns and that is in `states`."""
        for feature in self._by_event.get(event.type, ()):
            state = states.get(feature.key)
            if state is not None and (value := feature.take(event)) is not _ABSENT:
                windows.insert(state, feature.aggregate, event.at, value)

    def compact(self, states: dict[str, State], now: int) -> None:
        """Bound every state; `now` parts past from future."""
        for key, state in states.items():
            windows.compact(state, self._compiled[key].aggregate, self._compiled[key].window, now)

    def without(self, gone: Mapping[str, State], events: Iterable[Event]) -> dict[str, State]:
        """What stands in for the events that left the log when `events`, the next of them, leave it too.

        Only features over all time need it; what was kept for others than those of this set is dropped.
        """
        kept = {key: gone.get(key) or State() for key, feature in self._compiled.items() if feature.window is None}
        for event in events:
            self.insert(kept, event)
        for key, state in kept.items():
            windows.settle(state, self._compiled[key].aggregate)
        return {key: state for key, state in kept.items() if state.buckets or state.latest}

    def joined(self, gone: Mapping[str, State], other: Mapping[str, State]) -> dict[str, State]:
        """What stands in for all that left the logs of two subjects, when the two are one."""
        none = State()
        return {
            key: windows.joined(gone.get(key, none), other.get(key, none), feature.aggregate)
            for key, feature in self._compiled.items()
            if key in gone or key in other
        }

    def complete(
        self, kept: Mapping[str, State], now: int, events: Events, gone: Mapping[str, State] = _NONE
    ) -> dict[str, State]:
        """A state for every feature that covers `now`: those of `kept` that do, the others counted from the events.

        `gone` stands in for events that left the log.
        """
        states: dict[str, State] = {}
        fresh: dict[str, State] = {}
        start: int | None = now
        for key, feature in self._compiled.items():
            state = kept.get(key)
            if state is None or not windows.covers(state, feature.window, now):
                if feature.window is None:
                    state = windows.copied(gone[key]) if key in gone else State()
                else:
                    state = State(now - feature.window)
                fresh[key] = state
                start = None if start is None or state.floor is None else min(start, state.floor)
            states[key] = state
        if fresh:
            for count, event in enumerate(events(None if start is None else start + 1, None), 1):
                self.insert(fresh, event)
                if count % windows.MOST == 0:
                    self.compact(fresh, now)
        return states

    def read(
        self, states: Mapping[str, State], now: int, events: Events, gone: Mapping[str, State] = _NONE
    ) -> Readings:
        """Every feature at `now`. `states` must be complete for it; what left the windows is forgotten from them.

        `gone` as for `complete`.
        """
        values: dict[str, Any] = {}
        changed: dict[str, int] = {}
        since: int | None = None
        until: int | None = None
        for key, feature in self._compiled.items():
            reading = feature.read(states[key], now, events, gone.get(key))
            if reading.value is not None:
                values[key] = reading.value
            if reading.changed is not None:
                changed[key] = reading.changed
            if reading.since is not None and (since is None or reading.since > since):
                since = reading.since
            if reading.until is not None and (until is None or reading.until < until):
                until = reading.until
        for ratio in self._ratios:
            times = [changed[part] for part in ratio.parts if part in changed]
            if times:
                changed[ratio.key] = max(times)
        return Readings(self._with_ratios(values), changed, since, until)


def _gives_double(feature: Feature) -> bool:
    """Whether what is kept of it is a double; of ``since`` it is a time, whatever it reads as."""
    return feature.type == "double" and feature.aggregate != "since"


def _token(value: Any) -> bytes:
    """Equal for values that CEL holds equal (1 and 1.0), different for others (1 and true); long ones as a digest."""
    encoded = _encoder.encode(_plain(value))
    return encoded if len(encoded) <= 16 else blake2b(encoded, digest_size=17).digest()  # noqa: PLR2004 - 17: no clash


def _plain(value: Any) -> Any:
    if type(value) is float and value.is_integer() and abs(value) < 2.0**63:
        return int(value)
    if type(value) is list:
        return [_plain(item) for item in value]
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    return value
