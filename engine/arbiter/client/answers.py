"""What comes out of calls, as plain values.

Law: data and its translation from messages; no calls. Times are aware UTC datetimes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from grpc_health.v1 import health_pb2

from arbiter.client.consents import read_denials
from arbiter.client.failures import CallFailed, failure
from arbiter.errors import Diagnostic
from arbiter.serving import (
    Canary,
    Cause,
    Counts,
    History,
    Hold,
    Kept,
    Kind,
    ModelHold,
    Override,
    ReloadReport,
    SnapshotFile,
    SnapshotInfo,
    Staged,
    Status,
    Turn,
)
from arbiter.types import ExperimentOutcome, ModelInput, ModelOutcome, Reason, RuleOutcome, Treatment, from_micros
from arbiter.v1 import admin_pb2, decision_pb2, profile_pb2
from arbiter.wire.numbers import CAUSES, OUTCOMES, STANDINGS
from arbiter.wire.values import plain_value, plain_values, read_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

_REASONS = {decision_pb2.REASON_RULE: Reason.WON, decision_pb2.REASON_DEFAULT: Reason.DEFAULT}
_CAUSES: dict[int, Cause] = {number: cause for cause, number in CAUSES.items()}
_OUTCOMES = {number: reason for reason, number in OUTCOMES.items()}
_KINDS: dict[str, Kind] = {"model": "model", "experiment": "experiment"}
_STANDINGS = {number: standing for standing, number in STANDINGS.items()}


class Carried(Protocol):
    """What an order is answered with."""

    @property
    def state(self) -> admin_pb2.ServingState:
        """How things stand now."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The decision at one point. `degraded` names what could not be computed, as ``models.churn``.

    `experiments` has the subject's variant of each experiment for which the treatments are these and no others.
    `explanation`, `models` and `standings` are empty unless asked for; `explanation_text` is the same for people.
    `failure` is None when a server decided; a `local` answer came from the caller's fallback, in place of this failure.
    """

    decision: str
    decision_id: str
    treatments: tuple[Treatment, ...]
    snapshot: str
    defaulted: bool
    degraded: tuple[str, ...]
    valid_until: datetime | None
    explanation: tuple[RuleOutcome, ...]
    explanation_text: str
    request_id: str
    models: tuple[ModelOutcome, ...] = ()
    failure: CallFailed | None = None
    experiments: dict[str, str] = {}
    standings: tuple[ExperimentOutcome, ...] = ()

    @property
    def local(self) -> bool:
        """Whether no server decided this."""
        return self.failure is not None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The decisions of a page, in the order asked; all of them `local`, or none."""

    decisions: tuple[Answer, ...]
    snapshot: str
    request_id: str
    failure: CallFailed | None = None

    @property
    def local(self) -> bool:
        """Whether no server decided this."""
        return self.failure is not None


class Batch(msgspec.Struct, frozen=True):
    """The results of a batch, in the order of its requests: an answer, a page, or what that one request failed with."""

    results: tuple[Answer | Page | CallFailed, ...]
    snapshot: str


class Ingested(msgspec.Struct, frozen=True):
    """What became of a batch of events."""

    accepted: int
    duplicates: int
    position: int
    erased: int = 0


class HeldPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of everything that is held on a subject: each entry with the name of its holding.

    `next_page_token` asks for the next page, empty for no more; `erased_at` is None for a subject that never was.
    """

    subject_id: str
    pseudonym: str
    entries: tuple[tuple[str, dict[str, Any]], ...]
    next_page_token: str
    at: datetime
    erased_at: datetime | None = None
    account_id: str = ""


class Erasure(msgspec.Struct, frozen=True):
    """What erasing a subject erased: how many entries of each holding. `pseudonym` names the subject from now on."""

    erased_at: datetime
    erased: dict[str, int]
    pseudonym: str


def read_page(response: decision_pb2.DecideResponse) -> Page:
    """Return the decisions of a page."""
    snapshot, request_id = response.snapshot, response.request_id
    decisions = tuple(read_answer(each, snapshot, request_id) for each in response.decisions)
    return Page(decisions=decisions, snapshot=snapshot, request_id=request_id)


def read_answer(answer: decision_pb2.DecideResponse | decision_pb2.Decision, snapshot: str, request_id: str) -> Answer:
    """Return the decision at one point."""
    return Answer(
        decision=answer.decision,
        decision_id=answer.decision_id,
        treatments=tuple(_treatment(each) for each in answer.treatments),
        snapshot=snapshot,
        defaulted=answer.defaulted,
        degraded=tuple(each.name for each in answer.degraded),
        valid_until=_moment(answer.valid_until) if answer.HasField("valid_until") else None,
        explanation=tuple(_outcome(each) for each in answer.explanation.rules),
        explanation_text=answer.explanation.text,
        request_id=request_id,
        models=tuple(_model(each) for each in answer.explanation.models),
        experiments=dict(answer.experiments),
        standings=tuple(
            ExperimentOutcome(each.name, each.variant, _STANDINGS[each.standing], each.detail, each.mattered)
            for each in answer.explanation.experiments
        ),
    )


def _model(each: decision_pb2.ModelExplanation) -> ModelOutcome:
    inputs = tuple(
        ModelInput(
            one.name,
            one.source,
            plain_value(one.value) if one.HasField("value") else None,
            tuple(one.columns),
            one.imputed,
            one.withheld,
        )
        for one in each.inputs
    )
    denied = read_denials(each.denied)
    return ModelOutcome(each.name, each.version, inputs, plain_values(each.outputs), None, each.detail, denied)


def read_batch(response: decision_pb2.DecideBatchResponse) -> Batch:
    """Return the results of a batch."""
    return Batch(tuple(read_result(each) for each in response.results), response.snapshot)


def read_result(
    message: decision_pb2.DecideBatchResult | decision_pb2.DecideStreamResponse,
) -> Answer | Page | CallFailed:
    """Return what became of one request of several."""
    if message.HasField("error"):
        return failure(message.error)
    response = message.response
    if response.decision:
        return read_answer(response, response.snapshot, response.request_id)
    return read_page(response)


def read_ingested(response: profile_pb2.IngestEventsResponse) -> Ingested:
    """Return what became of a batch of events."""
    return Ingested(response.accepted, response.duplicates, response.position, response.erased)


def read_held(response: profile_pb2.ExportProfileResponse) -> HeldPage:
    """Return a page of what is held."""
    return HeldPage(
        subject_id=response.subject_id,
        pseudonym=response.pseudonym,
        entries=tuple((each.holding, plain_values(each.fields)) for each in response.entries),
        next_page_token=response.next_page_token,
        at=_moment(response.at),
        erased_at=_moment(response.erased_at) if response.HasField("erased_at") else None,
        account_id=response.account_id,
    )


def read_erasure(response: profile_pb2.DeleteProfileResponse) -> Erasure:
    """Return what was erased."""
    return Erasure(_moment(response.erased_at), dict(response.erased), response.pseudonym)


def read_health(response: health_pb2.HealthCheckResponse) -> bool:
    """Return whether what was asked for serves."""
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def read_status(
    response: admin_pb2.GetSnapshotResponse | admin_pb2.ReloadResponse | admin_pb2.ServingState,
) -> Status:
    """Return how things stand with snapshots. `changed` of the last attempt is known from a Reload only."""
    snapshot = None
    if response.HasField("snapshot"):
        message = response.snapshot
        snapshot = SnapshotInfo(
            digest=message.digest,
            loaded_at=read_timestamp(message.loaded_at),
            counts=_counts(message),
            files=tuple(SnapshotFile(path=each.path, sha256=each.sha256, size=each.size) for each in message.files),
        )
    report = None
    if response.HasField("last_reload"):
        report = ReloadReport(
            ok=response.last_reload.ok,
            at=read_timestamp(response.last_reload.at),
            changed=isinstance(response, admin_pb2.ReloadResponse) and response.changed,
            digest=snapshot.digest if snapshot else "",
            diagnostics=tuple(read_diagnostics(response.last_reload.diagnostics)),
        )
    return Status(
        snapshot=snapshot,
        last_reload=report,
        workers={each.worker: each.digest for each in response.workers},
        hold=_hold(response.hold) if response.HasField("hold") else None,
        canary=_canary(response.canary) if response.HasField("canary") else None,
        overrides=tuple(_override(each) for each in response.overrides),
        models=tuple(_model_hold(each) for each in response.model_holds),
    )


def read_outcome(response: Carried) -> Status:
    """Return how things stand after an order."""
    return read_status(response.state)


def read_history(response: admin_pb2.ListSnapshotsResponse) -> History:
    """Return the snapshots that are kept, and their turns."""
    kept = [
        Kept(
            digest=each.snapshot.digest,
            at=read_timestamp(each.snapshot.loaded_at),
            cause=_CAUSES[each.cause],
            reason=each.reason,
            counts=_counts(each.snapshot),
            models=tuple(each.model_names),
        )
        for each in response.snapshots
    ]
    turns = [
        Turn(digest=each.digest, at=read_timestamp(each.at), cause=_CAUSES[each.cause], reason=each.reason)
        for each in response.turns
    ]
    return History(kept=tuple(kept), turns=tuple(turns))


def read_staged(response: admin_pb2.ValidateResponse) -> Staged:
    """Return what became of files that were sent to be kept."""
    return Staged(digest=response.digest, diagnostics=tuple(read_diagnostics(response.diagnostics)))


def read_diagnostics(found: Iterable[admin_pb2.Diagnostic]) -> list[Diagnostic]:
    """Return the diagnostics, in the server's order."""
    return [
        Diagnostic(
            file=each.file,
            line=each.line,
            column=each.column,
            end_column=each.end_column,
            message=each.message,
            hint=each.hint,
            path=each.path,
            source=each.source_line,
            severity="warning" if each.severity == admin_pb2.SEVERITY_WARNING else "error",
        )
        for each in found
    ]


