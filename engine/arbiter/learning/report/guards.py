"""Whether variants keep to bounds: whether a figure fell further below the control's than it may, or rose above.

Law: effects and bounds in, judgements out. A bound is broken when the whole interval lies beyond it: of variants that
lie on the bound itself half of what the level leaves is said to have broken it, one in forty at 0.95. Whoever looks
each day until one does will see it.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from arbiter.learning.report.terms import Guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.learning.effects import Difference
    from arbiter.learning.report.terms import Guard, State, Trial


def guarded(trials: Sequence[Trial], guards: Sequence[Guard]) -> list[Guarded]:
    """Each bound by experiment and variant, in their order; a variant without the outcome is open."""
    found = []
    for guard in guards:
        for trial in trials:
            own = {(each.variant, each.outcome, each.take): each.found for each in trial.effects}
            for variant in trial.units:
                if variant != trial.control:
                    difference = own.get((variant, guard.outcome, guard.take))
                    found.append(Guarded(guard, trial.name, variant, _state(guard, difference), difference))
    return found


def _state(guard: Guard, found: Difference | None) -> State:
    if found is None or not (isfinite(found.low) and isfinite(found.high)):
        return "open"
    if guard.most:
        return "broke" if found.low > guard.bound else "kept" if found.high <= guard.bound else "open"
    return "broke" if found.high < guard.bound else "kept" if found.low >= guard.bound else "open"
