"""What telemetry takes from a server: processor time of a decision with everything on, over that with nothing on.

On is: metrics, traces and logs by OTLP over gRPC to a collector (metrics every five seconds, where a minute is usual;
one call in a hundred traced), Prometheus that scrapes once a second, and the looks into decisions. All of it, the text
of the scrape too, which is the supervisor's work, happens in the one process that is measured. The load is 32 streams;
both servers are there at the same time and asked by turns. What happens once a second weighs the more the fewer calls
share it: on a machine that is busy elsewhere the ratio says more of that than of a call. What happens less often than
once a round counts too: the figures are totals over all rounds, not medians.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from arbiter.bench import Load
from arbiter.runtime.curiosity import Curiosity
from arbiter.runtime.quiet import at_work
from arbiter.runtime.settings import Backing
from arbiter.telemetry import instruments, publish
from arbiter.telemetry.counters import Counters
from arbiter.telemetry.endpoint import Endpoint
from arbiter.telemetry.totals import joined
from benchmarks import servers
from benchmarks.stats import alternate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from arbiter.telemetry.instrument import Reading
    from benchmarks.servers import Place

    _GenericHandler = grpc.GenericRpcHandler[Any, Any]
else:
    _GenericHandler = grpc.GenericRpcHandler  # the stubs' class takes parameters, grpcio's own does not

ROUNDS = 15
# What happens once a second happens in every round.
SECONDS, WARMUP = 1.0, 0.2
STREAMS = 32
RATIO = 0.01


def run() -> dict[str, Any]:
    """µs of processor time a decision with telemetry on and off, over all rounds, and their ratio."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = servers.ordinary("inline", model="never")
        collector = stack.enter_context(servers.started(_collector))
        metrics = _free_address()
        asked = {
            "off": stack.enter_context(servers.served(servers.decisions, Path(folder, "off"), place)),
            "on": stack.enter_context(servers.served(_watched, Path(folder, "on"), place, collector, metrics)),
        }
        bodies = servers.questions()
        loads = {
            name: Load(server.target, servers.DECIDE, bodies, streams=STREAMS, seconds=SECONDS, warmup=WARMUP)
            for name, server in asked.items()
        }
        with _scraping(metrics) as scrapes:
            measured = alternate(loads, ROUNDS, asked)
        if not scrapes:
            raise SystemExit("nothing was scraped")
    return {
        "server_cpu_us_per_call": {name: each.cpu for name, each in measured.items()},
        "calls_per_second": {name: each.rate for name, each in measured.items()},
        "scrapes": len(scrapes),
        "ratios": {"cpu_on_over_off": measured["on"].cpu / measured["off"].cpu},
    }


def _collector(pipe: Connection) -> None:
    """Take whatever is exported, and say that it was taken."""

    class Anything(_GenericHandler):
        def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")

    servers.pin(servers.CALLER_CORE)
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Anything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pipe.send(port)
    pipe.recv()
    server.stop(1).wait()


def _watched(pipe: Connection, home: Path, place: Place, collector: str, metrics: str) -> None:
    """The same server as `servers.decisions`, with everything on."""
    servers.pin(servers.SERVER_CORE)
    at_work()
    os.environ |= {
        "OTEL_METRICS_EXPORTER": "otlp", "OTEL_TRACES_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector}", "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    }  # fmt: skip
    counters = Counters()
    publisher = publish.start(counters, "worker-0", scraped=True, traces=RATIO)
    with servers.peopled(home, place, counters) as (engine, admin):

        def look() -> None:
            counters.store = engine.store.figures()

        def read() -> Reading:
            return joined([("worker-0", instruments.read(counters, "worker"))], {})

        counters.sources.append(look)
        curiosity = Curiosity(engine, counters, lambda _: None)
        endpoint = Endpoint(metrics, read, lambda: True)
        servers.serve_until_told(pipe, Backing(engine, admin, counters, publisher.observer), place.transport)
        endpoint.close()
        curiosity.close()
        publisher.shutdown()


@contextlib.contextmanager
def _scraping(address: str) -> Iterator[list[int]]:
    """Scrape once a second while the block runs: the length of each answer."""
    ended, lengths = threading.Event(), list[int]()

    def scrape() -> None:
        while not ended.wait(1.0):
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                lengths.append(len(answer.read()))

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield lengths
    finally:
        ended.set()
        thread.join(10)


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"127.0.0.1:{found.getsockname()[1]}"
