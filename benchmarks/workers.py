"""One worker and two, as `arbiter serve` runs them, under as much load as they take.

Supervisor, workers and load share the machine's two cores: with one worker the load has nearly a core of its own, with
two it takes from what they have. So the ratio of the two says what a second worker adds *here*, and nothing of a
machine with cores to spare.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from arbiter.bench import Load
from arbiter.profiles.store import Store
from benchmarks import servers
from benchmarks.decision import add_people
from benchmarks.stats import driven, told

WORKERS = (1, 2)
STREAMS, CONNECTIONS = 64, 16  # the kernel spreads connections, not calls: many, so that no worker has few
ROUNDS = 5
SECONDS, WARMUP = 0.6, 0.2


def run() -> dict[str, Any]:
    """Decisions a second and µs by number of workers, medians of rounds; two over one."""
    place = servers.ordinary("inline")
    results: dict[int, list[Any]] = {number: [] for number in WORKERS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        targets = {}
        for number in WORKERS:
            home = Path(folder, str(number))
            (home / "rules").mkdir(parents=True)
            for name, content in place.rules.items():
                (home / "rules" / name).write_bytes(content)
            with Store.open(home / "data" / "store") as store:
                add_people(store)
            targets[number] = stack.enter_context(servers.command(home, "--workers", str(number)))
        bodies = servers.questions()
        for _ in range(ROUNDS):
            for number, target in targets.items():
                load = Load(
                    target, servers.DECIDE, bodies,
                    streams=STREAMS, connections=CONNECTIONS, seconds=SECONDS, warmup=WARMUP,
                )  # fmt: skip
                results[number].append(driven(f"{number} workers", load))
    measured = {number: told(each) for number, each in results.items()}
    return {
        "cores": len(os.sched_getaffinity(0)),
        "decisions_per_second": {str(number): each.rate for number, each in measured.items()},
        "p50_us": {str(number): each.p50 for number, each in measured.items()},
        "ratios": {"two_workers_over_one": measured[2].rate / measured[1].rate},
    }
