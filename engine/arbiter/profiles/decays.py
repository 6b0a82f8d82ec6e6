"""Totals that decay: each number loses half of its weight with every half-life that passes.

Law: pure. A *part* is ``[lives, rest, total]``: a time in whole half-lives since 1970 and the rest of one, and what is
counted, as `totals` has it, with the weight it has at that time. Numbers of one time are held as they came. Of several
times they are held at the last whole half-life, where each is rounded once; from one whole half-life to another weights
differ by powers of two, so that no later joining rounds anything, and neither order nor grouping shows.

Every number counts in the result with a relative error below 2^-40: 2^-51 for what is rounded before the reading, and
at the reading 2^-53 for each half-life that has passed, of which a double that is not 0 can see 2,100 at most.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from arbiter.profiles import totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_OLDEST = -(1 << 63)
_LONG_AGO = -1000  # half-lives
_NUMBERS = (int, float)
NOTHING: list[Any] = [0.0, _OLDEST]
"""What is stored of the total of nothing: it is 0 at every clock."""


def part(number: float, at: int, half_life: int) -> list[Any]:
    """One number, counted at `at`; both times in µs."""
    lives, rest = divmod(at, half_life)
    return [lives, rest / half_life, number]


def fold(parts: Sequence[Any]) -> list[Any]:
    """One part that stands for all of `parts`."""
    lives, rest, _ = parts[0]
    if all(other[0] == lives and other[1] == rest for other in parts):
        return [lives, rest, totals.fold([other[2] for other in parts])]
    lives = max([other[0] for other in parts])
    return [lives, 0.0, totals.fold(_weighed(parts, lives, 0.0))]


def total(parts: Sequence[Any], half_life: int) -> list[Any] | None:
    """What is to be stored of a total, ``[total, time in µs]``; None when it is no finite double. The last part is the
    newest.
    """
    lives, rest, _ = parts[-1]
    try:
        result = math.fsum(_weighed(parts, lives, rest))
    except (OverflowError, ValueError):  # ValueError: infinities of both signs
        return None
    return [result, lives * half_life + round(rest * half_life)] if math.isfinite(result) else None


def _weighed(parts: Iterable[Any], lives: int, rest: float) -> list[float]:
    """The doubles of `parts` with the weights that they have at a time."""
    found: list[float] = []
    for own_lives, own_rest, counted in parts:
        steps, share = own_lives - lives, 2.0 ** (own_rest - rest)
        if steps > _LONG_AGO and counted.__class__ in _NUMBERS:  # most are: the weight is a normal double
            found.append(counted * math.ldexp(share, steps))
        else:
            found += [math.ldexp(number * share, steps) for number in totals.doubles(counted)]
    return found
