"""`arbiter snapshot`: which versions of rules and models there are, which one runs, and going back to another.

Law: asks a server, or reads a data directory; only `rollback` and `reload` change anything, through the server.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arbiter.cli.asking import AsJson, Models
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import FINDINGS, out, print_json, print_table
from arbiter.cli.versions import (
    DIGITS,
    PATIENCE_S,
    Reason,
    archive_in,
    held_until,
    kept_by,
    named,
    print_status,
    status_fields,
    tell,
)
from arbiter.decision.wording import shown
from arbiter.types import from_micros

if TYPE_CHECKING:
    from arbiter.serving import History, Status

snapshot = typer.Typer(
    name="snapshot",
    help="Which versions of rules and models there are, which one runs, and going back to another.",
    no_args_is_help=True,
)

Data = Annotated[Path, typer.Option(metavar="DIR", help="The server's data directory.")]
DataInstead = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Read a server's data directory, instead of asking the server.")
]
Digest = Annotated[
    str,
    typer.Argument(metavar="[DIGEST]", help="Of a snapshot in the data directory; its first characters are enough."),
]
Side = typer.Argument(help="The first characters of a digest, `current`, `previous`, or a directory of rule files.")
Before = Annotated[str, Side]
_BY = {"files": "files", "rollback": "rollback", "promotion": "canary"}
KeptOrNone = Annotated[
    str, typer.Argument(metavar="[DIGEST]", help="The first characters of a kept digest, or `previous`.")
]
Model = Annotated[str, typer.Option(metavar="NAME", help="A model that is to go back alone.")]
Version = Annotated[
    int, typer.Option(metavar="N", help="Its version; without it the one before, or the end of its canary.", min=0)
]


@snapshot.command("list")
@asks_a_server
def list_(*, server: Asked, data: DataInstead = None, as_json: AsJson = False) -> None:
    """Print the snapshots that are kept and can be rolled back to, the newest last."""
    if data is None:
        with connected(server) as client:
            history = client.snapshots()
    else:
        history = _history(data)
    if as_json:
        print_json(
            [
                {"digest": each.digest, "at": from_micros(each.at), "cause": each.cause, "reason": each.reason,
                 "counts": each.counts, "models": each.models}
                for each in history.kept
            ]
        )  # fmt: skip
        return
    rows = [
        (each.digest[:DIGITS], shown(from_micros(each.at)), _BY[each.cause], f"{each.counts.rules:,}",
         f"{each.counts.features:,}", ", ".join(each.models), each.reason)
        for each in history.kept
    ]  # fmt: skip
    heads = ("digest", "current from", "by", "rules", "features", "models", "reason")
    print_table(heads, rows, prose=("models", "reason"))


@snapshot.command("show")
@asks_a_server
def show(digest: Digest = "", *, server: Asked, data: Data = Path("data"), as_json: AsJson = False) -> None:
    """Print what a server runs, what became of its last reload and what operators ordered; or, with DIGEST, a snapshot
    in the data directory.

    Ends with 1 when the last reload failed.
    """
    if digest:
        _show_kept(digest, data, as_json=as_json)
        return
    with connected(server) as client:
        status = client.snapshot()
    if as_json:
        print_json(status_fields(status))
    else:
        print_status(status)
    if status.last_reload is not None and not status.last_reload.ok:
        raise typer.Exit(FINDINGS)


@snapshot.command("diff")
def diff(a: Before, b: Before, *, data: Data = Path("data"), models: Models = None, as_json: AsJson = False) -> None:
    """Print what differs between two versions: rules, decisions, segments, features, models, declarations.

    Where a rule stands in its file makes no difference. Snapshots are read from the data directory.
    """
    from arbiter.cli.versiondiff import difference_between, rows_of  # noqa: PLC0415 - loads onnxruntime

    found = difference_between(a, b, data, models)
    if as_json:
        print_json(found)
        return
    rows = rows_of(found)
    if rows:
        print_table(("kind", "name", "difference", "before", "after"), rows, prose=("before", "after"))
    else:
        out().print("no difference")


@snapshot.command("rollback")
@asks_a_server
def rollback(
    digest: KeptOrNone = "",
    *,
    model: Model = "",
    version: Version = 0,
    reason: Reason = "",
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Run a kept snapshot again, on all workers at once; or, with --model, another version of one model.

    It is held, over restarts too: what it replaces does not come back until the files give another snapshot than that,
    or another model of that name, or `arbiter snapshot reload`.
    """
    if bool(digest) == bool(model) or (version and not model):
        raise typer.BadParameter("name a snapshot by its digest, or with --model a model", param_hint="DIGEST")
    with connected(server) as client:
        if model:
            status = client.rollback_model(model, version, reason=reason, timeout=PATIENCE_S)
            done = _runs(status, model)
        else:
            whole = kept_by(client, digest)
            status = client.rollback(whole, reason=reason, timeout=PATIENCE_S)
            done = f"snapshot {whole[:DIGITS]} runs{held_until(status)}"
    tell(status, done, as_json=as_json)


def _runs(status: "Status", model: str) -> str:
    """Which version of a model runs, in place of what."""
    held = next((each for each in status.models if each.name == model), None)
    if held is None:
        return f"model {model} runs as the files give it"
    return f"version {held.version} of model {model} runs; held until the files give another than {held.aside[:DIGITS]}"


@snapshot.command("reload")
@asks_a_server
def reload(*, server: Asked, as_json: AsJson = False) -> None:
    """Have the server read its files again, and run what they give: this ends a rollback.

    Ends with 1 when they hold errors.
    """
    with connected(server) as client:
        status = client.reload(timeout=PATIENCE_S)
    if as_json:
        print_json(status_fields(status))
    else:
        print_status(status)
    if status.last_reload is None or not status.last_reload.ok:
        raise typer.Exit(FINDINGS)


def _history(data: Path) -> "History":
    from arbiter.runtime.versions import history_of  # noqa: PLC0415 - loads onnxruntime

    return history_of(archive_in(data))


def _show_kept(digest: str, data: Path, *, as_json: bool) -> None:
    archive = archive_in(data)
    history = archive.history()
    whole = named(digest, [each.digest for each in history], str(data))
    meta = archive.meta(whole)
    if as_json:
        print_json(meta)
        return
    (at,) = (each.at for each in history if each.digest == whole)
    rows = [(each.path, f"{each.size:,}", each.sha256[:DIGITS]) for each in meta.files]
    out().print(f"snapshot {meta.digest}, current from {shown(from_micros(at))}", style="bold")
    print_table(("file", "bytes", "sha256"), rows)
