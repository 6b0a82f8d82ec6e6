"""What processes take: memory, open files, threads, sampled while a soak runs, and whether that is flat.

Law: reads /proc, judges by one stated rule. A process counts from its own warm-up on, so that one that was started
again is not held to what it had before.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_MIB = 1 << 20
LEAST_SAMPLES = 20


@dataclass(frozen=True)
class Sample:
    """A process at a time, in seconds since the soak began. `own` is its memory without mapped files, in MiB."""

    at: float
    own: float
    resident: float
    files: int
    threads: int


@dataclass
class History:
    """All samples of one process."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)


class Watch(threading.Thread):
    """Samples every `pause` seconds whom `processes` names. A worker that died and its successor are two processes."""

    def __init__(
        self, processes: Callable[[], dict[str, int]], used: Callable[[], int], began: float, pause: float
    ) -> None:
        super().__init__(daemon=True)
        self.histories: dict[int, History] = {}
        self.data: list[tuple[float, float]] = []  # s, MiB
        self.began = began
        self._processes = processes
        self._used = used
        self._pause = pause
        self._ended = threading.Event()

    def run(self) -> None:
        """Sample until ended."""
        while not self._ended.wait(self._pause):
            at = time.monotonic() - self.began
            for name, pid in self._processes().items():
                with contextlib.suppress(OSError, KeyError):
                    self.histories.setdefault(pid, History(name, pid)).samples.append(_sample(pid, at))
            with contextlib.suppress(OSError):
                self.data.append((round(at, 1), self._used() / _MIB))

    def end(self) -> None:
        """Sample no more."""
        self._ended.set()
        self.join()


def _sample(pid: int, at: float) -> Sample:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    said = {name: text.split() for name, _, text in (line.partition(":") for line in lines)}
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    own, resident = int(said["RssAnon"][0]) / 1024, int(said["VmRSS"][0]) / 1024
    return Sample(round(at, 1), own, resident, files, int(said["Threads"][0]))


@dataclass(frozen=True)
class Flatness:
    """The rule. Each process is judged from `warm_s` of its life on, if it lived `least_s` longer: its memory may grow
    by `mib_per_hour` (the Theil-Sen slope of its own memory, last two thirds), its open files by `files` and its
    threads by `threads` (medians of the last and the first quarter). A worker's pool starts its 16 threads as they are
    needed, whenever that is.
    """

    warm_s: float = 180.0
    least_s: float = 420.0
    mib_per_hour: float = 24.0
    files: int = 40
    threads: int = 20

    def judge(self, history: History) -> dict[str, Any] | None:
        """The figures of a process and what is wrong with them; None for one that lived too short to be judged."""
        born = history.samples[0].at
        lived = [each for each in history.samples if each.at >= born + self.warm_s]
        if len(lived) < LEAST_SAMPLES or lived[-1].at - lived[0].at < self.least_s:
            return None
        last = lived[len(lived) // 3 :]
        slope = theil_sen([(each.at, each.own) for each in last]) * 3600
        files, threads = (_growth([getattr(each, name) for each in lived]) for name in ("files", "threads"))
        wrong = [
            said
            for said, bad in (
                (f"memory grows by {slope:.1f} MiB an hour", slope > self.mib_per_hour),
                (f"open files grew by {files:g}", files > self.files),
                (f"threads grew by {threads:g}", threads > self.threads),
            )
            if bad
        ]
        return {
            "process": history.name, "pid": history.pid, "minutes": round((lived[-1].at - born) / 60, 1),
            "mib_first": round(lived[0].own, 1), "mib_last": round(lived[-1].own, 1),
            "mib_per_hour": round(slope, 1), "files_growth": files, "threads_growth": threads, "wrong": wrong,
        }  # fmt: skip


def theil_sen(points: list[tuple[float, float]]) -> float:
    """The median of the slopes between points of the first and of the second half: outliers do not move it."""
    half = len(points) // 2
    slopes = [(y2 - y1) / (x2 - x1) for x1, y1 in points[:half] for x2, y2 in points[half:] if x2 > x1]
    return statistics.median(slopes)


def _growth(counts: list[int]) -> float:
    quarter = max(1, len(counts) // 4)
    return statistics.median(counts[-quarter:]) - statistics.median(counts[:quarter])
