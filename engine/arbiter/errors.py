"""Every way in which Arbiter says no.

Law: an error states whose fault it is. `AuthorError` is the author's (a rule file, a model folder), `CallerError` and
its children are the caller's (a request), everything else is ours. This module knows nothing of gRPC: the server
holds the one table from these classes to status codes.
"""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Severity = Literal["error", "warning"]


class Diagnostic(msgspec.Struct, frozen=True, order=True, kw_only=True, omit_defaults=True):
    """One mistake in an authored file: where, what, and how to mend it. A warning has a `code`, and an `example` of
    what it means where there is one.

    `line` and `column` count from 1; 0 means that the whole file is meant. `end_column` is exclusive and lies on
    `line`. `path` is the place inside the document (``rules[3].when[0]``).
    """

    file: str
    line: int = 0
    column: int = 0
    end_column: int = 0
    message: str
    hint: str = ""
    path: str = ""
    source: str = ""
    severity: Severity = "error"
    code: str = ""
    example: str = ""

    def render(self) -> str:
        """The diagnostic as people read it: position and sentence, the offending text underlined, a hint."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        label = "" if self.severity == "error" else f"{self.severity}: "
        code = f" [{self.code}]" if self.code else ""
        lines = [f"{place}: {label}{self.message}{code}"]
        if self.source and self.line:
            number = str(self.line).rjust(5)
            width = max(1, min(self.end_column, len(self.source) + 1) - self.column)
            # Tabs stay tabs so that the underline sits below the text in any terminal.
            lead = "".join("\t" if c == "\t" else " " for c in self.source[: self.column - 1])
            lines.append(f"{number} | {self.source}")
            lines.append(f"{' ' * len(number)} | {lead}{'^' * width}")
        if self.example:
            lines.append(f"  example: {self.example}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


_LONGEST_WORD = 100
_MOST_WORDS = 500


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or an empty string when none is close."""
    if len(word) > _LONGEST_WORD:
        return ""
    # At a ratio of 0.6 neither can be longer than 7/3 of the other: `prio` is near to `priority`.
    near = [other for other in known if 3 * len(word) <= 7 * len(other) and 3 * len(other) <= 7 * len(word)]
    if len(near) > _MOST_WORDS:  # comparing takes some 5 µs a word
        near = [other for other in near if other[:2] == word[:2]][:_MOST_WORDS]
    close = difflib.get_close_matches(word, near, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""


class ArbiterError(Exception):
    """The root of the tree. `facts` are what a program may want to know of it, by name."""

    facts: Mapping[str, str] = MappingProxyType({})


class AuthorError(ArbiterError):
    """Authored files hold mistakes; nothing of them was loaded. `diagnostics` holds every one, sorted."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(sorted(diagnostics))
        super().__init__(self.render())

    def render(self) -> str:
        """All diagnostics, then one line that counts them."""
        files = len({d.file for d in self.diagnostics})
        count = len(self.diagnostics)
        tail = f"{count} error{'s' * (count != 1)} in {files} file{'s' * (files != 1)}"
        return "\n".join([*(d.render() for d in self.diagnostics), tail])


class CallerError(ArbiterError):
    """A request that cannot be answered as it stands. `field` is the path of the field at fault, ``""`` for the
    call.
    """

    def __init__(self, message: str, *, field: str = "", reason: str = "") -> None:
        self.field = field
        self.reason = reason
        super().__init__(message)


class InvalidField(CallerError):
    """A field holds a value that is not allowed."""


class NotFound(CallerError):
    """The request names something that does not exist (an unknown decision point, say)."""


class VersionConflict(CallerError):
    """`expected_version` differs from the stored version: read again and retry."""


class KeyReused(CallerError):
    """An idempotency key was seen before with another body."""


class AlreadyLinked(CallerError):
    """An id is to be linked that is linked to another one."""


class LimitExceeded(CallerError):
    """A configured limit was passed; `reason` holds the limit's name, and so does the message."""

    def __init__(self, message: str, *, field: str = "", reason: str = "") -> None:
        named = not reason or f"`{reason}`" in message
        super().__init__(message if named else f"{message} (limit `{reason}`)", field=field, reason=reason)


class NotKept(CallerError):
    """A position in a log is asked for of which what follows is no longer kept, or that was never given."""

    def __init__(self, message: str, *, field: str, earliest: int, newest: int) -> None:
        """Tell the first position that is kept, and the last that was given."""
        super().__init__(message, field=field)
        self.facts = {"earliest": str(earliest), "newest": str(newest)}


class FellBehind(CallerError):
    """Who follows took nothing for too long. `position` is what to go on after."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.facts = {"position": str(position)}


class NotReady(ArbiterError):
    """It cannot be answered here and now, but elsewhere or later: no snapshot is loaded yet, or the server ends."""


class StoreError(ArbiterError):
    """The store could not be opened, read or written; nothing acknowledged is lost."""
