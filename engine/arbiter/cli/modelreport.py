"""`arbiter model report`: whether people, stored or decided for, are still as a model was trained on.

Law: asks a server, or reads a store or a log, and prints; what is compared, and how, stands in `learning` and
`training`.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.modelworth import Outcome, worth
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import FINDINGS, out, plural, print_json, print_table
from arbiter.cli.trainingdata import declared_in, model_in
from arbiter.ruleset.times import duration_micros
from arbiter.types import from_micros

if TYPE_CHECKING:
    from arbiter.learning.drift import Drift
    from arbiter.serving import WatchedField, WatchedModel

Page = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML page there.")]
Rules = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The rules that declare its features: look at the stored profiles.",
                 file_okay=False, exists=True),
]  # fmt: skip
Data = Annotated[
    Path, typer.Option(metavar="DIR", help="With --rules or --log: a server's data directory.", file_okay=False)
]
Every = Annotated[
    str, typer.Option(metavar="DURATION", help="With --rules: how segments went over time, in steps of 30d, say.")
]
Times = Annotated[int, typer.Option(metavar="N", help="How many of these steps.", min=1, max=100)]

Log = Annotated[
    Path | None,
    typer.Option(metavar="LOG", help="A decision log: judge what the model said by what happened.", exists=True),
]
OutcomeName = Annotated[
    str, typer.Option("--outcome", metavar="NAME", help="With --log: the outcome that is judged by.")
]
Within = Annotated[
    str, typer.Option(metavar="DURATION", help="With --log: count outcomes that came sooner after their decision.")
]
Output = Annotated[
    str, typer.Option("--output", metavar="NAME", help="With --log: which output. [default: what its kind promises]")
]
RuleId = Annotated[str, typer.Option("--rule", metavar="ID", help="With --log: only decisions that delivered it.")]
Point = Annotated[
    str, typer.Option("--decision", metavar="NAME", help="With --log: only decisions at this decision point.")
]
Shown = Annotated[bool, typer.Option("--shown", help="With --log: only decisions with an exposure.")]
Fallen = Annotated[
    float, typer.Option(min=0, max=1, metavar="AREA", help="With --log: the AUC may be so much below training's.")
]
Off = Annotated[
    float, typer.Option(min=0, metavar="SHARE", help="With --log: what happens may differ from what it said so much.")
]
Metrics = Annotated[
    Path | None,
    typer.Option("--metrics", metavar="FILE", help="With --log: write the figures there for Prometheus, `X.prom` say."),
]


@asks_a_server
def report(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name; with --rules, its folder.")],
    *,
    rules: Rules = None,
    data: Data = Path("data"),
    every: Every = "",
    times: Times = 6,
    log: Log = None,
    outcome: OutcomeName = "",
    within: Within = "",
    output: Output = "",
    rule: RuleId = "",
    decision: Point = "",
    shown: Shown = False,
    fallen: Fallen = 0.05,
    off: Off = 0.25,
    metrics: Metrics = None,
    page: Page = None,
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Compare what a model reads and says now with what it was trained on.

    Of a server that is all that its workers saw where they looked into decisions, added up, and how outputs were spread
    over time. With --rules it is what the model would read and say of every profile in a data directory, and with
    --every how many went from one segment to another. With --log and --outcome it is how well what each version said
    in the decisions of a log ranked them, and how likely it said the outcome to be, beside what happened.

    Ends with 1 when something has shifted, is missing more or less often, or lies beyond all that was trained on; when
    it ranks worse than at training, or what it said is not what happens.
    """
    if (log is None) == bool(outcome):
        raise typer.BadParameter("outcomes are those of a log: --log LOG --outcome NAME", param_hint="--outcome")
    asked = {
        "--within": within, "--output": output, "--rule": rule, "--decision": decision, "--shown": shown,
        "--metrics": metrics,
    }  # fmt: skip
    _refuse({name: value for name, value in asked.items() if log is None}, "asks about outcomes: say which --log")
    _refuse({"--rules": rules, "--every": every} if log else {}, "asks about profiles, and --log about decisions")
    if log is not None:
        wanted = Outcome(
            name=outcome, within=_micros(within, "--within"), output=output, rule=rule, point=decision, shown=shown,
            fallen=fallen, off=off,
        )  # fmt: skip
        alarmed = worth(model, log, data, wanted, page, metrics, as_json=as_json)
    elif rules is None:
        alarmed = _live(model, page, server, as_json=as_json)
    else:
        step = _micros(every, "--every") or 0
        alarmed = _stored(Path(model), rules, data, (step, times), page, as_json=as_json)
    if alarmed:
        raise typer.Exit(FINDINGS)


def _refuse(options: dict[str, Any], why: str) -> None:
    """Refuse the first option that is given."""
    for name, value in options.items():
        if value:
            raise typer.BadParameter(why, param_hint=name)


def _micros(written: str, option: str) -> int | None:
    """A duration; None where none was given."""
    found = duration_micros(written) if written else None
    if written and found is None:
        raise typer.BadParameter(f"`{written}` is no duration: write `7d`, say", param_hint=option)
    return found


