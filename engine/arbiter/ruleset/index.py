"""The bitmap index: which branches can still be true for this subject, one look-up an attribute and one AND a block.

Law: bits in, bits out; it knows branches by number and attributes by path, nothing of rules, models or requests. What
the masks mean is `blocks`' law.

A look-up gives a row: the masks of all blocks for that value. Blocks come best first and are ANDed one at a time, only
as far as somebody asks: a decision whose slots are full never pays for the rules behind. Rows share the masks of
blocks that they do not tell apart, so that ten thousand different thresholds cost a block's mask each, not a whole
row's. An index of one block has bare masks for rows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.ruleset.blocks import KINDS, AttributeBits, KindBits, MemberBits, mask_of, switched
from arbiter.ruleset.matcher import matcher, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.blocks import BlockBits

Row = int | tuple[int, ...]

_PAUSE = 128  # masks or rows between two pauses while an index is opened: some 50 µs


class Table(msgspec.Struct, frozen=True):
    """One kind's rows for one attribute: `exact` by value, else ``spans[bisect_right(edges, value)]``."""

    exact: dict[Any, Row]
    edges: list[Any]
    spans: list[Row]


class Members(msgspec.Struct, frozen=True):
    """Rows of lists and maps: `alone` without members, and by kind and member what it adds and what it leaves.

    Of several blocks, what changes nothing is None.
    """

    alone: Row
    by_kind: dict[type, dict[Any, tuple[Row | None, Row | None]]]


_BARE = Table({}, [], [0])


class Attribute(msgspec.Struct, frozen=True):
    """The rows of one attribute: by kind of value, for lists and maps, and for a missing value."""

    path: tuple[str, ...]
    kinds: tuple[Table, ...]
    members: Members
    missing: Row


class Block:
    """A block's masks as integers, ready to be joined to rows. Blocks are shared between indexes."""

    __slots__ = ("attributes", "everything", "size")

    def __init__(self, size: int, attributes: dict[tuple[tuple[str, ...], int], Attribute]) -> None:
        self.size = size
        self.everything = (1 << size) - 1
        self.attributes = attributes


def open_block(bits: BlockBits) -> Generator[None, None, Block]:
    """Make the masks of a block, with a pause (a bare yield) wherever a caller may be served meanwhile."""
    attributes = {}
    size = bits.size
    everything = (1 << size) - 1
    for encoded in bits.attributes:
        drawn = msgspec.msgpack.decode(encoded, type=AttributeBits)
        yield
        silent = everything & ~mask_of(drawn.mentions, size)
        kinds = []
        for kind in drawn.kinds:
            kinds.append((yield from _open_kind(kind, silent, size)))  # noqa: PERF401 - a comprehension takes no `yield`
        members = yield from _open_members(drawn.members, silent, size)
        missing = silent | mask_of(drawn.absent, size)
        attributes[drawn.path, drawn.turn] = Attribute(drawn.path, tuple(kinds), members, missing)
    return Block(size, attributes)


def _open_kind(drawn: KindBits, silent: int, size: int) -> Generator[None, None, Table]:
    mask = silent | mask_of(drawn.always, size)
    spans: list[Any] = [mask]
    # Bits go on at their low edge and off at their high one; a range is never empty, so the two differ.
    for number, (starts, ends) in enumerate(zip(drawn.starts, drawn.ends, strict=True)):
        mask = switched(mask, starts, ends, size)
        spans.append(mask)
        if number % _PAUSE == _PAUSE - 1:
            yield
    exact: dict[Any, Row] = {}
    for number, (value, on, off) in enumerate(zip(drawn.points, drawn.on, drawn.off, strict=True)):
        exact[value] = switched(spans[bisect_right(drawn.edges, value)], on, off, size)
        if number % _PAUSE == _PAUSE - 1:
            yield
    return Table(exact, drawn.edges, spans)


def _open_members(drawn: MemberBits, silent: int, size: int) -> Generator[None, None, Members]:
    by_kind: dict[type, dict[Any, tuple[Row | None, Row | None]]] = {}
    for number, (value, adds, drops) in enumerate(zip(drawn.points, drawn.adds, drawn.drops, strict=True)):
        kind = next(kind for kind in KINDS if value.__class__ in kind)
        known = by_kind.setdefault(kind[0], {})
        known[value] = (mask_of(adds, size), ~mask_of(drops, size) & ((1 << size) - 1))
        by_kind |= dict.fromkeys(kind, known)
        if number % _PAUSE == _PAUSE - 1:
            yield
    return Members(silent | mask_of(drawn.alone, size), by_kind)


