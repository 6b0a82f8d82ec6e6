"""One term of a table as an axis: its atoms, and which rows take which.

Law: masks and no meaning; `analysis` makes axes from rules, `gaps` searches along them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.ruleset.tables.bits import mask_of
from arbiter.ruleset.tables.regions import Value  # noqa: TC001 - a field's type at run time
from arbiter.ruleset.tables.terms import Term  # noqa: TC001 - a field's type at run time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.ruleset.rules import Rule


class Axis(msgspec.Struct, frozen=True):
    """One term. `regions` has the atoms that each row takes which speaks of it, other rows take `everything`; `rows`
    has for each atom the rows that take it; `plain` are the atoms that are shown rather than others.
    """

    term: Term
    samples: list[Value | None]
    plain: int
    everything: int
    regions: dict[int, int]
    rows: list[int]

    def sample(self, atom: int) -> Value:
        """A value of an atom of `everything`."""
        sample = self.samples[atom]
        assert sample is not None  # noqa: S101 - those have one
        return sample


def alive_of(rows: Sequence[Rule], axes: Iterable[Axis]) -> int:
    """The rows that can match at all."""
    dead = {row for axis in axes for row, region in axis.regions.items() if not region}
    return mask_of(number for number, row in enumerate(rows) if row.enabled and number not in dead)
