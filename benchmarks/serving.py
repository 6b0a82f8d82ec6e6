"""A decision over gRPC beside calls that do nothing: how many a second, and how long one takes.

Servers on one core, the load on the other, all servers there at the same time and asked by turns, so that a slow moment
of the machine hits all of them. The no-ops are grpcio's synchronous server and `grpc.aio`, as they come, with a handler
that returns nothing, and the synchronous one once more with the setting that ours makes for grpc: that it reads sockets
in the thread that polls. Ours decides for real, on both transports: 30 attributes and six features from the store,
1,000 rules, the best of which asks for a model of 100 trees where the rest of it holds, for one person in eight; where
`model` is said it asks for it always, so that every decision runs it.

One stream shows how long a call takes, 32 on one connection what a core can answer. `server_cpu_us_per_call` is the
processor time that a call takes from the server, which other programs on the machine disturb less than they do times.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.bench import Load
from benchmarks import servers
from benchmarks.stats import alternate

if TYPE_CHECKING:
    from benchmarks.stats import Told

ROUNDS = 9
SECONDS, WARMUP = 0.4, 0.1
STREAMS = (1, 32)
OURS = ("inline", "inline, model", "stock", "stock, model")
NOOP, NOOP_POLLING, NOOP_AIO = "no-op, sync", "no-op, sync, polling", "no-op, aio"


def run() -> dict[str, Any]:
    """Calls a second and µs, medians of rounds; ratios to the no-op on the synchronous server."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        asked = {
            NOOP: stack.enter_context(servers.served(servers.noop_sync, polling=False)),
            NOOP_POLLING: stack.enter_context(servers.served(servers.noop_sync)),
            NOOP_AIO: stack.enter_context(servers.served(servers.noop_aio, polling=False)),
        }
        for name in OURS:
            place = servers.ordinary(
                "inline" if "inline" in name else "stock", model="always" if "model" in name else "needed"
            )
            asked[name] = stack.enter_context(servers.served(servers.decisions, Path(folder, name), place))
        bodies = servers.questions()
        loads, watched = {}, {}
        for streams in STREAMS:
            for name, server in asked.items():
                loads[f"{name}, {streams}"] = Load(
                    server.target, servers.DECIDE, bodies, streams=streams, seconds=SECONDS, warmup=WARMUP
                )
                watched[f"{name}, {streams}"] = server
        measured = alternate(loads, ROUNDS, watched)
    by_streams = {
        n: {name: measured[f"{name}, {n}"] for name in (NOOP, NOOP_POLLING, NOOP_AIO, *OURS)} for n in STREAMS
    }
    one, many = by_streams.values()
    return {
        "calls_per_second": {
            _named(n): {name: each.rate for name, each in row.items()} for n, row in by_streams.items()
        },
        "p50_us": {_named(n): {name: each.p50 for name, each in row.items()} for n, row in by_streams.items()},
        "p99_us": {_named(n): {name: each.p99 for name, each in row.items()} for n, row in by_streams.items()},
        "server_cpu_us_per_call": {
            _named(n): {name: each.cpu for name, each in row.items()} for n, row in by_streams.items()
        },
        "ratios": _ratios(one, many),
    }


def _ratios(one: dict[str, Told], many: dict[str, Told]) -> dict[str, float]:
    """Throughput on 32 streams, their processor time, and the median on one, of ours over the no-op's."""
    ratios = {}
    for name in OURS:
        key = name.replace(", ", "_")
        ratios[f"{key}_throughput_over_noop"] = many[name].rate / many[NOOP].rate
        ratios[f"{key}_cpu_over_noop"] = many[name].cpu / many[NOOP].cpu
        ratios[f"{key}_median_over_noop"] = one[name].p50 / one[NOOP].p50
    return ratios


def _named(streams: int) -> str:
    return f"{streams} stream{'' if streams == 1 else 's'}"
