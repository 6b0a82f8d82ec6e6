"""Metrics through OpenTelemetry: what `Counters` hold, handed to its exporters whole.

Law: reads, never writes, and only when an exporter wants figures. The SDK's reader says when, and its exporter sends;
between the two stands no instrument of the SDK's, which would make an object of each figure and keep it once more
(docs/decisions/0064).
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from arbiter.telemetry import exporters
from arbiter.telemetry.histogram import count
from arbiter.telemetry.instrument import buckets, number
from arbiter.telemetry.instruments import of, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from opentelemetry.sdk.resources import Resource

    from arbiter.telemetry.counters import Counters
    from arbiter.telemetry.instrument import Instrument, Number, Origin, Point

_CUMULATIVE, _DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA
# What exporters call the kinds of instrument that may be wanted as differences.
_KINDS = {"counter": ObservableCounter, "histogram": HistogramInstrument}
_SCOPE = InstrumentationScope("arbiter")


def start(
    counters: Counters, origin: Origin, resource: Resource, sent: Sequence[MetricExporter] | None = None
) -> MeterProvider:
    """Publish `counters` until the provider's `shutdown()`, by the exporters `sent`, or those that the environment
    asks for. Raises TelemetryError.
    """
    if sent is None:
        sent = [_exporter(name) for name in exporters.asked("metrics")]
    provider = MeterProvider(
        [PeriodicExportingMetricReader(Whole(each, counters, origin, resource)) for each in sent],
        resource,
        shutdown_on_exit=False,
    )
    # A reader turns to its exporter only when an instrument has a figure: this one has, and goes nowhere.
    provider.get_meter("arbiter").create_observable_gauge("arbiter.due", [lambda _: [Observation(1)]])
    return provider


def _exporter(name: str) -> MetricExporter:
    # Standard output belongs to the line that says that the server is ready.
    made: MetricExporter = ConsoleMetricExporter(out=sys.stderr) if name == "console" else exporters.otlp("metrics")
    return made


class Whole(MetricExporter):
    """Exports what has been counted by the `inner` one, whenever the SDK's reader wants something exported.

    Where the inner one prefers differences (OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE) it gets what came since
    the last export that went well, and nothing of what did not change.
    """

    def __init__(self, inner: MetricExporter, counters: Counters, origin: Origin, resource: Resource) -> None:
        super().__init__()
        self._inner = inner
        self._counters = counters
        self._origin = origin
        self._instruments = of(origin)
        self._resource = resource
        # Exporters hand it to readers by this name: there is no other.
        preferred = inner._preferred_temporality or {}  # noqa: SLF001
        self._as_differences = {kind for kind, theirs in _KINDS.items() if preferred.get(theirs) is _DELTA}
        self._began = self._since = time.time_ns()
        self._sent: dict[str, dict[tuple[str, ...], Number | list[int]]] = {}  # until `since`

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Export what has been counted; what the SDK's reader found says only that it is time to."""
        del metrics_data
        reading, now = read(self._counters, self._origin), time.time_ns()
        metrics = []
        for each in self._instruments:
            points = reading[each.name]
            if each.kind == "histogram":
                # Calls count on in the lists that were read.
                points = reading[each.name] = [(values, buckets(figure).copy()) for values, figure in points]
            if each.kind in self._as_differences:
                points = list(_new(points, self._sent.get(each.name, {})))
            if points:
                metrics.append(self._metric(each, points, now))
        scope = ScopeMetrics(_SCOPE, metrics, "")
        told = MetricsData([ResourceMetrics(self._resource, [scope], self._resource.schema_url)])
        result = self._inner.export(told, timeout_millis, **kwargs)
        if self._as_differences and result is MetricExportResult.SUCCESS:
            self._sent = {name: dict(points) for name, points in reading.items()}
            self._since = now
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """As the inner one."""
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """As the inner one."""
        self._inner.shutdown(timeout_millis, **kwargs)

    def _metric(self, instrument: Instrument, points: list[Point], now: int) -> Metric:
        kind = instrument.kind
        since, temporality = (self._since, _DELTA) if kind in self._as_differences else (self._began, _CUMULATIVE)
        data: Sum | Gauge | Histogram
        if kind == "histogram":
            bounds = [bound / instrument.scale for bound in instrument.bounds]
            data = Histogram(
                [
                    HistogramDataPoint(
                        attributes=_attributes(instrument, values),
                        start_time_unix_nano=since,
                        time_unix_nano=now,
                        count=count(counts),
                        sum=counts[-1] / instrument.scale,
                        bucket_counts=counts[:-1],
                        explicit_bounds=bounds,
                        # Nobody keeps them: these say so, in the SDK's own words.
                        min=float("inf"),
                        max=float("-inf"),
                    )
                    for values, counts in ((values, buckets(figure)) for values, figure in points)
                ],
                temporality,
            )
        else:
            made = [
                NumberDataPoint(_attributes(instrument, values), since, now, number(figure))
                for values, figure in points
            ]
            data = Gauge(made) if kind == "gauge" else Sum(made, temporality, kind == "counter")
        return Metric(instrument.name, instrument.description, instrument.unit, data)


def _attributes(instrument: Instrument, values: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in zip(instrument.attributes, values, strict=True) if value}


def _new(points: Iterable[Point], sent: Mapping[tuple[str, ...], Number | list[int]]) -> Iterator[Point]:
    """What came to each series since it was `sent`, of those to which something did."""
    for values, figure in points:
        before = sent.get(values)
        if isinstance(figure, list):
            came = figure if before is None else [now - then for now, then in zip(figure, buckets(before), strict=True)]
            if count(came):
                yield values, came
        elif before is None or figure < number(before):  # a series may be dropped, and begin anew
            if figure:
                yield values, figure
        elif figure != before:
            yield values, figure - number(before)
