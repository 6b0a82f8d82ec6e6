"""Counting is exact between threads, and what OpenTelemetry publishes is what was counted."""

from __future__ import annotations

import itertools
import sys
import threading
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)

from arbiter.telemetry import exporters, publish
from arbiter.telemetry.counters import Counters
from arbiter.telemetry.exporters import TelemetryError
from arbiter.telemetry.histogram import DURATIONS, NOTED, Durations

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def busy_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Kept(MetricExporter):
    """Keeps what it is given, unless it is to fail."""

    def __init__(self, temporality: AggregationTemporality = AggregationTemporality.CUMULATIVE) -> None:
        super().__init__(preferred_temporality=dict.fromkeys((ObservableCounter, Histogram), temporality))
        self.told: list[MetricsData] = []
        self.answer = MetricExportResult.SUCCESS

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        del timeout_millis
        self.told.append(metrics_data)
        return self.answer

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        del timeout_millis
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Nothing is to be closed."""

    def points(self, name: str) -> list[Any]:
        """The points of a metric in the last that was told."""
        (resource,) = self.told[-1].resource_metrics
        (scope,) = resource.scope_metrics
        return [point for each in scope.metrics if each.name == name for point in each.data.data_points]


Start = Callable[[Counters, AggregationTemporality], tuple[Kept, Callable[[], object]]]


@pytest.fixture
def start() -> Iterator[Start]:
    """What is exported of counters, and a function that has it exported."""
    publishers = []

    def begin(counters: Counters, temporality: AggregationTemporality) -> tuple[Kept, Callable[[], object]]:
        exporter = Kept(temporality)
        publishers.append(publish.start(counters, "worker-0", [exporter]))
        return exporter, publishers[-1].meters.force_flush

    yield begin
    for each in publishers:
        each.shutdown()


def collect(
    counters: Counters, role: str = "worker-3"
) -> tuple[dict[str, Any], dict[str, list[tuple[dict[str, Any], float]]]]:
    """The resource's attributes, and the points of each metric that is a number: its attributes and its value."""
    exporter = Kept()
    publish.start(counters, role, [exporter]).shutdown()
    (resource,) = exporter.told[-1].resource_metrics
    found: dict[str, list[tuple[dict[str, Any], float]]] = {}
    for metric in resource.scope_metrics[0].metrics:
        points: Any = metric.data.data_points
        if not isinstance(points[0], HistogramDataPoint):
            found[metric.name] = [(dict(point.attributes), point.value) for point in points]
    return dict(resource.resource.attributes), found


def test_counts_are_published_by_decision_point_and_outcome() -> None:
    counters = Counters(store_writes=7)
    counters.decisions["store.banner"] += 3
    counters.decisions["onboarding"] += 1
    counters.defaulted["onboarding"] += 1
    counters.errors["NOT_FOUND"] += 2
    _, found = collect(counters)
    assert found["arbiter.decisions"] == [
        ({"arbiter.decision.point": "store.banner"}, 3),
        ({"arbiter.decision.point": "onboarding"}, 1),
    ]
    assert found["arbiter.decisions.defaulted"] == [({"arbiter.decision.point": "onboarding"}, 1)]
    assert found["arbiter.errors"] == [({"error.type": "NOT_FOUND"}, 2)]
    assert found["arbiter.store.writes"] == [({}, 7)]


def test_the_supervisor_publishes_what_it_alone_knows() -> None:
    counters = Counters(reloads_ok=2, reloads_failed=1, last_reload_ok=False, worker_restarts=4)
    _, found = collect(counters, "supervisor")
    assert found["arbiter.reloads"] == [({"arbiter.outcome": "ok"}, 2), ({"arbiter.outcome": "failed"}, 1)]
    assert found["arbiter.reload.last_ok"] == [({}, 0)]
    assert found["arbiter.worker.restarts"] == [({}, 4)]
    assert "arbiter.decisions" not in found


def test_the_snapshots_age_and_digest_are_absent_before_the_first() -> None:
    before = collect(Counters())[1]
    assert "arbiter.snapshot.age" not in before
    assert "arbiter.snapshot.info" not in before
    found = collect(Counters(snapshot_digest="abc", snapshot_at=1_000_000))[1]
    assert found["arbiter.snapshot.info"] == [
        ({"arbiter.snapshot.digest": "abc", "arbiter.snapshot.part": "current"}, 1)
    ]
    ((attributes, age),) = found["arbiter.snapshot.age"]
    assert attributes == {}
    assert age > 1e9


def test_each_provider_has_its_own_instance_id() -> None:
    first, second = (collect(Counters())[0] for _ in range(2))
    assert first["service.name"] == second["service.name"] == "arbiter"
    assert first["arbiter.role"] == "worker-3"
    assert first["service.instance.id"] != second["service.instance.id"]


def test_totals_go_on_from_export_to_export(start: Start) -> None:
    counters = Counters(in_flight=2)
    kept, export = start(counters, AggregationTemporality.CUMULATIVE)
    for _ in range(2):
        counters.decisions["banner"] += 3
        counters.durations["banner"].add(20_000)
        export()
    (point,) = kept.points("arbiter.decisions")
    (durations,) = kept.points("arbiter.decision.duration")
    assert (point.value, durations.count, sum(durations.bucket_counts)) == (6, 2, 2)
    assert durations.sum == pytest.approx(40e-6)
    assert point.start_time_unix_nano < point.time_unix_nano
    assert [each.value for each in kept.points("arbiter.calls.active")] == [2]


