"""The bitmap index: which branches can still be true for this subject, one look-up an attribute and one AND a block.

Law: bits in, bits out; it knows branches by number and attributes by path, nothing of rules, models or requests. What
the masks mean is `masks`' law.

A look-up gives a row: the masks of all blocks for that value. Blocks come best first and are ANDed one at a time, only
as far as somebody asks: a decision whose slots are full never pays for the rules behind. Rows share the masks of
blocks that they do not tell apart, so that ten thousand different thresholds cost a block's mask each, not a whole
row's. An index of one block has bare masks for rows.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from operator import and_, or_
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.generated import function_of
from arbiter.ruleset.masks import KINDS, AttributeMasks, KindMasks, MemberMasks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.masks import BlockMasks

Row = int | tuple[int, ...]

_MISSING = object()
_LOOKS = 4  # attributes between two looks whether anything is left: a look costs a tenth of a look-up
_PAUSE = 64  # masks between two pauses while an index is opened: some 50 µs
_ROW_PAUSE = 32  # the same for rows


class Table(msgspec.Struct, frozen=True):
    """One kind's rows for one attribute: `exact` by value, else ``spans[bisect_right(edges, value)]``."""

    exact: dict[Any, Row]
    edges: list[Any]
    spans: list[Row]


class Members(msgspec.Struct, frozen=True):
    """Rows of lists and maps: `alone` without members, and by kind and member what goes on and off."""

    alone: Row
    by_kind: dict[type, dict[Any, tuple[Row, Row]]]


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


def open_block(masks: BlockMasks) -> Generator[None, None, Block]:
    """Read a block, with a pause (a bare yield) wherever a caller may be served meanwhile."""
    attributes = {}
    for encoded in masks.attributes:
        drawn = msgspec.msgpack.decode(encoded, type=AttributeMasks)
        yield
        kinds = []
        for kind in drawn.kinds:
            kinds.append((yield from _open_kind(kind)))  # noqa: PERF401 - a comprehension takes no `yield`
        members = yield from _open_members(drawn.members)
        attributes[drawn.path, drawn.turn] = Attribute(drawn.path, tuple(kinds), members, _mask(drawn.missing))
    return Block(masks.size, attributes)


