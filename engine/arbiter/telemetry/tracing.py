"""Spans of calls, and of what takes time within one.

Law: a span tells of rules, models and snapshots, never of a subject: no ids, no attributes, no context. Only a call
that is traced costs anything; the others are told apart by `Sampling`, and by `Counters.traced` further in. A span is
made when it is over, of what was noted until then (docs/decisions/0064).
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from arbiter.telemetry import exporters
from arbiter.telemetry.instruments import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import SpanContext

    from arbiter.telemetry.sampling import Sampling
    from arbiter.types import Decision

_P = ParamSpec("_P")
_R = TypeVar("_R")
_PROPAGATOR = TraceContextTextMapPropagator()
_SCOPE = InstrumentationScope("arbiter")
_UNSET, _ERROR = trace.Status(trace.StatusCode.UNSET), trace.Status(trace.StatusCode.ERROR)
_SAMPLED, _RANDOM = trace.TraceFlags.SAMPLED, trace.TraceFlags.RANDOM_TRACE_ID
# Under what the context of a traced call holds the call.
_CALL = context.create_key("arbiter-call")
# Of an attribute: what a span may hold, and we have.
_Value = str | int | tuple[str, ...] | tuple[bool, ...]


def start(resource: Resource) -> TracerProvider | None:
    """Send spans to where OTEL_TRACES_EXPORTER says, until the provider's `shutdown()`; None for nowhere.

    Raises TelemetryError.
    """
    names = exporters.asked("traces")
    if not names:
        return None
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if not isinstance(provider.get_tracer("arbiter"), Tracer):  # OTEL_SDK_DISABLED
        return None
    for name in names:
        exporter = ConsoleSpanExporter(out=sys.stderr) if name == "console" else exporters.spans()
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Traced:
    """A call under way that is traced, and what its span will say. `context` is that of what runs for it; `began` is in
    ns since the epoch.
    """

    __slots__ = ("attributes", "began", "context", "id", "name", "parent", "tracing")

    def __init__(self, tracing: Tracing, name: str, id: SpanContext, parent: SpanContext | None) -> None:  # noqa: A002
        self.tracing = tracing
        self.name = name
        self.id = id
        self.parent = parent
        self.began = time.time_ns()
        self.attributes: dict[str, _Value] = {"rpc.system.name": "grpc", "rpc.method": name}
        # What is logged looks for the ids in a span, as OpenTelemetry will have it; nobody writes to this one.
        current = trace.set_span_in_context(trace.NonRecordingSpan(id), context.Context())
        self.context = context.set_value(_CALL, self, current)


class Tracing:
    """Begins and ends the spans of calls."""

    def __init__(self, provider: TracerProvider, sampling: Sampling) -> None:
        """`provider` is one of an SDK that is not disabled."""
        tracer = provider.get_tracer("arbiter")
        if not isinstance(tracer, Tracer):
            raise TypeError("the SDK of OpenTelemetry is disabled")
        self._sampling = sampling
        self._left = sampling.gap()  # calls without a parent until one is traced
        self._ids = tracer.id_generator
        self._resource = tracer.resource
        self._finished = tracer.span_processor.on_end

    def takes(self, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
        """Whether a call with this metadata is traced."""
        for key, value in metadata:
            if key == "traceparent":
                return self._sampling.takes(value if isinstance(value, str) else None)
        self._left -= 1
        if self._left > 0:
            return False
        self._left = self._sampling.gap()
        return True

    def begin(self, path: str, metadata: Iterable[tuple[str, str | bytes]]) -> Traced:
        """Begin the span of a call of `path` (``/arbiter.v1.DecisionService/Decide``)."""
        # What is no valid parent, the propagator takes for none.
        headers = {key: value for key, value in metadata if isinstance(value, str)}
        parent = trace.get_current_span(_PROPAGATOR.extract(headers, context.Context())).get_span_context()
        name = path.removeprefix("/")
        if parent.is_valid:
            return Traced(self, name, self._child(parent), parent)
        flags = trace.TraceFlags(_SAMPLED | _RANDOM if self._ids.is_trace_id_random() else _SAMPLED)
        return Traced(
            self,
            name,
            trace.SpanContext(self._ids.generate_trace_id(), self._ids.generate_span_id(), False, flags),
            None,
        )

    def within(self, call: Traced, run: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Return what `run` returns; meanwhile log records and steps are the call's."""
        token = context.attach(call.context)
        try:
            return run(*args, **kwargs)
        finally:
            context.detach(token)

    def end(self, call: Traced, status: str) -> None:
        """End a call's span; `status` is a gRPC code by name."""
        attributes, became = call.attributes, _UNSET
        attributes["rpc.status_code"] = status
        if status in FAULTS:
            attributes["error.type"] = status
            became = _ERROR
        self._finish(call.name, call.id, call.parent, attributes, trace.SpanKind.SERVER, became, call.began)

    def step(self, call: Traced, name: str, began: int, attributes: Mapping[str, _Value]) -> None:
        """A span `name` under that of the call, from `began` (ns since the epoch) until now."""
        # A failure is the log's to tell: its message may hold what a caller sent.
        self._finish(name, self._child(call.id), call.id, attributes, trace.SpanKind.INTERNAL, _UNSET, began)

    def _child(self, parent: SpanContext) -> SpanContext:
        flags = trace.TraceFlags(parent.trace_flags & _RANDOM | _SAMPLED)
        return trace.SpanContext(parent.trace_id, self._ids.generate_span_id(), False, flags, parent.trace_state)

    def _finish(
        self,
        name: str,
        id: SpanContext,  # noqa: A002
        parent: SpanContext | None,
        attributes: Mapping[str, _Value],
        kind: trace.SpanKind,
        became: trace.Status,
        began: int,
    ) -> None:
        self._finished(
            ReadableSpan(
                name,
                id,
                parent,
                self._resource,
                attributes,
                kind=kind,
                status=became,
                start_time=began,
                end_time=time.time_ns(),
                instrumentation_scope=_SCOPE,
            )
        )


def step(name: str, run: Callable[..., _R], *args: Any, attributes: Mapping[str, _Value] | None = None) -> _R:
    """Return what `run` returns, with a span `name` under that of the call, if this call has one.

    Worth asking only while `Counters.traced`.
    """
    call = context.get_value(_CALL)
    if not isinstance(call, Traced):
        return run(*args)
    began = time.time_ns()
    try:
        return run(*args)
    finally:
        call.tracing.step(call, name, began, attributes or {})


def tell(decisions: Iterable[Decision], digest: str) -> None:
    """Say on the call's span what was decided, and by which snapshot."""
    call = context.get_value(_CALL)
    if not isinstance(call, Traced):
        return
    made = tuple(decisions)
    call.attributes |= {
        "arbiter.snapshot.digest": digest,
        "arbiter.decision.point": tuple(each.point for each in made),
        "arbiter.decision.defaulted": tuple(each.defaulted for each in made),
        "arbiter.rule.id": tuple(
            treatment.rule_id for each in made for treatment in each.treatments if treatment.rule_id
        ),
    }
    degraded = sorted({each.model for decision in made for each in decision.degraded})
    if degraded:
        call.attributes["arbiter.degraded.models"] = tuple(degraded)
