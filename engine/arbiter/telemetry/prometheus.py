"""A reading in the text that Prometheus scrapes.

Law: names are translated as OpenTelemetry's specification says, so that a dashboard made for one holds for the other:
dots become underscores, the unit and for counters `total` are appended. The format itself is prometheus-client's.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from arbiter.telemetry.instrument import buckets, number
from arbiter.telemetry.instruments import INSTRUMENTS
from arbiter.telemetry.totals import attributes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from arbiter.telemetry.instrument import Instrument, Point, Reading

_UNITS = {"s": "seconds", "By": "bytes", "%": "percent"}


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
    encode, media_type = choose_encoder(accept)
    return encode(_Once(reading)), media_type


class _Once(Collector):
    """One reading, as prometheus-client wants to see it."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        for instrument in INSTRUMENTS:
            points = self._reading.get(instrument.name)
            if points:
                yield _family(instrument, points)


def _family(instrument: Instrument, points: list[Point]) -> Metric:
    name, labels = name_of(instrument), [label_of(each) for each in attributes_of(instrument)]
    if instrument.kind == "histogram":
        histogram = HistogramMetricFamily(name, instrument.description, labels=labels)
        for values, figure in points:
            counts = buckets(figure)
            bounds = [f"{bound / instrument.scale:g}" for bound in instrument.bounds]
            upto = list(zip([*bounds, "+Inf"], accumulate(counts[:-1]), strict=True))
            histogram.add_metric(values, upto, counts[-1] / instrument.scale)
        return histogram
    kind = CounterMetricFamily if instrument.kind == "counter" else GaugeMetricFamily
    family = kind(name, instrument.description, labels=labels)
    for values, figure in points:
        family.add_metric(values, number(figure))
    return family
