"""One reading of several processes: what adds up is added up, the rest names its process.

Law: pure. Counters of a process that ended stay in the sum, so that no total ever falls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.telemetry.histogram import together
from arbiter.telemetry.instrument import number
from arbiter.telemetry.instruments import INSTRUMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.telemetry.instrument import Instrument, Number, Point, Reading

# The attribute that tells processes apart: ``supervisor``, ``worker-0``, …
ROLE = "arbiter.role"
_Values = dict[tuple[str, ...], "Number | list[int]"]


def attributes_of(instrument: Instrument) -> tuple[str, ...]:
    """Return the names that go with the values of a joined point."""
    return (*instrument.attributes, ROLE) if instrument.joined == "each" else instrument.attributes


def joined(living: Iterable[tuple[str, Reading]], ended: Mapping[str, Reading]) -> Reading:
    """Join the readings of processes, each with its role: all of those that live, the counters of those that `ended`.

    A role may come more than once: one process leaves while another takes over from it.
    """
    living = tuple(living)
    found: Reading = {}
    for instrument in INSTRUMENTS:
        values: _Values = {}
        for role, reading in living:
            _take(values, instrument, role, reading.get(instrument.name, []))
        if instrument.kind in {"counter", "histogram"}:
            for role, reading in ended.items():
                _take(values, instrument, role, reading.get(instrument.name, []))
        found[instrument.name] = list(values.items())
    return found


def kept(before: Reading, last: Reading) -> Reading:
    """Return the counters of a role whose process ended: what those before it had counted, and what it had."""
    # As of one role, so that it is the same sum.
    both: dict[str, _Values] = {}
    for instrument in INSTRUMENTS:
        if instrument.kind in {"counter", "histogram"}:
            values = both.setdefault(instrument.name, {})
            for reading in (before, last):
                for attributes, value in reading.get(instrument.name, []):
                    values[attributes] = _sum(values[attributes], value) if attributes in values else value
    return {name: list(values.items()) for name, values in both.items()}


def _take(values: _Values, instrument: Instrument, role: str, points: list[Point]) -> None:
    for attributes, value in points:
        key = (*attributes, role) if instrument.joined == "each" else attributes
        if key not in values:
            values[key] = value
        elif instrument.joined == "most":
            values[key] = max(number(values[key]), number(value))
        else:
            values[key] = _sum(values[key], value)


def _sum(first: Number | list[int], second: Number | list[int]) -> Number | list[int]:
    if isinstance(first, list) and isinstance(second, list):
        return together([first, second])
    return number(first) + number(second)
