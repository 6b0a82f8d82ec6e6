"""Which rows of a table can match at once, and which inputs no row matches: exact for cells that are sets and ranges.

Law: rules in, facts out; pure. Nothing here knows cells or files: a row is a conjunction of statements on terms (see
`terms`), each term's values fall into atoms (see `regions`), and per atom there is one mask of the rows that take it.
Terms are taken to be independent of one another, and each to have a value: what is missing matches no cell but `-`.

    overlaps(table, rows)           for each row the first one that can match at the same time, with an example
    find_gap(table, rows)           an example of an input that no row matches, or None; raises TooMany
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.check import infer
from arbiter.expr.tree import Name
from arbiter.ruleset.tables.bits import bits_of, joined, mask_of, runs_of
from arbiter.ruleset.tables.regions import Domain, Regions
from arbiter.ruleset.tables.terms import Both, Statement, Term, statements
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from arbiter.ruleset.rules import DecisionTable, Rule
    from arbiter.ruleset.tables.regions import Value

_BLOCK = 32  # atoms whose masks are joined beforehand
_STATES = 100_000  # of a search: a thousand rows that leave no gap take some thousands
_DEEPEST = 200  # terms of a search
_GROUPS = 256  # up to which masks are compared with one another

Example = tuple[tuple[str, "Value"], ...]
"""An input: a value for each term that matters, as it is written."""


class Overlap(msgspec.Struct, frozen=True):
    """Two rows, by their places among the rules given, that can both match: for `example`, say."""

    first: int
    second: int
    example: Example


class TooMany(Exception):
    """The search was given up: the cells fall into too many combinations."""


class _Axis(msgspec.Struct, frozen=True):
    """One term. `regions` has what each row that speaks of it takes, other rows take `everything`; `rows` has for
    each atom the rows that take it.
    """

    term: Term
    samples: list[Value | None]
    plain: int
    everything: int
    regions: dict[int, int]
    rows: list[int]


def overlaps(
    table: DecisionTable, rows: Sequence[Rule], differ: Callable[[int, int], bool] | None = None
) -> Iterator[Overlap]:
    """For each row the first one before it that can match at the same time, among those that `differ` from it (two
    places among `rows`).

    Rows that are switched off match nothing.
    """
    axes = _axes(table, rows)
    said: list[list[tuple[_Axis, int]]] = [[] for _ in rows]
    for axis in axes:
        meets = _meeting(axis)
        for row, region in axis.regions.items():
            said[row].append((axis, meets[region]))
    alive = _alive(rows, axes)
    for second in bits_of(alive):
        found = alive & ((1 << second) - 1)
        for _, meets_row in said[second]:
            found &= meets_row
        for first in bits_of(found):
            if differ is None or differ(first, second):
                mentioned = [a for a in axes if first in a.regions or second in a.regions]
                yield Overlap(first, second, tuple((a.term.text, _shared(a, first, second)) for a in mentioned))
                break


def find_gap(table: DecisionTable, rows: Sequence[Rule]) -> Example | None:
    """An input that no row matches, or None when there is none. Raises TooMany when that cannot be told in time.

    `rows` are the rules of the table, in any order. Inputs for which the table's guard is not true are none of its
    business, nor are those that lack a value.
    """
    return _Search(rows, _axes(table, rows)).gap()


def _axes(table: DecisionTable, rows: Sequence[Rule]) -> list[_Axis]:
    """The terms, in the order in which rows speak of them. What the guard rules out is no atom."""
    domains = {
        each.expression.root.path: Domain(each.expression.type, each.values, each.lowest)
        for each in table.inputs
        if isinstance(each.expression.root, Name)
    }
    limits: dict[Term, list[Statement]] = {}
    for term, statement in statements(table.guard, None):
        limits.setdefault(term, []).append(statement)
    said: dict[Term, dict[int, list[Statement]]] = {term: {} for term in limits}
    for number, row in enumerate(rows):
        for term, statement in statements(row.when, row.active):
            said.setdefault(term, {}).setdefault(number, []).append(statement)
    return [_axis(term, by_row, limits.get(term, ()), len(rows), domains) for term, by_row in said.items()]


def _axis(
    term: Term,
    by_row: Mapping[int, list[Statement]],
    limits: Iterable[Statement],
    rows: int,
    domains: Mapping[tuple[str, ...], Domain],
) -> _Axis:
    declared = domains.get(term.node.path) if isinstance(term.node, Name) else None
    constants = {value for found in [*by_row.values(), limits] for each in found for value in _constants(each)}
    line = Regions(declared or Domain(infer(term.node)), constants)
    everything = _region(line, limits)
    known: dict[tuple[Statement, ...], int] = {}
    regions = {}
    for row, found in by_row.items():
        key = tuple(found)
        if key not in known:
            known[key] = _region(line, key) & everything
        regions[row] = known[key]
    return _Axis(term, line.samples, line.plain, everything, regions, _rows_by_atom(line.samples, regions, rows))


def _constants(statement: Statement) -> Iterator[Value]:
    if isinstance(statement, Both):
        yield from _constants(statement.left)
        yield from _constants(statement.right)
    else:
        yield from statement.values


def _region(line: Regions, statements_: Iterable[Statement]) -> int:
    found = line.all
    for statement in statements_:
        found &= _atoms(line, statement)
    return found


def _atoms(line: Regions, statement: Statement) -> int:
    if isinstance(statement, Both):
        left, right = _atoms(line, statement.left), _atoms(line, statement.right)
        return left & right if statement.all else left | right
    if statement.test == "eq":
        return line.equal(statement.values)
    if statement.test == "ne":
        return line.all & ~line.equal(statement.values)
    return line.ordered(statement.test, *statement.values[0])


def _rows_by_atom(samples: Sequence[Value | None], regions: Mapping[int, int], rows: int) -> list[int]:
    """Masks of rows, by atom: rows are switched on and off where the runs of their atoms begin and end."""
    by_region: dict[int, list[int]] = {}
    for row, region in regions.items():
        by_region.setdefault(region, []).append(row)
    switches = [0] * (len(samples) + 1)
    for region, numbers in by_region.items():
        mask = mask_of(numbers)
        for start, end in runs_of(region):
            switches[start] ^= mask
            switches[end] ^= mask
    found, current = [], ((1 << rows) - 1) ^ mask_of(regions)
    for switch in switches[:-1]:
        current ^= switch
        found.append(current)
    return found


def _meeting(axis: _Axis) -> dict[int, int]:
    """For each region the rows that take some atom of it."""
    blocks = [joined(axis.rows[at : at + _BLOCK]) for at in range(0, len(axis.rows), _BLOCK)]
    meets = {}
    for region in set(axis.regions.values()):
        found = 0
        for start, end in runs_of(region):
            first, last = -(-start // _BLOCK), end // _BLOCK
            if first < last:
                found |= joined(axis.rows[start : first * _BLOCK]) | joined(blocks[first:last])
                found |= joined(axis.rows[last * _BLOCK : end])
            else:
                found |= joined(axis.rows[start:end])
        meets[region] = found
    return meets


def _alive(rows: Sequence[Rule], axes: Iterable[_Axis]) -> int:
    """The rows that can match at all."""
    dead = {row for axis in axes for row, region in axis.regions.items() if not region}
    return mask_of(number for number, row in enumerate(rows) if row.enabled and number not in dead)


def _shared(axis: _Axis, first: int, second: int) -> Value:
    """A value that two rows take."""
    both = axis.regions.get(first, axis.everything) & axis.regions.get(second, axis.everything)
    return _sample(axis, next(bits_of(both & axis.plain or both)))


def _sample(axis: _Axis, atom: int) -> Value:
    sample = axis.samples[atom]
    assert sample is not None  # noqa: S101 - a region has only atoms with a value
    return sample


class _Search:
    """Depth first, term by term, with the mask of the rows that still can match; empty, it is a gap."""

    def __init__(self, rows: Sequence[Rule], axes: Iterable[_Axis]) -> None:
        axes = list(axes)
        self._impossible = any(not axis.everything for axis in axes)
        self._alive = _alive(rows, axes)
        self._shown = choosing = [a for a in axes if any(region != a.everything for region in a.regions.values())]
        grouped = sorted(((axis, _groups(axis)) for axis in choosing), key=lambda pair: len(pair[1]))
        self._axes = [axis for axis, _ in grouped]
        self._choices = [groups for _, groups in grouped]
        self._sure = [self._alive]  # rows that match whatever comes in this term and those behind it
        for axis in reversed(self._axes):
            picky = mask_of(row for row, region in axis.regions.items() if region != axis.everything)
            self._sure.append(self._sure[-1] & ~picky)
        self._sure.reverse()
        self._seen: set[tuple[int, int]] = set()

    def gap(self) -> Example | None:
        if self._impossible:
            return None
        if len(self._axes) > _DEEPEST:
            raise TooMany
        found = self._below(0, self._alive)
        if found is None:
            return None
        chosen = {id(axis): _sample(axis, atom) for axis, atom in zip(self._axes, found, strict=False)}
        return tuple((axis.term.text, chosen[id(axis)]) for axis in self._shown if id(axis) in chosen)

    def _below(self, depth: int, mask: int) -> list[int] | None:
        """An atom for each further term that matters, such that no row is left."""
        if not mask:
            return []
        if mask & self._sure[depth] or (depth, mask) in self._seen:
            return None
        if len(self._seen) >= _STATES:
            raise TooMany
        self._seen.add((depth, mask))
        left: dict[int, int] = {}
        for rows, atom in self._choices[depth].items():
            left.setdefault(mask & rows, atom)
        for rows in sorted(left, key=int.bit_count):
            found = self._below(depth + 1, rows)
            if found is not None:
                return [left[rows], *found]
        return None


def _groups(axis: _Axis) -> dict[int, int]:
    """Masks of rows, each with an atom whose rows they are; where there are few, only those that hold no other."""
    found: dict[int, int] = {}
    for atoms in (axis.everything & axis.plain, axis.everything):
        for atom in bits_of(atoms):
            found.setdefault(axis.rows[atom], atom)
    if len(found) > _GROUPS:
        return found
    return {rows: atom for rows, atom in found.items() if not any(o != rows and o & rows == o for o in found)}


def shown(example: Example) -> str:
    """An example as people read it: ``profile.plan = "free", features.orders = 7``."""
    return ", ".join(f"{name} = {_shown(*value)}" for name, value in example) or "any input"


def _shown(kind: str, value: Any) -> str:
    match kind:
        case "bool":
            return "true" if value else "false"
        case "string":
            return msgspec.json.encode(value).decode()
        case "timestamp":
            return from_micros(value).isoformat().replace("+00:00", "Z")
        case "duration":
            return f"{value / 1_000_000:g}s"
    return str(value)
