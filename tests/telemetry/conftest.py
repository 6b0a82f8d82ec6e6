"""A collector that speaks OTLP over gRPC in the test's own process, and real servers that report to it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

from tests.conftest import workers_of

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60.0
RULES = """
decisions:
  shop.banner:
    slots: 1
    order: [priority]
    default: {action: show, params: {banner: bestsellers}}
  shop.footer:
    slots: 1
    order: [priority]
features:
  orders_90d: {count: purchase, window: 90d}
rules:
  - id: canadian
    decision: shop.banner
    priority: 80
    when: profile.country == "CA"
    then: {action: show, params: {banner: maple}}
  - id: also-canadian
    decision: shop.banner
    priority: 70
    when: profile.country == "CA"
    then: {action: show, params: {banner: leaf}}
  - id: grown
    decision: shop.banner
    priority: 60
    when: profile.age >= 18
    then: {action: show, params: {banner: wine}}
"""


class Collector:
    """Takes what is exported. Each list holds the requests of one signal."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: list[Any] = []
        self.logs: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        for register, base, kept, answer in (
            (
                trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
                trace_service_pb2_grpc.TraceServiceServicer,
                self.spans,
                trace_service_pb2.ExportTraceServiceResponse,
            ),
            (
                metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
                metrics_service_pb2_grpc.MetricsServiceServicer,
                self.metrics,
                metrics_service_pb2.ExportMetricsServiceResponse,
            ),
            (
                logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
                logs_service_pb2_grpc.LogsServiceServicer,
                self.logs,
                logs_service_pb2.ExportLogsServiceResponse,
            ),
        ):
            servicer: Any = base()
            servicer.Export = _keeping(kept, answer)
            register(servicer, self._server)  # type: ignore[no-untyped-call] # generated
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def environment(self, **variables: str) -> dict[str, str]:
        """The variables that have a process report here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BLRP_SCHEDULE_DELAY": "100",
            **variables,
        }

    def sent(self) -> list[tuple[dict[str, Any], Any]]:
        """Every span that came, with its attributes."""
        return [
            (attributes(span.attributes), span)
            for request in tuple(self.spans)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def records(self) -> list[tuple[dict[str, Any], Any]]:
        """Every log record that came, with the attributes of its resource."""
        return [
            (attributes(resource.resource.attributes), record)
            for request in tuple(self.logs)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def points(self, name: str) -> list[tuple[dict[str, Any], dict[str, Any], Any]]:
        """Every point of a metric that came: its resource's attributes, its own, and itself. The newest come last."""
        return [
            (attributes(resource.resource.attributes), attributes(point.attributes), point)
            for request in tuple(self.metrics)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]

    def close(self) -> None:
        self._server.stop(0).wait()


def _keeping(kept: list[Any], answer: Callable[[], Any]) -> Callable[[Any, Any], Any]:
    def export(request: Any, _context: Any) -> Any:
        kept.append(request)
        return answer()

    return export


def attributes(pairs: list[KeyValue]) -> dict[str, Any]:
    """What OTLP writes as pairs, as a dictionary."""
    found: dict[str, Any] = {}
    for pair in pairs:
        value = _value(pair.value)
        found[pair.key] = [_value(each) for each in value.values] if isinstance(value, ArrayValue) else value
    return found


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")


def wait_for(look: Callable[[], Any], patience: float = PATIENCE_S) -> Any:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, "nothing came"
        threading.Event().wait(0.02)
    return found


class Served:
    """`arbiter serve` over a shop, in processes of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], *options: str) -> None:
        self.rules = folder / "rules"
        self.rules.mkdir(parents=True)
        (self.rules / "shop.yaml").write_text(RULES, "utf-8")
        (folder / "models").mkdir()
        self.log = folder / "log"
        command = [sys.executable, "-m", "arbiter.cli", "serve", "--listen", "127.0.0.1:0"]
        for name in ("rules", "models", "data"):
            command += [f"--{name}", str(folder / name)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                [*command, *options],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT / "engine"), **environment},
                text=True,
            )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert ready.startswith("arbiter ready on "), self.log.read_text()
        self.address = ready.removeprefix("arbiter ready on ").partition(",")[0]
        self.channel = self._connected()

    def _connected(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])

    def reconnect(self) -> None:
        """Take a new connection, which the kernel gives to any of the workers."""
        self.channel.close()
        self.channel = self._connected()

    def call(self, method: str, request: Any, answer: Any, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
        """Call a method by its path."""
        ask = self.channel.unary_unary(method, request.__class__.SerializeToString, answer.FromString)
        return ask(request, timeout=PATIENCE_S, wait_for_ready=True, metadata=metadata)

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return workers_of(self.process.pid)

    def stop(self) -> int:
        self.channel.close()
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


Patiently = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def patiently() -> Patiently:
    return wait_for


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started: list[Served] = []

    def start(environment: dict[str, str], *options: str) -> Served:
        started.append(Served(tmp_path / str(len(started)), environment, *options))
        return started[-1]

    yield start
    for served in started:
        served.stop()
