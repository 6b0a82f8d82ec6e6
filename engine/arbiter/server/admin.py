"""AdminService: how the server is, which snapshot runs, loading again, checking files, and what operators order.

Law: turns what the runtime knows into messages; knows nothing of how it came to know.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from arbiter.errors import InvalidField, LimitExceeded, NotFound, did_you_mean
from arbiter.runtime.admin import DropCanary, PromoteCanary, Rollback, RollbackModel, SetCanary, SetOverride
from arbiter.server.calls import parsed
from arbiter.server.modelwatch import watched_model
from arbiter.server.standing import counted_of, diagnostics_of, standing_of
from arbiter.v1 import admin_pb2
from arbiter.wire.numbers import CAUSES, PHASES
from arbiter.wire.values import read_timestamp, step, write_timestamp

if TYPE_CHECKING:
    from arbiter.config.limits import Limits
    from arbiter.runtime.admin import Admin, Command
    from arbiter.server.calls import Call, Work
    from arbiter.serving import (
        ConsumerInfo,
        LogFigures,
        StoreSize,
        TriggerInfo,
        WorkerFigures,
    )

_REASON_BYTES = 1024
_DIGEST_CHARACTERS = 64
SERVICE = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name


class AdminService:
    """Every RPC over whoever knows."""

    def __init__(self, admin: Admin, limits: Limits) -> None:
        self._admin = admin
        self._limits = limits

    def works(self) -> dict[str, Work]:
        """Return the work of each RPC by name."""
        return {
            "GetStatus": parsed(admin_pb2.GetStatusRequest, self._get_status),
            "GetSnapshot": parsed(admin_pb2.GetSnapshotRequest, self._get),
            "GetModels": parsed(admin_pb2.GetModelsRequest, self._get_models),
            "Reload": parsed(admin_pb2.ReloadRequest, self._reload),
            "Validate": parsed(admin_pb2.ValidateRequest, self._validate),
            "ListSnapshots": parsed(admin_pb2.ListSnapshotsRequest, self._list),
            "Rollback": parsed(admin_pb2.RollbackRequest, self._rollback),
            "SetCanary": parsed(admin_pb2.SetCanaryRequest, self._set_canary),
            "PromoteCanary": parsed(admin_pb2.PromoteCanaryRequest, self._promote),
            "DropCanary": parsed(admin_pb2.DropCanaryRequest, self._drop),
            "SetOverride": parsed(admin_pb2.SetOverrideRequest, self._override),
        }

    def _get_status(self, _request: admin_pb2.GetStatusRequest, _call: Call) -> admin_pb2.GetStatusResponse:
        info = self._admin.server_info()
        up = Duration()
        up.FromMicroseconds(max(0, info.at - info.started_at))
        return admin_pb2.GetStatusResponse(
            version=info.version,
            started_at=write_timestamp(info.started_at),
            uptime=up,
            draining=info.draining,
            workers=[
                admin_pb2.Worker(
                    worker=each.number,
                    pid=each.pid,
                    phase=PHASES[each.phase],
                    since=write_timestamp(each.since),
                    digest=each.digest,
                    restarts=each.restarts,
                    figures=_figures(each.figures),
                )
                for each in info.workers
            ],
            state=standing_of(info.status, admin_pb2.ServingState),
            store=_store(info.store),
            consumer=_consumer(info.consumer),
            triggers=_triggers(info.triggers),
            decision_log=_decision_log(info.decision_log),
        )

    def _get(self, _request: admin_pb2.GetSnapshotRequest, _call: Call) -> admin_pb2.GetSnapshotResponse:
        return standing_of(self._admin.snapshot_info(), admin_pb2.GetSnapshotResponse)

    def _get_models(self, request: admin_pb2.GetModelsRequest, _call: Call) -> admin_pb2.GetModelsResponse:
        name = self._name(request.model, "model")
        models = self._admin.models()
        found = [each for each in models if name in {"", each.name}]
        if name and not found:
            hint = did_you_mean(name, {each.name for each in models})
            raise NotFound(f"the snapshot has no model `{name}`{'; ' + hint if hint else ''}", field="model")
        return admin_pb2.GetModelsResponse(models=map(watched_model, found))

    def _reload(self, _request: admin_pb2.ReloadRequest, _call: Call) -> admin_pb2.ReloadResponse:
        status = self._admin.reload()
        response = standing_of(status, admin_pb2.ReloadResponse)
        response.changed = status.last_reload is not None and status.last_reload.changed
        return response

    def _validate(self, request: admin_pb2.ValidateRequest, _call: Call) -> admin_pb2.ValidateResponse:
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
        digest = ""
        if request.keep:
            staged = self._admin.stage(files)
            digest, found = staged.digest, list(staged.diagnostics)
        else:
            found = self._admin.validate(files)
        return admin_pb2.ValidateResponse(
            ok=not any(each.severity == "error" for each in found), diagnostics=diagnostics_of(found), digest=digest
        )

    def _list(self, _request: admin_pb2.ListSnapshotsRequest, _call: Call) -> admin_pb2.ListSnapshotsResponse:
        history = self._admin.history()
        return admin_pb2.ListSnapshotsResponse(
            snapshots=[
                admin_pb2.KeptSnapshot(
                    snapshot=counted_of(each.digest, each.at, each.counts),
                    cause=CAUSES[each.cause],
                    reason=each.reason,
                    model_names=each.models,
                )
                for each in history.kept
            ],
            turns=[
                admin_pb2.Turn(
                    digest=each.digest, at=write_timestamp(each.at), cause=CAUSES[each.cause], reason=each.reason
                )
                for each in history.turns
            ],
        )

    def _rollback(self, request: admin_pb2.RollbackRequest, _call: Call) -> admin_pb2.RollbackResponse:
        order: Command
        if request.model:
            order = self._model_order(request)
        elif request.version:
            raise InvalidField("version is of a model, and model is missing: name it", field="model")
        else:
            order = Rollback(digest=_digest(request.digest), reason=_reason(request.reason))
        return admin_pb2.RollbackResponse(state=self._carried_out(order))

    def _set_canary(self, request: admin_pb2.SetCanaryRequest, _call: Call) -> admin_pb2.SetCanaryResponse:
        order = SetCanary(digest=_digest(request.digest), percent=request.percent, reason=_reason(request.reason))
        return admin_pb2.SetCanaryResponse(state=self._carried_out(order))

    def _promote(self, request: admin_pb2.PromoteCanaryRequest, _call: Call) -> admin_pb2.PromoteCanaryResponse:
        order = PromoteCanary(digest=_digest(request.digest, needed=False), reason=_reason(request.reason))
        return admin_pb2.PromoteCanaryResponse(state=self._carried_out(order))

    def _drop(self, request: admin_pb2.DropCanaryRequest, _call: Call) -> admin_pb2.DropCanaryResponse:
        order = DropCanary(digest=_digest(request.digest, needed=False), reason=_reason(request.reason))
        return admin_pb2.DropCanaryResponse(state=self._carried_out(order))

    def _override(self, request: admin_pb2.SetOverrideRequest, _call: Call) -> admin_pb2.SetOverrideResponse:
        target = request.WhichOneof("target")
        if target is None:
            message = "rule_id, model and experiment are all missing: name what to switch off"
            raise InvalidField(message, field="rule_id")
        order = SetOverride(
            kind="rule" if target == "rule_id" else target,
            name=self._name(request.rule_id or request.model or request.experiment, target),
            until=_until(request),
            reason=_reason(request.reason),
        )
        return admin_pb2.SetOverrideResponse(state=self._carried_out(order))

    def _model_order(self, request: admin_pb2.RollbackRequest) -> RollbackModel:
        if request.digest:
            raise InvalidField("digest and model are both there: roll back a snapshot, or a model", field="digest")
        if request.version < 0:
            raise InvalidField(
                f"version is {request.version}: send one from 1, or none for the one before", field="version"
            )
        name = self._name(request.model, "model")
        return RollbackModel(name=name, version=request.version, reason=_reason(request.reason))

    def _carried_out(self, order: Command) -> admin_pb2.ServingState:
        return standing_of(self._admin.carry_out(order), admin_pb2.ServingState)

    def _name(self, name: str, field: str) -> str:
        size, allowed = len(name.encode()), self._limits.id_bytes
        if size > allowed:
            raise InvalidField(
                f"{field} has {size:,} bytes, and `id_bytes` allows {allowed}: nothing is called so",
                field=field,
                reason="id_bytes",
            )
        return name

    def _check_file(self, path: str, content: bytes) -> None:
        field = f"files{step(path)}"
        size, allowed = len(path.encode()), self._limits.validate_path_bytes
        if size > allowed:
            raise InvalidField(
                f"{field} is a path of {size:,} bytes, and `validate_path_bytes` allows {allowed:,}: shorten it",
                field=field,
                reason="validate_path_bytes",
            )
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


def _digest(digest: str, *, needed: bool = True) -> str:
    if needed and not digest:
        raise InvalidField("digest is empty: `ListSnapshots` says which are kept", field="digest")
    if len(digest) > _DIGEST_CHARACTERS:
        raise InvalidField(
            f"digest has {len(digest):,} characters, of {_DIGEST_CHARACTERS} at most: send it whole, and nothing else",
            field="digest",
        )
    return digest


def _reason(reason: str) -> str:
    size = len(reason.encode())
    if size > _REASON_BYTES:
        raise InvalidField(f"reason has {size:,} bytes, of {_REASON_BYTES:,} at most: shorten it", field="reason")
    return reason


def _until(request: admin_pb2.SetOverrideRequest) -> int:
    """The moment in µs, 0 to clear."""
    if request.clear == request.HasField("until"):
        said = "both given" if request.clear else "both missing"
        raise InvalidField(
            f"until and clear are {said}: send until when it is off, or clear to switch it on", field="until"
        )
    if request.clear:
        return 0
    try:
        return max(1, read_timestamp(request.until))
    except ValueError as error:
        raise InvalidField(f"until {error}", field="until") from None


def _figures(figures: WorkerFigures | None) -> admin_pb2.WorkerFigures | None:
    if figures is None:
        return None
    return admin_pb2.WorkerFigures(calls=figures.calls, writes=figures.writes, shed=figures.shed)


def _decision_log(log: LogFigures | None) -> admin_pb2.DecisionLog | None:
    if log is None:
        return None
    lag = Duration()
    lag.FromMicroseconds(round(log.lag_s * 1e6))
    return admin_pb2.DecisionLog(
        written=log.written, dropped=log.dropped, kept=log.kept, size_bytes=log.size, lag=lag, error=log.error
    )


def _consumer(consumer: ConsumerInfo | None) -> admin_pb2.Consumer | None:
    if consumer is None:
        return None
    figures = consumer.figures
    return admin_pb2.Consumer(
        pid=consumer.pid,
        phase=PHASES[consumer.phase],
        since=write_timestamp(consumer.since),
        digest=consumer.digest,
        restarts=consumer.restarts,
        figures=None
        if figures is None
        else admin_pb2.ConsumerFigures(
            partitions=figures.partitions,
            lag=figures.lag,
            accepted=figures.accepted,
            duplicates=figures.duplicates,
            erased=figures.erased,
            rejected=figures.rejected,
            missed=figures.missed,
            paused=figures.paused,
            last_error=figures.last_error,
            last_error_at=write_timestamp(figures.last_error_at) if figures.last_error_at else None,
        ),
    )


def _triggers(triggers: TriggerInfo | None) -> admin_pb2.TriggerProcess | None:
    if triggers is None:
        return None
    process = admin_pb2.TriggerProcess(
        pid=triggers.pid,
        phase=PHASES[triggers.phase],
        since=write_timestamp(triggers.since),
        digest=triggers.digest,
        restarts=triggers.restarts,
    )
    if (figures := triggers.figures) is not None:
        process.figures.triggers = figures.triggers
        process.figures.position = figures.position
        process.figures.lag = figures.lag
        process.figures.delay.FromMicroseconds(round(figures.lag_seconds * 1e6))
        process.figures.firings = figures.firings
        process.figures.passed = figures.passed
        process.figures.set_aside = figures.set_aside
    return process


def _store(store: StoreSize | None) -> admin_pb2.StoreSize | None:
    if store is None:
        return None
    return admin_pb2.StoreSize(
        used_bytes=store.used,
        quota_bytes=store.quota,
        rebuilding=store.rebuilding,
        profiles_left=store.left,
        previous_ids=store.previous_ids,
    )
