"""`arbiter events`: facts about subjects, from files into a server.

Law: reads a file to its end before anything is sent, so that nothing of a file with mistakes is, then sends it in
batches. What a file looks like stands in `eventfile`, what a column is in `eventcolumns`.
"""

import enum
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import FINDINGS, bar, err, out, plural, print_json
from arbiter.cli.values import read_moment

if TYPE_CHECKING:
    from arbiter.cli.eventcolumns import Columns
    from arbiter.cli.eventfile import EventFile
    from arbiter.cli.importing import Imported
    from arbiter.client import Client

events = typer.Typer(name="events", help="Facts about subjects.", no_args_is_help=True)

_STDIN = Path("-")
_RATED_S = 1.0  # how long an import takes for its rate to say something


class Format(enum.StrEnum):
    """What a file of events looks like."""

    AUTO = "auto"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    CDNOW = "cdnow"


class Unit(enum.StrEnum):
    """What numbers that are times count."""

    S = "s"
    MS = "ms"
    US = "us"


File = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE",
        help="The events; `-` is standard input. For cdnow it may be left out: the record is fetched.",
    ),
]
Written = Annotated[
    Format,
    typer.Option(
        "--format",
        help='`auto`: by the name of the file, else `jsonl`: one object per line, {"type": "purchase", "subject_id": '
        '"42", "at": "2026-11-20T18:30:00Z", "id": "order-7", "properties": {"amount": 9.5}}; `csv`, `tsv`, `parquet`: '
        "columns type, subject_id, at and maybe id, all others are properties; `cdnow`: the public purchase record.",
    ),
]
Shift = Annotated[
    str, typer.Option("--shift-to", metavar="MOMENT", help="cdnow: let the 39th week end then; `now` is a moment too.")
]
Batch = Annotated[int, typer.Option(min=1, max=10_000, help="Events per call.")]
Mapped = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="FIELD=COLUMN",
        help="Which column is `id`, `subject_id`, `type`, `at` or `properties.NAME`, if it is not called so.",
    ),
]
Type = Annotated[str, typer.Option("--type", metavar="NAME", help="All events are of this type.")]
Text = Annotated[list[str] | None, typer.Option("--text", metavar="COLUMN", help="Take its cells as text, always.")]
Drop = Annotated[list[str] | None, typer.Option("--drop", metavar="COLUMN", help="Leave it out.")]
Zone = Annotated[str, typer.Option("--time-zone", metavar="ZONE", help="Whose time it is where `at` does not say.")]
Epoch = Annotated[Unit | None, typer.Option("--epoch", help="`at` is a number of these since 1970.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Send the rest where rows are no events or are refused, and end with 1.")
]
Position = Annotated[
    Path | None,
    typer.Option(
        "--position",
        metavar="PATH",
        help="Where it is noted how far the import came, to go on after a kill. [default: FILE.position]",
    ),
]


