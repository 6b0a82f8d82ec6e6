"""`arbiter canary`: another version for a share of the subjects.

Law: asks a server through the client, and words what came of it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import diagnostic_text, err, fail, out, print_json, print_table
from arbiter.cli.versions import DIGITS, PATIENCE_S, Reason, canary_rows, held_until, kept_by, status_fields, tell

if TYPE_CHECKING:
    from arbiter.client import Client

canary = typer.Typer(
    name="canary",
    help="Another version of the rules for a share of the subjects: begun, grown, promoted or dropped.",
    no_args_is_help=True,
)

Candidate = Annotated[
    str,
    typer.Argument(
        metavar="DIGEST|DIR",
        help="The first characters of a kept digest, or a directory of rule files, which is sent and kept.",
    ),
]
Percent = Annotated[float, typer.Option(help="The share of subjects: more than 0, at most 100.")]
Share = Annotated[float, typer.Argument(metavar="PERCENT", help="The share of subjects: more than 0, at most 100.")]


@canary.command("start")
@asks_a_server
def start(
    candidate: Candidate, *, percent: Percent, reason: Reason = "", server: Asked, as_json: AsJson = False
) -> None:
    """Let another version decide for a share of the subjects.

    A subject is always in or always out; answers tell the digest that made them. A directory's rules run with the
    models that the server runs. Survives restarts, and reloads of the files.
    """
    with connected(server) as client:
        path = Path(candidate)
        digest = _sent(client, path) if path.is_dir() else kept_by(client, candidate)
        status = client.set_canary(digest, percent, reason=reason, timeout=PATIENCE_S)
    tell(status, f"snapshot {digest[:DIGITS]} decides for {percent:g} % of the subjects", as_json=as_json)


@canary.command("share")
@asks_a_server
def share(percent: Share, *, reason: Reason = "", server: Asked, as_json: AsJson = False) -> None:
    """Change the canary's share. One that grows keeps the subjects that it has."""
    with connected(server) as client:
        digest = _running(client)
        status = client.set_canary(digest, percent, reason=reason, timeout=PATIENCE_S)
    tell(status, f"snapshot {digest[:DIGITS]} decides for {percent:g} % of the subjects", as_json=as_json)


@canary.command("show")
@asks_a_server
def show(*, server: Asked, as_json: AsJson = False) -> None:
    """Print which canary runs, if any."""
    with connected(server) as client:
        status = client.snapshot()
    if as_json:
        print_json(status_fields(status)["canary"])
    elif status.canary is None:
        out().print("no canary runs")
    else:
        print_table(("what", "is"), [*canary_rows(status), ("salt", status.canary.salt)])


@canary.command("promote")
@asks_a_server
def promote(*, reason: Reason = "", server: Asked, as_json: AsJson = False) -> None:
    """Run the canary for everybody.

    It is held as by `arbiter snapshot rollback`, until the files give another snapshot than they do now.
    """
    with connected(server) as client:
        digest = _running(client)
        status = client.promote_canary(digest, reason=reason, timeout=PATIENCE_S)
    tell(status, f"snapshot {digest[:DIGITS]} runs{held_until(status)}", as_json=as_json)


@canary.command("drop")
@asks_a_server
def drop(*, reason: Reason = "", server: Asked, as_json: AsJson = False) -> None:
    """End the canary: everybody gets the current version."""
    with connected(server) as client:
        digest = _running(client)
        status = client.drop_canary(digest, reason=reason, timeout=PATIENCE_S)
    tell(status, f"canary {digest[:DIGITS]} is dropped", as_json=as_json)


def _running(client: "Client") -> str:
    running = client.snapshot().canary
    if running is None:
        fail("no canary runs: `arbiter canary start` begins one")
    return running.digest


def _sent(client: "Client", path: Path) -> str:
    """The digest of a directory's rules, which the server now keeps."""
    from arbiter.runtime.sources import names_of, read_sources  # noqa: PLC0415 - not for the others

    sources = read_sources(path, None, names_of(path, None), with_tests=True)
    staged = None if sources.refused else client.keep({**sources.rules, **sources.tests}, timeout=PATIENCE_S)
    for found in sources.refused if staged is None else staged.diagnostics:
        err().print(diagnostic_text(found))
    if staged is None or not staged.digest:
        fail("the files hold mistakes, no canary was begun")
    return staged.digest
