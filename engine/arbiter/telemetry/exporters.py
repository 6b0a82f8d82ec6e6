"""Which exporters OpenTelemetry's own environment variables ask for, and how a process names itself to them.

Law: OTEL_METRICS_EXPORTER, OTEL_TRACES_EXPORTER and OTEL_LOGS_EXPORTER are `none` (default), `console` or `otlp`; what
else the OTLP exporters need (endpoint, headers, certificates) they read themselves. Each process is a service instance.
"""

from __future__ import annotations

import importlib.util
import os
import uuid
from typing import Any, Literal

from opentelemetry.sdk.resources import Resource

from arbiter.errors import ArbiterError

Signal = Literal["metrics", "traces", "logs"]

_MODULES = {"metrics": "metric_exporter", "traces": "trace_exporter", "logs": "_log_exporter"}
_CLASSES = {"metrics": "OTLPMetricExporter", "traces": "OTLPSpanExporter", "logs": "OTLPLogExporter"}
_PACKAGES = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
}
# What the exporter by gRPC, and not the one by HTTP, calls for what is to be sent of some spans.
_ENCODE = "_translate_data"


class TelemetryError(ArbiterError):
    """The environment asks for something that cannot be had."""


def resource(role: str) -> Resource:
    """Return what a process is: `role` is ``supervisor``, ``worker-0`` and so on."""
    return Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "arbiter"),
            "service.instance.id": str(uuid.uuid4()),
            "arbiter.role": role,
        }
    )


def asked(signal: Signal) -> list[str]:
    """Return the exporters that are asked for, ``console`` and ``otlp``. Raises TelemetryError for others."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = [name.strip() for name in os.environ.get(variable, "none").split(",")]
    for name in names:
        if name not in {"", "none", "console", "otlp"}:
            raise TelemetryError(f"{variable} names `{name}`; known are none, console and otlp")
    return [name for name in names if name not in {"", "none"}]


def otlp(signal: Signal) -> Any:
    """Return an OTLP exporter, by gRPC or HTTP as the environment says. Raises TelemetryError."""
    protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or os.environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"
    )
    package = _PACKAGES.get(protocol)
    if package is None:
        raise TelemetryError(f"OTEL_EXPORTER_OTLP_PROTOCOL is `{protocol}`; known are {' and '.join(_PACKAGES)}")
    module = f"{package}.{_MODULES[signal]}"
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        name = f"opentelemetry-exporter-otlp-proto-{protocol.partition('/')[0]}"
        raise TelemetryError(f"OTEL_{signal.upper()}_EXPORTER=otlp needs the package {name}: pip install {name}")
    return getattr(importlib.import_module(module), _CLASSES[signal])()


def spans() -> Any:
    """Return an OTLP exporter of spans, with an encoder of ours where it has a place for one. Raises TelemetryError."""
    made = otlp("traces")
    if hasattr(made, _ENCODE):
        setattr(made, _ENCODE, importlib.import_module("arbiter.telemetry.encoding").request)
    return made
