"""`arbiter explain`: for every rule of a decision point, what became of it, and why.

Law: asks and prints.
"""

import enum
from typing import Annotated

import typer

from arbiter.cli.answers import Question, print_explanation, print_notes, print_treatments
from arbiter.cli.asking import (
    AsJson,
    At,
    Config,
    Context,
    Data,
    Key,
    Models,
    PreviousKeys,
    Rules,
    Slots,
    Source,
    Subject,
    ask,
)
from arbiter.cli.remote import Asked, asks_a_server
from arbiter.cli.terminal import out, print_json
from arbiter.types import ExplainLevel

Decision = Annotated[str, typer.Argument(metavar="DECISION", help="The decision point.")]
Only = Annotated[list[str] | None, typer.Option("--rule", metavar="ID", help="Only this rule; may be given again.")]


class Level(enum.StrEnum):
    """How many rules are explained."""

    WINNERS = "winners"
    LOSERS = "losers"
    ALL = "all"


Covered = Annotated[
    Level, typer.Option(help="`winners` were given, `losers` also matched, `all` is every rule of the decision point.")
]


@asks_a_server
def explain(
    subject: Subject,
    decision: Decision,
    *,
    rule: Only = None,
    level: Covered = Level.ALL,
    server: Asked,
    rules: Rules = None,
    models: Models = None,
    data: Data = None,
    config: Config = None,
    profiles_key: Key = None,
    profiles_previous_keys: PreviousKeys = None,
    context: Context = "{}",
    slots: Slots = 0,
    at: At = "",
    as_json: AsJson = False,
) -> None:
    """Say what became of every rule of DECISION for SUBJECT.

    Won; lost, to which rule and on which key; false, in which part of its condition and with which values; or
    unknown, for lack of what.
    """
    question = Question(
        subject_id=subject,
        decisions=(decision,),
        context=context,
        slots=slots,
        at=at,
        explain=ExplainLevel[level.name],
        explain_rules=tuple(rule or ()),
    )
    source = Source(
        server=server,
        rules=rules,
        models=models,
        data=data,
        config=config,
        key=profiles_key,
        previous_keys=profiles_previous_keys,
    )
    answers = ask(question, source)
    if as_json:
        print_json(answers[0])
        return
    if out().is_terminal:
        print_treatments(answers)
    print_explanation(answers[0])
    print_notes(answers)
