"""What an instrument is, and the ways in which figures are read from `Counters`.

Law: pure; knows neither the list of instruments nor an exporter.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from arbiter.telemetry import histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arbiter.telemetry.counters import Counters, Model

Kind = Literal["counter", "updown", "gauge", "histogram"]
Number = int | float
# The values of the attributes, in the instrument's order ("" for one that does not apply), and the figure.
Point = tuple[tuple[str, ...], Number | list[int]]
# By the instrument's name.
Reading = dict[str, list[Point]]
Origin = Literal["worker", "supervisor"]

# Rules and names have a series each, and a rule set may have 100,000: those beyond are counted together.
SERIES = 1_000
OTHER = "_OTHER"

_MICROS = 1_000_000
_NANOS = 1_000_000_000


class Instrument(msgspec.Struct, frozen=True):
    """One thing that is measured. `unit` is UCUM; `attributes` are the names that go with `read`'s values.

    `origin` says which processes have it. `joined` says what several processes' figures make: their sum, the greatest,
    or one series for each process. A histogram has `bounds`, which are `scale` to the unit.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    read: Callable[[Counters], Iterable[Point]]
    attributes: tuple[str, ...] = ()
    origin: Literal["worker", "supervisor", "all"] = "worker"
    joined: Literal["sum", "most", "each"] = "sum"
    bounds: tuple[int, ...] = histogram.DURATIONS
    scale: int = _NANOS


def number(figure: Number | list[int]) -> Number:
    """Return the figure of an instrument that is no histogram."""
    return cast("Number", figure)


def buckets(figure: Number | list[int]) -> list[int]:
    """Return the figure of a histogram."""
    return cast("list[int]", figure)


def one(figure: Callable[[Counters], Number | list[int]]) -> Callable[[Counters], Iterable[Point]]:
    """One figure, without attributes."""
    return lambda counters: [((), figure(counters))]


def by(figures: Callable[[Counters], Mapping[str, Number | list[int]]]) -> Callable[[Counters], Iterable[Point]]:
    """A figure for each name."""
    # A copy, since another thread may add a name while this one walks: `dict` makes it in one step.
    return lambda counters: [((name,), figure) for name, figure in dict(figures(counters)).items()]


def pair(figures: Callable[[Counters], Mapping[tuple[str, str], int]]) -> Callable[[Counters], Iterable[Point]]:
    """A figure for each pair of names."""
    return lambda counters: list(dict(figures(counters)).items())


def capped(figures: Callable[[Counters], Mapping[str, int]]) -> Callable[[Counters], Iterable[Point]]:
    """A figure for each of the names that came first, and one for all others: what has a series keeps it."""

    def points(counters: Counters) -> Iterable[Point]:
        found = dict(figures(counters))
        yield from (((name,), figure) for name, figure in islice(found.items(), SERIES))
        if len(found) > SERIES:
            yield (OTHER,), sum(islice(found.values(), SERIES, None))

    return points


def model(figure: Callable[[Model], Number]) -> Callable[[Counters], Iterable[Point]]:
    """A figure for each version of a model."""
    return lambda counters: [(named, figure(each)) for named, each in dict(counters.models).items()]
