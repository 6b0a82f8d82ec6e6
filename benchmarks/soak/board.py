"""The board: a few numbers in a mapped file that the conductor writes and all other processes of a soak read.

Law: one writer. It holds the injected clock, as the list of all moments that it ever showed, so that whoever asks can
tell which of them a call may have seen; and which version of the rules an answer must come from, when that is certain.
"""

from __future__ import annotations

import mmap
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from pathlib import Path

_PHASE, _BEGUN, _SETTLED, _RULES, _MODEL, _FULL, _TICKS, _MOMENTS = range(8)
_BYTES = 8


class Phase(IntEnum):
    """What callers do."""

    TRAFFIC = 0
    AUDIT = 1  # no more traffic: compare every subject with the ledger, then end
    END = 2  # end at once


class Version(NamedTuple):
    """A version of the files: the rules' number and the model's."""

    rules: int
    model: int


class Mark(NamedTuple):
    """The board as it was when a call began or ended."""

    ticks: int
    begun: int
    settled: int
    full: int


class Board:
    """The file at `path`, made with room for `moments` when that is given. Times are µs since the epoch."""

    def __init__(self, path: Path, moments: int = 0) -> None:
        if moments:
            path.write_bytes(bytes((_MOMENTS + moments) * _BYTES))
        with path.open("r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    # Whoever reads

    def now(self) -> int:
        """The injected clock."""
        cells = self._cells
        return cells[_MOMENTS + cells[_TICKS] - 1]

    def mark(self) -> Mark:
        """The board now, for `moments` and `certain` later."""
        cells = self._cells
        return Mark(cells[_TICKS], cells[_BEGUN], cells[_SETTLED], cells[_FULL])

    def moments(self, before: Mark, after: Mark) -> list[int]:
        """All that the clock showed from `before` to `after`, each once, the last first."""
        shown = self._cells[_MOMENTS + before.ticks - 1 : _MOMENTS + after.ticks].tolist()
        return list(dict.fromkeys(reversed(shown)))

    def certain(self, before: Mark) -> Version | None:
        """The version that a call begun at `before` and ended now must have been answered by; None if it may vary."""
        cells = self._cells
        version = Version(cells[_RULES], cells[_MODEL])
        steady = before.begun == before.settled == cells[_BEGUN] == cells[_SETTLED]
        return version if steady else None

    @property
    def phase(self) -> Phase:
        """What callers do now."""
        return Phase(self._cells[_PHASE])

    # The conductor

    @classmethod
    def make(cls, path: Path, moments: int, now: int, version: Version) -> Self:
        """A new board on which the clock shows `now`."""
        board = cls(path, moments)
        board.show(now)
        board.begin()
        board.settle(version)
        return board

    def show(self, now: int) -> None:
        """Let the clock show `now`."""
        cells = self._cells
        ticks = cells[_TICKS]
        cells[_MOMENTS + ticks] = now
        cells[_TICKS] = ticks + 1

    def enter(self, phase: Phase) -> None:
        """Let callers do this."""
        self._cells[_PHASE] = phase

    def begin(self) -> None:
        """From now on answers may come from another version than before."""
        self._cells[_BEGUN] += 1

    def settle(self, version: Version) -> None:
        """From now on every answer comes from this version."""
        self._cells[_RULES], self._cells[_MODEL] = version
        self._cells[_SETTLED] = self._cells[_BEGUN]

    def fill(self, *, full: bool) -> None:
        """Say whether the disk may refuse writes. Even numbers: it may not."""
        if bool(self._cells[_FULL] % 2) != full:
            self._cells[_FULL] += 1
