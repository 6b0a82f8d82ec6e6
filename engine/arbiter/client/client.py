"""The client: one method per RPC.

Law: blocking calls over one channel; what goes in is defined in `arguments`, what comes out in `answers`, what goes
wrong in `failures`. Safe
to share between threads. It retries nothing by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import grpc

from arbiter.client import answers, arguments
from arbiter.client.answers import Answer, Batch, Ingested, Page, ProfileAnswer
from arbiter.client.arguments import Ask
from arbiter.client.failures import CallFailed, InvalidRequest, failure_of
from arbiter.types import Event, ExplainLevel
from arbiter.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    decision_pb2,
    decision_pb2_grpc,
    profile_pb2,
    profile_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from arbiter.errors import Diagnostic
    from arbiter.serving import History, Staged, Status

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Client:
    """Calls of a server at `target` (``HOST:PORT``). `timeout`, in seconds, holds for calls that give none.

    Every method raises CallFailed, or the child of it that says what to do: InvalidRequest, before anything is sent,
    for arguments that no request can hold.
    """

    def __init__(
        self, target: str, *, timeout: float = 10.0, options: Sequence[tuple[str, str | int | float | bool]] = ()
    ) -> None:
        """Connect when the first call needs it. `options` are grpc's channel arguments."""
        self.target = target
        self._timeout = timeout
        # Batches and profiles may be larger than grpc's 4 MiB; the server limits what it takes.
        self._channel = grpc.insecure_channel(target, [("grpc.max_receive_message_length", -1), *options])
        self._decisions = decision_pb2_grpc.DecisionServiceStub(self._channel)
        self._profiles = profile_pb2_grpc.ProfileServiceStub(self._channel)
        self._admin = admin_pb2_grpc.AdminServiceStub(self._channel)

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the channel."""
        self.close()

    def close(self) -> None:
        """Close the channel; calls under way fail."""
        self._channel.close()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Return once a connection stands. Raises TimeoutError."""
        try:
            grpc.channel_ready_future(self._channel).result(self._timeout if timeout is None else timeout)
        except grpc.FutureTimeoutError:
            raise TimeoutError(f"no server answers at {self.target}") from None

    def decide(
        self,
        subject_id: str,
        decision: str,
        *,
        context: Mapping[str, Any] | None = None,
        context_json: bytes = b"",
        slots: int = 0,
        explain: ExplainLevel = ExplainLevel.NONE,
        explain_rules: Sequence[str] = (),
        dry_run: bool = False,
        at: datetime | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Answer:
        """Decide one decision point."""
        asked = Ask(
            subject_id=subject_id,
            decision=decision,
            context=context,
            context_json=context_json,
            slots=slots,
            explain=explain,
            explain_rules=explain_rules,
            dry_run=dry_run,
            at=at,
            request_id=request_id,
        )
        response = self._call(self._decisions.Decide, asked.message(), timeout)
        return answers.read_answer(response, response.snapshot, response.request_id)

    def decide_page(
        self,
        subject_id: str,
        decisions: Sequence[str],
        *,
        context: Mapping[str, Any] | None = None,
        context_json: bytes = b"",
        slots: int = 0,
        explain: ExplainLevel = ExplainLevel.NONE,
        dry_run: bool = False,
        at: datetime | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> Page:
        """Decide several decision points from one profile read, no treatment twice."""
        asked = Ask(
            subject_id=subject_id,
            decisions=decisions,
            context=context,
            context_json=context_json,
            slots=slots,
            explain=explain,
            dry_run=dry_run,
            at=at,
            request_id=request_id,
        )
        return answers.read_page(self._call(self._decisions.Decide, asked.message(), timeout))

    def decide_batch(self, requests: Iterable[Ask], *, timeout: float | None = None) -> Batch:
        """Decide many requests on one snapshot; a bad one fails alone, as a CallFailed among the results."""
        message = decision_pb2.DecideBatchRequest()
        wrong: dict[int, CallFailed] = {}
        for place, asked in enumerate(requests):
            try:
                message.requests.append(asked.message(f"requests[{place}]."))
            except InvalidRequest as error:
                # An empty one keeps the places of those after it.
                message.requests.append(decision_pb2.DecideRequest())
                wrong[place] = error
        batch = answers.read_batch(self._call(self._decisions.DecideBatch, message, timeout))
        return Batch(tuple(wrong.get(place, result) for place, result in enumerate(batch.results)), batch.snapshot)

    def update_profile(
        self,
        subject_id: str,
        *,
        set: Mapping[str, Any] | None = None,  # noqa: A002 - the field's name in the API
        unset: Sequence[str] = (),
        increment: Mapping[str, float] | None = None,
        append: Mapping[str, Any] | None = None,
        expected_version: int | None = None,
        idempotency_key: str = "",
        timeout: float | None = None,
    ) -> int:
        """Change attributes; return the profile's new version once it is on disk."""
        version = None if expected_version is None else arguments.number(expected_version, "expected_version")
        message = profile_pb2.UpdateProfileRequest(
            subject_id=arguments.text(subject_id, "subject_id"),
            set=arguments.values(set, "set"),
            unset=arguments.texts(unset, "unset"),
            increment=arguments.values(increment, "increment"),
            append=arguments.values(append, "append"),
            expected_version=version,
            idempotency_key=arguments.text(idempotency_key, "idempotency_key"),
        )
        return self._call(self._profiles.UpdateProfile, message, timeout).version

    def ingest_events(self, events: Iterable[Event], *, timeout: float | None = None) -> Ingested:
        """Store events; return once they are on disk. An event's `at` is µs since the epoch."""
        message = profile_pb2.IngestEventsRequest(
            events=[arguments.event(each, f"events[{place}]") for place, each in enumerate(events)]
        )
        done = self._call(self._profiles.IngestEvents, message, timeout)
        return Ingested(done.accepted, done.duplicates, done.position)

    def get_profile(self, subject_id: str, *, timeout: float | None = None) -> ProfileAnswer:
        """Return what is known of a subject, as a decision would see it now."""
        message = profile_pb2.GetProfileRequest(subject_id=arguments.text(subject_id, "subject_id"))
        return answers.read_profile(self._call(self._profiles.GetProfile, message, timeout))

    def snapshot(self, *, timeout: float | None = None) -> Status:
        """Return what runs, and what became of the last attempt to load."""
        return answers.read_status(self._call(self._admin.GetSnapshot, admin_pb2.GetSnapshotRequest(), timeout))

    def reload(self, *, timeout: float | None = None) -> Status:
        """Have the files read again; mistakes in them are no exception but in `last_reload`."""
        return answers.read_status(self._call(self._admin.Reload, admin_pb2.ReloadRequest(), timeout))

    def validate(self, files: Mapping[str, bytes], *, timeout: float | None = None) -> list[Diagnostic]:
        """Return what a server says of rule files, relative posix path to content; it changes nothing."""
        response = self._call(self._admin.Validate, admin_pb2.ValidateRequest(files=dict(files)), timeout)
        return answers.read_diagnostics(response.diagnostics)

    def keep(self, files: Mapping[str, bytes], *, timeout: float | None = None) -> Staged:
        """Have a server check rule files and keep their snapshot, for `set_canary`; the last three are kept.

        `digest` is empty when the files hold errors, which `diagnostics` say.
        """
        message = admin_pb2.ValidateRequest(files=dict(files), keep=True)
        return answers.read_staged(self._call(self._admin.Validate, message, timeout))

    def snapshots(self, *, timeout: float | None = None) -> History:
        """Return the snapshots that can be rolled back to, and when each was current; both oldest first."""
        message = admin_pb2.ListSnapshotsRequest()
        return answers.read_history(self._call(self._admin.ListSnapshots, message, timeout))

    def rollback(self, digest: str, *, reason: str = "", timeout: float | None = None) -> Status:
        """Make a kept snapshot current, held until the files give another one than they do; return when it is live."""
        message = admin_pb2.RollbackRequest(
            digest=arguments.text(digest, "digest"), reason=arguments.text(reason, "reason")
        )
        return answers.read_status(self._call(self._admin.Rollback, message, timeout).state)

    def set_canary(self, digest: str, percent: float, *, reason: str = "", timeout: float | None = None) -> Status:
        """Let a kept snapshot decide for `percent` of the subjects; again for another share. Return when it does."""
        message = admin_pb2.SetCanaryRequest(
            digest=arguments.text(digest, "digest"), percent=percent, reason=arguments.text(reason, "reason")
        )
        return answers.read_status(self._call(self._admin.SetCanary, message, timeout).state)

    def promote_canary(self, digest: str = "", *, reason: str = "", timeout: float | None = None) -> Status:
        """Make the canary current, held as by `rollback`. With `digest` only if the canary is that one."""
        message = admin_pb2.PromoteCanaryRequest(
            digest=arguments.text(digest, "digest"), reason=arguments.text(reason, "reason")
        )
        return answers.read_status(self._call(self._admin.PromoteCanary, message, timeout).state)

    def drop_canary(self, digest: str = "", *, reason: str = "", timeout: float | None = None) -> Status:
        """End the canary. With `digest` only if the canary is that one."""
        message = admin_pb2.DropCanaryRequest(
            digest=arguments.text(digest, "digest"), reason=arguments.text(reason, "reason")
        )
        return answers.read_status(self._call(self._admin.DropCanary, message, timeout).state)

    def override(
        self,
        name: str,
        *,
        kind: Literal["rule", "model"] = "rule",
        until: datetime,
        reason: str = "",
        timeout: float | None = None,
    ) -> Status:
        """Switch a rule, by its id, or a model off until a moment; return when all workers have done so."""
        message = admin_pb2.SetOverrideRequest(
            until=arguments.moment(until, "until"), reason=arguments.text(reason, "reason")
        )
        setattr(message, "model" if kind == "model" else "rule_id", arguments.text(name, "name"))
        return answers.read_status(self._call(self._admin.SetOverride, message, timeout).state)

    def clear_override(
        self,
        name: str,
        *,
        kind: Literal["rule", "model"] = "rule",
        reason: str = "",
        timeout: float | None = None,
    ) -> Status:
        """Switch a rule or a model on again, before its time."""
        message = admin_pb2.SetOverrideRequest(clear=True, reason=arguments.text(reason, "reason"))
        setattr(message, "model" if kind == "model" else "rule_id", arguments.text(name, "name"))
        return answers.read_status(self._call(self._admin.SetOverride, message, timeout).state)

    def _call(
        self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], message: _Request, timeout: float | None
    ) -> _Response:
        try:
            return method(message, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as error:
            raise failure_of(error) from error
