"""How snapshots stand, as messages: what runs, what was tried, what operators ordered.

Law: from what `serving` tells to what the API says, field by field; nothing is asked or decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.v1 import admin_pb2
from arbiter.wire.numbers import CAUSES
from arbiter.wire.values import write_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.errors import Diagnostic
    from arbiter.serving import Canary, Counts, Hold, ModelHold, Override, ReloadReport, SnapshotInfo, Status


def state_of(status: Status) -> admin_pb2.ServingState:
    """How things stand after an order."""
    return admin_pb2.ServingState(
        snapshot=snapshot_of(status.snapshot),
        last_reload=attempt_of(status.last_reload),
        workers=workers_of(status),
        hold=hold_of(status.hold),
        canary=canary_of(status.canary),
        overrides=overrides_of(status),
        model_holds=model_holds_of(status),
    )


def hold_of(hold: Hold | None) -> admin_pb2.Hold | None:
    """What an operator put in place of the files."""
    if hold is None:
        return None
    return admin_pb2.Hold(
        digest=hold.digest,
        set_aside=hold.aside,
        cause=CAUSES[hold.cause],
        since=write_timestamp(hold.since),
        reason=hold.reason,
    )


def model_holds_of(status: Status) -> list[admin_pb2.ModelHold]:
    """The models that are held."""
    return [_model_hold(each) for each in status.models]


def _model_hold(hold: ModelHold) -> admin_pb2.ModelHold:
    return admin_pb2.ModelHold(
        model=hold.name,
        version=hold.version,
        digest=hold.digest,
        set_aside=hold.aside,
        since=write_timestamp(hold.since),
        reason=hold.reason,
    )


def canary_of(canary: Canary | None) -> admin_pb2.Canary | None:
    """The canary."""
    if canary is None:
        return None
    return admin_pb2.Canary(
        snapshot=counted_of(canary.digest, canary.since, canary.counts),
        percent=canary.percent,
        salt=canary.salt,
        reason=canary.reason,
    )


def overrides_of(status: Status) -> list[admin_pb2.Override]:
    """What is switched off."""
    return [_override(each) for each in status.overrides]


def _override(override: Override) -> admin_pb2.Override:
    since, until = write_timestamp(override.since), write_timestamp(override.until)
    if override.kind == "model":
        return admin_pb2.Override(model=override.name, since=since, until=until, reason=override.reason)
    return admin_pb2.Override(rule_id=override.name, since=since, until=until, reason=override.reason)


def snapshot_of(info: SnapshotInfo | None) -> admin_pb2.Snapshot | None:
    """What runs, with its files."""
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


def attempt_of(report: ReloadReport | None) -> admin_pb2.ReloadAttempt | None:
    """The last attempt to load."""
    if report is None:
        return None
    return admin_pb2.ReloadAttempt(
        ok=report.ok, at=write_timestamp(report.at), diagnostics=diagnostics_of(report.diagnostics)
    )


def workers_of(status: Status) -> list[admin_pb2.WorkerSnapshot]:
    """What each worker serves."""
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
