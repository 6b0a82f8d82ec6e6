"""A reading in the text that Prometheus scrapes.

Law: names are translated as OpenTelemetry's specification says, so that a dashboard made for one holds for the other:
dots become underscores, the unit and for counters `total` are appended. What is asked for is understood by
prometheus-client, and the text is, byte for byte, what that would write of the same figures, which a test compares; it
is written here because what a series' lines begin with stays the same from scrape to scrape.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from arbiter.telemetry.instrument import SERIES, buckets, number
from arbiter.telemetry.instruments import INSTRUMENTS
from arbiter.telemetry.totals import attributes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arbiter.telemetry.instrument import Instrument, Point, Reading

_UNITS = {"s": "seconds", "By": "bytes", "%": "percent"}
_KINDS = {"counter": "counter", "histogram": "histogram", "updown": "gauge", "gauge": "gauge"}
_text: Callable[[float], str] = floatToGoString
_ESCAPING = re.compile(r"escaping=[^;,\s]*")


def name_of(instrument: Instrument) -> str:
    """Return a metric's name in Prometheus, without the `total` of a counter and the `bucket` of a histogram."""
    plain = instrument.name.replace(".", "_")
    unit = _UNITS.get(instrument.unit, "")
    return f"{plain}_{unit}" if unit and not plain.endswith(unit) else plain


def label_of(attribute: str) -> str:
    """Return an attribute's name in Prometheus."""
    return attribute.replace(".", "_")


def exposition(reading: Reading, accept: str = "") -> tuple[bytes, str]:
    """Return a reading as text, and its media type, of those that an HTTP request's `Accept` says are understood."""
    # Our names hold nothing that would have to be escaped, in whatever way.
    _, media_type = choose_encoder(_ESCAPING.sub("escaping=underscores", accept))
    openmetrics = media_type.startswith("application/openmetrics-text")
    lines: list[str] = []
    for family in _FAMILIES:
        points = reading.get(family.instrument.name)
        if points:
            lines.append(family.heads[openmetrics])
            lines.extend(family.lines(points))
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode(), media_type


class _Family:
    """An instrument's lines. `heads` are what goes before them, in Prometheus' own text and in OpenMetrics."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self._name = name_of(instrument)
        self._labels = [label_of(each) for each in attributes_of(instrument)]
        self._total = "_total" if instrument.kind == "counter" else ""
        said, kind = instrument.description.replace("\\", r"\\").replace("\n", r"\n"), _KINDS[instrument.kind]
        self.heads = tuple(
            f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
            for name, text in ((self._name + self._total, said), (self._name, said.replace('"', r"\"")))
        )
        if instrument.kind == "histogram":
            bounds = [f"{bound / instrument.scale:g}" for bound in instrument.bounds]
            self._bounds = [*bounds, "+Inf"]
            self._begin_all = lru_cache(2 * SERIES)(self._begins)
        else:
            self._begin = lru_cache(2 * SERIES)(self._begins_with)

    def lines(self, points: list[Point]) -> Iterator[str]:
        """Return the lines of these points."""
        if self.instrument.kind != "histogram":
            for values, figure in points:
                yield f"{self._begin(values)}{_text(number(figure))}\n"
            return
        for values, figure in points:
            counts = buckets(figure)
            upto = list(accumulate(counts[:-1]))
            figures = (*upto, upto[-1], counts[-1] / self.instrument.scale)
            for begin, each in zip(self._begin_all(values), figures, strict=True):
                yield f"{begin}{_text(each)}\n"

    def _begins_with(self, values: tuple[str, ...]) -> str:
        return f"{self._name}{self._total}{self._told(values)} "

    def _begins(self, values: tuple[str, ...]) -> tuple[str, ...]:
        upto = [f"{self._name}_bucket{self._told(values, bound)} " for bound in self._bounds]
        return *upto, f"{self._name}_count{self._told(values)} ", f"{self._name}_sum{self._told(values)} "

    def _told(self, values: tuple[str, ...], bound: str = "") -> str:
        labels = dict(zip(self._labels, values, strict=True))
        if bound:
            labels["le"] = bound
        told = [
            '{}="{}"'.format(name, value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\""))
            for name, value in sorted(labels.items())
        ]
        return f"{{{','.join(told)}}}" if told else ""


_FAMILIES = [_Family(each) for each in INSTRUMENTS]
