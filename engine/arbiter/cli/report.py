"""`arbiter report`: what a log of decisions says of experiments, rules and people.

Law: reads a log and the snapshots of then, asks `learning.report`, and prints. Asks no server.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from arbiter.cli.asking import AsJson
from arbiter.cli.replay import Log, loaded
from arbiter.cli.reportparts import print_guards, print_parts, print_segments, read_guard
from arbiter.cli.terminal import FINDINGS, fail, out, print_json, print_table
from arbiter.ruleset.times import duration_micros

if TYPE_CHECKING:
    import pyarrow as pa

    from arbiter.learning.report.terms import Design, Question, Reach, RuleFigures, Told
    from arbiter.ruleset.terms import Metric
    from arbiter.runtime.archive import Archive

_SHOWN = 25  # rules of a decision point, of which there may be many
Data = Annotated[
    Path,
    typer.Option(metavar="DIR", help="The data directory of the server, for the experiments and rules of then.",
                 file_okay=False),
]  # fmt: skip
Page = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML page with plots there.")]
ByRules = Annotated[
    Path | None,
    typer.Option("--rules", metavar="DIR", help="Tell the metrics of these rules, and not of the log's newest.",
                 exists=True, file_okay=False),
]  # fmt: skip
Within = Annotated[
    str, typer.Option(metavar="DURATION", help="Tell outcomes, and no metrics: those that came sooner, in `7d` say.")
]
Level = Annotated[float, typer.Option(min=0.5, max=0.9999, metavar="SHARE", help="The level of the intervals.")]
Least = Annotated[
    float, typer.Option(min=0, max=1, metavar="SHARE", help="A rule reaches almost no one below this share of people.")
]
Most = Annotated[
    float, typer.Option(min=0, max=1, metavar="SHARE", help="Somebody gets everything with this share of the rules.")
]
Guards = Annotated[
    list[str] | None,
    typer.Option("--guard", metavar="OUTCOME>=BOUND",
                 help="What no variant may break: the least difference to the control, or the most by <=; repeatable."),
]  # fmt: skip
Segments = Annotated[bool, typer.Option("--segments", help="Tell effects and rules by segment, too, and their sizes.")]
Every = Annotated[str, typer.Option(metavar="DURATION", help="Tell sizes of segments by spans of this length: `1d`.")]


def report(
    log: Log,
    *,
    data: Data = Path("data"),
    rules: ByRules = None,
    within: Within = "",
    level: Level = 0.95,
    least: Least = 0.001,
    most: Most = 0.8,
    guard: Guards = None,
    segments: Segments = False,
    every: Every = "",
    page: Page = None,
    as_json: AsJson = False,
) -> None:
    """Say what a log holds of experiments, rules and people.

    Of each experiment whether its arms have the sizes they should, and how variants differ in outcomes, with intervals;
    of each rule how often it was eligible, won, lost and to whom, was shown and converted; which rules reach almost no
    one, and how many people get everything. With --segments how large segments are, who comes and leaves, and what
    rules and variants do in each.

    Ends with 1 when the arms of an experiment do not have their sizes, since then none of its effects is to be
    believed, and when a variant broke a bound.
    """
    if importlib.util.find_spec("duckdb") is None or importlib.util.find_spec("pyarrow") is None:
        fail("a report needs DuckDB and pyarrow: pip install 'arbiter[report]'")
    from arbiter.learning.report.reading import opened  # noqa: PLC0415 - loads DuckDB, as these do
    from arbiter.learning.report.whole import report as make  # noqa: PLC0415
    from arbiter.runtime.logfiles import happened_in, whole  # noqa: PLC0415

    micros, span = _micros(within, "--within"), _micros(every, "--every")
    if within and rules is not None:
        raise typer.BadParameter("metrics say how long an outcome counts: leave `--within` out, or `--rules`",
                                 param_hint="--within")  # fmt: skip
    wanted = None if rules is None else _metrics_in(rules)
    files, waiting = whole(log)
    with opened(files, waiting, happened_in(log)) as records:
        snapshots = [digest for (digest,) in records.rows(
            "SELECT snapshot FROM decisions GROUP BY snapshot ORDER BY max(moment) DESC"
        )]  # fmt: skip
        question = _question(data, snapshots)
        if segments and snapshots:
            records.belongs(_memberships(log, data, snapshots[0]))
        metrics = question.metrics if wanted is None and micros is None else wanted or ()
        guards = tuple(read_guard(each, metrics) for each in guard or ())
        told = make(records, replace(question, within=micros, level=level, least=least, most=most, guards=guards,
                                     every=span, metrics=metrics))  # fmt: skip
    if page is not None:
        from arbiter.learning.report.page import page_of  # noqa: PLC0415 - seldom asked for

        page.write_text(page_of(told), "utf-8")
    if as_json:
        print_json(told)
    else:
        _print(told)
    raise typer.Exit(FINDINGS if told.mismatched or told.broken else 0)


def _micros(text: str, option: str) -> int | None:
    found = duration_micros(text) if text else None
    if text and found is None:
        raise typer.BadParameter(f"`{text}` is no duration: write `7d`, say", param_hint=option)
    return found


def _memberships(log: Path, data: Path, digest: str) -> "pa.Table":
    """Who was in which segment, by the newest snapshot of the log."""
    from arbiter.cli.versions import archive_in  # noqa: PLC0415 - loads onnxruntime, as these do
    from arbiter.errors import StoreError  # noqa: PLC0415
    from arbiter.runtime.logfiles import read_log  # noqa: PLC0415
    from arbiter.runtime.segmenting import memberships  # noqa: PLC0415

    try:
        snapshot = archive_in(data).read(digest, {})
    except StoreError as error:
        fail(f"segments are those of the newest snapshot of the log, which {data} does not hold: {error}")
    return memberships(read_log(log), snapshot)


def _question(data: Path, snapshots: list[str]) -> "Question":
    """What the snapshots that are still there say of experiments and rules."""
    from arbiter.learning.report.terms import Question  # noqa: PLC0415 - loads msgspec's structs when asked for
    from arbiter.runtime.archive import Archive  # noqa: PLC0415 - loads onnxruntime

    kept = data / "snapshots"
    if not kept.is_dir():
        return Question()
    archive = Archive(kept)
    designs = {digest: _designs(archive, digest) for digest in snapshots}
    rules = _rules(archive, snapshots[0]) if snapshots else {}
    return Question(designs, rules, metrics=_metrics(archive, snapshots[0]) if snapshots else ())


def _designs(archive: "Archive", digest: str) -> "dict[str, Design]":
    from arbiter.errors import StoreError  # noqa: PLC0415
    from arbiter.learning.report.terms import Design  # noqa: PLC0415

    try:
        experiments = archive.frame(digest).experiments.each
    except StoreError:
        return {}  # it was taken away meanwhile: what came by it is said to be unchecked
    return {each.name: Design(each.shares, each.by) for each in experiments}


def _metrics(archive: "Archive", digest: str) -> "tuple[Metric, ...]":
    from arbiter.errors import StoreError  # noqa: PLC0415

    try:
        return archive.frame(digest).metrics
    except StoreError:
        return ()


def _metrics_in(rules: Path) -> "tuple[Metric, ...]":
    """The metrics that these rules declare; there must be some."""
    metrics = loaded(rules, None, {}).frame.metrics
    if not metrics:
        fail(f"the rules in {rules} declare no metrics: write `metrics: {{bought: {{outcome: purchase, within: 7d}}}}`")
    return metrics


def _rules(archive: "Archive", digest: str) -> dict[str, list[str]]:
    from arbiter.errors import StoreError  # noqa: PLC0415

    try:
        snapshot = archive.read(digest, {})
    except StoreError:
        return {}
    return {name: [rule.id for rule in snapshot.point(name).all_rules] for name in snapshot.points}


def _print(told: "Told") -> None:
    from arbiter.learning.report.words import TAKES, figure, interval, ratio_said, summary  # noqa: PLC0415

    for line in summary(told):
        out().print(line, highlight=False)
    for trial in told.experiments:
        for line in ratio_said(trial):
            out().print(line, style="red" if trial.name in told.mismatched else "", highlight=False)
        ratio = trial.ratio
        if ratio is not None:
            print_table(
                (f"variant of {trial.name}", "units", "expected"),
                [(name, f"{count:,}", f"{ratio.expected[name]:,.1f}") for name, count in ratio.counts.items()],
            )
        for outcome in dict.fromkeys(each.outcome for each in trial.effects):
            print_table(
                (outcome, "variant", "it has", trial.control, "difference", "interval"),
                [
                    (
                        TAKES[each.take], each.variant, figure(each.take, each.found.arm),
                        figure(each.take, each.found.control), figure(each.take, each.found.difference), interval(each),
                    )
                    for each in trial.effects if each.outcome == outcome
                ],
            )  # fmt: skip
        print_parts(trial.name, trial.parts)
    if told.guards:
        print_guards(told.guards)
    for reach in told.reach:
        _print_point(reach, [each for each in told.rules if each.point == reach.point])
    print_segments(told)


def _print_point(reach: "Reach", rules: "list[RuleFigures]") -> None:
    from arbiter.learning.report.words import lost_to, reach_said  # noqa: PLC0415

    outcomes = sorted({name for each in rules for name in each.converted})
    print_table(
        (f"rule of {reach.point}", "eligible", "won", "subjects", "shown", *outcomes, "lost to"),
        [
            (
                each.rule or "default", "" if each.eligible is None else f"{each.eligible:,} of {each.looked:,}",
                f"{each.won:,}", f"{each.subjects:,}", f"{each.shown:,}",
                *(f"{each.converted.get(name, 0):,}" for name in outcomes), lost_to(each),
            )
            for each in rules[:_SHOWN]
        ],
        prose=("lost to",),
    )  # fmt: skip
    if len(rules) > _SHOWN:
        out().print(f"{reach.point}: {len(rules) - _SHOWN:,} more rules, all of them by --json", highlight=False)
    for line in reach_said(reach):
        out().print(line, highlight=False)
