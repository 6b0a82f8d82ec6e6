"""`arbiter config`: what a server would run with.

Law: prints what the one reader of options gives, and where each came from; starts nothing.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from arbiter.cli.flags import configured
from arbiter.cli.terminal import print_json, print_table
from arbiter.config.declare import written

if TYPE_CHECKING:
    from arbiter.config.read import Chosen

config = typer.Typer(name="config", help="The options of the server.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@config.command("show")
@configured
def show(chosen: "Chosen", *, as_json: AsJson = False) -> None:
    """Print each option that `arbiter serve` would have, given the same, and where its value comes from.

    Ends with 2 when the file, the environment or the flags hold a mistake, and then tells each.
    """
    rows = chosen.rows()
    if as_json:
        shown: dict[str, Any] = {option.name: {"value": value, "from": place} for option, value, place in rows}
        print_json(shown)
    else:
        print_table(
            ("option", "value", "from"), [(option.name, written(value), place) for option, value, place in rows]
        )
