"""What a process takes from the machine, by the names that OpenTelemetry has for it.

Law: asks the system when somebody reads, and counts nothing itself. Linux.
"""

from __future__ import annotations

import gc
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from arbiter.telemetry.instrument import Instrument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.telemetry.counters import Counters
    from arbiter.telemetry.instrument import Point

_PAGE = os.sysconf("SC_PAGE_SIZE")


def _cpu(_: Counters) -> Iterable[Point]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return [(("user",), used.ru_utime), (("system",), used.ru_stime)]


def _memory(_: Counters) -> Iterable[Point]:
    return [((), int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE)]


def _threads(_counters: Counters) -> Iterable[Point]:
    return [((), sum(1 for _ in Path("/proc/self/task").iterdir()))]


def _collections(_: Counters) -> Iterable[Point]:
    return [((str(number),), each["collections"]) for number, each in enumerate(gc.get_stats())]


def _collected(_: Counters) -> Iterable[Point]:
    return [((str(number),), each["collected"]) for number, each in enumerate(gc.get_stats())]


_GENERATION = ("cpython.gc.generation",)

INSTRUMENTS = (
    Instrument(
        "process.cpu.time",
        "counter",
        "s",
        "Processor time of the process.",
        _cpu,
        ("cpu.mode",),
        origin="all",
        joined="each",
    ),
    Instrument(
        "process.memory.usage",
        "updown",
        "By",
        "Memory of the process that is resident.",
        _memory,
        origin="all",
        joined="each",
    ),
    Instrument(
        "process.thread.count",
        "updown",
        "{thread}",
        "Threads of the process.",
        _threads,
        origin="all",
        joined="each",
    ),
    Instrument(
        "cpython.gc.collections",
        "counter",
        "{collection}",
        "Runs of the garbage collector.",
        _collections,
        _GENERATION,
        origin="all",
        joined="each",
    ),
    Instrument(
        "cpython.gc.collected_objects",
        "counter",
        "{object}",
        "Objects that the garbage collector freed.",
        _collected,
        _GENERATION,
        origin="all",
        joined="each",
    ),
)