class Index:
    """The rows of all attributes that the branches of one decision point test."""

    __slots__ = ("attributes", "blocks", "match")

    def __init__(self, blocks: Sequence[Block], attributes: Sequence[Attribute], symbols: Symbols, label: str) -> None:
        self.blocks = tuple(blocks)
        self.attributes = tuple(attributes)
        self.match: Callable[[View], Any] = matcher(attributes, [block.everything for block in blocks], symbols, label)
        """For a view the bits that can be true: of one block its mask, of several an iterator of the number and mask
        of each block that has any, best first.
        """

    def survivors(self, view: View) -> Iterator[tuple[int, int]]:
        """The number and mask of each block that has a bit that can be true, best first."""
        return numbered(self.match(view))


def open_index(blocks: Sequence[Block], symbols: Symbols, label: str) -> Generator[None, None, Index]:
    """Join blocks to an index, with pauses as `open_block` has."""
    places = sorted({place for block in blocks for place in block.attributes})
    if len(blocks) == 1:
        return Index(blocks, [blocks[0].attributes[place] for place in places], symbols, label)
    everything = tuple(block.everything for block in blocks)
    joined = []
    for place in places:
        parts = [block.attributes.get(place) for block in blocks]
        kinds = []
        for number in range(len(KINDS)):
            tables = [part.kinds[number] if part else None for part in parts]
            kinds.append((yield from _joined_tables(tables, everything)))
        missing = tuple(part.missing if part else full for part, full in zip(parts, everything, strict=True))
        members = yield from _joined_members([part.members if part else None for part in parts], everything)
        joined.append(Attribute(place[0], tuple(kinds), members, missing))  # type: ignore[arg-type]  # rows of ints
    return Index(blocks, joined, symbols, label)


def _joined_tables(tables: Sequence[Table | None], everything: tuple[int, ...]) -> Generator[None, None, Table]:
    """One table whose rows hold every block's mask."""
    # Edges are swept once: a row differs from the one before it only in the blocks that have an edge there.
    row: list[Any] = [table.spans[0] if table else full for table, full in zip(tables, everything, strict=True)]
    edges: list[Any] = []
    spans: list[Row] = [tuple(row)]
    for stretch in _stretches(tables):
        for edge, masks in sorted(stretch.items()):
            edges.append(edge)
            spans.append(_with(row, masks))
        yield
    by_value: dict[Any, list[tuple[int, Any]]] = {}
    for number, table in enumerate(tables):
        for count, (value, mask) in enumerate(table.exact.items() if table else ()):
            by_value.setdefault(value, []).append((number, mask))
            if count % _PAUSE == _PAUSE - 1:
                yield
    exact: dict[Any, Row] = {}
    for count, (value, masks) in enumerate(by_value.items()):
        exact[value] = _with(list(spans[bisect_right(edges, value)]), masks)  # type: ignore[arg-type]  # of several
        if count % _PAUSE == _PAUSE - 1:
            yield
    return Table(exact, edges, spans)


def _stretches(tables: Sequence[Table | None]) -> Iterator[dict[Any, list[tuple[int, Any]]]]:
    """The edges of all blocks in stretches that ascend: by edge, the number and the mask of each block that has it."""
    known = [table or _BARE for table in tables]
    longest = max((table.edges for table in known), key=len)
    step = max(1, _PAUSE // len(tables))
    starts = [0] * len(tables)
    for pivot in [*longest[step::step], None]:
        stretch: dict[Any, list[tuple[int, Any]]] = {}
        for number, table in enumerate(known):
            start = starts[number]
            end = len(table.edges) if pivot is None else bisect_left(table.edges, pivot, start)
            for place in range(start, end):
                stretch.setdefault(table.edges[place], []).append((number, table.spans[place + 1]))
            starts[number] = end
        yield stretch


def _with(row: list[Any], masks: list[tuple[int, Any]]) -> tuple[Any, ...]:
    """Put masks into a row, each in its block's place."""
    for number, mask in masks:
        row[number] = mask
    return tuple(row)


def _joined_members(parts: Sequence[Members | None], everything: tuple[int, ...]) -> Generator[None, None, Members]:
    alone = tuple(part.alone if part else full for part, full in zip(parts, everything, strict=True))
    nothing = (0,) * len(parts)
    by_kind: dict[type, dict[Any, tuple[Row | None, Row | None]]] = {}
    for kind in KINDS:
        rows: dict[Any, tuple[list[Any], list[Any]]] = {}
        for number, part in enumerate(parts):
            for value, (adds, leaves) in (part.by_kind.get(kind[0], {}) if part else {}).items():
                row = rows.setdefault(value, (list(nothing), list(everything)))
                row[0][number], row[1][number] = adds, leaves
            yield
        if rows:
            joined: dict[Any, tuple[Row | None, Row | None]] = {
                value: (_telling(adds, nothing), _telling(leaves, everything)) for value, (adds, leaves) in rows.items()
            }
            by_kind |= dict.fromkeys(kind, joined)
        yield
    return Members(alone, by_kind)  # type: ignore[arg-type]  # a row of ints


def _telling(row: list[Any], plain: tuple[int, ...]) -> tuple[Any, ...] | None:
    """None for a row that changes nothing."""
    made = tuple(row)
    return None if made == plain else made
