"""What a candidate would have earned: from which files, and how it is said on a terminal.

Law: opens files, and prints; what is estimated stands in `runtime.earning`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import typer

from arbiter.cli.terminal import fail, out, print_table
from arbiter.ruleset.times import duration_micros

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arbiter.learning.offpolicy import Estimate, Way
    from arbiter.ruleset.terms import Taken
    from arbiter.runtime.earning import Earned, Earning
    from arbiter.snapshot import Snapshot

_WAYS: Final[dict["Way", str]] = {
    "inverse_propensity": "inverse",
    "self_normalized": "normalized",
    "doubly_robust": "doubly robust",
}
_FEW: Final = 30  # effective units, below which an estimate is of a handful,
_HEAVY: Final = 0.1  # as is one of which a unit has this share of the weight


class Wanted(NamedTuple):
    """What decisions earn: outcomes of a name that came sooner than `within` µs, None for ever, as `take` says."""

    outcome: str
    within: "int | None"
    take: "Taken"
    said: str


def wanted(outcome: str, within: str, metric: str, candidate: "Snapshot", *, valued: bool) -> Wanted | None:
    """What is asked for, by its parts or as a metric of the candidate; None for nothing. Raises typer.BadParameter."""
    if metric:
        if outcome or within or valued:
            raise typer.BadParameter("a metric says which outcome, how soon and how it is taken", param_hint="--metric")
        found = {each.name: each for each in candidate.frame.metrics}
        if metric not in found:
            known = f"there are {', '.join(found)}" if found else "there is none"
            raise typer.BadParameter(f"the rules declare no metric `{metric}`: {known}", param_hint="--metric")
        return Wanted(found[metric].outcome, found[metric].within, found[metric].take, metric)
    micros = duration_micros(within) if within else None
    if within and micros is None:
        raise typer.BadParameter(f"`{within}` is no duration: write `7d`, say", param_hint="--within")
    if not outcome:
        return None
    return Wanted(outcome, micros, "sum" if valued else "any", f"value of {outcome}" if valued else outcome)


def earning_of(log: Path, data: Path, asked: Wanted, level: float) -> "Earning":
    """What adds up what a candidate would have earned of the outcomes beside a log."""
    from arbiter.errors import StoreError  # noqa: PLC0415
    from arbiter.runtime.archive import Archive  # noqa: PLC0415 - loads onnxruntime, as these do
    from arbiter.runtime.earning import Earning  # noqa: PLC0415
    from arbiter.runtime.logfiles import happened_in  # noqa: PLC0415
    from arbiter.runtime.replaying import OfThen  # noqa: PLC0415
    from arbiter.runtime.rewards import rewards_in  # noqa: PLC0415

    outcome = asked.outcome
    found = rewards_in(happened_in(log), outcome, asked.within, asked.take)
    if outcome not in found.names:
        known = f"there are {', '.join(found.names)}" if found.names else "none was recorded at all"
        fail(f"no outcome beside {log} is called `{outcome}`: {known}")
    archive = Archive(data / "snapshots") if (data / "snapshots").is_dir() else None

    def opened(digest: str) -> "Snapshot":
        if archive is None:
            raise StoreError(f"{data} holds no snapshots")
        return archive.read(digest, {})

    return Earning(OfThen(opened), found.by_decision, level)


def print_earned(found: "Sequence[Earned]", what: str, level: float, left_out: "Mapping[str, int]") -> None:
    """Say by decision point what the candidate would have earned of `what`, or why that is not known."""
    for each in found:
        for line in said(each, what, level):
            out().print(line, highlight=False)
        if each.estimates:
            print_table(
                ("estimate", "earns", "interval", "gain", "interval", "effective"),
                [_row(own) for own in each.estimates],
            )
    for why, count in sorted(left_out.items()):
        out().print(f"{count:,} in no estimate: {why}", highlight=False)


def said(each: "Earned", what: str, level: float) -> "list[str]":
    """What an estimate is of, and what to think of it."""
    from arbiter.runtime.earning import SAME  # noqa: PLC0415 - loads onnxruntime

    lines = [f"{each.point}: {what} a decision"]
    if each.unsupported:
        share = each.unsupported / each.decisions
        lines.append(
            f"no support for {each.unsupported:,} of {each.decisions:,} ({share:.1%}): chance could not have delivered "
            "there what it delivers, and no figure holds them"
        )
    if each.units:
        decisions = each.decisions - each.unsupported
        lines.append(
            f"{decisions:,} decisions of {each.units:,} units earned {figure(each.mean)} "
            f"({figure(each.low)} to {figure(each.high)}, {level:.0%})"
        )
    if each.assumed:
        lines.append(f"{each.assumed:,} by snapshots that are gone: their propensity is the log's, support is assumed")
    if each.early:
        lines.append(
            f"{each.early:,} of subjects who keep a variant since before this log: taken to be drawn by its weights"
        )
    if each.why == SAME:
        lines.append(f"it would have earned the same: {each.why}")
    elif each.why:
        lines.append(f"NO ESTIMATE: {each.why} (mean weight {each.weight:.2f})" if each.units else
                     f"NO ESTIMATE: {each.why}")  # fmt: skip
    elif any(own.effective < _FEW or own.heaviest > _HEAVY for own in each.estimates):
        heaviest = max(own.heaviest for own in each.estimates)
        lines.append(f"BELIEVE NONE: so few units have all the weight (the heaviest {heaviest:.0%})")
    return lines


def figure(value: float) -> str:
    """A figure with as many digits as it may be worth."""
    return f"{value:.3g}"


def _row(own: "Estimate") -> tuple[str, ...]:
    return (
        _WAYS[own.way],
        figure(own.value),
        f"{figure(own.low)} to {figure(own.high)}",
        f"{own.gain:+.2g}",
        f"{own.gain_low:+.2g} to {own.gain_high:+.2g}",
        f"{own.effective:,.0f}",
    )
