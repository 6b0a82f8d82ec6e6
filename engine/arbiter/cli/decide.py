"""`arbiter decide`: what a subject would be given.

Law: asks and prints.
"""

from typing import Annotated

import typer

from arbiter.cli.answers import Question, print_notes, print_treatments
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
from arbiter.cli.terminal import print_json

Decisions = Annotated[list[str], typer.Argument(metavar="DECISION", help="Decision points, as one page.")]


@asks_a_server
def decide(
    subject: Subject,
    decisions: Decisions,
    *,
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
    """Decide for SUBJECT, by a running server or, with --rules, in this process.

    Several decision points are one page: one profile read, and no treatment given twice.
    """
    question = Question(subject_id=subject, decisions=tuple(decisions), context=context, slots=slots, at=at)
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
        print_json(answers)
        return
    print_treatments(answers)
    print_notes(answers)