def test_who_prefers_differences_gets_what_came_since_the_last_that_went_well(start: Start) -> None:
    counters = Counters(in_flight=2)
    counters.decisions["quiet"] += 1
    kept, export = start(counters, AggregationTemporality.DELTA)
    told = []
    for answer in (MetricExportResult.SUCCESS, MetricExportResult.FAILURE, MetricExportResult.SUCCESS):
        counters.decisions["banner"] += 3
        counters.durations["banner"].add(20_000)
        kept.answer = answer
        export()
        told.append(
            (
                {point.attributes["arbiter.decision.point"]: point.value for point in kept.points("arbiter.decisions")},
                [(point.count, sum(point.bucket_counts)) for point in kept.points("arbiter.decision.duration")],
                [point.value for point in kept.points("arbiter.calls.active")],
            )
        )
    assert told == [
        ({"quiet": 1, "banner": 3}, [(1, 1)], [2]),
        ({"banner": 3}, [(1, 1)], [2]),
        ({"banner": 6}, [(2, 2)], [2]),
    ]
    first, _, last = (each.resource_metrics[0].scope_metrics[0].metrics for each in kept.told)
    ends = {point.time_unix_nano for metric in first for point in metric.data.data_points}
    begins = {
        point.start_time_unix_nano
        for metric in last
        if metric.name == "arbiter.decisions"
        for point in metric.data.data_points
    }
    assert begins == ends, "the spans of time do not meet"


def test_a_series_that_was_dropped_begins_anew(start: Start) -> None:
    counters = Counters()
    counters.by_snapshot["old"] += 5
    kept, export = start(counters, AggregationTemporality.DELTA)
    export()
    del counters.by_snapshot["old"]
    counters.by_snapshot["old"] += 2
    export()
    assert [point.value for point in kept.points("arbiter.snapshot.decisions")] == [2]


@pytest.mark.usefixtures("busy_switching")
def test_no_count_is_lost_between_threads() -> None:
    counters = Counters()
    each = 50_000

    def count() -> None:
        for _ in range(each):
            counters.decisions["point"] += 1
            counters.store_writes += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.decisions["point"] == 4 * each
    assert counters.store_writes == 4 * each


@pytest.mark.usefixtures("busy_switching")
def test_no_duration_is_lost_or_counted_twice_between_threads() -> None:
    durations, each, ended = Durations(), 30_000, threading.Event()

    def note(value: int) -> None:
        for _ in range(each):
            durations.noted.append(value)
            if len(durations.noted) >= NOTED:
                durations.fold()

    def read() -> None:
        while not ended.is_set():
            durations.counts()

    noting = [threading.Thread(target=note, args=(10**power,)) for power in (3, 5, 7, 11)]
    reading = threading.Thread(target=read)
    for thread in (*noting, reading):
        thread.start()
    for thread in noting:
        thread.join()
    ended.set()
    reading.join()
    counts = durations.counts()
    assert not durations.noted
    assert counts[-1] == each * sum(10**power for power in (3, 5, 7, 11))
    assert [counts[bisect_left(DURATIONS, 10**power)] for power in (3, 5, 7, 11)] == [each] * 4


@given(st.lists(st.integers(0, 10**12)), st.lists(st.integers(0, 10**12)))
def test_durations_are_counted_in_the_first_bound_that_is_not_below_them(noted: list[int], added: list[int]) -> None:
    durations = Durations()
    durations.noted.extend(noted)
    for value in added:
        durations.add(value)
    values, below = (*noted, *added), (-1, *DURATIONS)
    expected = [sum(low < value <= bound for value in values) for low, bound in itertools.pairwise(below)]
    beyond = sum(value > DURATIONS[-1] for value in values)
    assert durations.counts() == [*expected, beyond, sum(values)]


def test_nothing_is_exported_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_METRICS_EXPORTER", raising=False)
    assert exporters.asked("metrics") == []
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    assert exporters.asked("metrics") == []


def test_the_console_exporter_writes_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    provider = publish.start(Counters(store_writes=5), "worker-0")
    provider.meters.force_flush()
    provider.shutdown()
    written = capsys.readouterr()
    assert '"arbiter.store.writes"' in written.err
    assert written.out == ""


@pytest.mark.parametrize(
    ("exporter", "protocol", "message"),
    [
        ("prometheus", "grpc", "OTEL_METRICS_EXPORTER names `prometheus`; known are none, console and otlp"),
        ("otlp", "carrier-pigeon", "OTEL_EXPORTER_OTLP_PROTOCOL is `carrier-pigeon`; known are grpc and http/protobuf"),
    ],
)
def test_an_exporter_that_cannot_be_had_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, exporter: str, protocol: str, message: str
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", exporter)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", raising=False)
    with pytest.raises(TelemetryError) as raised:
        publish.start(Counters(), "worker-0")
    assert str(raised.value) == message


def test_otlp_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")
    with pytest.raises(TelemetryError, match="pip install opentelemetry-exporter-otlp-proto-http"):
        publish.start(Counters(), "worker-0")
