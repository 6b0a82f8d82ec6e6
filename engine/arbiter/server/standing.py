"""How snapshots stand, as messages: what runs, what was tried, what operators ordered.

Law: from what `serving` tells to what the API says, field by field; nothing is asked or decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from arbiter.v1 import admin_pb2
from arbiter.wire.numbers import CAUSES
from arbiter.wire.values import write_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.errors import Diagnostic
    from arbiter.serving import Canary, Counts, Hold, ModelHold, Override, ReloadReport, SnapshotInfo, Status

_Standing = TypeVar("_Standing", admin_pb2.ServingState, admin_pb2.GetSnapshotResponse, admin_pb2.ReloadResponse)


def standing_of(status: Status, message: type[_Standing]) -> _Standing:
    """How things stand, in one of the messages that tell it: they name their fields alike."""
    return message(
        snapshot=_snapshot(status.snapshot),
        last_reload=_attempt(status.last_reload),
        workers=_workers(status),
        hold=_hold(status.hold),
        canary=_canary(status.canary),
        overrides=[_override(each) for each in status.overrides],
        model_holds=[_model_hold(each) for each in status.models],
    )


def _hold(hold: Hold | None) -> admin_pb2.Hold | None:
    if hold is None:
        return None
    return admin_pb2.Hold(
        digest=hold.digest,
        set_aside=hold.aside,
        cause=CAUSES[hold.cause],
        since=write_timestamp(hold.since),
        reason=hold.reason,
    )


def _model_hold(hold: ModelHold) -> admin_pb2.ModelHold:
    return admin_pb2.ModelHold(
        model=hold.name,
        version=hold.version,
        digest=hold.digest,
        set_aside=hold.aside,
        since=write_timestamp(hold.since),
        reason=hold.reason,
    )


def _canary(canary: Canary | None) -> admin_pb2.Canary | None:
    if canary is None:
        return None
    return admin_pb2.Canary(
        snapshot=counted_of(canary.digest, canary.since, canary.counts),
        percent=canary.percent,
        salt=canary.salt,
        reason=canary.reason,
    )


def _override(override: Override) -> admin_pb2.Override:
    since, until = write_timestamp(override.since), write_timestamp(override.until)
    if override.kind == "model":
        return admin_pb2.Override(model=override.name, since=since, until=until, reason=override.reason)
    if override.kind == "experiment":
        return admin_pb2.Override(experiment=override.name, since=since, until=until, reason=override.reason)
    return admin_pb2.Override(rule_id=override.name, since=since, until=until, reason=override.reason)


def _snapshot(info: SnapshotInfo | None) -> admin_pb2.Snapshot | None:
    if info is None:
        return None
    snapshot = counted_of(info.digest, info.loaded_at, info.counts)
    snapshot.files.extend(
        admin_pb2.SnapshotFile(path=file.path, sha256=file.sha256, size=file.size) for file in info.files
    )
    return snapshot


def counted_of(digest: str, at: int, counts: Counts) -> admin_pb2.Snapshot:
    """A snapshot without its files; `at` is µs since the epoch."""
    return admin_pb2.Snapshot(
        digest=digest,
        loaded_at=write_timestamp(at),
        rules=counts.rules,
        decisions=counts.decisions,
        segments=counts.segments,
        features=counts.features,
        models=counts.models,
    )


def _attempt(report: ReloadReport | None) -> admin_pb2.ReloadAttempt | None:
    if report is None:
        return None
    return admin_pb2.ReloadAttempt(
        ok=report.ok, at=write_timestamp(report.at), diagnostics=diagnostics_of(report.diagnostics)
    )


def _workers(status: Status) -> list[admin_pb2.WorkerSnapshot]:
    return [admin_pb2.WorkerSnapshot(worker=number, digest=digest) for number, digest in sorted(status.workers.items())]


def diagnostics_of(found: Iterable[Diagnostic]) -> list[admin_pb2.Diagnostic]:
    """What was found in files."""
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
