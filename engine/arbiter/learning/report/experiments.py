"""What a log says of experiments: the sizes of their arms, and what variants do to outcomes.

Law: asks the records, and leaves all that is chance to `learning.effects`. Only decisions count to which an experiment
mattered, and units are what chance assigned. All of a unit's decisions are added up before anything is compared, since
what one unit does several times is not independent. A unit counts for the variant in which it was first seen, with all
that came of it since: leaving out those who changed theirs would take the frequent ones, and from one arm. Units that
came by different weights are compared among themselves, and then put together.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from arbiter.learning.effects import Pair, Sample, combined, means, proportions, ratios, sample_ratio
from arbiter.learning.report.terms import Design, Effect, Part, Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.learning.effects import Difference, SampleRatio
    from arbiter.learning.report.reading import Records
    from arbiter.learning.report.terms import Question, Take

_CONTROL: Final = "control"

_EXPOSED: Final = """
    CREATE OR REPLACE TABLE exposed AS
    SELECT id, moment, snapshot, e.variant AS variant,
        CASE WHEN ? = '' THEN subject ELSE json_extract_string(inputs, ?) END AS unit
    FROM (
        SELECT id, moment, snapshot, subject, inputs, unnest(experiments) AS e FROM decisions WHERE subject IS NOT NULL
    ) WHERE e.experiment = ? AND e.exposed
"""
_UNITS: Final = """
    CREATE OR REPLACE TABLE units AS
    SELECT unit, arg_min(variant, moment) AS variant, arg_min(snapshot, moment) AS snapshot,
        arg_min(id, moment) AS first, count(*) AS decisions, count(DISTINCT variant) > 1 AS crossed
    FROM exposed WHERE unit IS NOT NULL GROUP BY unit
"""
_MOMENTS: Final = """
    WITH counted AS (
        SELECT x.unit, count(*) AS times, coalesce(sum(h.value), 0) AS total
        FROM happened h JOIN exposed x ON h.decision = x.id
        WHERE h.kind = 'outcome' AND h.name = ? AND h.moment >= h.decided_at
            AND (? IS NULL OR h.moment - h.decided_at < ?)
        GROUP BY x.unit
    ), each_unit AS (
        SELECT s.stratum, u.variant, u.decisions::DOUBLE AS decisions, coalesce(c.times, 0)::DOUBLE AS times,
            coalesce(c.total, 0)::DOUBLE AS total
        FROM units u JOIN strata s ON s.snapshot = u.snapshot LEFT JOIN counted c ON c.unit = u.unit
        WHERE ? = '' OR u.first IN (SELECT id FROM belongs WHERE segment = ? AND inside)
    )
    SELECT stratum, variant, count(*), count(*) FILTER (times > 0),
        avg(times), coalesce(var_samp(times), 0), avg(total), coalesce(var_samp(total), 0),
        avg(decisions), coalesce(var_samp(decisions), 0), coalesce(covar_samp(times, decisions), 0)
    FROM each_unit GROUP BY ALL ORDER BY ALL
