"""`arbiter snapshot`: which versions of rules and models there are, and which one runs.

Law: reads a data directory, or asks a server; changes nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbiter.cli.asking import AsJson, Target
from arbiter.cli.remote import connected
from arbiter.cli.terminal import FINDINGS, diagnostic_fields, diagnostic_text, fail, out, print_json, print_table
from arbiter.decision.wording import shown
from arbiter.types import from_micros

if TYPE_CHECKING:
    from arbiter.runtime.admin import Status
    from arbiter.runtime.archive import Archive

snapshot = typer.Typer(
    name="snapshot", help="Which versions of rules and models there are, and which one runs.", no_args_is_help=True
)

Data = Annotated[Path, typer.Option(metavar="DIR", help="The server's data directory.")]
Digest = Annotated[
    str,
    typer.Argument(metavar="[DIGEST]", help="Of a snapshot in the data directory; its first characters are enough."),
]
DIGITS = 12


@snapshot.command("list")
def list_(*, data: Data = Path("data"), as_json: AsJson = False) -> None:
    """Print the snapshots kept in a data directory, the newest last."""
    archive = _archive(data)
    kept = [(from_micros(each.at), archive.meta(each.digest)) for each in archive.history()]
    if as_json:
        print_json([{"digest": meta.digest, "at": at, "counts": meta.counts} for at, meta in kept])
        return
    rows = [
        (meta.digest[:DIGITS], shown(at), *map(str, (counts.decisions, counts.rules, counts.segments, counts.features)),
         ", ".join(meta.models))
        for at, meta in kept
        for counts in (meta.counts,)
    ]  # fmt: skip
    print_table(("digest", "current from", "decisions", "rules", "segments", "features", "models"), rows)


@snapshot.command("show")
def show(digest: Digest = "", *, target: Target = None, data: Data = Path("data"), as_json: AsJson = False) -> None:
    """Print what a server runs and what became of its last reload; or, with DIGEST, a snapshot in the data directory.

    Ends with 1 when the last reload failed.
    """
    if digest:
        _show_kept(digest, data, as_json=as_json)
        return
    with connected(target) as client:
        status = client.snapshot()
    if as_json:
        print_json(_fields(status))
    else:
        _print_status(status)
    if status.last_reload is not None and not status.last_reload.ok:
        raise typer.Exit(FINDINGS)


def _fields(status: "Status") -> dict[str, Any]:
    """The status for JSON: moments as ISO 8601, as everywhere on the command line."""
    fields: dict[str, Any] = msgspec.to_builtins(status, str_keys=True)
    if (runs := status.snapshot) is not None:
        fields["snapshot"]["loaded_at"] = from_micros(runs.loaded_at)
    if (last := status.last_reload) is not None:
        fields["last_reload"]["at"] = from_micros(last.at)
        fields["last_reload"]["diagnostics"] = [diagnostic_fields(each) for each in last.diagnostics]
    return fields


def _print_status(status: "Status") -> None:
    rows: list[tuple[str, str]] = []
    if (runs := status.snapshot) is not None:
        rows += [("snapshot", runs.digest), ("live since", shown(from_micros(runs.loaded_at)))]
        rows += [(noun, f"{count:,}") for noun, count in msgspec.structs.asdict(runs.counts).items()]
    rows += [(f"worker {number}", digest[:DIGITS] or "down") for number, digest in sorted(status.workers.items())]
    if (last := status.last_reload) is not None:
        became = "went well" if last.ok else "failed, nothing changed"
        rows.append(("last reload", f"{became}, {shown(from_micros(last.at))}"))
    print_table(("what", "is"), rows)
    for found in () if last is None else last.diagnostics:
        out().print(diagnostic_text(found))


def _archive(data: Path) -> "Archive":
    from arbiter.runtime.archive import Archive  # noqa: PLC0415 - loads onnxruntime

    kept = data / "snapshots"
    if not kept.is_dir():
        raise typer.BadParameter(
            f"{data} is no data directory of a server: it holds no `snapshots`", param_hint="--data"
        )
    return Archive(kept)


def _show_kept(digest: str, data: Path, *, as_json: bool) -> None:
    archive = _archive(data)
    found = [each for each in archive.history() if each.digest.startswith(digest)]
    if len(found) != 1:
        count = len(found) or "no"
        fail(f"{data} keeps {count} snapshots whose digest begins with {digest}: see `arbiter snapshot list`")
    meta = archive.meta(found[0].digest)
    if as_json:
        print_json(meta)
        return
    rows = [(each.path, f"{each.size:,}", each.sha256[:DIGITS]) for each in meta.files]
    out().print(f"snapshot {meta.digest}, current from {shown(from_micros(found[0].at))}", style="bold")
    print_table(("file", "bytes", "sha256"), rows)