def _stored(folder: Path, rules: Path, data: Path, steps: tuple[int, int], page: Path | None, *, as_json: bool) -> bool:
    from arbiter.training.declared import bound_purposes  # noqa: PLC0415 - loads NumPy, as all of these
    from arbiter.training.logs import read_store  # noqa: PLC0415
    from arbiter.training.report import day  # noqa: PLC0415
    from arbiter.training.report import page as page_of  # noqa: PLC0415
    from arbiter.training.report import report as make  # noqa: PLC0415

    served, declared = model_in(folder), declared_in(rules)
    now = time.time_ns() // 1000
    left_out: dict[str, int] = {}
    purposes = bound_purposes(served.purposes, [(each.root, each.attribute) for each in served.inputs], declared)
    histories = read_store(data / "store", purposes, now, left_out)
    step, times = steps
    before = [now - step * back for back in range(times, 0, -1)] if step else []
    found = make(served, histories, declared, now, left_out, before)
    if page is not None:
        page.write_text(page_of(found, from_micros(now).isoformat(timespec="seconds")), "utf-8")
    if as_json:
        print_json(found)
        return bool(found.alarms)
    _print_drifts([*(("output", each) for each in found.outputs), *(("input", each) for each in found.inputs)])
    for flow in found.flows:
        moments = [day(each) for each in flow.moments]
        rows = [(word, *(f"{own[number]:,}" for own in flow.sizes)) for number, word in enumerate(flow.words)]
        print_table((flow.output, *moments), rows)
        moved = [
            (moments[number], moments[number + 1], flow.words[left], flow.words[right], f"{count:,}")
            for number, move in enumerate(flow.moves)
            for left, own in enumerate(move)
            for right, count in enumerate(own)
            if count and left != right
        ]
        print_table(("from", "to", f"{flow.output} was", "is", "subjects"), moved)
    out().print(
        f"{plural(found.subjects, 'subject')}, unknown for {found.unknown:,}: {plural(len(found.alarms), 'alarm')}"
    )
    return bool(found.alarms)


def _live(name: str, page: Path | None, server: Asked, *, as_json: bool) -> bool:
    with connected(server) as client:
        found = client.models(name)
    if page is not None:
        page.write_text(_page_of(name, found), "utf-8")
    alarmed = any(field.alarms for each in found for field in each.fields)
    if as_json:
        print_json([_fields(each) for each in found])
        return alarmed
    for each in found:
        if not each.trained_on:
            out().print(f"{name}, version {each.version}: its file does not tell of its training, so it is not watched")
            continue
        drifts = [_drift(field) for field in each.fields]
        _print_drifts([(kind, msgspec.structs.replace(drift, name=own)) for drift in drifts
                       for kind, _, own in [drift.name.partition("s.")]])  # fmt: skip
        count = sum(len(field.alarms) for field in each.fields)
        out().print(f"{name}, version {each.version}: {_said(each)}: {plural(count, 'alarm')}")
    return alarmed


def _said(model: "WatchedModel") -> str:
    since = from_micros(model.since).strftime("%Y-%m-%d %H:%M")
    judged = f"judged at {from_micros(model.judged_at):%Y-%m-%d %H:%M}" if model.judged_at else "not judged yet"
    return f"{plural(model.rows, 'decision')} looked into since {since}, {judged}"


def _print_drifts(drifts: "list[tuple[str, Drift]]") -> None:
    print_table(
        ("", "name", "stability index", "missing", "was", "out of range", "alarms"),
        [
            (
                kind,
                each.name,
                "" if each.psi is None else f"{each.psi:.3f}",
                f"{each.missing:.1%}",
                f"{each.missing_before:.1%}",
                f"{each.outside:.1%}",
                "; ".join(each.alarms),
            )
            for kind, each in drifts
        ],
        prose=("alarms",),
    )


def _drift(field: "WatchedField") -> "Drift":
    """All that was counted, with the index of the last window."""
    from arbiter.learning.drift import Drift  # noqa: PLC0415 - loads NumPy

    known = sum(field.counts)
    rows = known + field.missing
    now = [count / max(1, known) for count in field.counts]
    return Drift(
        field.name, rows, field.drift, field.chance, field.missing / max(1, rows), field.missing_before,
        field.outside / max(1, known), list(field.expected), now, list(field.bins), list(field.alarms),
    )  # fmt: skip


def _page_of(name: str, found: "list[WatchedModel]") -> str:
    from arbiter.learning import page  # noqa: PLC0415 - seldom asked for

    body = []
    for each in found:
        body += [page.heading(f"Version {each.version}"), page.line(_said(each))]
        body.append(page.alarms([f"`{field.name}`: {alarm}" for field in each.fields for alarm in field.alarms]))
        for field in each.fields:
            output = field.name.removeprefix("outputs.")
            if each.windows and output in each.windows[0].outputs and not field.withheld:
                moments = [from_micros(window.ended).strftime("%Y-%m-%d %H:%M") for window in each.windows]
                counts = [window.outputs[output] for window in each.windows]
                body.append(page.sizes(output, moments, [*field.bins, "(unknown)"], counts))
            body.append(page.part(_drift(field)))
    return page.page(f"Model {name}, as it is asked", body)


def _fields(model: "WatchedModel") -> dict[str, Any]:
    """For JSON: moments as ISO 8601, as everywhere on the command line."""
    fields: dict[str, Any] = msgspec.to_builtins(model)
    fields |= {"since": from_micros(model.since), "judged_at": None}
    if model.judged_at:
        fields["judged_at"] = from_micros(model.judged_at)
    for written, window in zip(fields["windows"], model.windows, strict=True):
        written |= {"began": from_micros(window.began), "ended": from_micros(window.ended)}
    return fields
