"""`arbiter replay` and `arbiter shadow`: what a log of decisions says of rules, those of then and others.

Law: reads a log and snapshots, and prints; what is decided again stands in `runtime.replaying`. Neither asks a server.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.check import models_beside
from arbiter.cli.earned import earning_of, print_earned, wanted
from arbiter.cli.terminal import FINDINGS, diagnostic_text, err, fail, out, plural, print_json, print_table
from arbiter.cli.values import read_moment
from arbiter.cli.versions import archive_in
from arbiter.types import from_micros, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arbiter.learning.logged import Head, Row
    from arbiter.runtime.comparing import Compared, Example, Reproduced
    from arbiter.runtime.earning import Earning
    from arbiter.runtime.shadowed import Shadowed, VersionApart
    from arbiter.snapshot import Snapshot

Log = Annotated[Path, typer.Argument(metavar="LOG", help="The folder of a decision log, or a file of it.", exists=True)]
Data = Annotated[Path, typer.Option(metavar="DIR", help="The data directory of the server, for the snapshots of then.")]
Candidate = Annotated[
    Path | None,
    typer.Option("--rules", metavar="DIR", help="Decide by these rules, and say what changes.", exists=True,
                 file_okay=False),
]  # fmt: skip
Models = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Their models. [default: `models` beside the rules]", exists=True, file_okay=False
    ),
]
Versions = Annotated[
    list[str] | None,
    typer.Option(
        "--model", metavar="NAME=VERSION", help="Another version of a model than the live one of --models; repeatable."
    ),
]
Since = Annotated[str, typer.Option(metavar="TIME", help="Only decisions from then on: an ISO 8601 moment.")]
Until = Annotated[str, typer.Option(metavar="TIME", help="Only decisions before then.")]
Point = Annotated[str, typer.Option("--decision", metavar="NAME", help="Only decisions at this decision point.")]
Examples = Annotated[int, typer.Option(min=0, max=1000, help="How many decisions that change are shown.")]
Outcome = Annotated[
    str, typer.Option(metavar="NAME", help="With --rules: say what they would have earned of these outcomes.")
]
Within = Annotated[
    str, typer.Option(metavar="DURATION", help="Count outcomes that came sooner after their decision: `7d`, say.")
]
MetricName = Annotated[
    str, typer.Option("--metric", metavar="NAME", help="The same of a metric that they declare, in place of --outcome.")
]
Value = Annotated[bool, typer.Option("--value", help="What outcomes are worth, by their values; not whether any came.")]
Level = Annotated[float, typer.Option(min=0.5, max=0.9999, metavar="SHARE", help="The level of the intervals.")]
_SHOWN = 10  # rows of a table of which there may be many
_KINDLY = 19


def replay(
    log: Log,
    *,
    rules: Candidate = None,
    models: Models = None,
    model: Versions = None,
    data: Data = Path("data"),
    since: Since = "",
    until: Until = "",
    decision: Point = "",
    outcome: Outcome = "",
    within: Within = "",
    value: Value = False,
    metric: MetricName = "",
    level: Level = 0.95,
    examples: Examples = 5,
    as_json: AsJson = False,
) -> None:
    """Decide again what a log holds: by the snapshots of then, or by other rules.

    By the snapshots of then every decision must come out as it did; ends with 1 when one does not. With --rules it says
    which decisions these would change, by rule, decision point and segment; with --outcome or --metric, too, what they
    would have earned, as far as the log's experiments allow to say so.
    """
    from arbiter.runtime.comparing import Comparison, Reproduction  # noqa: PLC0415 - loads onnxruntime
    from arbiter.runtime.logfiles import read_log  # noqa: PLC0415 - loads pyarrow

    rows = _chosen(read_log(log), since, until, decision)
    if rules is not None:
        candidate = _candidate(rules, models, model, examples)
        asked = wanted(outcome, within, metric, candidate[0], valued=value)
        earning = earning_of(log, data, asked, level) if asked else None
        comparison = Comparison(*candidate, earning)
        for head, row in rows:
            comparison.add(head, row)
        _print_compared(comparison.result(), earning, asked.said if asked else "", as_json=as_json)
        return
    if outcome or metric:
        raise typer.BadParameter(
            "it is asked of other rules: name them with --rules", param_hint="--outcome" if outcome else "--metric"
        )
    archive = archive_in(data)
    reproduction = Reproduction(lambda digest: archive.read(digest, {}), examples)
    for head, row in rows:
        reproduction.add(head, row)
    result = reproduction.result()
    _print_reproduced(result, as_json=as_json)
    raise typer.Exit(FINDINGS if result.different else 0)


def shadow(
    rules: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="The rules to try.", exists=True, file_okay=False)],
    log: Annotated[Path, typer.Option(metavar="LOG", help="The folder of the decision log.", exists=True)],
    *,
    models: Models = None,
    model: Versions = None,
    decision: Point = "",
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How often what came of it is told.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="End after so long; 0 for never.")] = 0.0,
    examples: Examples = 5,
    as_json: AsJson = False,
) -> None:
    """Decide by other rules what a server decides meanwhile, and say what would change.

    Follows the log of a running server, on what processor time nobody else wants, until Ctrl-C or the end of --seconds.
    """
    from arbiter.runtime.comparing import Comparison  # noqa: PLC0415 - loads onnxruntime
    from arbiter.runtime.following import Following  # noqa: PLC0415

    os.nice(_KINDLY)
    comparison, following = Comparison(*_candidate(rules, models, model, examples)), Following(log)
    began = told = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        while not seconds or time.monotonic() - began < seconds:
            for head, row in following.new():
                if not decision or head.point == decision:
                    comparison.add(head, row)
            if time.monotonic() - told >= every:
                told = time.monotonic()
                found = comparison.result()
                err().print(f"{_counted(found.decisions)} compared, {found.changed:,} would change", highlight=False)
            time.sleep(0.2)
    for head, row in following.new():
        if not decision or head.point == decision:
            comparison.add(head, row)
    _print_compared(comparison.result(), as_json=as_json)


def _candidate(
    rules: Path, models: Path | None, versions: list[str] | None, examples: int
) -> "tuple[Snapshot, int, Shadowed | None]":
    """What to compare by: the candidate, how many examples, and what the versions that are named are compared with."""
    from arbiter.models.versions import version_of  # noqa: PLC0415 - loads onnxruntime, as does this
    from arbiter.runtime.shadowed import Shadowed  # noqa: PLC0415

    wanted = {}
    for said in versions or ():
        name, _, version = said.partition("=")
        if not (number := version_of(version)):
            raise typer.BadParameter(f"`{said}`: write NAME=VERSION, `churn=v3` say", param_hint="--model")
        wanted[name] = number
    shadowed = Shadowed(loaded(rules, models, {}), wanted) if wanted else None
    return loaded(rules, models, wanted), examples, shadowed


def loaded(rules: Path, models: Path | None, versions: dict[str, int]) -> "Snapshot":
    """The rules as a server would load them; ends the program where they hold mistakes."""
    from arbiter.cli.offline import load  # noqa: PLC0415 - loads onnxruntime

    snapshot, found = load(rules, models or models_beside(rules), versions)
    if snapshot is None:
        for each in found:
            err().print(diagnostic_text(each))
        fail("the rules hold mistakes, nothing was decided")
    return snapshot


def _chosen(rows: "Iterable[tuple[Head, Row]]", since: str, until: str, decision: str) -> "Iterator[tuple[Head, Row]]":
    first = to_micros(read_moment(since, "--since")) if since else None
    last = to_micros(read_moment(until, "--until")) if until else None
    for head, row in rows:
        in_time = (first is None or row.at >= first) and (last is None or row.at < last)
        if in_time and (not decision or head.point == decision):
            yield head, row


def _print_reproduced(found: "Reproduced", *, as_json: bool) -> None:
    if as_json:
        print_json({**_fields(found), "examples": [_example(each) for each in found.examples]})
        return
    out().print(f"{_counted(found.decisions)} decided again, {plural(found.different, 'difference')}", highlight=False)
    _print_left_out(found.left_out)
    _print_examples(found.examples)


def _print_compared(found: "Compared", earning: "Earning | None" = None, what: str = "", *, as_json: bool) -> None:
    earned = {} if earning is None else {"earned": earning.result(), "not_estimated": dict(earning.left_out)}
    if as_json:
        print_json({**_fields(found), "examples": [_example(each) for each in found.examples], **earned})
        return
    share = f" ({found.changed / found.decisions:.1%})" if found.decisions else ""
    out().print(f"{_counted(found.decisions)} compared, {found.changed:,} would change{share}", highlight=False)
    if found.open:
        names = ", ".join(found.unlogged[:_SHOWN])
        out().print(f"{found.open:,} more hang on what the log does not hold: {names}", highlight=False)
    if found.redrawn:
        out().print(f"{found.redrawn:,} have a share or a variant that was drawn anew: it is not in the log",
                    highlight=False)  # fmt: skip
    _print_left_out(found.left_out)
    for each in found.models:
        _print_apart(each)
    if found.changed:
        rules = sorted(found.by_rule.items(), key=lambda each: -abs(each[1][1] - each[1][0]))
        print_table(
            ("rule", "delivered", "would deliver"),
            [(rule or "default", f"{was:,}", f"{would:,}") for rule, (was, would) in rules[:_SHOWN]],
        )
        print_table(
            ("from → to", "decisions"), [(move, f"{count:,}") for move, count in list(found.moves.items())[:_SHOWN]]
        )
    for kind, counts in (("decision point", found.by_point), ("segment", found.by_segment)):
        if counts:
            print_table(
                (kind, "decisions", "would change"),
                [(name, f"{of:,}", f"{changed:,}") for name, (of, changed) in counts.items()],
            )
    if earning is not None:
        print_earned(earning.result(), what, earning.level, earning.left_out)
    _print_examples(found.examples)


def _print_apart(each: "VersionApart") -> None:
    from arbiter.learning.apart import middle  # noqa: PLC0415 - loads NumPy

    share = f" ({each.flipped / each.asked:.1%})" if each.asked else ""
    said = f"{each.model}, version {each.tried} beside {each.live}: asked in {_counted(each.asked)}, {each.flipped:,}"
    lost = f"; {each.lost:,} lose their answer, {each.gained:,} gain one" if each.lost or each.gained else ""
    out().print(f"{said} of which deliver otherwise for it{share}{lost}", highlight=False)
    print_table(
        ("output", "both said", "differ", "by, at 5 / 50 / 95 %", "at most", "rank correlation"),
        [
            (
                one.name, f"{one.rows:,}", f"{one.differ:,}", middle(one),
                "" if one.largest is None else f"{one.largest:.4g}",
                "" if one.rank_correlation is None else f"{one.rank_correlation:.4f}",
            )
            for one in each.outputs
        ],
    )  # fmt: skip
    tests = [(one, test) for one in each.outputs for test in one.thresholds]
    if tests:
        print_table(
            ("in rules", "was so", "would be", "comes", "goes"),
            [
                (f"{one.name} {test.test}", *(f"{count / max(1, one.rows):.1%}" for count in (
                    test.before, test.after, test.come, test.gone)))
                for one, test in tests
            ],
        )  # fmt: skip
    moves = [(f"{one.name}: {move}", f"{count:,}") for one in each.outputs for move, count in one.moves.items()]
    if moves:
        print_table(("from → to", "decisions"), moves[:_SHOWN])


def _print_left_out(left_out: dict[str, int]) -> None:
    for why, count in sorted(left_out.items()):
        out().print(f"{count:,} left out: {why}", highlight=False)


def _print_examples(examples: "Iterable[Example]") -> None:
    rows = [
        (
            from_micros(each.at).isoformat(timespec="seconds"),
            each.point,
            ", ".join(rule or "default" for rule in each.before),
            ", ".join(rule or "default" for rule in each.after),
            ", ".join(f"{name}={_short(value)}" for name, value in each.read.items()),
        )
        for each in examples
    ]
    if rows:
        print_table(("at", "decision", "was", "would be", "by what was read"), rows, prose=("by what was read",))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _counted(count: int) -> str:
    return f"{count:,} decision{'s' * (count != 1)}"


def _fields(found: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(found)


def _example(each: "Example") -> dict[str, Any]:
    return {**_fields(each), "at": from_micros(each.at)}
