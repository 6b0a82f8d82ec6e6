"""What was noticed of models, on disk, so that a restart goes on counting where the last one ended.

Law: counts by bins and no subject's values. One file, replaced whole by a thread of its own, so that whoever counts
never waits for the disk; one that cannot be read or written costs the counts, and nothing else. It is as large as the
versions that are served make it, and grows no further.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.durable import replace

# Fields' types at run time: msgspec reads them to decode.
from arbiter.learning.drift import Drift  # noqa: TC001
from arbiter.serving import WatchedWindow  # noqa: TC001

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger("arbiter.models")

FILE: Final = "watched.msgpack"
_FORMAT: Final = 1
_PATIENCE_S: Final = 5.0  # for a disk that hangs, when all is to end


class KeptTally(msgspec.Struct, frozen=True, array_like=True):
    """How many values fell into each bin, how many were missing, and how many of the former lay out of range."""

    counts: list[int]
    missing: int
    outside: int


class KeptVersion(msgspec.Struct, frozen=True, array_like=True):
    """One version, by its digest: all that was counted and the window that fills, by field, the windows that were full
    and what the last came to. Times are µs since the epoch.
    """

    digest: str
    since: int
    began: int
    judged_at: int
    rows: int
    filling: int
    all: dict[str, KeptTally]
    window: dict[str, KeptTally]
    windows: list[WatchedWindow]
    drifts: list[Drift]


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    format: int
    versions: list[KeptVersion]


class WatchFile:
    """The file in a data directory."""

    def __init__(self, data: Path) -> None:
        self._path = data / FILE
        self._writing: threading.Thread | None = None

    def read(self) -> dict[str, KeptVersion]:
        """What was counted, by digest; nothing where there is no file, or none that can be read, which is logged."""
        try:
            kept = msgspec.msgpack.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            _log.warning("%s cannot be read, what models see is counted anew: %s", self._path, error)
            return {}
        return {each.digest: each for each in kept.versions} if kept.format == _FORMAT else {}

    @property
    def busy(self) -> bool:
        """Whether it is being written still."""
        return self._writing is not None and self._writing.is_alive()

    def write(self, versions: list[KeptVersion]) -> None:
        """Put it on disk, in a thread; not while it is `busy`."""
        content = msgspec.msgpack.encode(_Kept(_FORMAT, versions))
        self._writing = threading.Thread(target=self._write, args=(content,), name="arbiter-watched", daemon=True)
        self._writing.start()

    def close(self) -> None:
        """Wait for what is being written, but not for a disk that hangs."""
        if self._writing is not None:
            self._writing.join(_PATIENCE_S)

    def _write(self, content: bytes) -> None:
        try:
            replace(self._path, content)
        except OSError as error:
            _log.warning("what models see is not kept over a restart: %s cannot be written: %s", self._path, error)
