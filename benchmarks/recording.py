"""What the decision log takes from a server: processor time of a decision with it on, over that with it off.

One process has both: over the same store and the same snapshot, one port where decisions are logged and one where they
are not. Two processes would say less: equal servers differ by up to a tenth from each other. They are asked by turns,
32 streams each, in turns so short that the machine has hardly another speed in the next; each turn with the log is
compared with the two beside it, and the median is told. A few such processes follow each other.

On is as a worker has it: rows made in the calls, written and synced once a second, and who lost looked at as by
default. The last two are done by a thread of its own: its time is taken out of the turns, since it works in those
without the log too, and what it takes for a row is measured by itself, while nothing else than logged calls come.

Every subject was logged before; what first rows cost, references that the store syncs to its disk, is once a subject.
What the process beside the workers takes to make Parquet of the rows is measured on what was written, and told apart:
it has a low priority and another processor.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from arbiter.bench import Load
from arbiter.config.options import DecisionLog
from arbiter.runtime.quiet import at_work
from arbiter.runtime.recording import THREAD, open_recorder
from arbiter.runtime.settings import Backing
from arbiter.telemetry.counters import Counters
from benchmarks import servers
from benchmarks.stats import driven

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benchmarks.servers import Place, Served

PROCESSES, ROUNDS = 4, 80
SECONDS, WARMUP = 0.2, 0.02
STREAMS = 32
_FIRST_S, _LONG_S = 1.0, 5.0  # until every subject was logged; and what happens once a second happens some times
_FLUSHED_S = 1.2  # by then what waited is on disk


class _Found(NamedTuple):
    """Of one process, in µs of processor time: what a call takes in each turn, the thread of the log left out, with one
    turn more of those without the log; and what that thread takes for a row.
    """

    off: list[float]
    on: list[float]
    thread: float

    def ratios(self) -> list[float]:
        """On over off, for each turn with the log."""
        turns = zip(self.off, self.on, self.off[1:], strict=False)
        return [2 * (on + self.thread) / (before + after) for before, on, after in turns]


def run() -> dict[str, Any]:
    """µs of processor time a decision with the log on and off, their ratio, and µs that Parquet of one takes."""
    place = servers.ordinary("inline")
    found, rows, parquet = [], 0, 0.0
    for _ in range(PROCESSES):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log")
            with servers.served(_both, Path(folder), place, log) as server:
                found.append(_asked(server))
            written, seconds = _parquet(log)
        rows, parquet = rows + written, parquet + seconds
    on = [took + each.thread for each in found for took in each.on]
    return {
        "server_cpu_us_per_call": {
            "off": statistics.median(took for each in found for took in each.off),
            "on": statistics.median(on),
            "on, in the thread of the log": statistics.mean(each.thread for each in found),
        },
        "on_over_off_by_process": {str(n): statistics.median(each.ratios()) for n, each in enumerate(found, 1)},
        "rows": rows,
        "parquet_us_per_row": parquet / rows * 1e6,
        "ratios": {"cpu_on_over_off": statistics.median(ratio for each in found for ratio in each.ratios())},
    }


def _asked(server: Served) -> _Found:
    bodies = servers.questions()
    target, thread = server.pipe.recv()
    off, on, first, long = (
        Load(where, servers.DECIDE, bodies, streams=STREAMS, seconds=seconds, warmup=WARMUP)
        for where, seconds in ((server.target, SECONDS), (target, SECONDS), (target, _FIRST_S), (target, _LONG_S))
    )
    clock = Path(f"/proc/{server.process}/task/{thread}/schedstat")

    def beside() -> int:
        return int(clock.read_text("ascii").split()[0])

    def turn(load: Load) -> float:
        before = server.cpu_ns() - beside()
        answers = driven("recording", load).answers
        return (server.cpu_ns() - beside() - before) / answers / 1000

    with servers.pinned():
        turn(first)
        without, logged = [turn(off)], []
        for _ in range(ROUNDS):
            logged.append(turn(on))
            without.append(turn(off))
        time.sleep(_FLUSHED_S)
        began = beside()
        answers = driven("recording", long).answers
        time.sleep(_FLUSHED_S)
        took = (beside() - began) / answers / 1000
    return _Found(without, logged, took)


def _both(pipe: Connection, home: Path, place: Place, log: Path) -> None:
    """A server without the log, and one with it, of one process."""
    servers.pin(servers.SERVER_CORE)
    at_work()
    counters = Counters()
    with servers.peopled(home, place, counters) as (engine, admin):
        recorder = open_recorder(DecisionLog(directory=str(log)), engine)
        [thread] = [each.native_id for each in threading.enumerate() if each.name == THREAD]
        without, logged = (Backing(engine, admin, counters, None, each) for each in (None, recorder))
        with servers.opened(without, place.transport) as silent, servers.opened(logged, place.transport) as logging:
            pipe.send(silent.port)
            pipe.send((f"127.0.0.1:{logging.port}", thread))
            pipe.recv()
        recorder.close()
        if counters.log_dropped or counters.log_error:
            raise SystemExit(f"rows were lost: {dict(counters.log_dropped)} {counters.log_error}")


def _parquet(log: Path) -> tuple[int, float]:
    """How many rows there are, and the seconds of processor time that making Parquet of them takes."""
    from arbiter.runtime.logfiles import convert  # noqa: PLC0415 - loads pyarrow, in this process alone

    gc.collect()
    gc.disable()  # it hardly runs in the process that does it for a server
    began = time.process_time()
    rows = convert(log, 0).rows
    if not rows:
        raise SystemExit("nothing was logged")
    took = time.process_time() - began
    gc.enable()
    return rows, took
