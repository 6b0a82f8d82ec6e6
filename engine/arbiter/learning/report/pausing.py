"""Whether a variant breaks a guardrail of its experiment, judged so that one may look as often as one likes.

Law: asks the records, and leaves all that is chance to `learning.sequential`. A unit's figure is what came of its
decisions in the metric's time from the first one on at which the experiment mattered to it, and it counts when that
time is over: so it is settled, and there is one for each unit, however often that comes back. As in `experiments`, a
unit counts for the variant in which it was first seen, and those that came by different weights are compared apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.learning.effects import Sample
from arbiter.learning.report.experiments import control_of, expose
from arbiter.learning.sequential import Arm, bounded, together

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbiter.learning.report.reading import Records
    from arbiter.learning.report.terms import Design
    from arbiter.learning.sequential import Bounded
    from arbiter.ruleset.experiments.terms import Experiment, Guardrail
    from arbiter.ruleset.terms import Metric, Taken

_ENTERED: Final = """
    CREATE OR REPLACE TABLE entered AS
    SELECT unit, min(moment) AS came, arg_min(variant, moment) AS variant, arg_min(snapshot, moment) AS snapshot
    FROM exposed WHERE unit IS NOT NULL AND moment >= ? AND (? = '' OR snapshot = ?) GROUP BY unit
"""
_MOMENTS: Final = """
    WITH counted AS (
        SELECT x.unit, count(*) AS times, coalesce(sum(h.value), 0) AS total
        FROM happened h JOIN exposed x ON h.decision = x.id JOIN entered e ON e.unit = x.unit
        WHERE h.kind = 'outcome' AND h.name = ? AND x.moment >= e.came AND h.moment >= h.decided_at
            AND h.moment - e.came < ?
        GROUP BY x.unit
    ), settled AS (
        SELECT e.snapshot, e.variant, coalesce({figure}, 0)::DOUBLE AS figure
        FROM entered e LEFT JOIN counted c ON c.unit = e.unit WHERE e.came + ? <= ?
    )
    SELECT snapshot, variant, count(*), avg(figure), coalesce(var_samp(figure), 0), count(*) FILTER (figure <> 0)
    FROM settled GROUP BY ALL ORDER BY ALL
"""
_FIGURES: Final[dict[Taken, str]] = {"any": "(c.times > 0)::INTEGER", "count": "c.times", "sum": "c.total"}


class Broke(msgspec.Struct, frozen=True):
    """That a variant broke a guardrail, and what was seen."""

    experiment: str
    variant: str
    control: str
    guardrail: Guardrail
    found: Bounded

    @property
    def said(self) -> str:
        """The same for people."""
        guardrail, found = self.guardrail, self.found
        if guardrail.at_least is not None:
            bound, sure = f"at least {guardrail.at_least:.6g}", f"at most {found.high:.4g}"
        else:
            bound, sure = f"at most {guardrail.at_most:.6g}", f"at least {found.low:.4g}"
        return (
            f"guardrail: `{guardrail.metric}` of variant `{self.variant}` is {found.arm:.4g} over {found.units:,}, "
            f"of `{self.control}` {found.control:.4g} over {found.others:,}; the difference, {found.difference:.4g}, "
            f"is {sure} with confidence {guardrail.confidence:g}, and may be {bound}"
        )


def broken(
    records: Records,
    experiment: Experiment,
    metrics: Mapping[str, Metric],
    design_of: Callable[[str], Design | None],
    since: int,
    now: int,
    snapshot: str = "",
) -> Broke | None:
    """The first guardrail of an experiment that a variant breaks, by decisions from `since` on (µs) until `now`: of all
    units, or of those that came by one `snapshot`.

    `design_of` says how a snapshot has the experiment, where that is known.
    """
    expose(records, experiment.name, experiment.by)
    records.make(_ENTERED, since, snapshot, snapshot)
    control = control_of(experiment.variants)
    variants = [each for each in experiment.variants if each != control]
    for guardrail in experiment.guardrails:
        metric = metrics[guardrail.metric]
        strata = _strata(records, metric, design_of, now)
        # Several variants are several chances to be wrong: what the guardrail leaves is for all of them together.
        miss = (1 - guardrail.confidence) / len(variants)
        for variant in variants:
            both = [(arms[variant], arms[control]) for arms in strata if variant in arms and control in arms]
            found = bounded(both, miss, binary=metric.take == "any")
            if found is not None and _beyond(guardrail, found):
                return Broke(experiment.name, variant, control, guardrail, found)
    return None


def _beyond(guardrail: Guardrail, found: Bounded) -> bool:
    if guardrail.at_least is not None:
        return found.high < guardrail.at_least
    return guardrail.at_most is not None and found.low > guardrail.at_most


def _strata(
    records: Records, metric: Metric, design_of: Callable[[str], Design | None], now: int
) -> list[dict[str, Arm]]:
    """The arms by variant, of each design by which units came; a snapshot of which none is known is one of its own."""
    rows = records.rows(
        _MOMENTS.format(figure=_FIGURES[metric.take]), metric.outcome, metric.within, metric.within, now
    )
    found: dict[str, dict[str, list[Arm]]] = {}
    for snapshot, variant, units, mean, variance, events in rows:
        design = design_of(snapshot)
        stratum = snapshot if design is None else repr(sorted(design.weights.items()))
        found.setdefault(stratum, {}).setdefault(variant, []).append(Arm(Sample(units, mean, variance), events))
    return [{variant: together(arms) for variant, arms in own.items()} for own in found.values()]
