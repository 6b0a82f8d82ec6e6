"""The audit log: one line of JSON for each call that administers, shows what is held on a subject, or links two ids.

A stream has its line when it is opened.

Law: a call is answered when its line is on disk, and fails when that cannot be. The subject stands in a line as the
keyed hash under which the store keeps it, never as an id; no value of a profile stands there at all. All processes
append to one file, each line by one write.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from arbiter.server.auth.roles import NEEDS, RECORDED
from arbiter.server.calls import Slow, settled
from arbiter.server.gate import Caller
from arbiter.server.settings import FaceSettings
from arbiter.server.status import AuditFailed, code_of
from arbiter.v1 import admin_pb2, outcome_pb2, profile_pb2, trigger_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

    from arbiter.errors import ArbiterError
    from arbiter.server.calls import Call, Work

_PAUSED: Final = f"/{admin_pb2.DESCRIPTOR.services_by_name['AdminService'].full_name}/SetOverride"
AUDITED: Final = RECORDED | {path for path, need in NEEDS.items() if need in {"admin", "privacy"}}
# Fields that hold the id of somebody: a line has its pseudonym.
_SUBJECT: Final = "subject_id"
_IDS: Final = (_SUBJECT, "account_id", "anonymous_id", "known_id")
_TOKEN: Final = "page_token"  # noqa: S105 - a field's name; it says where in a subject's events a page begins
_SHOWN: Final = 256  # characters of a text in a line


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. `time` is RFC 3339; `outcome` is the name of the status code; `request` holds what was asked for.

    `by` says what the caller is known by; it and `caller` are missing on a server without authentication.
    """

    time: str
    method: str
    outcome: str
    caller: str = ""
    by: str = ""
    peer: str = ""
    subject: str = ""
    request: dict[str, Any] = {}
    process: int = 0


class AuditLog:
    """Appends to `path`. A file that was renamed away is opened anew, so that any tool may rotate it.

    `pseudonym` gives the name under which a subject stands in the log. Raises AuditFailed when it cannot be opened.
    """

    def __init__(self, path: Path, pseudonym: Callable[[str], str], clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._pseudonym = pseudonym
        self._clock = clock
        self._lock = threading.Lock()
        self._torn = False  # the last write may have left half a line
        self._file = -1
        self._open()

    def close(self) -> None:
        """Close the file."""
        with self._lock, contextlib.suppress(OSError):
            os.close(self._file)

    def recorded(self, method: str, work: Work) -> Work:
        """Return the work of `method`, a full path; if it must be recorded, what became of each call is."""
        if method not in AUDITED:
            return work

        def run(content: bytes, call: Call) -> Slow:
            return Slow(lambda: self._record_of(method, work, content, call))

        return run

    def denied(self, method: str, caller: Caller) -> None:
        """Record that a caller asked for what it may not. Raises AuditFailed."""
        if method in AUDITED:
            self._write(self._record(method, caller, "PERMISSION_DENIED"))

    def note(self, method: str, by: str, outcome: str, request: dict[str, Any]) -> None:
        """Record what the server did itself, as if it had been called for. Raises AuditFailed."""
        shown = {name: value if len(value) <= _SHOWN else f"{value[: _SHOWN - 1]}…" for name, value in request.items()}
        self._write(self._record(method, Caller(name=by, by=by), outcome, request=shown))

    def _record_of(self, method: str, work: Work, content: bytes, call: Call) -> bytes:
        # A full disk is found out before anything is done, not after.
        self._check()
        subject, asked = self._asked(method, content)
        peer = call.peer()
        outcome = "OK"
        try:
            return settled(work(content, call), call)
        except BaseException as error:
            outcome = code_of(error)[0].name
            raise
        finally:
            self._write(
                self._record(
                    method,
                    call.caller,
                    outcome,
                    peer=peer.decode(errors="replace") if isinstance(peer, bytes) else peer,
                    subject=subject,
                    request=asked,
                )
            )

    def _record(self, method: str, caller: Caller | None, outcome: str, **rest: Any) -> Record:
        moment = datetime.fromtimestamp(self._clock(), UTC)
        return Record(
            time=f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}",
            method=method,
            outcome=outcome,
            caller=caller.name if caller is not None else "",
            by=caller.by if caller is not None else "",
            process=os.getpid(),
            **rest,
        )

    def _asked(self, method: str, content: bytes) -> tuple[str, dict[str, Any]]:
        """The subject, and what else a request says, shortened. Of bytes that are no such request, nothing."""
        try:
            message = _REQUESTS[method].FromString(content)
        except DecodeError:
            return "", {}
        asked = {field.name: _shown(value, field) for field, value in message.ListFields()}
        asked.pop(_TOKEN, None)
        asked |= {name: self._pseudonym(getattr(message, name)) for name in _IDS if name in asked}
        return str(asked.pop(_SUBJECT, "")), asked

    def _check(self) -> None:
        with self._lock:
            if self._torn:
                self._append(b"\n")

    def _write(self, record: Record) -> None:
        with self._lock:
            self._append(msgspec.json.encode(record) + b"\n")

    def _append(self, line: bytes) -> None:
        """Write by one call: on a local disk appends of several processes do not mix."""
        try:
            if self._moved():
                os.close(self._file)
                self._open()
            if self._torn and line != b"\n":
                line = b"\n" + line
            self._torn = True
            if os.write(self._file, line) != len(line):
                raise OSError(None, "the disk took half a line")  # noqa: TRY301 - as any other failure of the disk
            os.fdatasync(self._file)
            self._torn = False
        except OSError as error:
            raise _failed(self._path, error) from error

    def _moved(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        mine = os.fstat(self._file)
        return (found.st_ino, found.st_dev) != (mine.st_ino, mine.st_dev)

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(self._path, error) from error


def note_pause(settings: bytes, experiment: str, reason: str, error: ArbiterError | None) -> None:
    """Record, where there is an audit log, that an experiment paused itself, or what `error` kept it from that.
    `settings` are encoded FaceSettings.

    Raises AuditFailed.
    """
    chosen = msgspec.msgpack.decode(settings, type=FaceSettings) if settings else FaceSettings()
    if chosen.audit.file:
        log = AuditLog(Path(chosen.audit.file), str)
        outcome = "OK" if error is None else code_of(error)[0].name
        with contextlib.closing(log):
            log.note(_PAUSED, "guardrail", outcome, {"experiment": experiment, "reason": reason})


def _failed(path: Path, error: OSError) -> AuditFailed:
    return AuditFailed(
        f"the audit log {path} cannot be written: {error.strerror or error}. Calls that it must record are not "
        "answered until it can; a change that was under way may have been made"
    )


def _requests() -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    for module in (admin_pb2, outcome_pb2, profile_pb2, trigger_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                found[f"/{service.full_name}/{method.name}"] = getattr(module, method.input_type.name)
    return found


_REQUESTS: Final = _requests()


def _shown(value: Any, field: FieldDescriptor) -> Any:
    """A field as a line shows it: a map or a list by its size, since files and values are not for the log."""
    if field.enum_type is not None and isinstance(value, int):
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else f"{value[: _SHOWN - 1]}…"
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, bool | int | float):
        return value
    return {"count": len(value)} if hasattr(value, "__len__") else "…"
