"""A file's text, and the way from an offset in it to line and column.

Law: text and numbers; offsets count characters from 0, lines and columns from 1.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

_BREAK = re.compile(r"\r\n|\n|\r")
LONGEST_LINE: Final = 240


class Source:
    """One file. `text` has no byte order mark."""

    __slots__ = ("_starts", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._starts = [0, *(found.end() for found in _BREAK.finditer(text))]

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def position(self, offset: int) -> str:
        """``file:line:column`` of an offset."""
        line, column = self.place(offset)
        return f"{self.file}:{line}:{column}"

    def line(self, number: int) -> str:
        """The text of a line, without its break; a very long one is cut."""
        start = self._starts[number - 1]
        end = self._starts[number] if number < len(self._starts) else len(self.text)
        text = self.text[start:end].rstrip("\r\n")
        return text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"

    def width_from(self, offset: int, most: int) -> int:
        """How many of the `most` characters behind the offset stand on its line, trailing blanks left out; at least
        one.
        """
        line, _ = self.place(offset)
        end = self._starts[line] if line < len(self._starts) else len(self.text)
        if offset + most < end:
            return max(1, most)
        return max(1, len(self.text[offset:end].rstrip()))
