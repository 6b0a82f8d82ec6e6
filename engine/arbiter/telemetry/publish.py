"""Publishes what a process counts, traces and logs, through OpenTelemetry.

Law: puts the three signals together for one process; each process starts its own, with its own `service.instance.id`.
What is exported, and where to, is chosen by OpenTelemetry's own environment variables, see `exporters`.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from arbiter.telemetry import exporters, logs, metrics, sampling, tracing
from arbiter.telemetry.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace import TracerProvider

    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.telemetry")

# s: how long what is left may take to be exported, all signals together. A process that leaves must not wait for a
# collector that is away, and be killed for it: the SDK itself would wait for half a minute, for each signal.
LEAVING_S = 2.0


class Publisher:
    """What publishes until `shutdown`. `observer` is there when somebody wants to know of calls."""

    def __init__(
        self,
        meters: MeterProvider,
        tracers: TracerProvider | None,
        loggers: LoggerProvider | None,
        observer: Observer | None,
    ) -> None:
        self.meters = meters
        self.observer = observer
        self._tracers = tracers
        self._loggers = loggers

    def shutdown(self) -> None:
        """Export what is left, and end, within `LEAVING_S`: what a collector has not taken by then is lost."""
        ends: dict[str, Callable[[], object]] = {"metrics": self.meters.shutdown}
        if self._tracers is not None:
            ends["traces"] = self._tracers.shutdown
        if self._loggers is not None:
            ends["logs"] = self._loggers.shutdown
        # By the side of each other, so that all are tried. Daemons: the process does not wait for those that hang.
        threads = [threading.Thread(target=end, name=f"arbiter-last-{name}", daemon=True) for name, end in ends.items()]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + LEAVING_S
        for name, thread in zip(ends, threads, strict=True):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                _log.warning("the last %s could not be exported within %g s, left out", name, LEAVING_S)


def start(
    counters: Counters,
    role: str,
    metrics_to: Sequence[MetricExporter] | None = None,
    *,
    scraped: bool = False,
    traces: float = 0.0,
) -> Publisher:
    """Publish `counters`, and what the environment asks for beside them.

    `role` tells what this process is (``supervisor``, ``worker-0``). `metrics_to` takes the place of the metrics
    exporters that the environment asks for; `scraped` says that somebody else reads `counters` too; of calls whose
    caller has not decided the ratio `traces` is traced. Raises TelemetryError.
    """
    resource = exporters.resource(role)
    measured = bool(metrics_to or exporters.asked("metrics"))
    meters = metrics.start(counters, "supervisor" if role == "supervisor" else "worker", resource, metrics_to)
    tracers = tracing.start(resource)
    loggers = logs.start(resource)
    traced = None if tracers is None else tracing.Tracing(tracers, sampling.chosen(traces))
    observer = Observer(counters, traced) if measured or scraped or traced else None
    return Publisher(meters, tracers, loggers, observer)
