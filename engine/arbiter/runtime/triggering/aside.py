"""Which event the correlating engine works on, on disk, so that the next process knows what ended this one.

Law: a few bytes in a file that is mapped: written before the engine is asked and cleared after, they outlive the
process, whatever kills it, and nothing waits for a disk. An event over which processes died again and again is set
aside: triggers go on without it. The file is there while there are triggers that look at events.
"""

from __future__ import annotations

import logging
import mmap
import struct
from typing import TYPE_CHECKING, Final

from arbiter.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.triggers")
_WORDS: Final = struct.Struct("<QQQ")  # positions: being worked on, last died over; and how often in a row
_BYTES: Final = 8
DEATHS: Final = 3  # of processes over one event, after which it is set aside


class AtWork:
    """The file at `path`. Events that are passed without the engine are counted in `counters`. Raises StoreError."""

    def __init__(self, path: Path, counters: Counters) -> None:
        self._path = path
        self._counters = counters
        try:
            with path.open("ab") as file:
                file.truncate(_WORDS.size)
            with path.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), _WORDS.size)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error}") from error
        position, suspect, deaths = _WORDS.unpack(self._map)
        if position:
            deaths = deaths + 1 if position == suspect else 1
            suspect = position
            _WORDS.pack_into(self._map, 0, 0, suspect, deaths)
            _log.warning("a process died over event %d of the log, %d in a row by now", suspect, deaths)
        self._aside = suspect if deaths >= DEATHS else 0

    def begin(self, position: int) -> None:
        """The engine is asked of this event next."""
        self._map[:_BYTES] = position.to_bytes(_BYTES, "little")

    def end(self) -> None:
        """It has answered."""
        self._map[:_BYTES] = bytes(_BYTES)

    def is_aside(self, position: int) -> bool:
        """Whether the engine is not to be asked of this event."""
        return position == self._aside

    def count(self, position: int) -> None:
        """Such an event was passed."""
        _log.error(
            "event %d of the log is set aside: %d processes died over it. Triggers of its subject begin anew behind it",
            position, DEATHS,
        )  # fmt: skip
        self._counters.trigger_set_aside["engine"] += 1

    def forget(self) -> None:
        """No trigger looks at events any more."""
        self._path.unlink(missing_ok=True)
