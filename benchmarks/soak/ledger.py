"""The ledger: what one subject's profile and events must be, from the writes that were acknowledged and nothing else.

Law: pure. One caller owns a subject, so what it was told is all that can have happened to it.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.soak.world import MINUTE, SECOND

if TYPE_CHECKING:
    from benchmarks.soak.world import Feature, World


@dataclass(frozen=True)
class Change:
    """An update, in plain values."""

    set: dict[str, Any] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    increment: dict[str, int] = field(default_factory=dict)
    append: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Happened:
    """An event; `at` is in µs, and no two of a subject's are equal."""

    at: int
    id: str = field(compare=False)
    type: str = field(compare=False)
    properties: dict[str, Any] = field(compare=False)


class Subject:
    """One subject as it must be."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.version = 0
        self.attributes: dict[str, Any] = {}
        self.events: dict[str, list[Happened]] = {"buy": [], "visit": []}
        self.moments: set[int] = set()

    @property
    def exists(self) -> bool:
        """Whether anything was ever stored."""
        return bool(self.version or self.moments)

    def changed(self, change: Change) -> None:
        """An update was acknowledged."""
        held = self.attributes
        held.update(change.set)
        for name in change.unset:
            held.pop(name, None)
        for name, by in change.increment.items():
            held[name] = held.get(name, 0) + by
        for name, item in change.append.items():
            held[name] = [*held.get(name, []), item]
        self.version += 1

    def happened(self, event: Happened) -> None:
        """An event was acknowledged."""
        insort(self.events[event.type], event)
        self.moments.add(event.at)

    def features(self, world: World, now: int) -> dict[str, Any]:
        """Every feature that has a value at `now`, counted anew from all events."""
        read = {name: self._feature(feature, now) for name, feature in world.features.items()}
        return {name: value for name, value in read.items() if value is not None}

    def _feature(self, feature: Feature, now: int) -> Any:
        events = self.events[feature.event]
        first = bisect_right(events, now - feature.window * SECOND, key=_at) if feature.window else 0
        taken = events[first : bisect_right(events, now, key=_at)]
        if feature.aggregate == "count":
            return len(taken)
        if feature.aggregate == "since":
            return (now - taken[-1].at) / MINUTE if taken else None
        values = [event.properties[feature.prop] for event in taken]
        if feature.least is not None:
            values = [value for value in values if value >= feature.least]
        match feature.aggregate:
            case "sum":
                return sum(values)
            case "distinct":
                return len(set(values)) if values else None
            case "max":
                return max(values, default=None)
        return values[-1] if values else None


def _at(event: Happened) -> int:
    return event.at
