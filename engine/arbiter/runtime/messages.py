"""What the supervisor and its processes say to each other over their private pipes.

Law: plain data, MessagePack, never pickle. A question carries a number that its answer repeats.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

# Fields' types at run time: msgspec reads them to decode.
from arbiter.errors import CallerError, Diagnostic, LimitExceeded, StoreError
from arbiter.runtime.admin import Command, Live  # noqa: TC001
from arbiter.serving import (  # noqa: TC001
    ConsumerFigures,
    History,
    ServerInfo,
    Status,
    StoreSize,
    TriggerFigures,
    WatchedModel,
    WorkerFigures,
)
from arbiter.telemetry.instrument import Reading  # noqa: TC001

if TYPE_CHECKING:
    from arbiter.errors import ArbiterError

# The class, by name, of an error that a question is answered with.
Problem = Literal["NotFound", "InvalidField", "LimitExceeded", "VersionConflict", "NotReady", "StoreError"]
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Load(msgspec.Struct, frozen=True, tag=True):
    """To a worker: serve this; its snapshots are in the archive. `revision` numbers what workers were ever told."""

    live: Live
    revision: int


class Told(msgspec.Struct, frozen=True, tag=True):
    """To a worker: this is how things stand now."""

    status: Status


class Answer(msgspec.Struct, frozen=True, tag=True):
    """To a worker: the answer to its question `ask`; with `problem` a refusal, for what `message` says."""

    ask: int
    status: Status | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    digest: str = ""
    history: History | None = None
    server: ServerInfo | None = None
    models: tuple[WatchedModel, ...] = ()
    problem: Problem | None = None
    message: str = ""
    field: str = ""
    reason: str = ""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """To a worker: take no new calls, finish those begun within `grace` seconds, and end."""

    grace: float


class Count(msgspec.Struct, frozen=True, tag=True):
    """To a worker: say what was counted, under this number."""

    number: int


class Counted(msgspec.Struct, frozen=True, tag=True):
    """From a worker: what it has counted, asked for by `number`; 0 at its end, when nobody asked."""

    number: int
    reading: Reading


class Look(msgspec.Struct, frozen=True, tag=True):
    """To a worker: say what you have to do, under this number."""

    number: int


class Looked(msgspec.Struct, frozen=True, tag=True):
    """From a worker: what it has to do, asked for by `number`, and the store as it finds it, None for unreadable."""

    number: int
    figures: WorkerFigures
    store: StoreSize | None


class Noticed(msgspec.Struct, frozen=True, tag=True):
    """From a worker: a decision was looked into that the model of this digest had a part in.

    `places` are the bins into which its inputs and outputs fell, -1 where there was no value, in the order of
    `watching.fields_of`; those whose numbers stand in `beyond` lie out of all that was trained on.
    """

    digest: str
    places: tuple[int, ...]
    beyond: tuple[int, ...] = ()


class Serving(msgspec.Struct, frozen=True, tag=True):
    """From a worker: calls that begin from now on are answered by this snapshot, and all that `revision` said."""

    digest: str
    revision: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it could not load what `revision` said, and serves what it served."""

    revision: int
    message: str


class Leaving(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it takes no new calls from now on, and ends with those begun."""


class Consumed(msgspec.Struct, frozen=True, tag=True):
    """From the consumer: what it has done until now."""

    figures: ConsumerFigures


class Triggered(msgspec.Struct, frozen=True, tag=True):
    """From the process that runs triggers: what it has done until now. `beat` has grown since it was last said: it
    lives.
    """

    figures: TriggerFigures
    beat: int


class Onlookers(msgspec.Struct, frozen=True, tag=True):
    """To a worker: these look on at decisions now, by number: serialised WatchDecisionsRequests."""

    each: dict[int, bytes]


class Onlook(msgspec.Struct, frozen=True, tag=True):
    """From a worker: somebody wants to look on, under this number; with None no more."""

    ask: int
    asked: bytes | None


class Shown(msgspec.Struct, frozen=True, tag=True):
    """From a worker that decided, and to the one that was asked, each with its own number: a decision, serialised, and
    how many others were too many. Empty: none but those.
    """

    number: int
    content: bytes
    dropped: int


class Ask(msgspec.Struct, frozen=True, tag=True):
    """From a worker: a caller's question. `files` are those to validate or to stage, `command` is what to carry out."""

    ask: int
    what: Literal["info", "server", "models", "reload", "validate", "stage", "history", "command"]
    files: dict[str, bytes] = {}
    command: Command | None = None


def refusal(ask: int, error: ArbiterError) -> Answer:
    """The answer to a question that cannot be had. A full disk is no secret of ours: who asks can make room."""
    cause = error.__cause__
    if isinstance(error, StoreError) and isinstance(cause, OSError) and cause.errno in _FULL:
        error = LimitExceeded(str(error), reason="disk_full")
    kind = type(error).__name__
    problem: Problem = kind if kind in get_args(Problem) else "StoreError"  # type: ignore[assignment]
    caller = error if isinstance(error, CallerError) else CallerError("")
    return Answer(ask, problem=problem, message=str(error), field=caller.field, reason=caller.reason)


ToWorker = Load | Told | Answer | Stop | Count | Look | Onlookers | Shown
ToSupervisor = Serving | Refused | Leaving | Ask | Counted | Looked | Noticed | Consumed | Triggered | Onlook | Shown

encode = msgspec.msgpack.Encoder().encode
to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
to_supervisor: msgspec.msgpack.Decoder[ToSupervisor] = msgspec.msgpack.Decoder(ToSupervisor)
