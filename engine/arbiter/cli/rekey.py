"""`arbiter store rekey`: ids moved to a new key.

Law: reads a list and prints what came of it; what moving is stands in `profiles`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from arbiter.cli.flags import configured
from arbiter.cli.terminal import out, plural, print_json

if TYPE_CHECKING:
    from arbiter.config.read import Chosen

Ids = Annotated[Path, typer.Argument(metavar="IDS_FILE", help="A file with an id a line.", exists=True, dir_okay=False)]
Accounts = Annotated[bool, typer.Option("--accounts", help="The ids are of accounts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@configured
def rekey(chosen: "Chosen", *, ids: Ids, accounts: Accounts = False, as_json: AsJson = False) -> None:
    """Move the ids in a file to the present key of the store, with the options of the server.

    Beside a server, once it was started with that key, or without one. Who is written to moves without this.
    """
    from arbiter.runtime.rekeying import rekey as move  # noqa: PLC0415 - loads LMDB, as does the next
    from arbiter.runtime.settings import Settings  # noqa: PLC0415

    settings = msgspec.convert(chosen.options, Settings, from_attributes=True)
    try:
        with ids.open(encoding="utf-8") as file:
            done = move(settings, (line for line in (each.rstrip("\r\n") for each in file) if line), accounts=accounts)
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{ids} is no UTF-8", param_hint="IDS_FILE") from error
    if as_json:
        print_json(done)
        return
    out().print(f"{done.moved:,} of {plural(done.ids, 'id')} moved")
    for each in done.previous:
        out().print(
            f"under the previous key {each.check[:8]} are left: {each.subjects:,} ids, {each.erased:,} erased ones"
        )
