"""`arbiter model report --log`: what a model's scores were worth, by the outcomes of the decisions that asked it.

Law: reads a log, its outcomes and the snapshots of then, and prints; what is judged, and how, stands in `learning`.
"""

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from arbiter.cli.terminal import fail, out, plural, print_json, print_table
from arbiter.cli.versions import archive_in
from arbiter.errors import did_you_mean
from arbiter.types import from_micros

if TYPE_CHECKING:
    from arbiter.runtime.scored import Told, VersionWorth


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the log: the outcome's name, within how many µs it counts, None for ever, of which decisions,
    and the marks beyond which there is an alarm.
    """

    name: str
    within: int | None
    output: str
    rule: str
    point: str
    shown: bool
    fallen: float
    off: float


def worth(
    model: str, log: Path, data: Path, wanted: Outcome, page: Path | None, metrics: Path | None, *, as_json: bool
) -> bool:
    """Judge the versions of a model by a log; whether there is an alarm."""
    if importlib.util.find_spec("duckdb") is None or importlib.util.find_spec("pyarrow") is None:
        fail("outcomes are read by DuckDB and pyarrow: pip install 'arbiter[report]'")
    found = _told(model, log, data, wanted)
    if page is not None:
        from arbiter.learning import page as pages  # noqa: PLC0415 - seldom asked for
        from arbiter.learning.worthpage import parts  # noqa: PLC0415

        body = [pages.line(_left_out(found))] if found.left_out else []
        for each in found.versions:
            body += [pages.heading(f"Version {each.version}, `{each.output}`: {wanted.name}"), pages.line(_when(each))]
            body += parts(each.worth, probable=each.probable)
        page.write_text(pages.page(f"Model {model}, by what happened", body), "utf-8")
    if metrics is not None:
        from arbiter.cli.worthmetrics import write_metrics  # noqa: PLC0415 - seldom asked for

        write_metrics(metrics, model, wanted.name, found)
    if as_json:
        print_json(_fields(model, wanted, found))
    else:
        _print(model, wanted, found)
    return bool(found.alarms)


def _told(model: str, log: Path, data: Path, wanted: Outcome) -> "Told":
    from arbiter.learning.report.joined import names, shown, with_outcome  # noqa: PLC0415 - loads DuckDB
    from arbiter.learning.report.reading import opened  # noqa: PLC0415
    from arbiter.learning.worth import Marks  # noqa: PLC0415 - loads NumPy
    from arbiter.runtime.logfiles import happened_in, rows_of_all, whole  # noqa: PLC0415
    from arbiter.runtime.scored import Asked, Scored  # noqa: PLC0415 - loads onnxruntime

    archive = archive_in(data)
    files, waiting = whole(log)
    with opened([], waiting.slice(0, 0), happened_in(log)) as records:
        happened = with_outcome(records, wanted.name, wanted.within, wanted.rule)
        if not happened and wanted.name not in (known := names(records)):
            there = (
                did_you_mean(wanted.name, known) or f"there are {', '.join(f'`{each}`' for each in known) or 'none'}"
            )
            fail(f"the log holds no outcome `{wanted.name}`; {there}")
        seen = shown(records, wanted.rule) if wanted.shown else None
    now = time.time_ns() // 1000
    asked = Asked(
        model=model, happened=happened, output=wanted.output, shown=seen, rule=wanted.rule, point=wanted.point,
        until=None if wanted.within is None else now - wanted.within, marks=Marks(wanted.fallen, wanted.off),
    )  # fmt: skip
    scored = Scored(asked, lambda digest: archive.read(digest, {}))
    for head, row in rows_of_all(files, waiting):
        scored.add(head, row)
    told = scored.told()
    if not told.versions:
        fail(f"no decision of the log tells of a model `{model}`: {_left_out(told) or 'there is none'}")
    return told


def _print(model: str, wanted: Outcome, found: "Told") -> None:
    from arbiter.learning.worthpage import HEADS, figures, levels, summary  # noqa: PLC0415 - loads NumPy

    for each in found.versions:
        out().print(f"{model}, version {each.version}, `{each.output}`: {wanted.name}, {_when(each)}", highlight=False)
        out().print(summary(each.worth), highlight=False)
        print_table(("figure", "it is (95 % interval)", "beside"), figures(each.worth), prose=("beside",))
        print_table(HEADS, levels(each.worth.levels))
        for note in each.worth.notes:
            out().print(note, highlight=False)
        for alarm in each.worth.alarms:
            out().print(alarm, style="red", highlight=False)
    if found.left_out:
        out().print(_left_out(found), highlight=False)
    out().print(
        f"{plural(len(found.versions), 'version')} judged by `{wanted.name}`: {plural(len(found.alarms), 'alarm')}",
        highlight=False,
    )


def _when(each: "VersionWorth") -> str:
    first, last = (f"{from_micros(at):%Y-%m-%d %H:%M}" for at in (each.first, each.last))
    return f"decisions of {first} to {last} UTC"


def _left_out(found: "Told") -> str:
    return "; ".join(f"{count:,} left out: {why}" for why, count in found.left_out.items())


def _fields(model: str, wanted: Outcome, found: "Told") -> dict[str, object]:
    versions = [
        {**msgspec.structs.asdict(each), "first": from_micros(each.first), "last": from_micros(each.last)}
        for each in found.versions
    ]
    return {
        "model": model,
        "outcome": wanted.name,
        "within_us": wanted.within,
        "versions": versions,
        "left_out": found.left_out,
        "alarms": found.alarms,
    }
