"""`arbiter health`: whether a server serves, for probes.

Law: one question of the health service, and its answer as an exit code; how a server is doing is told by `status`.
"""

from typing import Annotated

import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import FINDINGS, print_json

Service = Annotated[
    str, typer.Argument(metavar="[SERVICE]", help="What is asked for: arbiter.worker.0, say. [default: the server]")
]


@asks_a_server
def health(service: Service = "", *, server: Asked, as_json: AsJson = False) -> None:
    """Say whether a server serves, and end with 1 when it does not; no token is needed.

    Asked of the `--admin` address it stays well while one worker serves, whatever became of the last reload.
    """
    with connected(server) as client:
        serving = client.health(service)
    if as_json:
        print_json({"serving": serving})
    else:
        print("serving" if serving else "not serving")
    if not serving:
        raise typer.Exit(FINDINGS)