"""


def trials(records: Records, question: Question) -> list[Trial]:
    """Every experiment that mattered to a decision of the log, or of which a snapshot knows, by name."""
    logged = records.rows("""
        SELECT DISTINCT e.experiment FROM (SELECT unnest(experiments) AS e FROM decisions) ORDER BY 1
    """)
    outcomes = records.rows("""
        SELECT name, bool_or(value IS NOT NULL) FROM happened WHERE kind = 'outcome' AND name IS NOT NULL
        GROUP BY name ORDER BY name
    """)
    if question.metrics:  # also one that nothing counted for
        outcomes = [(metric.name, True) for metric in question.metrics]
    return [_trial(records, name, outcomes, question) for (name,) in logged]


def _trial(records: Records, name: str, outcomes: Sequence[tuple[Any, ...]], question: Question) -> Trial:
    newest = records.rows("SELECT snapshot FROM decisions GROUP BY snapshot ORDER BY max(moment) DESC")
    known = [question.designs[s][name] for (s,) in newest if name in question.designs.get(s, {})]
    design = known[0] if known else Design({})
    expose(records, name, design.by)
    records.make(_UNITS)
    counts = dict(records.rows("SELECT variant, count(*) FROM units GROUP BY variant"))
    crossed, decisions = records.row("""
        SELECT count(*) FILTER (crossed), coalesce(sum(decisions), 0)::BIGINT FROM units
    """)
    names = [*design.weights, *sorted(counts.keys() - design.weights.keys())]
    units = {each: counts[each] for each in names if each in counts}
    control = control_of(names)
    ratio, unchecked = _ratio(records, name, question)
    others = [each for each in units if each != control]

    def effects(segment: str = "") -> list[Effect]:
        return [
            effect
            for outcome, valued in outcomes
            for effect in _effects(records, outcome, others, control, question, segment, valued=valued)
        ]

    parts = [Part(segment, own, effects(segment)) for segment, own in _parts(records, names)]
    return Trial(name, design.by, control, units, decisions, crossed, unchecked, ratio, effects(), parts)


def expose(records: Records, name: str, by: str) -> None:
    """Have the records hold, as `exposed`, the decisions to which an experiment mattered, each with its unit."""
    path = "" if by == "subject" else "$." + ".".join(f'"{part}"' for part in by.split("."))
    records.make(_EXPOSED, path, path or "$", name)


def control_of(variants: Sequence[str]) -> str:
    """The variant that the others are compared with: the one called so, else the first."""
    return _CONTROL if _CONTROL in variants or not variants else variants[0]


def _parts(records: Records, names: Sequence[str]) -> list[tuple[str, dict[str, int]]]:
    """By segment how many units there are of each variant."""
    found: dict[str, dict[str, int]] = {}
    for segment, variant, count in records.rows("""
        SELECT b.segment, u.variant, count(*) FROM units u JOIN belongs b ON b.id = u.first WHERE b.inside
        GROUP BY ALL ORDER BY ALL
    """):
        found.setdefault(segment, {})[variant] = count
    return [(segment, {name: own[name] for name in names if name in own}) for segment, own in found.items()]


def _ratio(records: Records, name: str, question: Question) -> tuple[SampleRatio | None, int]:
    """Sizes of the arms, by the weights by which each unit came; and how many units could not be checked.

    Makes the strata: snapshots with equal weights are one, and each whose weights are not known is one of its own.
    """
    weights: dict[str, tuple[tuple[str, float], ...] | None] = {}
    found: dict[str, dict[str, int]] = {}
    for snapshot, variant, count in records.rows("SELECT snapshot, variant, count(*) FROM units GROUP BY ALL"):
        design = question.designs.get(snapshot, {}).get(name)
        weights[snapshot] = None if design is None else tuple(design.weights.items())
        found.setdefault(snapshot, {})[variant] = count
    strata: dict[tuple[tuple[str, float], ...], Counter[str]] = {}
    records.make("CREATE OR REPLACE TABLE strata (snapshot VARCHAR, stratum VARCHAR)")
    for snapshot, own in weights.items():
        records.make("INSERT INTO strata VALUES (?, ?)", snapshot, snapshot if own is None else repr(own))
        if own is not None:
            strata.setdefault(own, Counter()).update(found[snapshot])
    unchecked = sum(sum(found[snapshot].values()) for snapshot, own in weights.items() if own is None)
    return sample_ratio((counts, dict(own)) for own, counts in strata.items()), unchecked


def _effects(
    records: Records,
    outcome: str,
    variants: Sequence[str],
    control: str,
    question: Question,
    segment: str,
    *,
    valued: bool,
) -> list[Effect]:
    within = question.within
    strata: dict[str, dict[str, tuple[Any, ...]]] = {}
    for stratum, variant, *moments in records.rows(_MOMENTS, outcome, within, within, segment, segment):
        strata.setdefault(stratum, {})[variant] = tuple(moments)
    found = []
    for take in question.takes(outcome, valued=valued):
        for variant in variants:
            both = [arms for arms in strata.values() if variant in arms and control in arms]
            differences = [
                (arms[variant][0] + arms[control][0], _difference(take, arms[variant], arms[control], question.level))
                for arms in both
            ]
            if differences:
                found.append(Effect(outcome, take, variant, combined(differences)))
    return found


def _difference(take: Take, arm: tuple[Any, ...], control: tuple[Any, ...], level: float) -> Difference:
    match take:
        case "any":
            return proportions(arm[1], arm[0], control[1], control[0], level)
        case "count":
            return means(_sample(arm, 2), _sample(control, 2), level)
        case "sum":
            return means(_sample(arm, 4), _sample(control, 4), level)
        case "each":
            return ratios(_pair(arm), _pair(control), level)


def _sample(row: tuple[Any, ...], place: int) -> Sample:
    return Sample(row[0], row[place], row[place + 1])


def _pair(row: tuple[Any, ...]) -> Pair:
    return Pair(_sample(row, 2), _sample(row, 6), row[8])
