"""Rows of the log whose subjects have no reference yet, since nothing of them was logged before.

Law: they wait until the store has one on disk, and are then given it. It is asked for many at once: each write of the
store syncs its disk, and calls would pay for one each. What finds no room, or no reference, is dropped, and counted.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Final

from arbiter.profiles.referring import REFERENCE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from arbiter.telemetry.counters import Counters

_MOST: Final = 10_000  # rows that wait
_AT_ONCE: Final = 1_000  # subjects that are asked for at once
UNNAMED: Final = secrets.token_bytes(REFERENCE_BYTES)
"""What stands for the reference in such a row."""
_MARK: Final = UNNAMED.hex().encode()


class Nameless:
    """`refer` has the store give a subject a reference; `hurry` is called when many wait for one."""

    def __init__(self, refer: Callable[[str], Future[bytes]], counters: Counters, hurry: Callable[[], None]) -> None:
        self._refer = refer
        self._counters = counters
        self._hurry = hurry
        self._lock = threading.Lock()
        self._waiting: dict[str, list[bytes]] = {}
        self._asked: list[tuple[Future[bytes], list[bytes]]] = []
        self._rows = 0

    def put(self, subject_id: str, row: bytes) -> None:
        """Have a row wait, which has `UNNAMED` for a reference. On any thread."""
        with self._lock:
            if self._rows >= _MOST:
                self._counters.log_dropped["unreferenced"] += 1
                return
            self._rows += 1
            self._waiting.setdefault(subject_id, []).append(row)
            many = len(self._waiting) == _AT_ONCE
        if many:
            self._hurry()

    def named(self, patience: float) -> Iterator[bytes]:
        """The rows whose subjects have references by now, which are waited for so many seconds. On one thread."""
        more = True
        while more or self._asked:
            with self._lock:
                some = [self._waiting.popitem() for _ in range(min(len(self._waiting), _AT_ONCE))]
                more = bool(self._waiting)
            self._asked += [(self._refer(subject), rows) for subject, rows in some]
            if self._asked:  # they are answered in turn
                with contextlib.suppress(TimeoutError, CancelledError):
                    self._asked[-1][0].exception(patience)
            answered = [each for each in self._asked if each[0].done()]
            self._asked = [each for each in self._asked if not each[0].done()]
            for future, rows in answered:
                yield from self._with(future, rows)
            if self._asked:
                return  # the store is busy: the rest waits for the next time

    def _with(self, future: Future[bytes], rows: list[bytes]) -> list[bytes]:
        with self._lock:
            self._rows -= len(rows)
        failed = future.cancelled() or future.exception() is not None
        if failed or not future.result():  # none: the subject was erased since, and so is what would be told of it
            self._counters.log_dropped["unreferenced"] += len(rows)
            return []
        reference = future.result().hex().encode()
        return [row.replace(_MARK, reference, 1) for row in rows]
