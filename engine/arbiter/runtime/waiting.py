"""Rows of the log that wait in a worker for its disk.

Law: whoever answers calls appends, and one thread writes. What waits is bounded; what finds no room is dropped, and
counted. A disk that refuses leaves what waits where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from arbiter.runtime.spool import Spool
    from arbiter.telemetry.counters import Counters

MOST: Final = 100_000  # rows that wait
_AT_ONCE: Final = 2_048  # rows of one write: each gives the interpreter away, and waits to have it again


class Waiting:
    """Rows on their way to `spool`: `rows` are at most `most`, for those who append to them themselves too."""

    def __init__(self, spool: Spool, counters: Counters, most: int = MOST) -> None:
        self.rows: list[bytes] = []
        self.spool = spool
        self.most = most
        self._counters = counters

    def put(self, rows: Sequence[bytes]) -> None:
        """Have rows written down, as far as there is room for them."""
        room = max(0, self.most - len(self.rows))
        self.rows.extend(rows[:room])
        if len(rows) > room:
            self._counters.log_dropped["full"] += len(rows) - room

    def write(self, heads: Collection[bytes] = ()) -> None:
        """Have all of it on disk, behind these heads. Raises OSError, LogFull; what was not written waits on."""
        rows = self.rows
        if rows:
            self.spool.check()
        while rows:
            some = rows[:_AT_ONCE]
            self.spool.write(some, heads)
            del rows[: len(some)]  # whoever appended meanwhile did so behind them
            self._counters.log_rows += len(some)
        self.spool.sync()
        self.spool.age()
