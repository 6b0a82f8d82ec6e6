"""What a call fails with, typed by whose turn it is.

Law: one class per thing that a caller can do about it; details as the server gave them, never parsed from text. No
gRPC: `channels` knows how a failure arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Iterator

_Detail = TypeVar("_Detail", bound=Message)
_HELD_BACK_NS = 100_000_000  # as servers say when they turn calls away


class Violation(msgspec.Struct, frozen=True):
    """A field at fault: its path in the request, and what is wrong with it."""

    field: str
    description: str


class Misconfigured(ArbiterError):
    """A client cannot be made of what it was given."""


class CallFailed(ArbiterError):
    """A call failed. `code` is the canonical code's name (``INVALID_ARGUMENT``), `reason` Arbiter's own word for it.

    `violations` name the fields at fault, `limit` the limit that was passed, `reference` the entry in the server's log,
    and `facts` are these and whatever else the server told for programs, by name;
    `retry_after` is in seconds, None when the server says nothing of it. `attempts` counts how often the call was sent:
    0 when it never was, as a bad argument is not, or when one request of a batch failed alone. What does not apply is
    empty.
    """

    attempts = 0

    def __init__(self, status: Status) -> None:
        """Take over what the server said."""
        self.code = _name(status.code)
        self.message = status.message
        infos = list(_details(status, ErrorInfo))
        metadata = {key: value for info in infos for key, value in info.metadata.items()}
        self.reason = infos[0].reason if infos else ""
        self.facts = metadata
        self.limit = metadata.get("limit", "")
        self.reference = metadata.get("reference", "")
        self.violations = tuple(
            Violation(each.field, each.description)
            for request in _details(status, BadRequest)
            for each in request.field_violations
        )
        delays = [retry.retry_delay.ToTimedelta().total_seconds() for retry in _details(status, RetryInfo)]
        self.retry_after: float | None = delays[0] if delays else None
        super().__init__(f"{self.code}: {self.message}")

    @property
    def field(self) -> str:
        """The path of the first field at fault, ``""`` for none."""
        return self.violations[0].field if self.violations else ""


class InvalidRequest(CallFailed):
    """The request is wrong as it stands: mend it."""


class UnknownName(CallFailed):
    """The request names something that the server does not have."""


class Unauthenticated(CallFailed):
    """The server does not know who calls: give a token or a certificate that it takes."""


class PermissionDenied(CallFailed):
    """The server knows who calls, and does not let them do this."""


class Conflict(CallFailed):
    """Somebody else was faster: read again, then retry."""


class PreconditionFailed(CallFailed):
    """What is stored does not fit the request."""


class ResourceExhausted(CallFailed):
    """A limit was passed: send less, or retry after `retry_after`."""


class OutOfRange(CallFailed):
    """What follows a position is no longer kept, or was never there; `facts` has ``earliest`` and ``newest``."""


class DeadlineExceeded(CallFailed):
    """No answer came in time; a write may have been done all the same."""


class Unavailable(CallFailed):
    """No server answered, or it is not ready: retry."""


class ServerFault(CallFailed):
    """The server failed; `reference` finds the cause in its log."""


_KINDS: dict[str, type[CallFailed]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": UnknownName,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "ABORTED": Conflict,
    "FAILED_PRECONDITION": PreconditionFailed,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "OUT_OF_RANGE": OutOfRange,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
    "INTERNAL": ServerFault,
}


def failure(status: Status) -> CallFailed:
    """Return the exception for a google.rpc.Status."""
    return _KINDS.get(_name(status.code), CallFailed)(status)


def cancelled(message: str) -> CallFailed:
    """Return the failure of a call that was not let go on."""
    return CallFailed(Status(code=code_pb2.CANCELLED, message=message))


def too_late() -> DeadlineExceeded:
    """Return the failure of a call that had no time from the start."""
    message = "the timeout was over before anything was sent: allow more time"
    return DeadlineExceeded(Status(code=code_pb2.DEADLINE_EXCEEDED, message=message))


def held_back() -> ResourceExhausted:
    """Return the failure of a call that is not sent, since servers turn such calls away."""
    message = "not sent: the server has lately turned calls away, and no more go there than it takes; retry later"
    retry = Any()
    retry.Pack(RetryInfo(retry_delay=Duration(nanos=_HELD_BACK_NS)))
    return ResourceExhausted(Status(code=code_pb2.RESOURCE_EXHAUSTED, message=message, details=[retry]))


def _name(code: int) -> str:
    """The canonical name; numbers of no code are UNKNOWN, as gRPC has it."""
    known = code in code_pb2.Code.values()
    return code_pb2.Code.Name(code if known else code_pb2.UNKNOWN)  # type: ignore[arg-type] # one of its own


def _details(status: Status, kind: type[_Detail]) -> Iterator[_Detail]:
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            yield detail
