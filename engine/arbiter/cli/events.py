"""`arbiter events`: facts about subjects, from files into a server.

Law: reads a file whole, so that nothing of a file with mistakes is sent, then sends it in batches.
"""

import enum
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import bar, out, plural, print_json
from arbiter.cli.values import read_moment

if TYPE_CHECKING:
    from arbiter.cli.eventfile import EventLines

events = typer.Typer(name="events", help="Facts about subjects.", no_args_is_help=True)

_PATIENCE_S = 60.0
_STDIN = Path("-")


class Format(enum.StrEnum):
    """What a file of events looks like."""

    JSONL = "jsonl"
    CDNOW = "cdnow"


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
        help='`jsonl`: one object per line, {"type": "purchase", "subject_id": "42", "at": '
        '"2026-11-20T18:30:00Z", "id": "order-7", "properties": {"amount": 9.5}}; `cdnow`: the public purchase record.',
    ),
]
Shift = Annotated[
    str, typer.Option("--shift-to", metavar="MOMENT", help="cdnow: let the 39th week end then; `now` is a moment too.")
]
Batch = Annotated[int, typer.Option(min=1, max=10_000, help="Events per call.")]


@events.command("import")
@asks_a_server
def import_(
    file: File = None,
    *,
    written: Written = Format.JSONL,
    shift_to: Shift = "",
    batch: Batch = 1000,
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Send the events of FILE. Each keeps its id, so a second import changes nothing and says so."""
    read = _read(file, written, shift_to)

    from arbiter.cli.eventfile import batches, refused  # noqa: PLC0415 - nothing else needs it
    from arbiter.client import CallFailed  # noqa: PLC0415 - brings grpc

    accepted = duplicates = 0
    with connected(server) as client, bar(len(read.events), "events") as advance:
        for part in batches(read.events, batch):
            try:
                done = client.ingest_events(part, timeout=_PATIENCE_S)
            except CallFailed as error:
                raise refused(read, accepted + duplicates, error.field, error.message) or error from None
            accepted += done.accepted
            duplicates += done.duplicates
            advance(len(part))
    if as_json:
        print_json({"events": len(read.events), "accepted": accepted, "duplicates": duplicates})
        return
    dropped = f", {duplicates:,} were there already and were dropped" if duplicates else ""
    out().print(f"{plural(accepted, 'event')} stored{dropped}", style="green")


def _read(file: Path | None, written: Format, shift_to: str) -> "EventLines":
    from arbiter.cli.eventfile import EventLines, read_json_lines  # noqa: PLC0415 - nothing else needs it

    if file is not None and file != _STDIN and (file.is_dir() or not file.exists()):
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    if written is Format.JSONL:
        if file is None:
            raise typer.BadParameter("which file? Give its path, or `-` for standard input", param_hint="FILE")
        if shift_to:
            raise typer.BadParameter("goes with --format cdnow", param_hint="--shift-to")
        if file == _STDIN:
            return read_json_lines(sys.stdin.buffer, "<stdin>")
        with file.open("rb") as lines:
            return read_json_lines(lines, str(file))
    if file == _STDIN:
        raise typer.BadParameter("standard input goes with --format jsonl", param_hint="FILE")
    from arbiter.datasets import cdnow  # noqa: PLC0415 - nothing else needs it

    moment = datetime.now(UTC) if shift_to == "now" else read_moment(shift_to, "--shift-to") if shift_to else None
    purchases = cdnow.load() if file is None else cdnow.read(file)
    # The record's purchases keep no line: one that a server refuses is named as it names it.
    return EventLines("", list(cdnow.events(purchases, shift_to=moment)), [])
