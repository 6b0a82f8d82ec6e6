"""The one table from Arbiter's errors to gRPC status codes, and the details that go with them.

Law: whose fault it is decides the code. The caller's faults name the field and how to mend it; ours become INTERNAL
with a reference that stands beside the traceback in the log, and tell the caller nothing else. No servicer contexts.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from arbiter.errors import (
    AlreadyLinked,
    ArbiterError,
    CallerError,
    FellBehind,
    InvalidField,
    KeyReused,
    LimitExceeded,
    NotFound,
    NotKept,
    NotReady,
    VersionConflict,
)
from arbiter.profiles.verbs import STORED
from arbiter.runtime.faults import told
from arbiter.server.gate import PermissionDenied, Unauthenticated

if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAIN = "arbiter"
_Violation = BadRequest.FieldViolation
_log = logging.getLogger("arbiter.server")
# A status travels twice, as text and as details, in trailing metadata of 8 KiB at most, percent-encoded.
_TEXT_BYTES = 700
_PATH_BYTES = 400
# Limits on work under way, not on what one call holds: the same call may succeed a moment later.
PASSING_LIMITS = frozenset(
    {"concurrent_calls", "decide_streams", "ingest_streams", "followers", "watchers", "write_queue"}
)
_RETRY_MS = 100


class DeadlinePassed(ArbiterError):
    """The call's deadline passed before its answer was there."""


class AuditFailed(ArbiterError):
    """A call could not be recorded in the audit log, so it is not answered."""


_CODES: dict[type[BaseException], tuple[grpc.StatusCode, str]] = {
    InvalidField: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    NotFound: (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    VersionConflict: (grpc.StatusCode.ABORTED, "VERSION_CONFLICT"),
    AlreadyLinked: (grpc.StatusCode.FAILED_PRECONDITION, "ALREADY_LINKED"),
    KeyReused: (grpc.StatusCode.FAILED_PRECONDITION, "KEY_REUSED"),
    LimitExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"),
    FellBehind: (grpc.StatusCode.RESOURCE_EXHAUSTED, "FELL_BEHIND"),
    NotKept: (grpc.StatusCode.OUT_OF_RANGE, "NOT_KEPT"),
    CallerError: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    NotReady: (grpc.StatusCode.UNAVAILABLE, "NOT_READY"),
    DeadlinePassed: (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
    Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    PermissionDenied: (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    AuditFailed: (grpc.StatusCode.UNAVAILABLE, "AUDIT_FAILED"),
}
_OURS = (grpc.StatusCode.INTERNAL, "INTERNAL")


def code_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """Return the status code and the reason of an error."""
    if isinstance(error, InvalidField) and error.reason == STORED:
        return grpc.StatusCode.FAILED_PRECONDITION, "STORED_VALUE"
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), _OURS)


def status_of(error: BaseException, doing: str, within: str = "") -> Status:
    """Return the google.rpc.Status that tells the caller of `error`.

    `doing` names the call in the log. `within` is the path of the request inside the call (``requests[3]``), put before
    the field.
    """
    code, reason = code_of(error)
    info = ErrorInfo(reason=reason, domain=DOMAIN)
    details: list[Message] = [info]
    if isinstance(error, ArbiterError):
        info.metadata.update(error.facts)
    text = _cut(str(error), _TEXT_BYTES)
    if code is grpc.StatusCode.INTERNAL:
        reference = secrets.token_hex(4)
        _log.error("%s failed, reference %s\n%s", doing, reference, told(error))
        info.metadata["reference"] = reference
        text = f"internal error; the server's log has its cause under reference {reference}"
    elif isinstance(error, CallerError):
        if error.reason and error.reason != STORED:
            info.metadata["limit"] = error.reason
        if error.field:
            path = _cut(f"{within}.{error.field}" if within else error.field, _PATH_BYTES)
            details.append(BadRequest(field_violations=[_Violation(field=path, description=text)]))
        if error.reason in PASSING_LIMITS or isinstance(error, FellBehind):
            details.append(RetryInfo(retry_delay=Duration(nanos=_RETRY_MS * 1_000_000)))
    return Status(code=code.value[0], message=text, details=[_packed(detail) for detail in details])


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _cut(text: str, size: int) -> str:
    """Shorten a text to `size` bytes of UTF-8, and never let it fail to encode."""
    content = text.encode(errors="replace")
    return content.decode() if len(content) <= size else content[: size - 3].decode(errors="ignore") + "…"
