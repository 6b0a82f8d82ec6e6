"""Which experiments a decision says something about: those of which another variant would have changed it.

Law: pure. It is decided again for every other variant that chance might have given, so whoever is exposed is exposed in
each variant alike, and only then do variants compare (triggered analysis: Kohavi, Tang and Xu, Trustworthy Online
Controlled Experiments, 2020, chapter 20). Models that only another variant asks for run too: `score` has them run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.decision.walk import Need, Walk, repeated
from arbiter.types import ExperimentOutcome, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbiter.decision.assignment import Assigned
    from arbiter.expr.view import View
    from arbiter.ruleset.compiled import Point
    from arbiter.types import Decision, Treatment

_NOTHING: frozenset[str] = frozenset()
_BY_CHANCE = frozenset({Standing.DRAWN, Standing.KEPT})


def exposed(
    decision: Decision,
    point: Point,
    view: View,
    subject_id: str,
    slots: int,
    delivered: Sequence[Treatment],
    changes: Callable[[], dict[str, int]],
    score: Callable[[Sequence[str], View], None],
    off: frozenset[str] = _NOTHING,
) -> Decision:
    """The decision with the experiments that mattered to it, and on treatments the variants for which they are given.

    The arguments are those of its walk. Of a variant that was forced the treatments tell, the experiments do not: it
    says nothing about whom chance would have given it. The propensity is the product, over the experiments that
    mattered, of the shares of the variants that give this same decision.
    """
    assigned: Assigned = view.experiments
    experiments: dict[str, str] = {}
    propensity = 1.0
    given = decision.treatments
    variants: list[tuple[str, ...]] = [()] * len(given)
    for name in point.experiments:
        variant = assigned.of(name, view)
        if not variant:
            continue
        mattered, same, marked = False, 0.0, set[int]()
        for values, share in assigned.others(name, variant):
            other = view.elsewhere(assigned.but(values))
            walk = Walk(point, other, subject_id, slots, delivered, None, changes, off)
            while isinstance(outcome := walk.advance(), Need):
                score(outcome.models, other)
            if _same(outcome.treatments, given):
                same += share
            else:
                mattered = True
                marked |= {at for at, each in enumerate(given) if not _among(each, outcome.treatments)}
        for place in marked:
            variants[place] += (variant,)
        if mattered and assigned.assignment(name, view).standing in _BY_CHANCE:
            experiments[name] = variant
            propensity *= same + assigned.share(name, variant)
    if not any(variants) and not experiments:
        return decision
    treatments = tuple(
        point.marked(treatment, ",".join(told)) if told else treatment
        for treatment, told in zip(given, variants, strict=True)
    )
    return msgspec.structs.replace(decision, treatments=treatments, experiments=experiments, propensity=propensity)


def standings(decision: Decision, point: Point, view: View) -> tuple[ExperimentOutcome, ...]:
    """How the subject stands with each experiment of the point."""
    assigned: Assigned = view.experiments
    outcomes = [assigned.outcome(name, view) for name in point.experiments]
    return tuple(msgspec.structs.replace(each, mattered=each.name in decision.experiments) for each in outcomes)


def _same(these: tuple[Treatment, ...], those: tuple[Treatment, ...]) -> bool:
    if len(these) != len(those):
        return False
    return all(one is other or repeated(one, (other,)) for one, other in zip(these, those, strict=True))


def _among(treatment: Treatment, others: tuple[Treatment, ...]) -> bool:
    # Of a constant one it is the very same object, which spares a comparison.
    return any(treatment is other for other in others) or repeated(treatment, others)
