"""Log records through OpenTelemetry.

Law: sends what the text log says, and of an exception its class and where it came from, but nothing that code hangs on
records: what is not sent cannot tell of a subject. Records made inside a span carry its ids.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter

from arbiter.telemetry import exporters

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
)
_NANOS = 1_000_000_000


def start(resource: Resource) -> LoggerProvider | None:
    """Send what `logging` gets to where OTEL_LOGS_EXPORTER says, until the provider's `shutdown()`; None for nowhere.

    Raises TelemetryError.
    """
    names = exporters.asked("logs")
    if not names:
        return None
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    for name in names:
        exporter = ConsoleLogRecordExporter(out=sys.stderr) if name == "console" else exporters.otlp("logs")
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logging.getLogger().addHandler(Handler(provider))
    return provider


def within_span() -> str:
    """Return what a line of the text log says of the span that it is made in; ``""`` outside of one."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return ""
    return f" trace_id={trace.format_trace_id(span.trace_id)} span_id={trace.format_span_id(span.span_id)}"


class Handler(logging.Handler):
    """Hands records of `logging` to OpenTelemetry."""

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; what goes wrong with it is `logging`'s to tell."""
        if record.name.startswith("opentelemetry"):
            return  # an exporter's own trouble would be exported, and fail again
        try:
            self._provider.get_logger(record.name).emit(_sent(record))
        except Exception:  # noqa: BLE001 - as every handler: a log line must not end what logs it
            self.handleError(record)


def _sent(record: logging.LogRecord) -> LogRecord:
    attributes: dict[str, str] = {}
    if record.exc_info and record.exc_info[0] is not None:
        attributes["exception.type"] = record.exc_info[0].__qualname__
        attributes["exception.stacktrace"] = "".join(traceback.format_tb(record.exc_info[2]))
    severity = next((number for level, number in _SEVERITIES if record.levelno >= level), SeverityNumber.DEBUG)
    return LogRecord(
        timestamp=int(record.created * _NANOS),
        severity_number=severity,
        severity_text=record.levelname,
        body=record.getMessage(),
        attributes=attributes,
    )
