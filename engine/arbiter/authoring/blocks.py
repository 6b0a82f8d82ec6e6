"""Reading one mapping key by key.

Law: checks shapes (known keys, kinds of values) and reports what is wrong; a getter gives the value, or None when the
key is absent or was refused. What the keys mean is for who reads them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from arbiter.authoring.nodes import Mapping, Node, Scalar, Sequence, kind_of
from arbiter.authoring.scalars import IDENTIFIER, NAME, shorten
from arbiter.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from arbiter.authoring.report import Report

NOT_BUILT: Final = "is not built yet in this version; remove it"


def under(path: str, key: str) -> str:
    """The path of a key below `path`."""
    return f"{path}.{key}" if path else key


def one_of(words: Iterable[str]) -> str:
    """The words as a hint lists them."""
    return ", ".join(f"`{word}`" for word in words)


class Block:
    """One mapping, with the keys that it may have. Unknown and unbuilt keys are reported when it is made.

    `what` names it in messages: ``a rule``, ``a feature``.
    """

    def __init__(
        self,
        node: Mapping,
        report: Report,
        *,
        what: str,
        path: str = "",
        keys: Iterable[str],
        unbuilt: Iterable[str] = (),
    ) -> None:
        self.node = node
        self.report = report
        self.what = what
        self.path = path
        known = tuple(keys)
        unbuilt = tuple(unbuilt)
        for name, entry in node.entries.items():
            if name in unbuilt:
                report.at(entry.key, f"`{name}` {NOT_BUILT}", path=under(path, name))
            elif name not in known:
                hint = did_you_mean(name, (*known, *unbuilt)) or f"it may have {one_of(known)}"
                report.at(entry.key, f"unknown key `{shorten(name)}` in {what}", hint, under(path, name))

    def has(self, key: str) -> bool:
        """Whether the key is there, right or wrong."""
        return key in self.node.entries

    def key(self, key: str) -> Scalar:
        """The key itself, to point at."""
        return self.node.entries[key].key

    def get(self, key: str) -> Node | None:
        """The value as a node."""
        entry = self.node.entries.get(key)
        return entry.node if entry is not None else None

    def refuse(self, node: Node, message: str, hint: str = "", key: str = "") -> None:
        """Report a mistake in the value of `key`."""
        self.report.at(node, message, hint, under(self.path, key) if key else self.path)

    def require(self, key: str, hint: str, *, at: Scalar | None = None) -> bool:
        """Whether a key that must be there is; if not, report it at `at`, else at the start of the block."""
        if self.has(key) or self.node.partial:
            return self.has(key)
        message = f"{self.what} needs the key `{key}`"
        if at is not None:
            self.refuse(at, message, hint)
        else:
            # The first key says "this block" better than a bracket or a whole range of lines.
            first = next((entry.key for entry in self.node.entries.values()), self.node)
            self.refuse(first, message, hint)
        return False

    def text(self, key: str, hint: str = "") -> Scalar | None:
        """A scalar that is a string."""
        node = self.get(key)
        if node is None:
            return None
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return node
        if not hint and isinstance(node, Scalar) and node.text:
            hint = f'write `"{shorten(node.text)}"`'
        self.refuse(node, f"`{key}` must be text, this is {kind_of(node)}", hint, key)
        return None

    def identifier(self, key: str) -> Scalar | None:
        """An id: letters, digits and ``_ - . : /``, at most 256 of them."""
        node = self.text(key)
        return node if node is not None and check_identifier(node, key, self.report, under(self.path, key)) else None

    def integer(self, key: str, lowest: int, highest: int) -> int | None:
        """An integer within bounds, both included."""
        node = self.get(key)
        if node is None:
            return None
        if isinstance(node, Scalar) and isinstance(node.value, int) and not isinstance(node.value, bool):
            if lowest <= node.value <= highest:
                return node.value
            self.refuse(node, f"`{key}` must be from {lowest} to {highest}", key=key)
            return None
        hint = f"write `{node.text}` without quotes" if isinstance(node, Scalar) and node.text.isdigit() else ""
        self.refuse(node, f"`{key}` must be an integer, this is {kind_of(node)}", hint, key)
        return None

    def number(self, key: str) -> tuple[float, Scalar] | None:
        """A number, and the scalar to point at."""
        node = self.get(key)
        if node is None:
            return None
        if isinstance(node, Scalar) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            return float(node.value), node
        self.refuse(node, f"`{key}` must be a number, this is {kind_of(node)}", key=key)
        return None

    def boolean(self, key: str) -> bool | None:
        """``true`` or ``false``."""
        node = self.get(key)
        if node is None or (isinstance(node, Scalar) and isinstance(node.value, bool)):
            return bool(node.value) if node is not None else None
        word = node.text.lower() if isinstance(node, Scalar) else ""
        hint = {"yes": "write `true`", "on": "write `true`", "no": "write `false`", "off": "write `false`"}.get(
            word, ""
        )
        self.refuse(node, f"`{key}` must be `true` or `false`, this is {kind_of(node)}", hint, key)
        return None

    def word(self, key: str, words: Collection[str]) -> str | None:
        """One of `words`."""
        scalar = self.text(key)
        if scalar is None or scalar.text in words:
            return scalar.text if scalar is not None else None
        hint = did_you_mean(scalar.text, words) or f"one of {one_of(words)}"
        self.refuse(scalar, f"`{key}` cannot be `{scalar.text}`", hint, key)
        return None

    def mapping(self, key: str, hint: str = "") -> Mapping | None:
        """A mapping."""
        node = self.get(key)
        if node is None or isinstance(node, Mapping):
            return node
        self.refuse(node, f"`{key}` must be a mapping, this is {kind_of(node)}", hint, key)
        return None

    def items(self, key: str, hint: str = "") -> Iterator[tuple[str, Node]]:
        """Path and node of each item of a list."""
        node = self.get(key)
        if node is None:
            return
        if not isinstance(node, Sequence):
            self.refuse(node, f"`{key}` must be a list, this is {kind_of(node)}", hint, key)
            return
        for number, item in enumerate(node.items):
            if item is not None:
                yield f"{under(self.path, key)}[{number}]", item


def check_identifier(node: Scalar, what: str, report: Report, path: str) -> bool:
    """Whether the scalar is an id; reports it if not."""
    if IDENTIFIER.fullmatch(node.text):
        return True
    hint = "use 1 to 256 letters, digits and `_ - . : /`, beginning with a letter, a digit or `_`"
    report.at(node, f"`{shorten(node.text)}` cannot be the {what} of anything", hint, path)
    return False


def check_name(node: Scalar, what: str, report: Report, path: str) -> bool:
    """Whether the scalar is a name that expressions can say; reports it if not."""
    if NAME.fullmatch(node.text):
        return True
    better = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.text).lower())
    hint = f"write `{better}`" if NAME.fullmatch(better) else ""
    rule = "names are lower-case letters, digits and `_`, and do not begin with a digit"
    report.at(node, f"`{shorten(node.text)}` cannot be the name of {what}", hint or rule, path)
    return False