def _mask(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _open_kind(drawn: KindMasks) -> Generator[None, None, Table]:
    exact: dict[Any, Row] = {}
    for number, (value, raw) in enumerate(zip(drawn.points, drawn.at, strict=True)):
        exact[value] = _mask(raw)
        if number % _PAUSE == _PAUSE - 1:
            yield
    spans: list[Row] = []
    for number, raw in enumerate(drawn.spans):
        spans.append(_mask(raw))
        if number % _PAUSE == _PAUSE - 1:
            yield
    return Table(exact, drawn.edges, spans)


def _open_members(drawn: MemberMasks) -> Generator[None, None, Members]:
    by_kind: dict[type, dict[Any, tuple[Row, Row]]] = {}
    for number, (value, on, off) in enumerate(zip(drawn.points, drawn.on, drawn.off, strict=True)):
        kind = next(kind for kind in KINDS if value.__class__ in kind)
        known = by_kind.setdefault(kind[0], {})
        known[value] = (_mask(on), _mask(off))
        by_kind |= dict.fromkeys(kind, known)
        if number % _PAUSE == _PAUSE - 1:
            yield
    return Members(_mask(drawn.alone), by_kind)


class Index:
    """The rows of all attributes that the branches of one decision point test."""

    __slots__ = ("attributes", "blocks", "match")

    def __init__(self, blocks: Sequence[Block], attributes: Sequence[Attribute], symbols: Symbols, label: str) -> None:
        self.blocks = tuple(blocks)
        self.attributes = tuple(attributes)
        self.match: Callable[[View], Any] = _matcher(self, symbols, label)
        """For a view the bits that can be true: of one block its mask, of several an iterator of masks, best first."""

    def masks(self, view: View) -> Iterator[int]:
        """The mask of every block for a view, best first."""
        found = self.match(view)
        return iter((found,)) if len(self.blocks) == 1 else found


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
    by_edge: dict[Any, list[tuple[int, int]]] = {}
    by_value: dict[Any, list[tuple[int, Any]]] = {}
    for number, table in enumerate(tables):
        if table:
            for span, edge in enumerate(table.edges, 1):
                by_edge.setdefault(edge, []).append((number, table.spans[span]))  # type: ignore[arg-type]  # a mask
            yield
            for value, mask in table.exact.items():
                by_value.setdefault(value, []).append((number, mask))
            yield
    # Edges are swept once: a row differs from the one before it only in the blocks that have an edge there.
    row: list[Any] = [table.spans[0] if table else full for table, full in zip(tables, everything, strict=True)]
    edges = sorted(by_edge)
    spans: list[Row] = [tuple(row)]
    for count, edge in enumerate(edges):
        spans.append(_with(row, by_edge[edge]))
        if count % _ROW_PAUSE == _ROW_PAUSE - 1:
            yield
    exact: dict[Any, Row] = {}
    for count, (value, masks) in enumerate(by_value.items()):
        exact[value] = _with(list(spans[bisect_right(edges, value)]), masks)  # type: ignore[arg-type]  # of several
        if count % _ROW_PAUSE == _ROW_PAUSE - 1:
            yield
    return Table(exact, edges, spans)


def _with(row: list[Any], masks: list[tuple[int, Any]]) -> tuple[Any, ...]:
    """Put masks into a row, each in its block's place."""
    for number, mask in masks:
        row[number] = mask
    return tuple(row)


def _joined_members(parts: Sequence[Members | None], everything: tuple[int, ...]) -> Generator[None, None, Members]:
    alone = tuple(part.alone if part else full for part, full in zip(parts, everything, strict=True))
    nothing = (0,) * len(parts)
    by_kind: dict[type, dict[Any, tuple[Row, Row]]] = {}
    for kind in KINDS:
        rows: dict[Any, tuple[list[Any], list[Any]]] = {}
        for number, part in enumerate(parts):
            for value, (on, off) in (part.by_kind.get(kind[0], {}) if part else {}).items():
                switched = rows.setdefault(value, (list(nothing), list(nothing)))
                switched[0][number], switched[1][number] = on, off
        yield
        if rows:
            joined: dict[Any, tuple[Row, Row]] = {v: (tuple(on), tuple(off)) for v, (on, off) in rows.items()}
            by_kind |= dict.fromkeys(kind, joined)
    return Members(alone, by_kind)  # type: ignore[arg-type]  # a row of ints


def _of_members(value: Any, members: Members) -> int:
    """The mask for a list or a map, of one block."""
    alone: Any = members.alone
    on, off = 0, 0
    for member in value:
        known = members.by_kind.get(member.__class__)  # none for a list: it could not be looked up
        switched: Any = known.get(member) if known else None
        if switched is not None:
            on |= switched[0]
            off |= switched[1]
    return int((alone | on) & ~off)


def _rows_of_members(value: Any, members: Members) -> Row:
    """The row for a list or a map, of several blocks."""
    row: Any = members.alone
    gone: Any = None
    for member in value:
        known = members.by_kind.get(member.__class__)
        switched: Any = known.get(member) if known else None
        if switched is not None:
            row = map(or_, row, switched[0])
            gone = switched[1] if gone is None else map(or_, gone, switched[1])
    return tuple(row) if gone is None else tuple(have & ~lack for have, lack in zip(row, gone, strict=True))


def _matcher(index: Index, symbols: Symbols, label: str) -> Callable[[View], Any]:
    """One generated function that looks every attribute up and ANDs the masks: a loop would pay for each step twice."""
    several = len(index.blocks) != 1
    everything = tuple(block.everything for block in index.blocks)
    names: dict[str, Any] = {
        "M": _MISSING, "bisect": bisect_right, "EVERYTHING": everything if several else everything[0], "AND": and_,
        "members": _rows_of_members if several else _of_members, "datetime": datetime,
    }  # fmt: skip
    lines = ["def match(v):", "    p = v.profile; c = v.context; f = v.features"]
    lines += [] if several else ["    mask = EVERYTHING"]
    for place, attribute in enumerate(index.attributes):
        take = f"r{place} =" if several else "mask &="
        root, _, name = ".".join(attribute.path).partition(".")
        names[f"missing{place}"] = attribute.missing
        if root == "now":
            lines += ["    x = v.clock", *(f"    {line}" for line in _by_kind(attribute, 1, place, names, take))]
        else:
            lines += _present(root, name, place, symbols, take)
            lines += [f"        {line}" for line in _look_up(attribute, place, names, take)]
        if not several and place % _LOOKS == _LOOKS - 1:
            lines += ["    if not mask:", "        return 0"]
    if several:
        anded = "EVERYTHING" if not index.attributes else "r0"
        for place in range(1, len(index.attributes)):
            anded = f"map(AND, {anded}, r{place})"
        lines.append(f"    return iter({anded})")
    else:
        lines.append("    return mask")
    return function_of(["\n".join([*lines, ""])], names, f"index of {label}")


def _present(root: str, name: str, place: int, symbols: Symbols, take: str) -> list[str]:
    """The lines that read a value `x`, up to the ``else:`` behind which it is there."""
    key, unit = name, 0
    if root == "features":
        feature = symbols.features[name]
        key, unit = feature.key, feature.unit
    lines = [f"    x = {root[0]}.get({key!r}, M)", "    if x is M:", f"        {take} missing{place}", "    else:"]
    return [*lines, f"        x = (v.clock - x) / {unit}"] if unit else lines


def _look_up(attribute: Attribute, place: int, names: dict[str, Any], take: str) -> list[str]:
    """The lines that take the row of a present value `x`: a branch per kind whose values the attribute tells apart."""
    lines, word = ["k = x.__class__"], "if"
    alike: dict[type, Row] = {}  # kinds whose values all have one row
    for number, kind in enumerate(KINDS):
        table = attribute.kinds[number]
        if not table.exact and not table.edges:
            alike |= dict.fromkeys(kind, table.spans[0])
            continue
        lines.append(f"{word} {' or '.join(f'k is {each.__name__}' for each in kind)}:")
        lines += [f"    {line}" for line in _by_kind(attribute, number, place, names, take)]
        word = "elif"
    if attribute.members.by_kind:
        names[f"members{place}"] = attribute.members
        lines += [f"{word} k is list or k is dict:", f"    {take} members(x, members{place})"]
        word = "elif"
    names |= {f"alike{place}": alike, f"alone{place}": attribute.members.alone}
    rest = f"{take} alike{place}.get(k, alone{place})"
    return [*lines, "else:", f"    {rest}"] if word == "elif" else [lines[0], rest]


def _by_kind(attribute: Attribute, number: int, place: int, names: dict[str, Any], take: str) -> list[str]:
    """The lines that take the row of a value of one kind: first the lines before the last, which takes it."""
    table = attribute.kinds[number]
    exact, edges, spans = (f"{part}{place}_{number}" for part in ("exact", "edges", "spans"))
    names |= {exact: table.exact, edges: table.edges, spans: table.spans}
    if not table.edges:
        names[spans] = table.spans[0]
        return [f"{take} {exact}.get(x, {spans})"]
    if not table.exact:
        return [f"{take} {spans}[bisect({edges}, x)]"]
    return [f"m = {exact}.get(x)", f"{take} {spans}[bisect({edges}, x)] if m is None else m"]
