"""Spans of calls, and of what takes time within one.

Law: a span tells of rules, models and snapshots, never of a subject: no ids, no attributes, no context. Only a call
that is traced costs anything; the others are told apart by `Sampling`, and by `Counters.traced` further in.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from arbiter.telemetry import exporters, sampling
from arbiter.telemetry.instruments import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Span, Tracer

    from arbiter.types import Decision

_P = ParamSpec("_P")
_R = TypeVar("_R")
_PROPAGATOR = TraceContextTextMapPropagator()
# Under what the context of a traced call holds the means to make spans within it.
_TRACER = context.create_key("arbiter-tracer")


def start(resource: Resource) -> TracerProvider | None:
    """Send spans to where OTEL_TRACES_EXPORTER says, until the provider's `shutdown()`; None for nowhere.

    Raises TelemetryError.
    """
    names = exporters.asked("traces")
    if not names:
        return None
    # Whether a call is traced has been decided when a span is made.
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    for name in names:
        exporter = ConsoleSpanExporter(out=sys.stderr) if name == "console" else exporters.otlp("traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Tracing:
    """Begins and ends the spans of calls."""

    def __init__(self, provider: TracerProvider, chosen: sampling.Sampling) -> None:
        self._tracer: Tracer = provider.get_tracer("arbiter")
        self._takes = chosen.takes

    def begin(self, path: str, metadata: Iterable[tuple[str, str | bytes]]) -> Span | None:
        """Return a span for a call of `path` (``/arbiter.v1.DecisionService/Decide``), None when it is not traced."""
        parent = None
        for key, value in metadata:
            if key == "traceparent":
                parent = value if isinstance(value, str) else value.decode("ascii", "replace")
        if not self._takes(parent):
            return None
        # What is no valid parent, the propagator takes for none.
        headers = {key: value for key, value in metadata if isinstance(value, str)} if parent else {}
        method = path.removeprefix("/")
        return self._tracer.start_span(
            method,
            _PROPAGATOR.extract(headers, context.Context()),
            trace.SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method},
        )

    def within(self, span: Span, run: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Return what `run` returns; meanwhile log records and steps are the span's."""
        token = context.attach(context.set_value(_TRACER, self._tracer, trace.set_span_in_context(span)))
        try:
            return run(*args, **kwargs)
        finally:
            context.detach(token)

    @staticmethod
    def end(span: Span, status: str) -> None:
        """End a call's span; `status` is a gRPC code by name."""
        span.set_attribute("rpc.response.status_code", status)
        if status in FAULTS:
            span.set_attribute("error.type", status)
            span.set_status(trace.StatusCode.ERROR)
        span.end()


def step(name: str, run: Callable[..., _R], *args: Any, attributes: dict[str, str | int] | None = None) -> _R:
    """Return what `run` returns, with a span `name` under that of the call, if this call has one.

    Worth asking only while `Counters.traced`.
    """
    tracer = context.get_value(_TRACER)
    if not isinstance(tracer, trace.Tracer):
        return run(*args)
    # A failure is the log's to tell: its message may hold what a caller sent.
    span = tracer.start_span(name, attributes=attributes)
    try:
        return run(*args)
    finally:
        span.end()


def tell(decisions: Iterable[Decision], digest: str) -> None:
    """Say on the call's span what was decided, and by which snapshot."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    made = tuple(decisions)
    span.set_attributes(
        {
            "arbiter.snapshot.digest": digest,
            "arbiter.decision.point": [each.point for each in made],
            "arbiter.decision.defaulted": [each.defaulted for each in made],
            "arbiter.rule.id": [
                treatment.rule_id for each in made for treatment in each.treatments if treatment.rule_id
            ],
        }
    )
    degraded = sorted({each.model for decision in made for each in decision.degraded})
    if degraded:
        span.set_attribute("arbiter.degraded.models", degraded)
