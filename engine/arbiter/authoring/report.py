"""Where every mistake found in authored files is gathered.

Law: turns places in nodes into diagnostics and keeps them, each once. It decides nothing about what is a mistake.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from arbiter.authoring.offsets import raw_span
from arbiter.authoring.source import LONGEST_LINE
from arbiter.errors import Diagnostic

if TYPE_CHECKING:
    from arbiter.authoring.nodes import Node, Scalar
    from arbiter.authoring.source import Source


def diagnostic(
    file: str, source: Source, start: int, end: int, message: str, hint: str = "", path: str = ""
) -> Diagnostic:
    """A mistake at the half-open range of characters of what people know as `file`.

    It is underlined up to the end of its first line.
    """
    line, column = source.place(start)
    return Diagnostic(
        file=file,
        line=line,
        column=column,
        end_column=column + source.width_from(start, end - start),
        message=message,
        hint=hint,
        path=path,
        source=source.line(line) if column < LONGEST_LINE else "",
    )


MOST: Final = 10_000


class Report:
    """The mistakes found so far, `MOST` at most. An alias shows the same text twice; its mistakes are kept once.

    `folder` stands before the names of files wherever people read them: a source knows its place in a set of files, and
    the same set may lie anywhere.
    """

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
        self._found: dict[tuple[str, int, int, str], Diagnostic] = {}

    def add(self, source: Source, start: int, end: int, message: str, hint: str = "", path: str = "") -> None:
        """A mistake at the half-open range of characters."""
        key = (source.file, start, end, message)
        if key not in self._found and not self.full:
            self._found[key] = diagnostic(self._named(source.file), source, start, end, message, hint, path)

    def whole(self, file: str, message: str, hint: str = "") -> None:
        """A mistake of a file as a whole."""
        self._found[file, 0, 0, message] = Diagnostic(file=self._named(file), message=message, hint=hint)

    def at(self, node: Node, message: str, hint: str = "", path: str = "") -> None:
        """A mistake of a whole value."""
        self.add(node.source, node.start, node.end, message, hint, path)

    def inside(self, scalar: Scalar, start: int, end: int, message: str, hint: str = "", path: str = "") -> None:
        """A mistake in the half-open range of characters of a scalar's text."""
        first, last = raw_span(scalar, start, end)
        self.add(scalar.source, first, last, message, hint, path)

    def include(self, other: Report) -> None:
        """Take in what another report of the same set of files holds."""
        for key, found in other._found.items():
            if self.full:
                break
            self._found.setdefault(key, found)

    def place_of(self, node: Node) -> str:
        """``file:line:column`` of a node, for a message that points to it."""
        return self._named(node.source.position(node.start))

    def _named(self, file: str) -> str:
        return (PurePosixPath(self._folder) / file).as_posix() if self._folder else file

    @property
    def found(self) -> list[Diagnostic]:
        """Every mistake, sorted by file, line and column."""
        return sorted(self._found.values())

    @property
    def full(self) -> bool:
        """Whether no more is taken in: who reads on may stop."""
        return len(self._found) >= MOST

    def __bool__(self) -> bool:
        """Whether anything was found."""
        return bool(self._found)