def _counts(message: admin_pb2.Snapshot) -> Counts:
    return Counts(
        rules=message.rules,
        decisions=message.decisions,
        segments=message.segments,
        features=message.features,
        models=message.models,
    )


def _hold(message: admin_pb2.Hold) -> Hold:
    return Hold(
        digest=message.digest,
        aside=message.set_aside,
        cause=_CAUSES[message.cause],
        since=read_timestamp(message.since),
        reason=message.reason,
    )


def _model_hold(message: admin_pb2.ModelHold) -> ModelHold:
    return ModelHold(
        name=message.model,
        version=message.version,
        digest=message.digest,
        aside=message.set_aside,
        since=read_timestamp(message.since),
        reason=message.reason,
    )


def _canary(message: admin_pb2.Canary) -> Canary:
    return Canary(
        digest=message.snapshot.digest,
        percent=message.percent,
        since=read_timestamp(message.snapshot.loaded_at),
        reason=message.reason,
        counts=_counts(message.snapshot),
    )


def _override(message: admin_pb2.Override) -> Override:
    target = message.WhichOneof("target")
    return Override(
        kind=_KINDS.get(target or "", "rule"),
        name=message.model or message.experiment or message.rule_id,
        since=read_timestamp(message.since),
        until=read_timestamp(message.until),
        reason=message.reason,
    )


def _treatment(message: decision_pb2.Treatment) -> Treatment:
    return Treatment(
        message.rule_id,
        message.action,
        plain_values(message.params),
        message.priority,
        message.value if message.HasField("value") else None,
        _REASONS[message.reason],
        message.variant,
    )


def _outcome(message: decision_pb2.RuleExplanation) -> RuleOutcome:
    missing: Sequence[str] = message.missing
    return RuleOutcome(
        message.rule_id,
        _OUTCOMES[message.outcome],
        message.position,
        message.expression,
        plain_values(message.values),
        tuple(missing),
        message.lost_to,
        message.lost_on,
        message.detail,
        message.value if message.HasField("value") else None,
        tuple(message.withheld),
        read_denials(message.denied),
    )


def _moment(stamp: Timestamp) -> datetime:
    return from_micros(read_timestamp(stamp))
