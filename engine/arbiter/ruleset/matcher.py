"""The function that matches: generated for one index, it looks every attribute up and ANDs what it finds.

Law: text and names in, a function out; a loop over attributes would pay for each of their kinds at every call. The
attributes that leave fewest branches stand come first, and nothing is looked up once none stands. The values of a root
are taken in one call: of a record whose names are kept apart by their places, which are found once for all records with
the same names.

Attributes whose values of one kind matter, and of which all other values and none at all leave the same, as most are,
take a short form. Where that meets a value that cannot be hashed, the long form answers the whole call.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from arbiter.expr.generated import function_of
from arbiter.expr.shaped import STORED, taker
from arbiter.ruleset.blocks import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.index import Attribute, Members, Table

_MISSING = object()
_LOOKS = 2  # attributes between two looks whether anything stands: a look costs a tenth of a look-up
_SAMPLE = 8  # rows of a table that are looked at to tell how many branches they leave
_BOOLS, _NUMBERS = 0, 1  # places in KINDS
_HASHED = (2, 3, 4)  # places of the kinds whose values equal none of another kind


def matcher(
    attributes: Sequence[Attribute], everything: Sequence[int], symbols: Symbols, label: str
) -> Callable[[View], Any]:
    """What gives the branches that can be true for a view: of one block its mask, of several an iterator of the
    number and mask of each block that has any, best first.
    """
    ordered = sorted(attributes, key=_turn)
    several = len(everything) != 1
    names: dict[str, Any] = {
        "M": _MISSING, "bisect": bisect_right, "datetime": datetime, "EVERYTHING": tuple(everything),
        "members": Contents if several else contents,
    }  # fmt: skip
    long: list[Callable[[View], Any]] = []

    def careful(view: View) -> Any:
        if not long:
            writer = _Writer(ordered, symbols, dict(names), several)
            writer.write(short=False)
            long.append(function_of(writer.functions, writer.names, f"careful index of {label}"))
        return long[0](view)

    writer = _Writer(ordered, symbols, {**names, "careful": careful}, several)
    writer.write(short=True)
    return function_of(writer.functions, writer.names, f"index of {label}")


def contents(value: Any, members: Members) -> int:
    """The mask for a list or a map, of one block."""
    mask: Any = members.alone
    kept = -1
    for adds, leaves in _relevant(value, members):
        mask |= adds
        kept &= leaves
    return int(mask & kept)


class Contents:
    """The row for a list or a map, of several blocks: each mask is computed when it is asked for."""

    __slots__ = ("_alone", "_relevant")

    def __init__(self, value: Any, members: Members) -> None:
        self._alone: Any = members.alone
        self._relevant = _relevant(value, members)

    def __getitem__(self, block: int) -> int:
        """The mask of one block."""
        mask: int = self._alone[block]
        for adds, _ in self._relevant:
            if adds is not None:
                mask |= adds[block]
        for _, leaves in self._relevant:
            if leaves is not None:
                mask &= leaves[block]
        return mask


def _relevant(value: Any, members: Members) -> list[tuple[Any, Any]]:
    """What the members of a list or the keys of a map add and leave, those that any branch asks about, each once."""
    found = {}
    for member in value:
        known = members.by_kind.get(member.__class__)  # none for a list: it could not be looked up
        rows = known.get(member) if known else None
        if rows is not None:
            found[id(rows)] = rows
    return list(found.values())


def _turn(attribute: Attribute) -> tuple[bool, float]:
    """What sorts attributes: those that leave few branches first, but experiments last, since they must be drawn."""
    return attribute.path[0] == "experiments", _share(attribute)


def _share(attribute: Attribute) -> float:
    """About how many branches the attribute's values leave, in the first block."""
    counts: list[int] = []
    for table in attribute.kinds:
        if table.exact or table.edges:
            counts += map(_count, islice(table.exact.values(), _SAMPLE))
            counts += map(_count, table.spans[:: 1 + len(table.spans) // _SAMPLE] if table.edges else ())
    if attribute.members.by_kind:
        counts.append(_count(attribute.members.alone))
    return sum(counts) / len(counts) if counts else float(_count(attribute.missing))


def _count(row: Any) -> int:
    mask: int = row if isinstance(row, int) else row[0]
    return mask.bit_count()


class _Writer:
    """Writes the text of one function. Rows are bare masks unless there are `several` blocks."""

    def __init__(
        self,
        attributes: Sequence[Attribute],
        symbols: Symbols,
        names: dict[str, Any],
        several: bool,  # noqa: FBT001
    ) -> None:
        self.functions: list[str] = []
        self._attributes = attributes
        self._symbols = symbols
        self.names = names
        self._several = several
        self._hashes = False  # a value is looked up whatever it is
        read: dict[str, list[str]] = {root: [] for root in STORED}
        for attribute in attributes:
            if attribute.path[0] in read:
                read[attribute.path[0]].append(self._key(attribute))
        # The names of each root of which more than one is read, each once.
        self._taken = {root: list(dict.fromkeys(keys)) for root, keys in read.items() if len(set(keys)) > 1}

    def write(self, *, short: bool) -> None:
        """Write the whole function."""
        body: list[str] = []
        for place, attribute in enumerate(self._attributes):
            take = f"r{place} =" if self._several else "m &=" if place else "m ="
            body += self._attribute(attribute, place, take, short=short)
            looks = not self._several and place % _LOOKS == _LOOKS - 1 and place + 1 < len(self._attributes)
            body += ["if not m:", "    return 0"] if looks else []
        rows = ", ".join(f"r{place}" for place in range(len(self._attributes)))
        if self._several:
            self._write_blocks(rows)
            body.append(f"return blocks({rows})")
        else:
            body.append("return m" if self._attributes else "return EVERYTHING[0]")
        if self._hashes:
            body = ["try:", *(f"    {line}" for line in body), "except TypeError:", "    return careful(v)"]
        roots = sorted({attribute.path[0] for attribute in self._attributes} - {"now"})
        self._define("match", "v", [*map(self._take, roots), *body])

    def _take(self, root: str) -> str:
        """The line that takes what is read of a root, or the way to it."""
        if root in self._taken:
            self.names[f"take_{root}"] = taker(tuple(self._taken[root]))
            every = ", ".join(f"{root}{number}" for number in range(len(self._taken[root])))
            return f"{every} = take_{root}(v.{root})"
        return f"{root} = v.{root}.{'of' if root == 'experiments' else 'get'}"

    def _key(self, attribute: Attribute) -> str:
        """What the view calls an attribute."""
        root, _, name = ".".join(attribute.path).partition(".")
        return self._symbols.features[name].key if root == "features" else name

    def _define(self, name: str, arguments: str, body: list[str]) -> None:
        self.functions.append("\n".join([f"def {name}({arguments}):", *(f"    {line}" for line in body), ""]))

    def _write_blocks(self, rows: str) -> None:
        """The generator that ANDs the rows, block by block."""
        lines = ["for i, m in enumerate(EVERYTHING):"]
        for start in range(0, len(self._attributes), _LOOKS):
            group = range(start, min(start + _LOOKS, len(self._attributes)))
            lines.append(f"    m {'&' if start else ''}= {' & '.join(f'r{place}[i]' for place in group)}")
            lines += ["    if not m:", "        continue"]
        self._define("blocks", rows, [*lines, "    yield i, m"])

    def _attribute(self, attribute: Attribute, place: int, take: str, *, short: bool) -> list[str]:
        root, _, name = ".".join(attribute.path).partition(".")
        if root == "now":
            return ["x = v.clock", *self._by_kind(attribute.kinds[_NUMBERS], f"{place}_n", take)]
        key, unit = self._key(attribute), 0
        if root == "features":
            feature = self._symbols.features[name]
            unit = feature.unit
        got, found, missing = f"{root}({key!r})", f"{root}({key!r}, M)", "M"
        if root in self._taken:
            got = found = f"{root}{self._taken[root].index(key)}"
            missing = "None"  # which no value of these roots is
        if root == "features" and feature.computed:
            self.names[f"value{place}"] = feature.value
            got = found = f"value{place}({got}, v.clock)"
            missing = "None"  # which no value of these roots is
        elif root == "experiments":
            got = found = f"{root}({key!r}, v)"
        self.names[f"missing{place}"] = attribute.missing
        if short:
            lines = self._short(attribute, got, place, take, unit)
            if lines:
                return lines
        present = [f"x = (v.clock - x) / {unit}"] if unit else []
        present += self._look_up(attribute, place, take)
        return [
            f"x = {found}", f"if x is {missing}:", f"    {take} missing{place}",
            "else:", *(f"    {line}" for line in present),
        ]  # fmt: skip

    def _short(self, attribute: Attribute, got: str, place: int, take: str, unit: int) -> list[str]:
        """The short form; nothing when the attribute does not allow it. A missing value is None, which none equals."""
        telling = [number for number, table in enumerate(attribute.kinds) if table.exact or table.edges]
        # What every other value, and none at all, leaves.
        rest = {id(attribute.missing): attribute.missing, id(attribute.members.alone): attribute.members.alone}
        rest |= {id(t.spans[0]): t.spans[0] for n, t in enumerate(attribute.kinds) if n not in telling}
        if attribute.members.by_kind or any(row != attribute.missing for row in rest.values()):
            return []
        others = f"missing{place}"
        tables = [attribute.kinds[number] for number in telling]
        if telling == [_NUMBERS]:
            read = [f"x = (v.clock - x) / {unit}"] if unit else []
            present = [*read, *self._by_kind(tables[0], f"{place}_n", take)]
            return [
                f"x = {got}", "k = x.__class__", "if k is float or k is int:", *(f"    {line}" for line in present),
                "else:", f"    {take} {others}",
            ]  # fmt: skip
        if telling == [_BOOLS]:
            true, false = (tables[0].exact.get(value, tables[0].spans[0]) for value in (True, False))
            self.names |= {f"true{place}": true, f"false{place}": false}
            return [f"x = {got}", f"{take} true{place} if x is True else false{place} if x is False else {others}"]
        plain = all(not table.edges and table.spans[0] == attribute.missing for table in tables)
        if plain and set(telling) <= set(_HASHED):
            exact = {value: row for table in tables for value, row in table.exact.items()}
            self.names[f"exact{place}"] = exact.get
            self._hashes = True
            return [f"{take} exact{place}({got}, {others})"]
        return []

    def _look_up(self, attribute: Attribute, place: int, take: str) -> list[str]:
        """The lines that take the row of a present value `x`: a way for each kind whose values differ."""
        lines, word = ["k = x.__class__"], "if"
        alike: dict[type, Any] = {}  # kinds whose values all have one row
        for number, kind in enumerate(KINDS):
            table = attribute.kinds[number]
            if not table.exact and not table.edges:
                alike |= dict.fromkeys(kind, table.spans[0])
                continue
            lines.append(f"{word} {' or '.join(f'k is {each.__name__}' for each in kind)}:")
            lines += [f"    {line}" for line in self._by_kind(table, f"{place}_{number}", take)]
            word = "elif"
        if attribute.members.by_kind:
            self.names[f"members{place}"] = attribute.members
            lines += [f"{word} k is list or k is dict:", f"    {take} members(x, members{place})"]
            word = "elif"
        self.names |= {f"alike{place}": alike, f"alone{place}": attribute.members.alone}
        rest = f"{take} alike{place}.get(k, alone{place})"
        return [*lines, "else:", f"    {rest}"] if word == "elif" else [lines[0], rest]

    def _by_kind(self, table: Table, label: str, take: str) -> list[str]:
        """The lines that take the row of a value `x` of one kind."""
        exact, edges, spans = (f"{part}{label}" for part in ("exact", "edges", "spans"))
        self.names |= {exact: table.exact.get, edges: table.edges, spans: table.spans}
        if not table.edges:
            self.names[spans] = table.spans[0]
            return [f"{take} {exact}(x, {spans})"]
        if not table.exact:
            return [f"{take} {spans}[bisect({edges}, x)]"]
        return [f"y = {exact}(x)", f"{take} {spans}[bisect({edges}, x)] if y is None else y"]


def numbered(found: Any) -> Iterator[tuple[int, int]]:
    """What a matcher gave, in the form of several blocks."""
    if isinstance(found, int):
        return iter(((0, found),) if found else ())
    blocks: Iterator[tuple[int, int]] = found
    return blocks
