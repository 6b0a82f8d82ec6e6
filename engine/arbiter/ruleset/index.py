"""The bitmap index: which branches can still be true for this subject, one look-up an attribute and one AND a block.

Law: bits in, bits out; it knows branches by number and attributes by path, nothing of rules, models or requests. What
the masks mean is `masks`' law.

A look-up gives a row: the masks of all blocks for that value. Blocks come best first and are ANDed one at a time, only
as far as somebody asks: a decision whose slots are full never pays for the rules behind. Rows share the masks of
blocks that they do not tell apart, so that ten thousand different thresholds cost a block's mask each, not a whole
row's. An index of one block has bare masks for rows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import datetime
from operator import and_, or_
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.generated import function_of
from arbiter.ruleset.masks import KINDS, AttributeMasks, KindMasks, MemberMasks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.masks import BlockMasks

Row = int | tuple[int, ...]

_MISSING = object()
_LOOKS = 4  # attributes between two looks whether anything is left: a look costs a tenth of a look-up
_PAUSE = 64  # masks between two pauses while an index is opened: some 50 µs
_ROW_PAUSE = 128  # the same for rows
_NESTED = 64


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
    by_kind: dict[type, dict[Any, tuple[Row | None, Row | None]]] = {}
    for number, (value, adds, leaves) in enumerate(zip(drawn.points, drawn.adds, drawn.leaves, strict=True)):
        kind = next(kind for kind in KINDS if value.__class__ in kind)
        known = by_kind.setdefault(kind[0], {})
        known[value] = (_mask(adds), _mask(leaves))
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
            if count % _ROW_PAUSE == _ROW_PAUSE - 1:
                yield
    exact: dict[Any, Row] = {}
    for count, (value, masks) in enumerate(by_value.items()):
        exact[value] = _with(list(spans[bisect_right(edges, value)]), masks)  # type: ignore[arg-type]  # of several
        if count % _ROW_PAUSE == _ROW_PAUSE - 1:
            yield
    return Table(exact, edges, spans)


def _stretches(tables: Sequence[Table | None]) -> Iterator[dict[Any, list[tuple[int, Any]]]]:
    """The edges of all blocks in stretches that ascend: by edge, the number and the mask of each block that has it."""
    known = [table or _BARE for table in tables]
    longest = max((table.edges for table in known), key=len)
    step = max(1, _ROW_PAUSE // len(tables))
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


def _relevant(value: Any, members: Members) -> list[tuple[Any, Any]]:
    """What the members of a list or the keys of a map add and leave, those that any branch asks about, each once."""
    found = {}
    for member in value:
        known = members.by_kind.get(member.__class__)  # none for a list: it could not be looked up
        rows = known.get(member) if known else None
        if rows is not None:
            found[id(rows)] = rows
    return list(found.values())


def _of_members(value: Any, members: Members) -> int:
    """The mask for a list or a map, of one block."""
    mask: Any = members.alone
    kept = -1
    for adds, leaves in _relevant(value, members):
        mask |= adds
        kept &= leaves
    return int(mask & kept)


def _rows_of_members(value: Any, members: Members) -> Iterable[int]:
    """The row for a list or a map, of several blocks, each computed when it is asked for."""
    row: Any = members.alone
    relevant = _relevant(value, members)
    nested = 0
    for operation, place in ((or_, 0), (and_, 1)):
        for rows in relevant:
            if rows[place] is not None:
                row = map(operation, row, rows[place])
                nested += 1
                if nested % _NESTED == 0:
                    row = tuple(row)  # iterators within iterators are calls within calls
    return row  # type: ignore[no-any-return]


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
