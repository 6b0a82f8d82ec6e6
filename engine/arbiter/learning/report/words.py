"""How a report says its figures, on a terminal and on a page alike.

Law: figures in, text out.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Final

from arbiter.ruleset.written import duration_text
from arbiter.types import from_micros

if TYPE_CHECKING:
    from arbiter.learning.report.terms import (
        Effect,
        Guard,
        Guarded,
        Reach,
        RuleFigures,
        SegmentFigures,
        Take,
        Told,
        Trial,
    )
    from arbiter.ruleset.terms import Taken

TAKES: Final[dict[Take, str]] = {
    "any": "share with one",
    "count": "times a unit",
    "sum": "value a unit",
    "each": "times a decision",
}
_COUNTED: Final[dict[Taken, str]] = {"any": "whether there is a", "count": "how many", "sum": "the amount of"}
_NAMED: Final = 20
_LOST: Final = 3  # of those whom a rule lost to


def summary(told: Told) -> list[str]:
    """The whole in a few sentences."""
    if told.first is None or told.last is None:
        return ["The log holds no decision."]
    first, last = (from_micros(at).isoformat(sep=" ", timespec="minutes")[:16] for at in (told.first, told.last))
    said = [f"{told.decisions:,} decisions for {told.subjects:,} subjects, {first} to {last} UTC"]
    if told.exposures or told.outcomes:
        said.append(f"{told.exposures:,} exposures, {told.outcomes:,} outcomes")
    else:
        said.append("nothing was recorded of what was shown, or of what came of it")
    if told.impersonal:
        said.append(f"{told.impersonal:,} decisions say nothing of their subject: they count for rules alone")
    if told.unjoined:
        said.append(f"{told.unjoined:,} exposures and outcomes are of decisions that the log does not hold")
    return said + [
        f"{metric.name} is {_COUNTED[metric.take]} {metric.outcome} within {duration_text(metric.within)}"
        for metric in told.metrics
    ]


def ratio_said(trial: Trial) -> list[str]:
    """The sizes of the arms, and whether chance gives such."""
    split = "subjects" if trial.by == "subject" else f"units of `{trial.by}`"
    said = [f"{trial.name}: it mattered to {sum(trial.units.values()):,} {split} in {trial.decisions:,} decisions"]
    if trial.ratio is not None:
        found = "arms do NOT have the sizes they should" if trial.ratio.suspect else "arms have the sizes they should"
        rough = "; roughly, since arms are small" if trial.ratio.rough else ""
        said.append(f"{found} (χ² {trial.ratio.statistic:.2f}, {trial.ratio.freedom} df, p {trial.ratio.p:.4f}{rough})")
    if trial.unchecked:
        said.append(f"{trial.unchecked:,} came by snapshots whose weights are not known")
    if trial.crossed:
        said.append(f"{trial.crossed:,} saw several variants and count for the first")
    return said


def reach_said(reach: Reach) -> list[str]:
    """How far the rules of a decision point reach."""
    said = [f"{reach.point}: {reach.subjects:,} subjects, {reach.bare:,} of whom never got anything but the default"]
    if reach.heaviest is not None:
        said.append(f"the tenth who got most had {reach.heaviest:.0%} of all that was delivered")
    if reach.everything is not None:
        said.append(f"{reach.everything:,} got nearly all of {reach.rules:,} rules")
    rules = (("reach almost no one", reach.rare), ("were never delivered", reach.never))
    return [*said, *(f"rules that {words}: {_some(names)}" for words, names in rules if names)]


def guard_said(guard: Guard) -> str:
    """A bound as it is asked for."""
    bound = f"{guard.bound:.2%}" if guard.take == "any" else f"{guard.bound:g}"
    return f"{guard.outcome}, {TAKES[guard.take]}: {'at most' if guard.most else 'at least'} {bound}"


def guard_interval(guarded: Guarded) -> str:
    """Between which values the difference lies that is held to a bound; empty where nothing is known."""
    found, take = guarded.found, guarded.guard.take
    if found is None or not isfinite(found.low):
        return ""
    return f"{figure(take, found.low)} to {figure(take, found.high)}"


def over_time(found: SegmentFigures) -> list[tuple[str, int, int]]:
    """When each span begins, how many were seen then, and how many of them were inside."""
    moments = [from_micros(at).isoformat(sep=" ", timespec="minutes")[:16] for at in found.spans]
    return list(zip(moments, found.known, found.inside, strict=True))


def flows_said(found: SegmentFigures) -> str:
    """Who stays in a segment, and who comes."""
    if found.stays is None and found.comes is None:
        return "nobody was seen twice"
    parts = [
        f"of those inside {found.stays:.1%} are so in the next span" if found.stays is not None else "",
        f"of those outside {found.comes:.1%} come" if found.comes is not None else "",
        f"{sum(found.came):,} came, {sum(found.left):,} left, {sum(found.stayed):,} stayed",
    ]
    return "; ".join(filter(None, parts))


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def lost_to(rule: RuleFigures) -> str:
    """The rules that most often took a rule's place, or the stages where there is none."""
    named = [f"{each.to or each.stage.replace('_', ' ')} {each.times:,}" for each in rule.lost[:_LOST]]
    return ", ".join(named) + (", …" if len(rule.lost) > _LOST else "")


def figure(take: Take, value: float) -> str:
    """A figure by what it is."""
    return share(value) if take == "any" else f"{value:.4g}" if isfinite(value) else ""


def share(value: float) -> str:
    """A share in per cent."""
    return f"{value:.2%}" if isfinite(value) else ""


def interval(effect: Effect) -> str:
    """Between which values a difference lies."""
    if not isfinite(effect.found.low):
        return ""
    return f"{figure(effect.take, effect.found.low)} to {figure(effect.take, effect.found.high)}"
