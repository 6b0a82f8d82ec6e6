"""Rows of the log that wait in a worker for its disk.

Law: whoever answers calls puts them, and one thread writes. What waits is bounded; what finds no room is dropped, and
counted. A disk that refuses leaves what waits where it is.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from arbiter.runtime.spool import Spool
    from arbiter.telemetry.counters import Counters

T = TypeVar("T")

MOST: Final = 100_000  # rows that wait
_AT_ONCE: Final = 2_048  # rows of one write: each gives the interpreter away, and waits to have it again


class Waiting:
    """Rows on their way to `spool`, at most `most`."""

    def __init__(self, spool: Spool, counters: Counters, most: int = MOST) -> None:
        self.spool = spool
        self._counters = counters
        self._most = most
        self._lock = threading.Lock()
        self._pieces: list[tuple[bytes, int]] = []  # rows behind each other, and how many
        self._count = 0

    def room(self, rows: Sequence[T]) -> Sequence[T]:
        """Those that there is room for. The others are counted as dropped."""
        room = max(0, self._most - self._count)
        if len(rows) <= room:
            return rows
        self._counters.log_dropped["full"] += len(rows) - room
        return rows[:room]

    def put(self, rows: bytes, count: int) -> None:
        """Have so many rows written down, behind each other, for which there was room."""
        if count:
            with self._lock:
                self._pieces.append((rows, count))
                self._count += count

    def write(self, heads: Collection[bytes] = ()) -> None:
        """Have all of it on disk, behind these heads. Raises OSError, LogFull; what was not written waits on."""
        pieces = self._pieces
        if pieces:
            self.spool.check()
        while pieces:
            number = count = 0
            while number < len(pieces) and count < _AT_ONCE:
                count += pieces[number][1]
                number += 1
            self.spool.write([rows for rows, _ in pieces[:number]], heads, count)
            with self._lock:
                del pieces[:number]  # whoever put more meanwhile did so behind them
                self._count -= count
            self._counters.log_rows += count
        self.spool.sync()
        self.spool.age()
