"""OpenTelemetry's view of a call: a client span where spans are wanted, and the context that goes along.

Law: the client's only module that knows OpenTelemetry. With no tracer configured and nothing in the context, a call
costs two look-ups. Names follow the semantic conventions for RPC; no argument and no answer is ever recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context, propagate, trace
from opentelemetry.propagators.textmap import Setter
from opentelemetry.semconv.attributes import error_attributes, server_attributes

from arbiter import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from arbiter.client.access import Target
    from arbiter.client.failures import CallFailed

Metadata = list[tuple[str, str]]
# Stable since the conventions' 1.45, which the package of their names has not reached.
_SYSTEM, _METHOD, _STATUS = "rpc.system.name", "rpc.method", "rpc.status_code"


class _IntoMetadata(Setter[Metadata]):
    def set(self, carrier: Metadata, key: str, value: str) -> None:
        carrier.append((key.lower(), value))


_INTO_METADATA = _IntoMetadata()


class Tracing:
    """Makes the spans of one client. Without a `provider` it takes the process's, once that is configured."""

    def __init__(self, provider: trace.TracerProvider | None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("arbiter.client", __version__) if provider else None

    def begin(self, path: str) -> trace.Span | None:
        """Return the span of a call to ``/package.Service/Rpc``, None where nobody wants any."""
        tracer = self._tracer or self._found()
        if tracer is None:
            return None
        method = path[1:]
        attributes = {_SYSTEM: "grpc", _METHOD: method}
        return tracer.start_span(method, kind=trace.SpanKind.CLIENT, attributes=attributes)

    def _found(self) -> trace.Tracer | None:
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):  # until somebody configures one
            return None
        self._tracer = provider.get_tracer("arbiter.client", __version__)
        return self._tracer


def inject(span: trace.Span | None, metadata: Metadata) -> None:
    """Write the context of a call into its metadata, as the process propagates it."""
    now: Context = context.get_current() if span is None else trace.set_span_in_context(span)
    if now:
        propagate.inject(metadata, now, _INTO_METADATA)


def sent_to(span: trace.Span, target: Target) -> None:
    """Record where an attempt goes."""
    span.set_attribute(server_attributes.SERVER_ADDRESS, target.address)
    if target.port is not None:
        span.set_attribute(server_attributes.SERVER_PORT, target.port)


def retrying(span: trace.Span, failure: CallFailed, seconds: float) -> None:
    """Record that a call will be sent again."""
    span.add_event("retry", {_STATUS: failure.code, "arbiter.retry.delay": seconds})


def end(span: trace.Span, code: str, *, local: bool = False) -> None:
    """Record what became of a call: the name of its status code, and whether a local answer stands in."""
    span.set_attribute(_STATUS, code)
    if code != "OK":
        span.set_attribute(error_attributes.ERROR_TYPE, code)
        # No message: it may quote what was asked.
        span.set_status(trace.StatusCode.ERROR)
    if local:
        span.set_attribute("arbiter.decision.local", True)
    span.end()
