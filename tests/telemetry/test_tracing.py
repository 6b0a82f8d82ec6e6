"""Which calls are traced, what becomes of their log lines, and that the others cost nothing of it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from arbiter.telemetry import logs, tracing
from arbiter.telemetry.counters import Counters
from arbiter.telemetry.exporters import TelemetryError
from arbiter.telemetry.histogram import count
from arbiter.telemetry.observer import Observer, Seen
from arbiter.telemetry.sampling import Sampling, chosen

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/arbiter.v1.DecisionService/Decide"
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + "0"


def test_the_parent_decides_where_there_is_one() -> None:
    never, always = Sampling(0.0), Sampling(1.0)
    assert never.takes(SAMPLED)
    assert not always.takes(UNSAMPLED)
    assert always.takes(None)
    assert not never.takes(None)


@pytest.mark.parametrize("header", ["", "00", "no traceparent", SAMPLED[:-2]])
def test_a_header_that_is_cut_short_is_as_good_as_none(header: str) -> None:
    assert Sampling(0.5).takes(header, lambda: 0.49)
    assert not Sampling(0.5).takes(header, lambda: 0.51)


@given(st.floats(0.001, 0.999), st.floats(0, 1, exclude_max=True))
def test_of_calls_without_a_parent_each_is_traced_by_chance(ratio: float, chance: float) -> None:
    """With a probability of 1 - (1 - ratio)^n one of the first n is, as if each were drawn for."""
    gap = Sampling(ratio).gap(lambda: chance)
    assert gap >= 1
    assert 1 - (1 - ratio) ** gap >= chance - 1e-9
    assert 1 - (1 - ratio) ** (gap - 1) <= chance + 1e-9


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (1.0, 2_000, 2_000), (0.25, 350, 650)])
def test_a_ratio_of_calls_is_traced(spans: InMemorySpanExporter, ratio: float, least: int, most: int) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    observer = Observer(Counters(), tracing.Tracing(provider, Sampling(ratio)))
    for _ in range(2_000):
        call = Seen(PATH)
        observer.begin(call, [("user-agent", "any")])
        observer.end(call, "OK")
    # Seven standard deviations: once in 10^12 runs by chance.
    assert least <= len(spans.get_finished_spans()) <= most
    provider.shutdown()


@given(st.integers(1, 2**128 - 1), st.floats(0, 1))
def test_a_ratio_without_parents_chooses_the_traces_that_other_services_choose(trace_id: int, ratio: float) -> None:
    ours = Sampling(ratio, parent=False).takes(f"00-{trace_id:032x}-b7ad6b7169203331-00")
    theirs = TraceIdRatioBased(ratio).should_sample(None, trace_id, "any")
    assert ours == (theirs.decision is Decision.RECORD_AND_SAMPLE)


@pytest.mark.parametrize(
    ("name", "ratio", "meant"),
    [
        ("", "0.7", Sampling(0.25)),
        ("always_on", "", Sampling(1.0, parent=False)),
        ("always_off", "", Sampling(0.0, parent=False)),
        ("traceidratio", "0.5", Sampling(0.5, parent=False)),
        ("parentbased_always_on", "", Sampling(1.0)),
        ("parentbased_always_off", "", Sampling(0.0)),
        ("parentbased_traceidratio", "0.125", Sampling(0.125)),
        ("parentbased_traceidratio", "", Sampling(1.0)),
    ],
)
def test_opentelemetrys_variables_win_over_the_configuration(
    monkeypatch: pytest.MonkeyPatch, name: str, ratio: str, meant: Sampling
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    assert chosen(0.25) == meant


@pytest.mark.parametrize(
    ("name", "ratio", "message"),
    [
        ("jaeger_remote", "", "OTEL_TRACES_SAMPLER names `jaeger_remote`; known are always_on"),
        ("traceidratio", "2", "OTEL_TRACES_SAMPLER_ARG is `2`: it must be a ratio between 0 and 1"),
        ("traceidratio", "nan", "OTEL_TRACES_SAMPLER_ARG is `nan`: it must be a ratio between 0 and 1"),
        ("parentbased_traceidratio", "half", "OTEL_TRACES_SAMPLER_ARG is `half`"),
    ],
)
def test_a_sampler_that_cannot_be_had_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, name: str, ratio: str, message: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    with pytest.raises(TelemetryError) as raised:
        chosen(0.0)
    assert str(raised.value).startswith(message)


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def watched(spans: InMemorySpanExporter) -> Iterator[Observer]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield Observer(Counters(), tracing.Tracing(provider, Sampling(0.0)))
    provider.shutdown()


def test_log_lines_within_a_traced_call_carry_its_ids(watched: Observer, spans: InMemorySpanExporter) -> None:
    kept = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call] # the SDK has no annotation here
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
    handler = logs.Handler(provider)
    record = logging.LogRecord("arbiter.server", logging.ERROR, __file__, 1, "it failed: %s", ("why",), None)
    seen = Seen(PATH)
    watched.begin(seen, [("traceparent", SAMPLED)])
    watched.run(seen, handler.handle, record)
    said = watched.run(seen, logs.within_span)
    watched.end(seen, "INTERNAL")
    handler.handle(record)
    (span,) = spans.get_finished_spans()
    assert span.context is not None
    first, second = (each.log_record for each in kept.get_finished_logs())
    assert (first.trace_id, first.span_id, first.body) == (
        span.context.trace_id,
        span.context.span_id,
        "it failed: why",
    )
    assert not second.trace_id
    assert said == f" trace_id={SAMPLED[3:35]} span_id={span.context.span_id:016x}"
    assert logs.within_span() == ""
    provider.shutdown()


def test_an_exception_is_exported_without_its_message() -> None:
    kept = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call] # the SDK has no annotation here
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
    try:
        int("a secret")
    except ValueError:
        record = logging.LogRecord("arbiter", logging.ERROR, __file__, 1, "it failed", (), sys.exc_info())
    record.subject = "a secret"
    logs.Handler(provider).handle(record)
    (sent,) = (each.log_record for each in kept.get_finished_logs())
    assert sent.attributes is not None
    assert sent.attributes["exception.type"] == "ValueError"
    assert "test_tracing.py" in str(sent.attributes["exception.stacktrace"])
    assert "a secret" not in str(sent.attributes).replace('int("a secret")', "")
    provider.shutdown()


def test_steps_are_the_calls_and_a_fault_of_the_server_is_an_error(
    watched: Observer, spans: InMemorySpanExporter
) -> None:
    seen = Seen(PATH)
    watched.begin(seen, [("traceparent", SAMPLED)])
    assert watched.run(seen, tracing.step, "store.read", len, "four") == 4
    watched.end(seen, "UNAVAILABLE")
    step, call = spans.get_finished_spans()
    assert call.context is not None
    assert step.parent is not None
    assert step.parent.span_id == call.context.span_id
    assert call.status.status_code is trace.StatusCode.ERROR
    assert call.attributes is not None
    assert call.attributes["error.type"] == "UNAVAILABLE"


def test_outside_of_a_traced_call_steps_are_only_done(spans: InMemorySpanExporter) -> None:
    assert tracing.step("store.read", len, "four") == 4
    tracing.tell((), "digest")
    assert spans.get_finished_spans() == ()


def test_a_call_is_counted_while_it_is_under_way_and_its_duration_when_it_ended() -> None:
    counters = Counters()
    observer = Observer(counters)
    first, second = Seen(PATH), Seen(PATH)
    for call in (first, second):
        observer.begin(call, ())
    assert counters.in_flight == 2
    observer.end(first, "OK")
    observer.end(second, "NOT_FOUND")
    assert counters.in_flight == 0
    assert {key: count(took.counts()) for key, took in counters.calls.items()} == {
        (PATH, "OK"): 1,
        (PATH, "NOT_FOUND"): 1,
    }
    assert counters.traced == 0