@events.command("import")
@asks_a_server
def import_(
    file: File = None,
    *,
    written: Written = Format.AUTO,
    shift_to: Shift = "",
    batch: Batch = 1000,
    mapped: Mapped = None,
    type_: Type = "",
    text: Text = None,
    drop: Drop = None,
    zone: Zone = "",
    epoch: Epoch = None,
    skip_bad: SkipBad = False,
    position: Position = None,
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Send the events of FILE. Each keeps its id, so a second import changes nothing and says so."""
    if file is not None and file != _STDIN and (file.is_dir() or not file.exists()):
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    columns = _columns(mapped, type_, text, drop, zone, epoch)
    if written is Format.CDNOW:
        with connected(server) as client:
            _said(_send_record(client, file, shift_to, batch), as_json=as_json)
        return
    if shift_to:
        raise typer.BadParameter("goes with --format cdnow", param_hint="--shift-to")
    read = _file(file, written, columns)

    from arbiter.cli.importing import Import  # noqa: PLC0415 - nothing else needs it

    note = position
    if note is None and file is not None and file != _STDIN:
        note = file.with_name(f"{file.name}.position")
    with connected(server) as client:
        work = Import(client, read, batch, skip_bad=skip_bad, note=note)
        with bar(work.check(), "events") as advance:
            done = work.run(advance)
    _said(done, as_json=as_json)
    if done.skipped:
        err().print(work.mistakes.listed(f"{plural(done.skipped, 'row')} skipped:"), style="yellow", markup=False)
        raise SystemExit(FINDINGS)


def _said(done: "Imported", *, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    dropped = f", {done.duplicates:,} were there already and were dropped" if done.duplicates else ""
    erased = f", {done.erased:,} of erased subjects were dropped" if done.erased else ""
    resumed = f", {done.resumed:,} were sent before" if done.resumed else ""
    sent = done.accepted + done.duplicates + done.erased
    rate = f", {sent / done.seconds:,.0f} a second" if done.seconds > _RATED_S else ""
    out().print(f"{plural(done.accepted, 'event')} stored{dropped}{erased}{resumed}{rate}", style="green")


def _columns(
    mapped: list[str] | None,
    type_: str,
    text: list[str] | None,
    drop: list[str] | None,
    zone: str,
    epoch: Unit | None,
) -> "Columns":
    from arbiter.cli.eventcolumns import Columns, is_field  # noqa: PLC0415 - nothing else needs it

    of: dict[str, str] = {}
    for each in mapped or []:
        field, equals, column = each.partition("=")
        if not (equals and column and is_field(field)):
            raise typer.BadParameter(
                f"`{each}` is no FIELD=COLUMN, where FIELD is id, subject_id, type, at or properties.NAME",
                param_hint="--map",
            )
        of[field] = column
    if zone:
        try:
            ZoneInfo(zone)
        except (OSError, ValueError, LookupError):
            raise typer.BadParameter(
                f"`{zone}` is no time zone: write it as in Europe/Berlin", param_hint="--time-zone"
            ) from None
    return Columns(of, type_, tuple(text or ()), tuple(drop or ()), zone, "" if epoch is None else epoch.value)


def _file(file: Path | None, written: Format, columns: "Columns") -> "EventFile":
    from arbiter.cli.eventcolumns import Columns  # noqa: PLC0415 - nothing else needs it
    from arbiter.cli.eventfile import FORMATS, EventFile  # noqa: PLC0415

    if file is None:
        raise typer.BadParameter("which file? Give its path, or `-` for standard input", param_hint="FILE")
    chosen = FORMATS.get(file.suffix.lower(), "jsonl") if written is Format.AUTO else written.value
    if chosen == "jsonl" and columns != Columns():
        raise typer.BadParameter(
            "lines of JSON name their fields themselves: --map, --type, --text, --drop, --time-zone and --epoch go "
            "with csv, tsv and parquet",
            param_hint="--format",
        )
    if file == _STDIN:
        if chosen == "parquet":
            raise typer.BadParameter("Parquet is read from a file, not from standard input", param_hint="FILE")
        return EventFile("<stdin>", chosen, columns, sys.stdin.buffer.read())  # type: ignore[arg-type] # one of Format
    return EventFile(str(file), chosen, columns)  # type: ignore[arg-type] # as above


def _send_record(client: "Client", file: Path | None, shift_to: str, size: int) -> "Imported":
    """The purchase record, whose rows are few and have no lines."""
    from arbiter.cli.importing import PATIENCE_S, Imported  # noqa: PLC0415
    from arbiter.datasets import cdnow  # noqa: PLC0415 - nothing else needs it

    if file == _STDIN:
        raise typer.BadParameter("standard input goes with --format jsonl, csv or tsv", param_hint="FILE")
    moment = datetime.now(UTC) if shift_to == "now" else read_moment(shift_to, "--shift-to") if shift_to else None
    purchases = list(cdnow.events(cdnow.load() if file is None else cdnow.read(file), shift_to=moment))
    done = Imported(events=len(purchases))
    with bar(len(purchases), "events") as advance:
        for start in range(0, len(purchases), size):
            part = purchases[start : start + size]
            answer = client.ingest_events(part, timeout=PATIENCE_S)
            done.accepted += answer.accepted
            done.duplicates += answer.duplicates
            done.erased += answer.erased
            advance(len(part))
    return done
