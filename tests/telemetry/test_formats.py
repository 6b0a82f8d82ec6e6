"""What is written for Prometheus and for OTLP by hand is what prometheus-client and the SDK would write."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from arbiter.telemetry import encoding, exporters, tracing
from arbiter.telemetry.counters import Counters
from arbiter.telemetry.instrument import buckets, number
from arbiter.telemetry.instruments import INSTRUMENTS
from arbiter.telemetry.observer import Observer, Seen
from arbiter.telemetry.prometheus import exposition, label_of, name_of
from arbiter.telemetry.sampling import Sampling
from arbiter.telemetry.totals import attributes_of
from arbiter.types import Decision, Degradation, Lack, Treatment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from arbiter.telemetry.instrument import Instrument, Point, Reading


class Theirs(Collector):
    """A reading, as prometheus-client wants to see it."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        for instrument in INSTRUMENTS:
            if points := self._reading.get(instrument.name):
                yield family(instrument, points)


def family(instrument: Instrument, points: list[Point]) -> Metric:
    name, labels = name_of(instrument), [label_of(each) for each in attributes_of(instrument)]
    if instrument.kind == "histogram":
        histogram = HistogramMetricFamily(name, instrument.description, labels=labels)
        bounds = [f"{bound / instrument.scale:g}" for bound in instrument.bounds]
        for values, figure in points:
            counts = buckets(figure)
            upto = list(zip([*bounds, "+Inf"], accumulate(counts[:-1]), strict=True))
            histogram.add_metric(values, upto, counts[-1] / instrument.scale)
        return histogram
    kind = CounterMetricFamily if instrument.kind == "counter" else GaugeMetricFamily
    made = kind(name, instrument.description, labels=labels)
    for values, figure in points:
        made.add_metric(values, number(figure))
    return made


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(['"', "\\", "\n", "a,b={}"])
NUMBERS = st.integers(0, 10**12) | st.floats(0, 1e12) | st.sampled_from([0.1, 999_999, 1_000_000, 1e22])


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    """Any figures that the instruments might have."""
    made: Reading = {}
    for each in draw(st.lists(st.sampled_from(INSTRUMENTS), max_size=4, unique_by=lambda each: each.name)):
        figures: Any = NUMBERS
        if each.kind == "histogram":
            size = len(each.bounds) + 2
            figures = st.lists(st.integers(0, 10**7), min_size=size, max_size=size)
        values = st.tuples(*(TEXTS for _ in attributes_of(each)))
        made[each.name] = list(draw(st.dictionaries(values, figures, max_size=3)).items())
    return made


@given(
    readings(),
    st.sampled_from(
        [
            "",
            "text/plain",
            "text/plain;version=1.0.0;escaping=allow-utf-8,*/*;q=0.1",
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3",
        ]
    ),
)
def test_prometheus_text_is_what_its_own_client_writes(reading: Reading, accept: str) -> None:
    encode, media_type = choose_encoder(accept)
    text, ours = exposition(reading, accept)
    assert text == encode(Theirs(reading))
    assert ours.partition("; escaping=")[0] == media_type.partition("; escaping=")[0]


@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
@pytest.mark.parametrize("escaping", ["dots", "values"])
def test_names_are_told_as_they_are_whatever_escaping_is_asked_for(kind: str, escaping: str) -> None:
    accept = f"{kind};version=1.0.0;escaping={escaping}"
    text, media_type = exposition({"arbiter.calls.active": [((), 3)]}, accept)
    assert media_type.endswith("escaping=underscores")
    assert b"\narbiter_calls_active 3.0\n" in text


def decision(point: str, *rules: str, degraded: tuple[str, ...] = ()) -> Decision:
    treatments = tuple(Treatment(rule, "show", {}) for rule in rules)
    return Decision(
        point, treatments, defaulted=not rules, degraded=tuple(Degradation(model, Lack.FAILED) for model in degraded)
    )


@pytest.mark.parametrize(
    "parent", ["", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "no parent", f"00-{'0' * 32}-1-01"]
)
def test_spans_are_sent_as_the_sdk_would_send_them(parent: str) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "arbiter", "n": 3}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    observer = Observer(Counters(), tracing.Tracing(provider, Sampling(1.0)))
    metadata = [("traceparent", parent), ("tracestate", "vendor=1,other=two")] if parent else []

    def work(decisions: tuple[Decision, ...]) -> None:
        tracing.step("store.read", len, "four")
        tracing.step("model.run", len, "four", attributes={"arbiter.model.name": "churn", "arbiter.model.rows": 1})
        tracing.tell(decisions, "digest")

    for status, decisions in (
        ("OK", (decision("banner", "first", "second"),)),
        ("OK", (decision("banner"), decision("page", "first", degraded=("churn",)))),
        ("INTERNAL", ()),
        ("NOT_FOUND", ()),
    ):
        call = Seen("/arbiter.v1.DecisionService/Decide")
        observer.begin(call, metadata)
        observer.run(call, work, decisions)
        observer.end(call, status)
    found = spans.get_finished_spans()
    provider.shutdown()
    assert len(found) == 12
    assert encoding.request(found) == encode_spans(found)
    assert encoding.request(()) == encode_spans(())
    calls = [each for each in found if each.kind is trace.SpanKind.SERVER]
    assert {each.parent is not None and each.parent.is_remote for each in calls} == {parent.endswith("31-01")}
    assert all(each.context is not None and each.context.trace_flags.sampled for each in found)


def test_the_exporter_by_grpc_takes_our_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the exporter was renamed within: it encodes for itself then, at five times the cost."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", raising=False)
    made = exporters.spans()
    try:
        assert isinstance(made, OTLPSpanExporter)
        assert made._translate_data is encoding.request
    finally:
        made.shutdown()
