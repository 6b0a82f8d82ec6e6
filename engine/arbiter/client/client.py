"""The client: one method per RPC.

Law: blocking calls over one channel; what goes in is defined in `arguments`, what comes out in `answers`, what goes
wrong in `failures`. Safe
to share between threads. It retries nothing by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

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
    from arbiter.runtime.admin import Status

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

    def _call(
        self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], message: _Request, timeout: float | None
    ) -> _Response:
        try:
            return method(message, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as error:
            raise failure_of(error) from error
