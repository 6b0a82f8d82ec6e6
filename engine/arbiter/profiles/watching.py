"""Readers that stay: who holds an old state of the store keeps all pages that were freed since from being used again.

Law: told what LMDB's table of readers says and the time, it says what lasts; it opens nothing.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from arbiter.profiles.inspecting import readers_in

if TYPE_CHECKING:
    from pathlib import Path

LONG_S = 30.0
_TOLD_EVERY_S = 60.0
_log = logging.getLogger(__name__)


class ReaderWatch:
    """`oldest_s` says for how many seconds the oldest state that is read has been seen to be held, 0.0 for none."""

    def __init__(self, path: Path) -> None:
        self.oldest_s = 0.0
        self._path = path
        self._since: dict[tuple[int, str, int], float] = {}
        self._told_at = -math.inf

    def look(self, table: str, now: float) -> None:
        """Look at LMDB's table of readers at `now`, a monotonic clock's seconds; the log is told of one that stays."""
        held = {(pid, thread, state) for pid, thread, state in readers_in(table) if state is not None}
        self._since = {each: self._since.get(each, now) for each in held}
        self.oldest_s = max((now - since for since in self._since.values()), default=0.0)
        if self.oldest_s >= LONG_S and now - self._told_at >= _TOLD_EVERY_S:
            self._told_at = now
            (pid, _, _), _ = min(self._since.items(), key=lambda each: each[1])
            _log.warning(
                "process %d has been reading the store in %s for %.0f s: meanwhile freed pages cannot be used again "
                "and the file grows. It is a compaction or a copy, or else something to be stopped",
                pid, self._path, self.oldest_s,
            )  # fmt: skip
