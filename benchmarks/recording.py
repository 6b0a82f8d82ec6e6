"""What the decision log takes from a server: processor time of a decision with it on, over that with it off.

On is as a worker has it: rows packed in the calls, written and synced once a second, and who lost looked at as by
default. The load is 32 streams; both servers are there at the same time and asked by turns, and the figures are
totals over all rounds, since what happens once a second counts too. What the process beside the workers takes to make
Parquet of the rows is measured on what was written, and told apart: it has a low priority and another processor.
"""

from __future__ import annotations

import gc
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.bench import Load
from arbiter.config.options import DecisionLog
from arbiter.runtime.quiet import at_work
from arbiter.runtime.recording import open_recorder
from arbiter.runtime.settings import Backing
from arbiter.telemetry.counters import Counters
from benchmarks import servers
from benchmarks.stats import alternate

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benchmarks.servers import Place

ROUNDS = 15
# What happens once a second happens in every round.
SECONDS, WARMUP = 1.0, 0.2
STREAMS = 32


def run() -> dict[str, Any]:
    """µs of processor time a decision with the log on and off, over all rounds, their ratio, and that of Parquet."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place, log = servers.ordinary("inline"), Path(folder, "log")
        asked = {
            "off": stack.enter_context(servers.served(servers.decisions, Path(folder, "off"), place)),
            "on": stack.enter_context(servers.served(_logged, Path(folder, "on"), place, log)),
        }
        bodies = servers.questions()
        loads = {
            name: Load(server.target, servers.DECIDE, bodies, streams=STREAMS, seconds=SECONDS, warmup=WARMUP)
            for name, server in asked.items()
        }
        measured = alternate(loads, ROUNDS, asked)
        stack.close()
        rows, parquet_us = _made(log)
    return {
        "server_cpu_us_per_call": {name: each.cpu for name, each in measured.items()},
        "calls_per_second": {name: each.rate for name, each in measured.items()},
        "rows": rows,
        "parquet_us_per_row": parquet_us,
        "ratios": {"cpu_on_over_off": measured["on"].cpu / measured["off"].cpu},
    }


def _logged(pipe: Connection, home: Path, place: Place, log: Path) -> None:
    """The same server as `servers.decisions`, with the log on."""
    servers.pin(servers.SERVER_CORE)
    at_work()
    counters = Counters()
    with servers.peopled(home, place, counters) as (engine, admin):
        recorder = open_recorder(DecisionLog(directory=str(log)), engine)
        backing = Backing(engine, admin, counters, None, recorder)
        servers.serve_until_told(pipe, backing, place.transport)
        recorder.close()
        if counters.log_dropped or counters.log_error:
            raise SystemExit(f"rows were lost: {dict(counters.log_dropped)} {counters.log_error}")


def _made(log: Path) -> tuple[int, float]:
    """How many rows there are, and what it takes to make Parquet of one."""
    from arbiter.runtime.logfiles import convert  # noqa: PLC0415 - loads pyarrow, in this process alone

    gc.collect()
    gc.disable()  # it hardly runs in the process that does it for a server
    began = time.process_time()
    rows = convert(log, 0).rows
    if not rows:
        raise SystemExit("nothing was logged")
    took = time.process_time() - began
    gc.enable()
    return rows, took / rows * 1e6
