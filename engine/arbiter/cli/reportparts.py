"""What a report says of bounds and segments, on a terminal; and how bounds are asked for.

Law: text in and figures out, and the other way round.
"""

import re
from typing import TYPE_CHECKING, Final

import typer

from arbiter.authoring.blocks import one_of
from arbiter.cli.terminal import out, print_table
from arbiter.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.learning.report.terms import Guard, Guarded, Part, Take, Told
    from arbiter.ruleset.terms import Metric

_GUARD: Final = re.compile(r"(?P<outcome>.+?)(:(?P<take>any|count|sum|each))?\s*(?P<way>>=|<=)\s*(?P<bound>[^<>=]+)")
_SHOWN: Final = 25  # rows of a table of which there may be many
_SPANS: Final = 4  # of a segment that a terminal has room for


def read_guard(text: str, metrics: "Sequence[Metric]" = ()) -> "Guard":
    """A bound such as ``purchase>=-0.01`` or ``spend:sum<=2``; of one of the `metrics`, where there are some.

    Raises typer.BadParameter.
    """
    from arbiter.learning.report.terms import Guard  # noqa: PLC0415 - loads msgspec's structs when asked for
    from arbiter.learning.report.words import TAKES  # noqa: PLC0415

    found = _GUARD.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError  # noqa: TRY301 - said below
        bound = float(found["bound"])
    except ValueError:
        said = f"`{text}` is no bound: write 'purchase>=-0.01', 'spend:sum>=-0.5' or 'complaint<=0.002', say"
        raise typer.BadParameter(said, param_hint="--guard") from None
    outcome, most = found["outcome"].strip(), found["way"] == "<="
    take: Take = next((each for each in TAKES if each == found["take"]), "any")
    declared = {metric.name: metric.take for metric in metrics}
    if declared and outcome not in declared:
        hint = did_you_mean(outcome, declared) or f"there are {one_of(declared)}"
        raise typer.BadParameter(f"no metric is called `{outcome}`; {hint}", param_hint="--guard")
    if declared and found["take"] not in {None, declared[outcome]}:
        said = f"the metric `{outcome}` says by its `value` what is told of it: leave `:{found['take']}` out"
        raise typer.BadParameter(said, param_hint="--guard")
    return Guard(outcome, declared.get(outcome, take), bound, most=most)


def print_guards(guards: "Sequence[Guarded]") -> None:
    """Say by bound which variants broke it."""
    from arbiter.learning.report.words import guard_interval, guard_said  # noqa: PLC0415

    rows = [
        (f"{each.experiment}.{each.variant}", "BROKE" if each.state == "broke" else each.state, guard_interval(each),
         guard_said(each.guard))
        for each in guards
    ]  # fmt: skip
    print_table(("variant", "bound", "difference", "which"), rows, prose=("which",))


def print_parts(experiment: str, parts: "Sequence[Part]") -> None:
    """Say what an experiment does by segment, of each outcome one figure; the rest is in JSON."""
    from arbiter.learning.report.words import TAKES, figure, interval  # noqa: PLC0415

    rows = [
        (part.segment, each.outcome, TAKES[each.take], each.variant, f"{part.units.get(each.variant, 0):,}",
         figure(each.take, each.found.difference), interval(each))
        for part in parts for each in part.leading
    ]  # fmt: skip
    if rows:
        out().print(f"{experiment} by segment: many looks, so some intervals leave out 0 by chance",
                    highlight=False)  # fmt: skip
        print_table(("segment", "outcome", "figure", "variant", "units", "difference", "interval"), rows[:_SHOWN])


def print_segments(told: "Told") -> None:
    """Say how large segments are, who comes and leaves, and which rules win in them."""
    from arbiter.learning.report.words import flows_said, over_time  # noqa: PLC0415

    for each in told.segments:
        spans = over_time(each)
        print_table(
            (f"segment {each.segment}", "seen", "inside", "share"),
            [(at, f"{known:,}", f"{inside:,}", f"{inside / known:.1%}" if known else "")
             for at, known, inside in spans[-_SPANS:]],
        )  # fmt: skip
        out().print(f"{each.segment}: {flows_said(each)}", highlight=False)
    won = [each for each in told.rules_by_segment if each.won]
    outcomes = sorted({name for each in won for name in each.converted})
    if won:
        print_table(
            ("in segment", "rule", "won", "subjects", "shown", *outcomes),
            [
                (
                    each.segment, f"{each.point}: {each.rule or 'default'}", f"{each.won:,}", f"{each.subjects:,}",
                    f"{each.shown:,}", *(f"{each.converted.get(name, 0):,}" for name in outcomes),
                )
                for each in won[:_SHOWN]
            ],
        )  # fmt: skip
    if len(won) > _SHOWN:
        out().print(f"{len(won) - _SHOWN:,} more rules by segment, all of them by --json", highlight=False)
