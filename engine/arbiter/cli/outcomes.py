"""`arbiter outcomes`: what became of a decision, told by hand.

Law: asks and prints; what a decision delivered, its id says, and what may be recorded of it, the server.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from arbiter.cli.asking import AsJson
from arbiter.cli.remote import Asked, asks_a_server, connected
from arbiter.cli.terminal import fail, out, print_json
from arbiter.cli.values import read_moment

if TYPE_CHECKING:
    from arbiter.client import ReportResult

outcomes = typer.Typer(name="outcomes", help="What became of decisions.", no_args_is_help=True)

DecisionId = Annotated[str, typer.Argument(metavar="DECISION_ID", help="The `decision_id` that it was answered with.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What happened, as in `purchase`.")]
Rule = Annotated[str, typer.Option("--rule", metavar="ID", help="What it delivered by this rule. [default: all of it]")]
Value = Annotated[float | None, typer.Option("--value", help="An amount, such as that of a purchase.")]
At = Annotated[str, typer.Option("--at", metavar="MOMENT", help="When. [default: now]")]
Once = Annotated[
    str,
    typer.Option(
        "--idempotency-key", metavar="KEY", help="Tells one from another of the same decision, rule and name."
    ),
]

_SAID = {
    "accepted": "recorded",
    "duplicate": "recorded before: nothing changed",
    "expired": "too late: the decision is older than `events.late_days` allows",
    "subject_erased": "the subject was erased after the decision: nothing was recorded",
}


@outcomes.command("record")
@asks_a_server
def record(
    decision_id: DecisionId,
    name: Name,
    *,
    rule: Rule = "",
    value: Value = None,
    at: At = "",
    once: Once = "",
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Record that NAME happened after the decision DECISION_ID."""
    from arbiter.client import Outcome  # noqa: PLC0415 - brings grpc

    moment = read_moment(at, "--at") if at else None
    outcome = Outcome(decision_id=decision_id, name=name, rule_id=rule, value=value, at=moment, idempotency_key=once)
    with connected(server) as client:
        (result,) = client.record_outcomes([outcome])
    _say(result, as_json=as_json)


@outcomes.command("shown")
@asks_a_server
def shown(
    decision_id: DecisionId,
    *,
    rule: Rule = "",
    at: At = "",
    once: Once = "",
    server: Asked,
    as_json: AsJson = False,
) -> None:
    """Record that what the decision DECISION_ID delivered was shown."""
    from arbiter.client import Exposure  # noqa: PLC0415 - brings grpc

    moment = read_moment(at, "--at") if at else None
    exposure = Exposure(decision_id=decision_id, rule_id=rule, at=moment, idempotency_key=once)
    with connected(server) as client:
        (result,) = client.record_exposures([exposure])
    _say(result, as_json=as_json)


def _say(result: "ReportResult", *, as_json: bool) -> None:
    if as_json:
        print_json({"result": result})
    elif result in {"accepted", "duplicate"}:
        out().print(_SAID[result], style="green")
    if result not in {"accepted", "duplicate"}:
        fail(_SAID[result])
