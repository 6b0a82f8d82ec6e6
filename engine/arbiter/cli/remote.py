"""A running server, asked through the client.

Law: the only module of the commands that knows where servers listen, and by what right they are asked. The client is
imported late, since it brings grpc.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbiter.cli.answers import Answer, Given, Judged
from arbiter.errors import ArbiterError
from arbiter.types import ExplainLevel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from arbiter.cli.answers import Question
    from arbiter.client import Answer as Decided
    from arbiter.client import Client, Tls

DEFAULT_TARGET = "127.0.0.1:50051"
TOKEN_VARIABLE = "ARBITER_TOKEN"  # noqa: S105 - its name


def _option(variable: str, metavar: str, meaning: str) -> Any:
    return typer.Option(metavar=metavar, envvar=variable, help=meaning)


# What a command that asks a server takes beside its own options.
_OPTIONS: dict[str, Any] = {
    "target": Annotated[
        str | None,
        _option("ARBITER_TARGET", "HOST:PORT", f"The server to ask; unix:PATH is one too. [default: {DEFAULT_TARGET}]"),
    ],
    "token_file": Annotated[
        Path | None,
        _option(
            "ARBITER_TOKEN_FILE", "FILE", f"The file with the API token to send. [default: what {TOKEN_VARIABLE} holds]"
        ),
    ],
    "tls": Annotated[
        bool | None,
        typer.Option("--tls/--no-tls", envvar="ARBITER_TLS", help="Connect with TLS. [default: with --ca or --key]"),
    ],
    "ca": Annotated[
        Path | None, _option("ARBITER_CA_FILE", "FILE", "Root certificates (PEM) to trust the server's by.")
    ],
    "certificate": Annotated[
        Path | None, _option("ARBITER_CERTIFICATE_FILE", "FILE", "This caller's own certificate (PEM).")
    ],
    "key": Annotated[Path | None, _option("ARBITER_KEY_FILE", "FILE", "The private key of --certificate (PEM).")],
    "insecure_token": Annotated[
        bool | None,
        typer.Option(
            "--insecure-token", envvar="ARBITER_INSECURE_TOKEN", help="Send the token to another machine without TLS."
        ),
    ],
}


class NoServer(ArbiterError):
    """Nobody answers where a server was looked for."""


class Asked(msgspec.Struct, frozen=True):
    """Which server a command asks, and what it shows to be let in."""

    target: str | None = None
    token_file: Path | None = None
    tls: bool | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure_token: bool | None = None


def asks_a_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, which has a parameter `server` of the type Asked, the options that say which."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    ours = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _OPTIONS.items()
    ]
    parameters = [each for one in own for each in (ours if one.name == "server" else [one])]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(server=Asked(**{name: given.pop(name) for name in _OPTIONS}), **given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what `inspect.signature` looks for
    return run


@contextlib.contextmanager
def connected(server: Asked) -> Iterator[Client]:
    """A client of a server, else of one at the usual place.

    Raises NoServer when the block finds nobody, and Misconfigured for what cannot be connected with.
    """
    from arbiter.client import Client, Unavailable  # noqa: PLC0415

    with Client(
        server.target or DEFAULT_TARGET,
        connections=1,
        token=read_token(server.token_file),
        tls=tls_of(server),
        insecure_token=bool(server.insecure_token),
    ) as client:
        try:
            yield client
        except Unavailable as error:
            if error.reason:
                raise
            hint = "start one with `arbiter serve`, or name another with --target HOST:PORT"
            raise NoServer(f"no server answers at {client.target}: {hint}") from error


def read_token(file: Path | None) -> str | None:
    """The token to show: that of the file, or of the environment; never an argument, which every process can read."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(
            f"cannot read {file}: {getattr(error, 'strerror', None) or error}", param_hint="--token-file"
        ) from error


def tls_of(server: Asked) -> Tls | None:
    """How the connection is to be secured; None for in the open."""
    from arbiter.client import Tls  # noqa: PLC0415

    given = (server.ca, server.certificate, server.key)
    wanted = any(given) if server.tls is None else server.tls
    if not wanted:
        return None
    return Tls(ca=server.ca, certificate=server.certificate, key=server.key)


def decide(server: Asked, question: Question, context: dict[str, Any], at: datetime | None) -> list[Answer]:
    """Ask a server. An explanation, and a clock of one's own, are dry runs. Raises NoServer, CallFailed."""
    known = {name: value for name, value in context.items() if value is not None}
    dry_run = question.explain is not ExplainLevel.NONE or at is not None
    subject, slots = question.subject_id, question.slots
    with connected(server) as client:
        if len(question.decisions) > 1:
            page = client.decide_page(
                subject,
                question.decisions,
                context=known,
                slots=slots,
                explain=question.explain,
                dry_run=dry_run,
                at=at,
            )
            return [answer_of(subject, each) for each in page.decisions]
        answer = client.decide(
            subject,
            question.decisions[0],
            context=known,
            slots=slots,
            explain=question.explain,
            explain_rules=question.explain_rules,
            dry_run=dry_run,
            at=at,
        )
        return [answer_of(subject, answer)]


def answer_of(subject: str, answer: Decided) -> Answer:
    """A server's answer as commands show it."""
    return Answer(
        subject_id=subject,
        decision=answer.decision,
        treatments=[Given.of(each) for each in answer.treatments],
        defaulted=answer.defaulted,
        degraded=list(answer.degraded),
        valid_until=answer.valid_until,
        snapshot=answer.snapshot,
        decision_id=answer.decision_id,
        explanation=[Judged.of(each) for each in answer.explanation],
        models=list(answer.models),
        experiments=answer.experiments,
        standings=list(answer.standings),
    )
