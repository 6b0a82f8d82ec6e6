"""Drawing lots: which rule of a group is delivered, where the group is a bandit.

Law: pure. With which chances it is drawn is told by the view, which has it of whoever learned; where nobody tells,
nothing was learned, and chances are equal. The lot itself is the published hash of the subject and the clock, so that
the same decision with the same chances draws the same rule.
"""

from __future__ import annotations

from math import nextafter
from typing import TYPE_CHECKING, Final

from arbiter.decision.hashing import share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from arbiter.expr.view import View
    from arbiter.ruleset.compiled import Point
    from arbiter.ruleset.terms import Bandit

    Draws = Callable[[str, Bandit, tuple[str, ...], float], tuple[int, float]]
    """Given a decision point, a group, the ids of rules and a lot in [0, 1), which of the rules is drawn, by its place,
    and with which chance.
    """

_ALMOST: Final = nextafter(1.0, 0.0)


def draw(point: Point, group: str, rules: Iterable[str], view: View, subject_id: str) -> tuple[str, float]:
    """Which of several rules, by their ids, is drawn, and with which chance it was."""
    named = tuple(sorted(rules))
    lot = share(f"{point.name}\0{group}", f"{subject_id}\0{view.clock}")
    draws: Draws = evenly if view.draws is None else view.draws
    place, chance = draws(point.name, point.bandits[group], named, lot)
    return named[place], chance


def pick(chances: Sequence[float], lot: float) -> tuple[int, float]:
    """The place that a lot falls on, and the chance of it: less than 1, since there are several."""
    passed = 0.0
    for place, chance in enumerate(chances):
        passed += chance
        if lot < passed:
            return place, min(chance, _ALMOST)
    place = max(range(len(chances)), key=chances.__getitem__)  # a sum that was rounded leaves a gap below 1
    return place, min(chances[place], _ALMOST)


def evenly(_point: str, _bandit: Bandit, rules: tuple[str, ...], lot: float) -> tuple[int, float]:
    """Draw with equal chances."""
    return pick((1 / len(rules),) * len(rules), lot)
