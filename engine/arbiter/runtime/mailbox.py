"""The letters of one thread: what others post to it, and what it posts to itself for later.

Law: any thread, and a signal handler, may post; one thread opens. A letter is a function without arguments.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Made = TypeVar("_Made")


class Mailbox:
    """Letters in the order of posting, and those for later when their time has come and nothing else waits."""

    def __init__(self) -> None:
        # SimpleQueue may be put to from a signal handler.
        self._letters: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def post(self, letter: Callable[[], None]) -> None:
        """From any thread: have the owner call `letter`."""
        self._letters.put(letter)

    def later(self, seconds: float, letter: Callable[[], None]) -> None:
        """From the owner: call `letter` after some seconds."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), letter))

    def during(self, work: Callable[[], _Made], enough: Callable[[], bool]) -> _Made | None:
        """From the owner: have `work` done in another thread, which nothing waits for, and open letters meanwhile.

        Returns None when `enough` says so first. Raises what `work` raises.
        """
        made: Future[_Made] = Future()

        def run() -> None:
            try:
                made.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised in the owner's thread
                made.set_exception(error)
            self.post(lambda: None)

        threading.Thread(target=run, name="arbiter-beside", daemon=True).start()
        while not (enough() or made.done()):
            self.next()()
        return None if enough() else made.result()

    def next(self) -> Callable[[], None]:
        """The next letter; waits for it."""
        while True:
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            try:
                return self._letters.get(timeout=wait)
            except queue.Empty:
                return heapq.heappop(self._timers)[2]
