"""What changed between two states of a store, from the pages of its file.

Law: reads pages, never writes; knows LMDB's file format and no record. LMDB writes what changes to fresh pages: while a
reader holds the older state, a page that both states share has the same content in both, and so has all below it.

The format is that of LMDB 0.9 (data version 1), by its documentation in ``lmdb.h`` and ``mdb.c``.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

from arbiter.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TREE = struct.Struct("=IHHQQQQQ")  # pad, flags, depth, branch, leaf and overflow pages, entries, root
_PAGE = struct.Struct("=QHHHH")  # its own number, pad, flags, where free space begins and ends
_NODE = struct.Struct("=HHHH")  # two halves of a number, flags, bytes of the key
_BRANCH, _LEAF = 0x01, 0x02


class Tree(NamedTuple):
    """Where a database begins: its root page, and how many pages there are from the root to a leaf, both counted."""

    root: int
    depth: int


EMPTY = Tree(0, 0)


def tree_of(record: bytes | None) -> Tree:
    """The tree that a database's record in the main database names; the empty one for no record."""
    if record is None:
        return EMPTY
    _, _, depth, _, _, _, _, root = _TREE.unpack(record)
    return Tree(root, depth) if depth else EMPTY


class Pages:
    """The pages of a file, as they stand at the beginning of the block. Raises OSError."""

    def __init__(self, data: Path, page_bytes: int) -> None:
        with data.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._size = page_bytes

    def __enter__(self) -> Self:
        """Nothing more: it is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._map.close()

    def changed_keys(self, before: Tree, after: Tree) -> set[bytes]:
        """All keys whose entries differ between two states, and some beside them. Raises StoreError.

        A reader must hold the older state. It reads the pages that differ and no others.
        """
        old: set[int] = set()
        new: set[int] = set()
        for height in range(max(before.depth, after.depth), 0, -1):
            if before.depth == height:
                old = {before.root}
            if after.depth == height:
                new = {after.root}
            shared = old & new
            old -= shared
            new -= shared
            if height > 1:
                old = {child for page in old for child in self._children(page)}
                new = {child for page in new for child in self._children(page)}
        return {key for page in old | new for key in self._keys(page)}

    def _children(self, page: int) -> Iterable[int]:
        for at in self._nodes(page, _BRANCH):
            low, high, top, _ = _NODE.unpack_from(self._map, at)
            yield low | high << 16 | top << 32

    def _keys(self, page: int) -> Iterable[bytes]:
        for at in self._nodes(page, _LEAF):
            size = _NODE.unpack_from(self._map, at)[3]
            yield self._map[at + _NODE.size : at + _NODE.size + size]

    def _nodes(self, page: int, kind: int) -> Iterable[int]:
        """Where the nodes of a page stand in the file."""
        start = page * self._size
        number, _, flags, lower, _ = _PAGE.unpack_from(self._map, start)
        if number != page or not flags & kind:
            raise StoreError(f"page {page} of the store is damaged, or of a format that we do not know")
        for offset in struct.unpack_from(f"={(lower - _PAGE.size) // 2}H", self._map, start + _PAGE.size):
            yield start + offset
