"""Decisions while rules reload: a real server under steady load, quiet and with one of its files changed every second.

10,000 rules lie in 100 files. Each change writes one file anew, with other constants and other priorities, and renames
it into place. Every file also has a pair of marks, rules that carry the file's version; the newest version wins both
slots of a decision point of its own, which every call asks for beside the rules. So an answer tells by itself which
version made it: two versions in one answer, or two digests for one version, would be two snapshots mixed.

Server, supervisor and caller share the machine. The caller sends `RATE` calls a second, far less than a worker can
answer, so that what it measures is waiting and not its own weight.
"""

from __future__ import annotations

import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.client import Client
from benchmarks.conditions import point_lines, rule_lines
from benchmarks.load import MARKS, Load
from benchmarks.population import narrow, shoppers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.conditions import PlainRule
    from benchmarks.load import Call

FILES, RULES_A_FILE = 100, 100
PEOPLE = 500
RATE = 200  # calls a second
EVERY = 1.0  # seconds between changes
PHASE = 6.0  # seconds
PAIRS = 5  # of a quiet phase and one with reloads
SETTLING = 2.0  # seconds that count for neither: the last change goes live, the next phase begins
BIN = 100  # ms, of the plot


def run() -> dict[str, Any]:
    """Latencies in ms quiet and reloading, from edit to live in ms, and the ratio of the 99th percentiles."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        rules = home / "rules"
        rules.mkdir()
        for number in range(FILES):
            _drafted(rules, number, 0).rename(_file(rules, number))
        # Drawing rules takes the machine longer than loading them: it is done before anything is measured.
        drafts = home / "drafts"
        drafts.mkdir()
        count = PAIRS * int(PHASE / EVERY)
        edits = {version: _drafted(drafts, _changed(version), version) for version in range(1, count + 1)}
        with server(home) as address:
            subjects = _add_people(address)
            with Load(address, subjects, RATE) as load:
                ran, changes = phases(edits, lambda version: _file(rules, _changed(version)))
                calls = load.stop()
    return told(calls, ran, changes) | {"series": _series(calls, ran, changes)}


def phases(
    edits: Mapping[int, Path], place_of: Callable[[int], Path]
) -> tuple[list[tuple[str, int, int]], dict[int, int]]:
    """Run the phases; each one's name, start and end, and by version the moment of its change (ns).

    `edits` has what is renamed into place, by version, and `place_of` says where that is.
    """
    ran, changes = [], {}
    versions = itertools.count(1)
    time.sleep(SETTLING)
    for _ in range(PAIRS):
        start = time.monotonic_ns()
        time.sleep(PHASE)
        ran.append(("quiet", start, time.monotonic_ns()))
        start = time.monotonic_ns()
        for tick in range(int(PHASE / EVERY)):
            version = next(versions)
            edits[version].rename(place_of(version))
            changes[version] = time.monotonic_ns()
            time.sleep(max(0.0, start / 1e9 + (tick + 1) * EVERY - time.monotonic()))
        ran.append(("reloading", start, time.monotonic_ns()))
        time.sleep(SETTLING)
    return ran, changes


def _changed(version: int) -> int:
    """The file that a version changes."""
    return version * 37 % FILES


def _file(rules: Path, number: int) -> Path:
    return rules / f"bench-{number:03d}.yaml"


def _drafted(folder: Path, number: int, version: int) -> Path:
    """Write a version of a file, to be renamed into its place."""
    lines = []
    if not number:
        lines += [*point_lines(), f"  {MARKS}: {{slots: 2, order: [priority]}}"]
    lines.append("rules:")
    for rule in _rules_of(number, version):
        lines += rule_lines(rule.id, rule.priority, [condition.cel() for condition in rule.conditions])
    for slot in "ab":
        params = f"{{slot: {slot}, version: {version}}}"
        lines.append(f"  - {{id: mark-{number:03d}-{slot}, decision: {MARKS}, priority: {version},")
        lines.append(f"     then: {{action: mark, params: {params}}}}}")
    draft = folder / f".bench-{version:03d}-{number:03d}.draft"
    draft.write_text("\n".join([*lines, ""]), "utf-8")
    return draft


def _rules_of(number: int, version: int) -> list[PlainRule]:
    drawn = narrow(RULES_A_FILE - 2, seed=1_000 * number + version)
    return [rule._replace(id=f"file-{number:03d}-{rule.id}") for rule in drawn]


@contextmanager
def server(home: Path, models: str = "") -> Iterator[str]:
    """A server of one worker, as `arbiter serve` runs it; its address."""
    places = [
        "--rules",
        str(home / "rules"),
        "--models",
        models,
        "--data",
        str(home / "data"),
        "--listen",
        "127.0.0.1:0",
    ]
    command = [sys.executable, "-m", "arbiter.cli", "serve", *places, "--workers", "1", "--log-level", "error"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)  # noqa: S603 - ourselves
    try:
        if process.stdout is None or not (ready := re.match(r"arbiter ready on (\S+),", process.stdout.readline())):
            raise SystemExit("the server did not start")
        yield ready[1]
    finally:
        process.terminate()
        process.wait(30)


def _add_people(address: str) -> list[str]:
    everybody = [rule for number in range(FILES) for rule in _rules_of(number, 0)]
    subjects = []
    with Client(address) as client:
        for number, person in enumerate(shoppers(everybody, PEOPLE)):
            subjects.append(f"customer-{number}")
            client.update_profile(subjects[-1], set=person)
    return subjects


def told(calls: Sequence[Call], ran: list[tuple[str, int, int]], changes: Mapping[int, int]) -> dict[str, Any]:
    """The figures of phases that ran."""
    tails: dict[str, list[dict[str, float]]] = {"quiet": [], "reloading": []}
    for name, start, end in ran:
        tails[name].append(_tail([call.took / 1e6 for call in calls if start <= call.due < end]))
    first_seen = _first_seen(calls)
    live = [(first_seen[version] - at) / 1e6 for version, at in changes.items() if version in first_seen]
    medians = {
        name: {key: statistics.median(tail[key] for tail in each) for key in each[0]} for name, each in tails.items()
    }
    return {
        "load": {"calls a second": RATE, "calls": len(calls), "changes": len(changes), "seen live": len(live)},
        "quiet_ms": medians["quiet"],
        "reloading_ms": medians["reloading"],
        "live_ms": {"p50": statistics.median(live), "longest": max(live)},
        "ratios": {
            "p99_reloading_over_quiet": medians["reloading"]["p99"] / medians["quiet"]["p99"],
            "failed_calls": sum(bool(call.error) for call in calls),
            "mixed_answers": _mixed(calls),
        },
    }


def _first_seen(calls: Sequence[Call]) -> dict[int, int]:
    """By version the moment of the first answer of it (ns)."""
    found: dict[int, int] = {}
    for call in calls:
        for version in call.versions:
            found.setdefault(version, call.due + call.took)
    return found


def _mixed(calls: Sequence[Call]) -> int:
    """Answers that carry two versions, or a version that another digest has too."""
    version_of: dict[str, int] = {}
    digest_of: dict[int, str] = {}
    mixed = 0
    for call in calls:
        if call.error:
            continue
        version = call.versions[0] if call.versions else -1
        alone = call.versions == (version, version) and version_of.setdefault(call.snapshot, version) == version
        mixed += not (alone and digest_of.setdefault(version, call.snapshot) == call.snapshot)
    return mixed


def _tail(took: list[float]) -> dict[str, float]:
    took.sort()
    return {f"p{p:g}": took[min(len(took) - 1, int(len(took) * p / 100))] for p in (50, 90, 99, 99.9)}


def _series(calls: Sequence[Call], phases: list[tuple[str, int, int]], changes: Mapping[int, int]) -> dict[str, Any]:
    """Seconds from the start of the first phase: by bin the median and the longest in ms."""
    origin, first_seen = phases[0][1], _first_seen(calls)
    bins: dict[int, list[float]] = {}
    for call in calls:
        if call.due >= origin:
            bins.setdefault((call.due - origin) // (BIN * 1_000_000), []).append(call.took / 1e6)

    def seconds(moment: int) -> float:
        return round((moment - origin) / 1e9, 3)

    return {
        "latency": [
            [round(number * BIN / 1000, 1), round(statistics.median(took), 3), round(max(took), 3)]
            for number, took in sorted(bins.items())
        ],
        "phases": [[name, seconds(start), seconds(end)] for name, start, end in phases],
        "changes": [seconds(at) for at in changes.values()],
        "live": [seconds(first_seen[version]) for version in changes if version in first_seen],
    }
