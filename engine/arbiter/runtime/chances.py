"""With which probability a row could have come to what it came to, and to what else.

Law: from a row alone, as `replaying`. A row is decided again for each set of variants that chance might have given its
units, and the probabilities of those are added up that deliver the same: several variants may, and what one experiment
does may hang on another. What follows on a page is left out by who asks.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.learning.logged import won_of
from arbiter.runtime.replaying import delivered

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from arbiter.decision.assignment import Assigned
    from arbiter.expr.view import View
    from arbiter.learning.logged import Head, Row
    from arbiter.runtime.replaying import Again

MOST: Final = 256
"""Sets of variants that a decision is looked at for."""


class TooMany(Exception):
    """There are more sets of variants than `MOST`."""


class Chances(msgspec.Struct, frozen=True):
    """What might be delivered, each with its probability; they add up to 1. `rules` has its rules, by the same key;
    `units` are the units for which a variant is drawn, each with what it is a unit by.
    """

    by: dict[bytes, float]
    rules: dict[bytes, tuple[str, ...]]
    units: tuple[tuple[str, str], ...]


def chances(
    again: Again, head: Head, row: Row, view: View, *, fixed: Collection[str] = (), off: Iterable[str] = ()
) -> Chances:
    """What a snapshot might deliver, where the variants of the experiments `fixed` are as the view has them.

    Raises TooMany; NotFound for a point that the snapshot has not.
    """
    names = [name for name in _drawn(again, head, view) if name not in fixed]
    return _added(_Grid(again, head, row, view, names, off), names)


def chances_then(again: Again, head: Head, row: Row, view: View) -> tuple[Chances, tuple[str, ...]]:
    """What the snapshot of then might have delivered, and the experiments of which the variant was forced: those that
    matter, and of which the row does not say so. Raises TooMany.
    """
    names = _drawn(again, head, view)
    grid = _Grid(again, head, row, view, names, row.off)
    forced = tuple(name for name in names if name not in row.exposed and grid.matters(name))
    return _added(grid, [name for name in names if name not in forced]), forced


class _Grid:
    """What is delivered by set of variants, each decided when it is first asked for. `own` are those of the view."""

    def __init__(
        self, again: Again, head: Head, row: Row, view: View, names: Sequence[str], off: Iterable[str]
    ) -> None:
        assigned: Assigned = view.experiments
        self.again = again
        self.names = names
        self.view = view
        self.own = {name: assigned.of(name, view) for name in names}
        self.rules: dict[bytes, tuple[str, ...]] = {}
        self._known: dict[tuple[str, ...], bytes] = {}
        alone = msgspec.structs.replace(row, page="")
        self._decide: Callable[[View], bytes] = lambda view: self._delivered(head, alone, view, off)

    def of(self, variants: dict[str, str]) -> bytes:
        """What is delivered where these are drawn, and the others are as they are."""
        drawn = self.own | variants
        key = tuple(drawn.values())
        found = self._known.get(key)
        if found is None:
            said: dict[str, str] = {}
            for name, variant in drawn.items():
                said |= self.again.experiments[name].read_as(variant)
            view = self.view.elsewhere(self.view.experiments.but(said)) if said else self.view
            found = self._known[key] = self._decide(view)
        return found

    def matters(self, name: str) -> bool:
        """Whether another variant of this experiment alone would deliver something else."""
        own = self.of({})
        return any(self.of({name: variant}) != own for variant in self.again.experiments[name].drawable)

    def _delivered(self, head: Head, row: Row, view: View, off: Iterable[str]) -> bytes:
        decision = self.again.decide(head, row, view, off=off)
        key = delivered(won_of(decision))
        self.rules.setdefault(key, tuple(each.rule_id for each in decision.treatments))
        return key


def _drawn(again: Again, head: Head, view: View) -> list[str]:
    """The experiments of a point that the view is in."""
    names = again.snapshot.point(head.point).experiments
    return [name for name in names if view.experiments.of(name, view)]


def _added(grid: _Grid, names: Sequence[str]) -> Chances:
    """What is delivered over all sets of variants of the experiments `names`."""
    experiments = [grid.again.experiments[name] for name in names]
    if prod(len(each.drawable) for each in experiments) > MOST:
        raise TooMany
    found: dict[bytes, float] = {}
    shares = [each.shares for each in experiments]
    for variants in product(*(each.drawable for each in experiments)):
        key = grid.of(dict(zip(names, variants, strict=True)))
        found[key] = found.get(key, 0.0) + prod(own[each] for own, each in zip(shares, variants, strict=True))
    units = []
    for each in experiments:
        unit = grid.again.assigners.each[each.name].unit
        if unit is not None:
            units.append((each.by, unit(grid.view) or ""))
    return Chances(found, grid.rules, tuple(units))
