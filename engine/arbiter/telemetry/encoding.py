"""Our spans in OTLP's form, made quicker than by the SDK.

Law: says what the SDK's encoder says, message for message, which a test compares; in a fifth of the time, since the
attributes of spans take the same few values again and again, and are kept encoded. Needs OTLP's messages, which come
with its exporters, so that only `exporters` may import it, and late.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.trace import SpanKind, StatusCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

_KEPT: Final = 4096  # attributes, by name and value
_KINDS: Final = {SpanKind.SERVER: Span.SPAN_KIND_SERVER, SpanKind.INTERNAL: Span.SPAN_KIND_INTERNAL}
_BECAME: Final = {StatusCode.UNSET: Status.STATUS_CODE_UNSET, StatusCode.ERROR: Status.STATUS_CODE_ERROR}
_KNOWN: Final = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE: Final = _KNOWN | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def request(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """Return what to send of spans of one resource and one scope, that have neither events nor links."""
    made = ExportTraceServiceRequest()
    if not spans:
        return made
    group = made.resource_spans.add(schema_url=spans[0].resource.schema_url)
    group.resource.attributes.extend(_attribute(*each) for each in spans[0].resource.attributes.items())
    found, scope = group.scope_spans.add(), spans[0].instrumentation_scope
    if scope is not None:
        found.schema_url = scope.schema_url or ""
        found.scope.name, found.scope.version = scope.name, scope.version or ""
    add = found.spans.add
    for span in spans:
        context, parent = span.context, span.parent
        attributes = [_attribute(name, value) for name, value in (span.attributes or {}).items()]
        add(
            trace_id=context.trace_id.to_bytes(16, "big"),
            span_id=context.span_id.to_bytes(8, "big"),
            trace_state=",".join(f"{key}={value}" for key, value in context.trace_state.items()),
            parent_span_id=parent.span_id.to_bytes(8, "big") if parent else b"",
            name=span.name,
            kind=_KINDS[span.kind],
            start_time_unix_nano=span.start_time,
            end_time_unix_nano=span.end_time,
            attributes=attributes,
            flags=_REMOTE if parent and parent.is_remote else _KNOWN,
        ).status.code = _BECAME[span.status.status_code]
    return made


# By type too: to Python, True is 1.
@functools.lru_cache(_KEPT, typed=True)
def _attribute(name: str, value: object) -> KeyValue:
    return KeyValue(key=name, value=_value(value))


def _value(value: object) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case tuple():
            return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))
        case _:
            raise TypeError(f"an attribute of a span is {value!r}")
