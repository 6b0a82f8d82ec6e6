"""An atom of each axis such that no row takes all of them.

Law: masks in, atoms out. Where rows do not overlap, counting answers at once: each takes as many combinations of atoms
as the product of its regions, and when the sum is that of all there are, nothing is left. Where they do, combinations
are searched depth first, with a bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.ruleset.tables.bits import bits_of, mask_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.ruleset.tables.axes import Axis

_STATES: Final = 20_000
_DEEPEST: Final = 200
_GROUPS: Final = 256  # up to which masks are compared with one another

Gap = dict[int, int]
"""By number of the axis an atom; what is not there does not matter."""


class TooMany(Exception):
    """The search was given up: the cells fall into too many combinations."""


def counted_gap(axes: Sequence[Axis], alive: int) -> Gap | None:
    """A gap between rows of which no two overlap, None when there is none."""
    behind = [dict.fromkeys(bits_of(alive), 1)]  # for each axis, the combinations of those behind it that a row takes
    wholes = [1]
    for axis in reversed(axes):
        whole = axis.everything.bit_count()
        behind.append({n: c * axis.regions.get(n, axis.everything).bit_count() for n, c in behind[-1].items()})
        wholes.append(wholes[-1] * whole)
    if sum(behind.pop().values()) == wholes.pop():
        return None
    found: Gap = {}
    for number, axis in enumerate(axes):
        if not alive:
            break
        counts, whole = behind.pop(), wholes.pop()
        for rows, atom in _groups(axis).items():
            if sum(counts[row] for row in bits_of(alive & rows)) < whole:
                found[number] = atom
                alive &= rows
                break
    return found


def searched_gap(axes: Sequence[Axis], alive: int) -> Gap | None:
    """A gap between any rows, None when there is none. Raises TooMany."""
    if len(axes) > _DEEPEST:
        raise TooMany
    return _Search(axes, alive).below(0, alive)


class _Search:
    """Axis by axis, with the mask of the rows that still can match: empty, it is a gap."""

    def __init__(self, axes: Sequence[Axis], alive: int) -> None:
        grouped = [(number, _least(_groups(axis))) for number, axis in enumerate(axes)]
        self._choices = sorted(grouped, key=lambda pair: len(pair[1]))
        self._sure = [alive]  # rows that match whatever comes on this axis and those behind it
        for number, _ in reversed(self._choices):
            axis = axes[number]
            picky = mask_of(row for row, region in axis.regions.items() if region != axis.everything)
            self._sure.append(self._sure[-1] & ~picky)
        self._sure.reverse()
        self._seen: set[tuple[int, int]] = set()

    def below(self, depth: int, mask: int) -> Gap | None:
        """Atoms for further axes such that no row of the mask is left."""
        if not mask:
            return {}
        if mask & self._sure[depth] or (depth, mask) in self._seen:
            return None
        if len(self._seen) >= _STATES:
            raise TooMany
        self._seen.add((depth, mask))
        number, groups = self._choices[depth]
        left: dict[int, int] = {}
        for rows, atom in groups.items():
            left.setdefault(mask & rows, atom)
        for rows in sorted(left, key=int.bit_count):
            found = self.below(depth + 1, rows)
            if found is not None:
                return {number: left[rows], **found}
        return None


def _groups(axis: Axis) -> dict[int, int]:
    """Masks of rows, each with an atom that these take."""
    found: dict[int, int] = {}
    for atoms in (axis.everything & axis.plain, axis.everything):
        for atom in bits_of(atoms):
            found.setdefault(axis.rows[atom], atom)
    return found


def _least(groups: dict[int, int]) -> dict[int, int]:
    """Those whose rows hold no other's, where there are few: only they can lead to a gap that others do not."""
    if len(groups) > _GROUPS:
        return groups
    return {rows: atom for rows, atom in groups.items() if not any(o != rows and o & rows == o for o in groups)}
