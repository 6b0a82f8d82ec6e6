"""`arbiter override`: one rule, model or experiment switched off for a time.

Law: asks a server through the client, and words what came of it.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import out, print_json, print_table
from arbiter.cli.values import read_moment
from arbiter.cli.versions import PATIENCE_S, Reason, status_fields, tell
from arbiter.decision.wording import shown
from arbiter.ruleset.times import duration_micros
from arbiter.serving import Kind
from arbiter.types import from_micros

override = typer.Typer(
    name="override",
    help="Switch one rule, model or experiment off at once, for a time, on all workers.",
    no_args_is_help=True,
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The id of a rule; the name of what --model or --experiment says.")
]
Model = Annotated[bool, typer.Option("--model", help="NAME is a model.")]
Experiment = Annotated[bool, typer.Option("--experiment", help="NAME is an experiment.")]
For = Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, as in 30m, 2h or 7d.")]
Until = Annotated[str, typer.Option(metavar="MOMENT", help="Until when, as in 2026-12-24T18:00:00Z.")]


@override.command("off")
@asks_a_server
def off(
    name: Name,
    *,
    model: Model = False,
    experiment: Experiment = False,
    lasting: For = "",
    until: Until = "",
    reason: Reason = "",
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Switch a rule, a model or an experiment off; it comes back by itself.

    It stays off over reloads, rollbacks and restarts. The rules that need a model that is off are unknown; nobody is in
    an experiment that is off.
    """
    kind = _kind(model=model, experiment=experiment)
    end = _end(lasting, until)
    with connected(server) as client:
        status = client.override(name, kind=kind, until=end, reason=reason, timeout=PATIENCE_S)
    tell(status, f"{name} is off until {shown(end)}", as_json=as_json)


@override.command("clear")
@asks_a_server
def clear(
    name: Name,
    *,
    model: Model = False,
    experiment: Experiment = False,
    reason: Reason = "",
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Switch a rule, a model or an experiment on again, before its time."""
    kind = _kind(model=model, experiment=experiment)
    with connected(server) as client:
        status = client.clear_override(name, kind=kind, reason=reason, timeout=PATIENCE_S)
    tell(status, f"{name} is on again", as_json=as_json)


@override.command("list")
@asks_a_server
def list_(*, server: Asked, as_json: AsJson = False) -> None:
    """Print what is switched off."""
    with connected(server) as client:
        status = client.snapshot()
    if as_json:
        print_json(status_fields(status)["overrides"])
    elif not status.overrides:
        out().print("nothing is switched off")
    else:
        rows = [
            (each.kind, each.name, shown(from_micros(each.since)), shown(from_micros(each.until)), each.reason)
            for each in status.overrides
        ]
        print_table(("kind", "name", "since", "until", "reason"), rows, prose=("reason",))


def _kind(*, model: bool, experiment: bool) -> Kind:
    if model and experiment:
        raise typer.BadParameter("--model and --experiment are both there: NAME is one of the two")
    return "model" if model else "experiment" if experiment else "rule"


def _end(lasting: str, until: str) -> datetime:
    if bool(lasting) == bool(until):
        raise typer.BadParameter("say for how long: --for 2h, or --until 2026-12-24T18:00:00Z")
    if until:
        return read_moment(until, "--until")
    micros = duration_micros(lasting)
    if micros is None:
        raise typer.BadParameter(f"`{lasting}` is no duration: write 30m, 2h or 7d", param_hint="--for")
    return datetime.now(UTC) + timedelta(microseconds=micros)
