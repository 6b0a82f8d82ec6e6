"""`arbiter profile export` and `arbiter profile delete`: what is held on a subject, all of it, and no more of it.

Law: asks and prints. Nothing is erased without a yes, from a person at a terminal or in the command.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import msgspec
import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.profile import Account, Subject
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import err, fail, out, print_json, print_table

if TYPE_CHECKING:
    from arbiter.client import Client, HeldPage

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write to this file, which must not exist, in place of the output."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Erase without asking.")]


@asks_a_server
def export(subject: Subject, *, account: Account = False, file: Out = None, server: Asked) -> None:
    """Write everything that is held on a subject as one JSON document, however much that is."""
    with connected(server) as client:
        pages = _pages(client, "" if account else subject, subject if account else "")
        first = next(pages)
        if file is None:
            _write(sys.stdout, first, pages)
            return
        try:
            # What is held on somebody is for the eyes of whoever asked for it.
            with open(file, "x", encoding="utf-8", opener=_private) as stream:
                _write(stream, first, pages)
        except OSError as error:
            fail(f"cannot write {file}: {error.strerror}")
    err().print(f"{subject}: written to {file}", style="green")


@asks_a_server
def delete(
    subject: Subject, *, account: Account = False, yes: Yes = False, server: Asked, as_json: AsJson = False
) -> None:
    """Erase everything that is held on a subject, for good, and keep its events of up to now away."""
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody can be asked here whether to erase: give --yes", param_hint="--yes")
        typer.confirm(f"Erase everything that is held on {subject}? It cannot be taken back.", abort=True, err=True)
    with connected(server) as client:
        done = client.delete_profile("" if account else subject, account_id=subject if account else "")
    if as_json:
        print_json({"account_id" if account else "subject_id": subject, **msgspec.structs.asdict(done)})
        return
    rows = [(name, f"{number:,}") for name, number in sorted(done.erased.items())]
    if rows:
        print_table(("erased", "entries"), rows, title=subject)
    else:
        out().print(f"{subject}: nothing was held; erased {done.erased_at.isoformat()}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _pages(client: "Client", subject_id: str, account_id: str) -> Iterator["HeldPage"]:
    page = client.export_profile(subject_id, account_id=account_id)
    yield page
    while page.next_page_token:
        page = client.export_profile(subject_id, account_id=account_id, page_token=page.next_page_token)
        yield page


def _write(stream: TextIO, first: "HeldPage", following: Iterator["HeldPage"]) -> None:
    """One JSON document, an entry a line, of which no more than a page is held in memory."""
    head = {"account_id": first.account_id} if first.account_id else {"subject_id": first.subject_id}
    about = {"pseudonym": first.pseudonym, "at": first.at, "erased_at": first.erased_at}
    stream.write(_json({**head, **about})[:-1] + ',"holdings":{')
    current, between = "", ""
    page: HeldPage | None = first
    while page is not None:
        for holding, fields in page.entries:
            if holding != current:
                stream.write(f"{'],' if current else ''}\n{_json(holding)}:[")
                current, between = holding, ""
            stream.write(f"{between}\n{_json(fields)}")
            between = ","
        page = next(following, None)
    stream.write(f"{']' if current else ''}}}}}\n")


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
