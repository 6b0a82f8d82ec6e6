"""AdminService: which snapshot runs, loading again, checking files.

Law: turns what the runtime knows into messages; knows nothing of how it came to know.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.server.calls import parsed
from arbiter.server.reading import step
from arbiter.server.values import write_timestamp
from arbiter.v1 import admin_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.errors import Diagnostic
    from arbiter.runtime.admin import Admin, ReloadReport, SnapshotInfo, Status
    from arbiter.server.calls import Work
    from arbiter.server.limits import Limits

SERVICE = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name


class AdminService:
    """GetSnapshot, Reload and Validate over whoever knows."""

    def __init__(self, admin: Admin, limits: Limits) -> None:
        self._admin = admin
        self._limits = limits

    def works(self) -> dict[str, Work]:
        """Return the work of each RPC by name."""
        return {
            "GetSnapshot": parsed(admin_pb2.GetSnapshotRequest, self._get),
            "Reload": parsed(admin_pb2.ReloadRequest, self._reload),
            "Validate": parsed(admin_pb2.ValidateRequest, self._validate),
        }

    def _get(self, _request: admin_pb2.GetSnapshotRequest, _deadline: float | None) -> admin_pb2.GetSnapshotResponse:
        status = self._admin.snapshot_info()
        return admin_pb2.GetSnapshotResponse(
            snapshot=_snapshot(status.snapshot), last_reload=_attempt(status.last_reload), workers=_workers(status)
        )

    def _reload(self, _request: admin_pb2.ReloadRequest, _deadline: float | None) -> admin_pb2.ReloadResponse:
        status = self._admin.reload()
        return admin_pb2.ReloadResponse(
            snapshot=_snapshot(status.snapshot),
            last_reload=_attempt(status.last_reload),
            workers=_workers(status),
            changed=status.last_reload is not None and status.last_reload.changed,
        )

    def _validate(self, request: admin_pb2.ValidateRequest, _deadline: float | None) -> admin_pb2.ValidateResponse:
        count, allowed = len(request.files), self._limits.validate_files
        if count > allowed:
            raise LimitExceeded(
                f"files holds {count:,}, and `validate_files` allows {allowed:,}: send the rules directory alone",
                field="files",
                reason="validate_files",
            )
        files = dict(request.files.items())
        for path, content in files.items():
            self._check_file(path, content)
        found = self._admin.validate(files)
        return admin_pb2.ValidateResponse(
            ok=not any(each.severity == "error" for each in found), diagnostics=_diagnostics(found)
        )

    def _check_file(self, path: str, content: bytes) -> None:
        field = f"files{step(path)}"
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path or pure.as_posix() != path:
            raise InvalidField(
                f"{field} is no plain relative path: send it relative to the rules directory, with `/`, without `..`",
                field=field,
            )
        allowed = self._limits.validate_file_bytes
        if len(content) > allowed:
            raise LimitExceeded(
                f"{field} has {len(content):,} bytes, and `validate_file_bytes` allows {allowed:,}: split the file",
                field=field,
                reason="validate_file_bytes",
            )


def _snapshot(info: SnapshotInfo | None) -> admin_pb2.Snapshot | None:
    if info is None:
        return None
    counts = info.counts
    return admin_pb2.Snapshot(
        digest=info.digest,
        loaded_at=write_timestamp(info.loaded_at),
        rules=counts.rules,
        decisions=counts.decisions,
        segments=counts.segments,
        features=counts.features,
        models=counts.models,
        files=[admin_pb2.SnapshotFile(path=file.path, sha256=file.sha256, size=file.size) for file in info.files],
    )


def _attempt(report: ReloadReport | None) -> admin_pb2.ReloadAttempt | None:
    if report is None:
        return None
    return admin_pb2.ReloadAttempt(
        ok=report.ok, at=write_timestamp(report.at), diagnostics=_diagnostics(report.diagnostics)
    )


def _workers(status: Status) -> list[admin_pb2.WorkerSnapshot]:
    return [admin_pb2.WorkerSnapshot(worker=number, digest=digest) for number, digest in sorted(status.workers.items())]


def _diagnostics(found: Iterable[Diagnostic]) -> list[admin_pb2.Diagnostic]:
    return [
        admin_pb2.Diagnostic(
            file=each.file,
            line=each.line,
            column=each.column,
            end_column=each.end_column,
            path=each.path,
            severity=admin_pb2.SEVERITY_ERROR if each.severity == "error" else admin_pb2.SEVERITY_WARNING,
            message=each.message,
            hint=each.hint,
            source_line=each.source,
        )
        for each in found
    ]
