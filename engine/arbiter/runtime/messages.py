"""What supervisor and workers say to each other over their private pipe.

Law: plain data, MessagePack, never pickle. A question carries a number that its answer repeats.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# Fields' types at run time: msgspec reads them to decode.
from arbiter.errors import Diagnostic  # noqa: TC001
from arbiter.runtime.admin import Status  # noqa: TC001


class Load(msgspec.Struct, frozen=True, tag=True):
    """To a worker: serve this snapshot, which is in the archive."""

    digest: str


class Told(msgspec.Struct, frozen=True, tag=True):
    """To a worker: this is how things stand now."""

    status: Status


class Answer(msgspec.Struct, frozen=True, tag=True):
    """To a worker: the answer to its question `ask`."""

    ask: int
    status: Status | None = None
    diagnostics: tuple[Diagnostic, ...] = ()


class Stop(msgspec.Struct, frozen=True, tag=True):
    """To a worker: take no new calls, finish those begun within `grace` seconds, and end."""

    grace: float


class Serving(msgspec.Struct, frozen=True, tag=True):
    """From a worker: calls that begin from now on are answered by this snapshot."""

    digest: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it could not load this snapshot, and serves what it served."""

    digest: str
    message: str


class Ask(msgspec.Struct, frozen=True, tag=True):
    """From a worker: a caller's question. `files` are those to validate."""

    ask: int
    what: Literal["info", "reload", "validate"]
    files: dict[str, bytes] = {}


ToWorker = Load | Told | Answer | Stop
ToSupervisor = Serving | Refused | Ask

encode = msgspec.msgpack.Encoder().encode
to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
to_supervisor: msgspec.msgpack.Decoder[ToSupervisor] = msgspec.msgpack.Decoder(ToSupervisor)
