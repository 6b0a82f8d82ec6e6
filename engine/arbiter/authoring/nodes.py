"""What an authored document is made of: scalars, lists and mappings that know where they stand.

Law: frozen data, and the words for its kinds. Who reads text into nodes, and what nodes mean, is elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from arbiter.authoring.source import Source


class Scalar(msgspec.Struct, frozen=True, gc=False):
    """A scalar: its value, its text as YAML understood it, and its place, with quotes and tag, in the source.

    `style` is empty for a plain scalar, else one of ``' " | >``; a cell of a CSV file has ``,`` or, in quotes, ``,"``.
    """

    source: Source
    start: int
    end: int
    value: bool | int | float | str | None
    text: str
    style: str


class Sequence(msgspec.Struct, frozen=True):
    """A list of nodes."""

    source: Source
    start: int
    end: int
    items: tuple[Node | None, ...]


class Entry(msgspec.Struct, frozen=True):
    """One key of a mapping with its value; None when the value was refused, and reported."""

    key: Scalar
    node: Node | None


class Mapping(msgspec.Struct, frozen=True):
    """A mapping with string keys, in authored order. `partial`: a key was refused, and reported."""

    source: Source
    start: int
    end: int
    entries: dict[str, Entry]
    partial: bool = False


Node = Scalar | Sequence | Mapping


def is_nothing(node: Node) -> bool:
    """Whether a node is YAML's null: a key with nothing behind it."""
    return isinstance(node, Scalar) and node.value is None


def kind_of(node: Node) -> str:
    """What a node is, as a message says it."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node.value, str):
        return "text"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return "a boolean"
    return "an integer" if isinstance(node.value, int) else "a fraction"


def as_text(node: Node) -> str | None:
    """The string that a node is, or None."""
    value: Any = node.value if isinstance(node, Scalar) else None
    return value if isinstance(value, str) else None
