"""Following a log of decisions while it is written.

Law: reads what workers append to the spool, from the moment it begins on, and writes nothing. What became Parquet
before it was read is passed by: that takes a segment's whole time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.learning.logged import Head, Row, decode_heads, decode_row, decode_rows
from arbiter.runtime.spool import DECIDED, frames, segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Place:
    """How far a segment was read, and the heads that were met."""

    def __init__(self) -> None:
        self.end = 0
        self.heads: dict[int, Head] = {}


class Following:
    """Gives rows as they come. What stands in the log already is passed by."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._places: dict[str, _Place] = {}
        for _ in self.new():
            pass

    def new(self) -> Iterator[tuple[Head, Row]]:
        """The rows since the last call."""
        found = segments(self._directory, DECIDED)
        names = {path.name for path in found}
        for gone in [name for name in self._places if name not in names]:
            del self._places[gone]
        for path in found:
            place = self._places.setdefault(path.name, _Place())
            try:
                for frame in frames(path, place.end):
                    if frame.heads:
                        place.heads |= {head.number: head for head in decode_heads(frame.heads)}
                    for each in decode_rows(frame.rows) if frame.rows else ():
                        row = decode_row(each)
                        if row.head in place.heads:
                            yield place.heads[row.head], row
                    place.end = frame.end
            except FileNotFoundError:
                continue
