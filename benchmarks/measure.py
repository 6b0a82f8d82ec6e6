"""How every benchmark measures.

Law: times are taken in alternating rounds, so that a slow minute of the machine hits everything alike; the median of
nine rounds counts, and what is asserted is a ratio of two medians of the same run.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ROUNDS = 9
PACKAGES = ("grpcio", "protobuf", "lmdb", "msgspec", "onnxruntime", "cel-expr-python", "zen-engine", "durable_rules")


def alternate(
    subjects: Mapping[str, Callable[[], Any]],
    seconds: float = 0.1,
    of: Callable[[Iterable[float]], float] = statistics.median,
) -> dict[str, float]:
    """The time of one call of each subject in µs: the median over rounds in which all take turns, or another one `of`
    them. `seconds` is how long one subject runs in one round.
    """
    calls = {name: _calls_in(run, seconds) for name, run in subjects.items()}
    rounds: dict[str, list[float]] = {name: [] for name in subjects}
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, run in subjects.items():
                times = range(calls[name])
                start = time.perf_counter()
                for _ in times:
                    run()
                rounds[name].append((time.perf_counter() - start) / calls[name] * 1e6)
    finally:
        gc.enable()
    return {name: of(values) for name, values in rounds.items()}


def percentiles(run: Callable[[], Any], calls: int) -> dict[str, float]:
    """Percentiles of single calls in µs, the clock's own cost (about 0.05 µs) included."""
    clock = time.perf_counter_ns
    took = []
    for _ in range(calls):
        start = clock()
        run()
        took.append(clock() - start)
    took.sort()
    return {f"p{p:g}": took[min(calls - 1, int(calls * p / 100))] / 1000 for p in (50, 90, 99, 99.9)}


def machine() -> dict[str, Any]:
    """What a reader must know to read the figures."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a kernel file
            model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": sys.version.split()[0],
        "packages": {name: known for name in PACKAGES if (known := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _calls_in(run: Callable[[], Any], seconds: float) -> int:
    calls = 1
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        took = time.perf_counter() - start
        if took > seconds / 4:
            return max(1, int(calls * seconds / took))
        calls *= 4
