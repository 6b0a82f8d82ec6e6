"""Puts loads on servers: one thread, one loop, all loads at the same time.

Law: waits, and reads the clock; what is to be done when stands in `run`.
"""

from __future__ import annotations

import gc
import select
from typing import TYPE_CHECKING

from arbiter.bench.run import NoServer, Run, clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.bench.load import Load, Result

_CONNECTING_NS = 5_000_000_000
_COARSE_NS = 2_000_000  # epoll's own waits count ms


def drive(*loads: Load) -> list[Result]:
    """Put the loads on their servers, all at once; what came of each. Raises NoServer when there is none at first, and
    ProtocolError when what answers does not speak HTTP/2.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    with select.epoll() as epoll:
        runs: list[Run] = []
        try:
            runs.extend(Run(load, epoll) for load in loads)
            _turn(epoll, runs, clock() + _CONNECTING_NS, lambda: all(run.ready for run in runs))
            for run in runs:
                if not run.ready:
                    raise NoServer(f"no server answers at {run.load.target}: it takes connections and says nothing")
                run.begin(clock())
            _turn(epoll, runs, max(run.end for run in runs), lambda: False)
            last = max(run.end + int(run.load.patience * 1e9) for run in runs)
            _turn(epoll, runs, last, lambda: not any(run.unanswered for run in runs))
        finally:
            for run in runs:
                run.close()
            if collecting:
                gc.enable()
    return [run.result for run in runs]


def _turn(epoll: select.epoll, runs: list[Run], until: int, done: Callable[[], bool]) -> None:
    """Go on until a time, or until it is done."""
    while True:
        now = clock()
        wake = min(run.turn(now) for run in runs)
        if now >= until or done():
            return
        wait = min(wake, until) - now
        events: list[tuple[int, int]] = []
        if wait > _COARSE_NS:
            events = epoll.poll((wait - _COARSE_NS // 2) / 1e9)
        elif not (events := epoll.poll(0)) and wait > 0:
            select.select([epoll], [], [], wait / 1e9)
            events = epoll.poll(0)
        for fileno, mask in events:
            for run in runs:
                if link := run.links.get(fileno):
                    run.on(link, mask)
