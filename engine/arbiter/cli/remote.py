"""A running server, asked through the client.

Law: the only module of the commands that knows where servers listen. The client is imported late, since it brings grpc.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from arbiter.cli.answers import Answer, Given, Judged
from arbiter.errors import ArbiterError
from arbiter.types import ExplainLevel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from arbiter.cli.answers import Question
    from arbiter.client import Answer as Decided
    from arbiter.client import Client, Tls

_TLS_VARIABLES = ("ARBITER_CA_FILE", "ARBITER_CERTIFICATE_FILE", "ARBITER_KEY_FILE")
DEFAULT_TARGET = "127.0.0.1:50051"


class NoServer(ArbiterError):
    """Nobody answers where a server was looked for."""


@contextlib.contextmanager
def connected(target: str | None) -> Iterator[Client]:
    """A client of the server at `target`, else at the usual place. Raises NoServer when the block finds nobody.

    The environment has the token, and says which files hold certificates. Raises Misconfigured.
    """
    from arbiter.client import Client, Unavailable  # noqa: PLC0415

    with Client(target or DEFAULT_TARGET, token=os.environ.get("ARBITER_TOKEN") or None, tls=_tls()) as client:
        try:
            yield client
        except Unavailable as error:
            if error.reason:
                raise
            hint = "start one with `arbiter serve`, or name another with --target HOST:PORT"
            raise NoServer(f"no server answers at {client.target}: {hint}") from error


def _tls() -> Tls | None:
    from arbiter.client import Tls  # noqa: PLC0415

    ca, certificate, key = (os.environ.get(name) or None for name in _TLS_VARIABLES)
    return Tls(ca=ca, certificate=certificate, key=key) if ca or certificate or key else None


def decide(target: str | None, question: Question, context: dict[str, Any], at: datetime | None) -> list[Answer]:
    """Ask a server. An explanation, and a clock of one's own, are dry runs. Raises NoServer, CallFailed."""
    known = {name: value for name, value in context.items() if value is not None}
    dry_run = question.explain is not ExplainLevel.NONE or at is not None
    subject, slots = question.subject_id, question.slots
    with connected(target) as client:
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
    )
