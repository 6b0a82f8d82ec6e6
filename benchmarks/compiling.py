"""From 10,000 rules in 100 files, all with constants of their own, to a snapshot on disk: cold, and after one change.

Cold is a fresh process each time, imports not counted, with an empty data directory; the change is one constant in one
file, looked for by the loader that loaded them before. These are the promises that are held as seconds.
"""

from __future__ import annotations

import multiprocessing
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.runtime.archive import Archive
from arbiter.runtime.loader import Loader
from benchmarks.conditions import written
from benchmarks.hard import hard
from benchmarks.measure import ROUNDS

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

RULES, FILES = 10_000, 100
COLD = 3  # fresh processes


def run() -> dict[str, Any]:
    """Seconds, medians; `one_file_over_cold` is their ratio."""
    cold, changed = [], []
    context = multiprocessing.get_context("spawn")
    for _ in range(COLD):
        with tempfile.TemporaryDirectory() as folder:
            rules = Path(folder, "rules")
            rules.mkdir()
            for name, content in written(hard(RULES), RULES // FILES).items():
                (rules / name).write_bytes(content)
            here, there = context.Pipe()
            process = context.Process(target=_load, args=(folder, there))
            process.start()
            first, later = here.recv()
            process.join()
            cold.append(first)
            changed += later
    return {
        "seconds": {"cold": statistics.median(cold), "one file of 100 changed": statistics.median(changed)},
        "slowest": {"cold": max(cold), "one file of 100 changed": max(changed)},
        "ratios": {"cold_seconds": statistics.median(cold), "one_file_seconds": statistics.median(changed)},
    }


def _load(folder: str, pipe: Connection) -> None:
    rules = Path(folder, "rules")
    loader = Loader(rules, None, Archive(Path(folder, "data")))
    first = _timed(loader)
    later = []
    for number in range(ROUNDS):
        file = rules / f"bench-{number * 7:03d}.yaml"
        text, found = re.subn(
            r"profile\.points > \d+", f"profile.points > {number + 7}", file.read_text("utf-8"), count=1
        )
        if not found:
            raise SystemExit("nothing to change in a rule file")
        file.write_text(text, "utf-8")
        later.append(_timed(loader))
    pipe.send((first, later))


def _timed(loader: Loader) -> float:
    start = time.perf_counter()
    attempt = loader.look()
    took = time.perf_counter() - start
    if attempt is None or attempt.built is None:
        raise SystemExit("\n".join(each.render() for each in attempt.diagnostics) if attempt else "nothing changed")
    return took
