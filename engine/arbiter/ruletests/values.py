"""What stands in a test as values of the engine.

Law: a node in, a value out; what is wrong is reported where it stands. Types are the declared ones, so that a test
stores what a caller could store.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.authoring.nodes import Mapping, Node, Scalar, as_text, is_nothing, kind_of
from arbiter.authoring.scalars import shorten
from arbiter.errors import did_you_mean
from arbiter.ruleset.declarations import article
from arbiter.ruleset.times import duration_micros, rfc3339
from arbiter.types import from_micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Collection

    from arbiter.authoring.report import Report

# What stands for a value that was refused, and reported.
REFUSED: Final = object()

_FIRST: Final = to_micros(datetime.min.replace(tzinfo=UTC))
_AGO = re.compile(r"(\S+) +ago")
_CLASSES: Final[dict[str, type]] = {
    "bool": bool,
    "int": int,
    "double": float,
    "string": str,
    "list": list,
    "map": dict,
}


class Values(msgspec.Struct):
    """Reads values of one test, whose clock is `now` (µs)."""

    report: Report
    now: int

    def typed(self, node: Node, kind: str, path: str) -> Any:
        """The node as a value of a declared type (``dyn``: any); `REFUSED` when it is none."""
        if kind == "timestamp":
            at = self.moment(node, path)
            return REFUSED if at is None else from_micros(at)
        if kind == "bytes":
            return self._bytes(node, path)
        value = self.plain(node, path)
        if value is REFUSED or kind == "dyn":
            return value
        if kind == "double" and type(value) is int:
            return float(value)
        if type(value) is _CLASSES[kind]:
            return value
        self.report.at(node, f"this must be {article(kind)}, it is {kind_of(node)}", path=path)
        return REFUSED

    def plain(self, node: Node, path: str) -> Any:
        """The node as it stands: YAML's own kinds, nothing left out."""
        if isinstance(node, Scalar):
            if node.value is None:
                self.report.at(node, "a value cannot be nothing", "leave the key out: what is absent is missing", path)
                return REFUSED
            return node.value
        if isinstance(node, Mapping):
            fields = {name: self._inner(entry.node, f"{path}.{name}") for name, entry in node.entries.items()}
            return REFUSED if any(value is REFUSED for value in fields.values()) else fields
        items = [self._inner(item, f"{path}[{number}]") for number, item in enumerate(node.items)]
        return REFUSED if any(value is REFUSED for value in items) else items

    def _inner(self, node: Node | None, path: str) -> Any:
        return REFUSED if node is None else self.plain(node, path)

    def moment(self, node: Node, path: str) -> int | None:
        """A moment as µs: RFC 3339, ``now``, or before the clock, as in ``3d ago``. None when it is none."""
        text = as_text(node) or ""
        if text == "now":
            return self.now
        ago = _AGO.fullmatch(text)
        before = duration_micros(ago[1]) if ago else None
        if before is not None and self.now - before >= _FIRST:
            return self.now - before
        return moment(node, path, self.report, "write `2026-06-01T12:00:00Z`, `3d ago` or `now`")

    def _bytes(self, node: Node, path: str) -> Any:
        text = as_text(node)
        try:
            if text is not None:
                return b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
        self.report.at(node, "bytes are written as text in base64", path=path)
        return REFUSED


def moment(node: Node, path: str, report: Report, hint: str) -> int | None:
    """An RFC 3339 moment as µs; None, and reported, when it is none."""
    text = as_text(node)
    at = rfc3339(text) if text is not None else None
    if at is not None:
        return to_micros(at)
    shown = f"`{shorten(text)}`" if text is not None else kind_of(node)
    report.at(node, f"this must be a moment, it is {shown}", hint, path)
    return None


def is_known(word: str, known: Collection[str], what: str, node: Node, report: Report, path: str) -> bool:
    """Whether a name is one of those known; reported with the closest one if not."""
    if word in known:
        return True
    hint = did_you_mean(word, known)
    if not hint:
        first = sorted(known)[:8]
        listed = ", ".join(f"`{name}`" for name in first) + (" …" if len(known) > len(first) else "")
        hint = f"there {'is' if len(known) == 1 else 'are'} {listed}" if first else ""
    report.at(node, f"unknown {what} `{shorten(word)}`", hint, path)
    return False


def nothing(node: Node | None) -> bool:
    """Whether there is no value: refused, or YAML's null."""
    return node is None or is_nothing(node)
