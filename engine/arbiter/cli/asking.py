"""Asking for decisions, of a server or of an engine in this process: what `decide` and `explain` share.

Law: options and their rules, and the choice of who answers. Prints nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from arbiter.cli import remote
from arbiter.cli.answers import Answer, Question
from arbiter.cli.check import models_beside
from arbiter.cli.flags import chosen
from arbiter.cli.remote import Asked
from arbiter.cli.values import read_context, read_moment

if TYPE_CHECKING:
    from arbiter.config.options import Profiles

Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="Whom the decision is for.")]
Rules = Annotated[
    Path | None,
    typer.Option(help="Decide in this process, by these rules, without a server.", exists=True, file_okay=False),
]
Models = Annotated[
    Path | None,
    typer.Option(help="With --rules: the models. [default: `models` beside the rules]", exists=True, file_okay=False),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="With --rules: a server's data directory, to read profiles from. [default: nobody is known]",
        exists=True,
        file_okay=False,
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        "--profiles-key",
        metavar="FILE",
        help="With --data: the secret by which ids are hashed there.",
    ),
]
PreviousKeys = Annotated[
    Path | None,
    typer.Option(
        "--profiles-previous-keys",
        metavar="DIR",
        help="With --data: the folder of secrets that were used before.",
    ),
]
Context = Annotated[
    str,
    typer.Option(metavar="JSON", help='Attributes of the request, as in \'{"device": "ios"}\'; @FILE reads a file.'),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="ARBITER_CONFIG",
        exists=True,
        dir_okay=False,
        help="With --data: the server's file of options, for the secrets that it names.",
    ),
]
Slots = Annotated[int, typer.Option(min=0, help="The most treatments wanted; 0: as many as the decision point has.")]
At = Annotated[
    str, typer.Option(metavar="MOMENT", help="Decide as if it were then, as in 2026-12-24T18:00:00Z; a dry run.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers: `rules` name an engine in this process, else it is the `server`."""

    server: Asked
    rules: Path | None
    models: Path | None
    data: Path | None
    config: Path | None = None
    key: Path | None = None
    previous_keys: Path | None = None

    @property
    def profiles(self) -> "Profiles":
        """The options that name the keys of the store, from where a server has them."""
        given = {"profiles.key": self.key, "profiles.previous_keys": self.previous_keys}
        return chosen(self.config, {name: str(path) for name, path in given.items() if path}).options.profiles

    def check(self) -> None:
        """Raise a usage error for options that do not go together."""
        if self.rules is None and (self.models or self.data):
            raise typer.BadParameter("--models and --data go with --rules, which decides in this process")


def ask(question: Question, source: Source) -> list[Answer]:
    """The answers, in the order of the decisions. Raises ArbiterError for what cannot be answered."""
    context = read_context(question.context)
    at = read_moment(question.at, "--at") if question.at else None
    source.check()
    if source.rules is None:
        return remote.decide(source.server, question, context, at)
    from arbiter.cli import offline  # noqa: PLC0415 - loads onnxruntime and LMDB

    models = source.models or models_beside(source.rules)
    profiles = None if source.data is None else source.profiles
    with offline.engine(source.rules, models, source.data, profiles) as engine:
        return offline.decide(engine, question, context, at)
