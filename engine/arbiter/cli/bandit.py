"""`arbiter bandit`: what groups of rules have learned, shown, forgotten, or set back.

Law: asks a server through the client, and words what came of it.
"""

from typing import Annotated

import msgspec
import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import out, print_json, print_table
from arbiter.cli.values import read_moment
from arbiter.cli.versions import Reason

bandit = typer.Typer(name="bandit", help="What groups of rules learn from outcomes.", no_args_is_help=True)

Group = Annotated[str, typer.Argument(metavar="GROUP", help="A group, as under `groups` in rule files.")]
Maybe = Annotated[str, typer.Argument(metavar="[GROUP]", help="One group. [default: all]", show_default=False)]
At = Annotated[str, typer.Option("--decision", metavar="NAME", help="One decision point. [default: all]")]
To = Annotated[str, typer.Option("--to", metavar="MOMENT", help="As in 2026-12-24T18:00:00Z.", show_default=False)]


@bandit.command("show")
@asks_a_server
def show(group: Maybe = "", *, decision: At = "", server: Asked, as_json: AsJson = False) -> None:
    """Print how often each rule won and lost, as that weighs now, and how probably it is drawn."""
    with connected(server) as client:
        arms = client.bandits(group, decision=decision)
    if as_json:
        print_json([msgspec.to_builtins(arm) for arm in arms])
    elif not arms:
        out().print("there is no group that learns")
    else:
        rows = [
            (arm.decision, arm.group, arm.rule_id, f"{arm.wins:.1f}", f"{arm.losses:.1f}", f"{arm.probability:.1%}")
            for arm in arms
        ]
        print_table(("decision", "group", "rule", "wins", "losses", "drawn"), rows)


@bandit.command("reset")
@asks_a_server
def reset(group: Group, *, decision: At = "", reason: Reason = "", server: Asked, as_json: AsJson = False) -> None:
    """Have GROUP forget what it learned. `rollback` gives it back."""
    with connected(server) as client:
        arms = client.reset_bandit(group, decision=decision, reason=reason)
    _tell(arms, f"{group} has forgotten what it learned", as_json=as_json)


@bandit.command("rollback")
@asks_a_server
def rollback(
    group: Group, *, to: To, decision: At = "", reason: Reason = "", server: Asked, as_json: AsJson = False
) -> None:
    """Set what GROUP learned back to what it was at a time, 90 days back at most."""
    moment = read_moment(to, "--to")
    with connected(server) as client:
        arms = client.rollback_bandit(group, moment, decision=decision, reason=reason)
    _tell(arms, f"{group} knows what it knew at {to}", as_json=as_json)


def _tell(arms: int, said: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"arms": arms})
    else:
        out().print(f"{said} ({arms} arm{'s' if arms != 1 else ''})", style="green")
