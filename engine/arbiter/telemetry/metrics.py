"""Metrics through OpenTelemetry: observable instruments that read `Counters`, and histograms handed over whole.

Law: reads, never writes, and only when an exporter wants figures. OpenTelemetry's SDK has no observable histogram, so
ours join its figures on their way to the exporter.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)

from arbiter.telemetry import exporters
from arbiter.telemetry.histogram import count
from arbiter.telemetry.instrument import buckets, number
from arbiter.telemetry.instruments import of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource

    from arbiter.telemetry.counters import Counters
    from arbiter.telemetry.instrument import Instrument, Origin, Point


def start(
    counters: Counters, origin: Origin, resource: Resource, readers: Sequence[MetricReader] | None = None
) -> MeterProvider:
    """Publish `counters` until the provider's `shutdown()`. Without `readers` the environment chooses.

    Raises TelemetryError.
    """
    if readers is None:
        readers = [
            PeriodicExportingMetricReader(_exporter(name, counters, origin)) for name in exporters.asked("metrics")
        ]
    provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
    meter = provider.get_meter("arbiter")
    made: dict[str, Callable[..., Any]] = {
        "counter": meter.create_observable_counter,
        "updown": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }
    scalars = [each for each in of(origin) if each.kind != "histogram"]
    for each in scalars:
        # Instruments are read in the order in which they were made: the first brings all up to date.
        refresh = counters.refresh if each is scalars[0] else None
        made[each.kind](each.name, [_callback(each, counters, refresh)], unit=each.unit, description=each.description)
    return provider


def _exporter(name: str, counters: Counters, origin: Origin) -> MetricExporter:
    # Standard output belongs to the line that says that the server is ready.
    inner = ConsoleMetricExporter(out=sys.stderr) if name == "console" else exporters.otlp("metrics")
    return WithHistograms(inner, counters, origin)


def _callback(
    instrument: Instrument, counters: Counters, refresh: Callable[[], None] | None
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        if refresh is not None:
            refresh()
        for values, figure in instrument.read(counters):
            yield Observation(number(figure), _attributes(instrument, values))

    return observe


def _attributes(instrument: Instrument, values: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in zip(instrument.attributes, values, strict=True) if value}


class WithHistograms(MetricExporter):
    """Exports what it is given, and the histograms beside it."""

    def __init__(self, inner: MetricExporter, counters: Counters, origin: Origin) -> None:
        # Exporters hand them to readers by these names: there are no others.
        super().__init__(inner._preferred_temporality, inner._preferred_aggregation)  # noqa: SLF001
        self._inner = inner
        self._counters = counters
        self._histograms = [each for each in of(origin) if each.kind == "histogram"]
        self._began = time.time_ns()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Export, with the histograms in the same scope."""
        return self._inner.export(self._completed(metrics_data), timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """As the inner one."""
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """As the inner one."""
        self._inner.shutdown(timeout_millis, **kwargs)

    def _completed(self, data: MetricsData) -> MetricsData:
        now = time.time_ns()
        found = [
            self._metric(each, points, now) for each in self._histograms if (points := list(each.read(self._counters)))
        ]
        return MetricsData(
            [
                ResourceMetrics(
                    part.resource,
                    [ScopeMetrics(s.scope, [*s.metrics, *found], s.schema_url) for s in part.scope_metrics],
                    part.schema_url,
                )
                for part in data.resource_metrics
            ]
        )

    def _metric(self, instrument: Instrument, points: list[Point], now: int) -> Metric:
        bounds = [bound / instrument.scale for bound in instrument.bounds]
        made = []
        for values, figure in points:
            counts = buckets(figure)
            made.append(
                HistogramDataPoint(
                    attributes=_attributes(instrument, values),
                    start_time_unix_nano=self._began,
                    time_unix_nano=now,
                    count=count(counts),
                    sum=counts[-1] / instrument.scale,
                    bucket_counts=counts[:-1],
                    explicit_bounds=bounds,
                    # Nobody keeps them: these say so, in the SDK's own words.
                    min=float("inf"),
                    max=float("-inf"),
                )
            )
        return Metric(
            instrument.name, instrument.description, instrument.unit, Histogram(made, AggregationTemporality.CUMULATIVE)
        )
