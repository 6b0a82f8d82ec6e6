"""What a load remembers for the next one: the sections of each file, and its finished rules.

Law: pure data, owned by whoever loads, used by one load at a time. It holds what the last load used and what the last
good one used, so that a file that is broken for a while costs the others nothing. What it gives is what reading anew
would give: a key names all that the value was made from.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from arbiter.authoring.nodes import Scalar  # noqa: TC001 - a field's type at run time
from arbiter.authoring.report import Report  # noqa: TC001 - a field's type at run time
from arbiter.ruleset.patterns.read import Authored  # noqa: TC001 - a field's type at run time
from arbiter.ruleset.rules import DecisionTable, Rule  # noqa: TC001 - a field's type at run time

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from arbiter.ruleset.sections import Sections

_Value = TypeVar("_Value")


class FileRules(msgspec.Struct, frozen=True):
    """The rules of one file, what its tables have in common, and its triggers; the ids of either with paths, the
    mistakes in them, and the digests of the other files that they were made from.
    """

    rules: tuple[Rule, ...]
    tables: tuple[DecisionTable, ...]
    ids: tuple[tuple[Scalar, str], ...]
    report: Report
    read: dict[str, bytes]
    triggers: tuple[Authored, ...] = ()
    trigger_ids: tuple[tuple[Scalar, str], ...] = ()


class Beside:
    """The files beside the rule files, a table's CSV say; `read` holds the digests of those that were asked for."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self.read: dict[str, bytes] = {}

    def get(self, path: str) -> bytes | None:
        """The content of a file; None when there is none of that name."""
        self.read[path] = self._digest(path)
        return self._files.get(path)

    def names(self) -> Iterable[str]:
        """The names of all files, sorted."""
        self.read[""] = self._digest("")
        return sorted(self._files)

    def unchanged(self, read: Mapping[str, bytes]) -> bool:
        """Whether everything is as it was when `read` was noted."""
        return all(self._digest(path) == digest for path, digest in read.items())

    def _digest(self, path: str) -> bytes:
        if not path:
            return digest_of(repr(sorted(self._files)).encode())  # a name may hold what is no text
        content = self._files.get(path)
        return b"" if content is None else digest_of(content)


class Remembered(Generic[_Value]):
    """Values by key: those that the last load used, and the last good one."""

    def __init__(self) -> None:
        self._used: dict[Hashable, _Value] = {}
        self._last: dict[Hashable, _Value] = {}
        self._good: dict[Hashable, _Value] = {}

    def find(self, key: Hashable) -> _Value | None:
        """The value, if it is remembered."""
        found = self._last.get(key)
        return found if found is not None else self._good.get(key)

    def use(self, key: Hashable, value: _Value) -> None:
        """Say that the load under way uses this."""
        self._used[key] = value

    def end(self, *, good: bool) -> None:
        """The load is over: forget what it did not use."""
        self._last, self._used = self._used, {}
        if good:
            self._good = self._last


class Cache:
    """Sections by file and content; rules by file, content and everything outside the file that they depend on."""

    def __init__(self) -> None:
        self.sections: Remembered[Sections] = Remembered()
        self.rules: Remembered[FileRules] = Remembered()

    def end(self, *, good: bool) -> None:
        """The load is over; `good` says whether it gave a rule set."""
        self.sections.end(good=good)
        self.rules.end(good=good)


def digest_of(value: object) -> bytes:
    """Names a value, the order of mappings included: equal digests, equal values."""
    content = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    return hashlib.blake2b(content, digest_size=16).digest()
