"""100,000 rules at one decision point: how matching grows, and what a worker's memory holds, on two populations.

Memory is measured as a worker has it: a fresh process opens the stored snapshot and matches people.
"""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.runtime.archive import Archive
from arbiter.snapshot import Snapshot
from benchmarks.conditions import POINT, written
from benchmarks.hard import customers, hard
from benchmarks.measure import alternate
from benchmarks.population import narrow, narrow_snapshot, rule_set, shoppers
from benchmarks.rivals import ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

SIZES = (100, 10_000, 100_000)
PEOPLE = 256
GIGABYTE = 1 << 30


def run() -> dict[str, Any]:
    """µs by number of hard rules, how many of them hold for a person, and gigabytes at the largest size."""
    people = customers(PEOPLE)
    subjects, holding, left = {}, {}, {}
    snapshots = {size: Snapshot(rule_set(written(hard(size))), {}) for size in SIZES}
    for size, snapshot in snapshots.items():
        point = snapshot.point(POINT)
        leaves, every = ours.survivors(point), ours.all_rules(point)
        # Asked once beforehand, which also compiles what survives.
        left[str(size)] = sum(map(leaves, people)) / PEOPLE
        holding[str(size)] = sum(len(every(person)) for person in people) / PEOPLE
        asks: dict[str, Callable[[dict[str, Any]], Any]] = {
            "index": leaves, "best": ours.best_rule(point), "all": every
        }  # fmt: skip
        for label, ask in asks.items():
            asked = itertools.cycle(people)
            subjects[f"{label} {size}"] = lambda ask=ask, asked=asked: ask(next(asked))
    took = alternate(subjects)
    most = SIZES[-1]
    resident = {
        "narrow": resident_bytes(narrow_snapshot(most), shoppers(narrow(most), PEOPLE)),
        "hard": resident_bytes(snapshots[most], people),
    }
    return {
        "hard_us": {
            label: {str(size): took[f"{label} {size}"] for size in SIZES} for label in ("index", "best", "all")
        },
        "hard_branches_that_survive": left,
        "hard_rules_that_hold": holding,
        "ratios": {
            "hard_index_100000_over_100": took[f"index {most}"] / took["index 100"],
            "hard_best_rule_100000_over_100": took[f"best {most}"] / took["best 100"],
            "hard_all_rules_100000_over_100": took[f"all {most}"] / took["all 100"],
            **{f"{name}_resident_gigabytes": value / GIGABYTE for name, value in resident.items()},
        },
    }


def resident_bytes(snapshot: Snapshot, people: list[dict[str, Any]]) -> int:
    """By how much a fresh process grows when it opens the snapshot from disk and matches these people."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        Archive(Path(folder)).write(snapshot, (), {})
        here, there = context.Pipe()
        process = context.Process(target=_open, args=(folder, snapshot.digest, people, there))
        process.start()
        grown: int = here.recv()
        process.join()
    return grown


def _open(folder: str, digest: str, people: list[dict[str, Any]], pipe: Connection) -> None:
    before = _resident()
    point = Archive(Path(folder)).read(digest, {}).point(POINT)
    best, every = ours.best_rule(point), ours.all_rules(point)
    for person in people:
        best(person)
        every(person)
    pipe.send(_resident() - before)


def _resident() -> int:
    status = Path("/proc/self/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
