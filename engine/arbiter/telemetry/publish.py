"""Publishes a process's counters through OpenTelemetry.

Law: reads `Counters`, never writes them, and runs only when a reader collects. Each process starts its own provider
with its own `service.instance.id`: totals of several workers are summed where they are stored, never here. The exporter
is chosen by OpenTelemetry's own environment variable, OTEL_METRICS_EXPORTER: `none` (default), `console` or `otlp`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import uuid
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.sdk.metrics.export import MetricReader

    from arbiter.telemetry.counters import Counters

_OTLP = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.metric_exporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.metric_exporter",
}
_MICROS = 1_000_000


class TelemetryError(ArbiterError):
    """The environment asks for an exporter that cannot be had."""


def start(counters: Counters, role: str, readers: Sequence[MetricReader] | None = None) -> MeterProvider:
    """Publish `counters` until the provider's `shutdown()`.

    `role` tells what this process is (``supervisor``, ``worker-0``). Without `readers` the environment chooses. Raises
    TelemetryError.
    """
    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "arbiter"),
            "service.instance.id": str(uuid.uuid4()),
            "arbiter.role": role,
        }
    )
    provider = MeterProvider(
        metric_readers=from_environment() if readers is None else readers, resource=resource, shutdown_on_exit=False
    )
    _instruments(provider, counters)
    return provider


def from_environment() -> list[MetricReader]:
    """The readers that OTEL_METRICS_EXPORTER asks for. Raises TelemetryError."""
    names = [name.strip() for name in os.environ.get("OTEL_METRICS_EXPORTER", "none").split(",")]
    return [PeriodicExportingMetricReader(_exporter(name)) for name in names if name not in {"", "none"}]


def _exporter(name: str) -> MetricExporter:
    if name == "console":
        # Standard output belongs to the line that says that the server is ready.
        return ConsoleMetricExporter(out=sys.stderr)
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL") or os.environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"
        )
        return _otlp(protocol)
    raise TelemetryError(f"OTEL_METRICS_EXPORTER names `{name}`; known are none, console and otlp")


def _otlp(protocol: str) -> MetricExporter:
    module = _OTLP.get(protocol)
    if module is None:
        raise TelemetryError(f"OTEL_EXPORTER_OTLP_PROTOCOL is `{protocol}`; known are {' and '.join(_OTLP)}")
    package = f"opentelemetry-exporter-otlp-proto-{protocol.partition('/')[0]}"
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise TelemetryError(f"OTEL_METRICS_EXPORTER=otlp needs the package {package}: pip install {package}")
    exporter: MetricExporter = importlib.import_module(module).OTLPMetricExporter()
    return exporter


def _instruments(provider: MeterProvider, counters: Counters) -> None:
    meter = provider.get_meter("arbiter")

    def total(name: str, description: str, read: Callable[[], Iterable[Observation]], unit: str = "1") -> None:
        meter.create_observable_counter(name, [_callback(read)], unit=unit, description=description)

    def gauge(name: str, description: str, read: Callable[[], Iterable[Observation]], unit: str = "1") -> None:
        meter.create_observable_gauge(name, [_callback(read)], unit=unit, description=description)

    total("arbiter.decisions", "Decisions made.", lambda: _by("decision", counters.decisions))
    total("arbiter.decisions.defaulted", "Decisions that no rule won.", lambda: _by("decision", counters.defaulted))
    total(
        "arbiter.decisions.canary", "Decisions that a canary made.", lambda: _by("decision", counters.canary_decisions)
    )
    total("arbiter.errors", "Calls refused or failed.", lambda: _by("error", counters.errors))
    total("arbiter.store.writes", "Writes acknowledged.", lambda: [Observation(counters.store_writes)])
    total(
        "arbiter.reloads",
        "Attempts to load rules and models.",
        lambda: [
            Observation(counters.reloads_ok, {"outcome": "ok"}),
            Observation(counters.reloads_failed, {"outcome": "failed"}),
        ],
    )
    total("arbiter.worker.restarts", "Workers that died.", lambda: [Observation(counters.worker_restarts)])
    gauge(
        "arbiter.reload.last_ok",
        "1 when the last attempt to load succeeded, 0 when the files hold errors.",
        lambda: [Observation(int(counters.last_reload_ok))],
    )
    gauge("arbiter.reload.age", "Time since the last attempt to load.", lambda: _age(counters.last_reload_at), "s")
    gauge(
        "arbiter.snapshot.age",
        "Time since the snapshot became current; its digest is an attribute.",
        lambda: _age(counters.snapshot_at, {"digest": counters.snapshot_digest}),
        "s",
    )
    gauge(
        "arbiter.snapshot.held",
        "1 while an operator's rollback or promotion stands in place of the files.",
        lambda: [Observation(int(counters.snapshot_held))],
    )
    gauge(
        "arbiter.canary.percent",
        "The canary's share of subjects, 0 without one; its digest is an attribute.",
        lambda: [Observation(counters.canary_percent, {"digest": counters.canary_digest})],
        "%",
    )
    gauge("arbiter.overrides", "Rules and models switched off.", lambda: [Observation(counters.overrides)])


def _callback(read: Callable[[], Iterable[Observation]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _options: read()


def _by(label: str, counts: dict[str, int]) -> list[Observation]:
    # A copy, since another thread may add a name while this one walks.
    return [Observation(count, {label: name}) for name, count in counts.copy().items()]


def _age(micros: int, attributes: dict[str, str] | None = None) -> list[Observation]:
    return [Observation(time.time() - micros / _MICROS, attributes)] if micros else []
