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
from arbiter.ruleset.tables.axes import Axis, alive_of
from arbiter.ruleset.tables.bits import bits_of, joined, mask_of, runs_of
from arbiter.ruleset.tables.gaps import TooMany, counted_gap, searched_gap
from arbiter.ruleset.tables.regions import Domain, Regions
from arbiter.ruleset.tables.terms import Both, Statement, Term, statements, term_of
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from arbiter.ruleset.rules import DecisionTable, Rule
    from arbiter.ruleset.tables.regions import Value

__all__ = ["Example", "Overlap", "TooMany", "find_gap", "overlaps", "shown"]

_BLOCK = 32  # atoms whose masks are joined beforehand

Example = tuple[tuple[str, "Value"], ...]
"""An input: a value for each term that matters, as it is written."""


class Overlap(msgspec.Struct, frozen=True):
    """Two rows, by their places among the rules given, that can both match: for `example`, say."""

    first: int
    second: int
    example: Example


def overlaps(
    table: DecisionTable, rows: Sequence[Rule], differ: Callable[[int, int], bool] | None = None
) -> Iterator[Overlap]:
    """For each row the first one before it that can match at the same time, among those that `differ` from it (two
    places among `rows`).

    Rows that are switched off match nothing.
    """
    axes = _axes(table, rows)
    said: list[list[tuple[Axis, int]]] = [[] for _ in rows]
    for axis in axes:
        meets = _meeting(axis)
        for row, region in axis.regions.items():
            said[row].append((axis, meets[region]))
    alive = alive_of(rows, axes)
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
    business, nor are those that lack a value, moments at which no row is active, and tables that are switched off.
    """
    axes = _axes(table, rows)
    if any(not axis.everything for axis in axes) or not any(row.enabled for row in rows):
        return None
    alive = alive_of(rows, axes)
    choosing = [a for a in axes if any(region != a.everything for region in a.regions.values())]
    apart = next(overlaps(table, rows), None) is None
    found = counted_gap(choosing, alive) if apart else searched_gap(choosing, alive)
    if found is None:
        return None
    return tuple((axis.term.text, axis.sample(found[n])) for n, axis in enumerate(choosing) if n in found)


def _axes(table: DecisionTable, rows: Sequence[Rule]) -> list[Axis]:
    """The terms, those of columns first. What the guard rules out, or dates that all rows share, is no atom."""
    domains = {
        each.expression.root.path: Domain(each.expression.type, each.values, each.lowest)
        for each in table.inputs
        if isinstance(each.expression.root, Name)
    }
    limits: dict[Term, list[Statement]] = {}
    active = {row.active for row in rows}
    for term, statement in statements(table.guard, active.pop() if len(active) == 1 else None):
        limits.setdefault(term, []).append(statement)
    columns = [term_of(each.expression) for each in table.inputs]
    said: dict[Term, dict[int, list[Statement]]] = {term: {} for term in [*columns, *limits]}
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
) -> Axis:
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
    return Axis(term, line.samples, line.plain, everything, regions, _rows_by_atom(line.samples, regions, rows))


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


def _meeting(axis: Axis) -> dict[int, int]:
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


def _shared(axis: Axis, first: int, second: int) -> Value:
    """A value that two rows take."""
    both = axis.regions.get(first, axis.everything) & axis.regions.get(second, axis.everything)
    return axis.sample(next(bits_of(both & axis.plain or both)))


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
