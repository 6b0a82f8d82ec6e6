"""Every method of the client, once: what it takes, what it sends, what it gives.

Law: each builds a `Call` and runs nothing. What goes in is defined in `arguments`, what comes out in `answers`
and `standing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health_pb2

from arbiter.client import answers, arguments, standing
from arbiter.client.answers import Answer, Batch, Erasure, HeldPage, Page
from arbiter.client.arguments import Ask
from arbiter.client.bandits import BanditMethods
from arbiter.client.calls import Again, Call, Method, rpc
from arbiter.client.consents import ConsentMethods
from arbiter.client.events import EventMethods
from arbiter.client.failures import CallFailed, InvalidRequest
from arbiter.client.fallback import for_page, for_point, for_request, mended
from arbiter.client.following import TriggerMethods
from arbiter.client.identity import IdentityMethods
from arbiter.client.known import ProfileAnswer, read_profile
from arbiter.client.modelwatch import ModelMethods
from arbiter.client.orders import OrderMethods
from arbiter.client.outcomes import OutcomeMethods
from arbiter.types import ExplainLevel
from arbiter.v1 import admin_pb2, decision_pb2, profile_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from arbiter.client.fallback import Fallback, Fallbacks
    from arbiter.errors import Diagnostic
    from arbiter.serving import History, ServerInfo, Staged, Status

_decisions = decision_pb2.DESCRIPTOR.services_by_name["DecisionService"].methods_by_name
_profiles = profile_pb2.DESCRIPTOR.services_by_name["ProfileService"].methods_by_name
_health = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name
_admin = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name

DECIDE = rpc(_decisions["Decide"], decision_pb2.DecideRequest, decision_pb2.DecideResponse, Again.ALWAYS)
DECIDE_BATCH = rpc(
    _decisions["DecideBatch"], decision_pb2.DecideBatchRequest, decision_pb2.DecideBatchResponse, Again.ALWAYS
)
UPDATE_PROFILE = rpc(
    _profiles["UpdateProfile"], profile_pb2.UpdateProfileRequest, profile_pb2.UpdateProfileResponse, Again.KEYED
)
GET_PROFILE = rpc(_profiles["GetProfile"], profile_pb2.GetProfileRequest, profile_pb2.GetProfileResponse, Again.ALWAYS)
EXPORT_PROFILE = rpc(
    _profiles["ExportProfile"], profile_pb2.ExportProfileRequest, profile_pb2.ExportProfileResponse, Again.ALWAYS
)
# What is erased twice is erased.
DELETE_PROFILE = rpc(
    _profiles["DeleteProfile"], profile_pb2.DeleteProfileRequest, profile_pb2.DeleteProfileResponse, Again.ALWAYS
)
CHECK_HEALTH = rpc(_health["Check"], health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, Again.ALWAYS)
GET_SNAPSHOT = rpc(_admin["GetSnapshot"], admin_pb2.GetSnapshotRequest, admin_pb2.GetSnapshotResponse, Again.ALWAYS)
GET_STATUS = rpc(_admin["GetStatus"], admin_pb2.GetStatusRequest, admin_pb2.GetStatusResponse, Again.ALWAYS)
LIST_SNAPSHOTS = rpc(
    _admin["ListSnapshots"], admin_pb2.ListSnapshotsRequest, admin_pb2.ListSnapshotsResponse, Again.ALWAYS
)
# The same files give the same snapshot, which is kept once.
VALIDATE = rpc(_admin["Validate"], admin_pb2.ValidateRequest, admin_pb2.ValidateResponse, Again.ALWAYS)
# An order: somebody else may have ordered otherwise in between.
RELOAD = rpc(_admin["Reload"], admin_pb2.ReloadRequest, admin_pb2.ReloadResponse, Again.NEVER)


class Methods(
    EventMethods,
    OutcomeMethods,
    BanditMethods,
    ConsentMethods,
    IdentityMethods,
    TriggerMethods,
    ModelMethods,
    OrderMethods,
):
    """The methods that `Client` and `AsyncClient` share.

    Every one raises CallFailed, or the child of it that says what to do: InvalidRequest, before anything is sent, for
    arguments that no request can hold. `timeout`, in seconds, is for the whole call with its retries.
    """

    _fallbacks: Fallbacks

    @Method
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
        fallback: Fallback | None = None,
        timeout: float | None = None,
    ) -> Call[Answer]:
        """Decide one decision point. `fallback` answers when no server does, else the client's own for the point."""
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
        message = asked.message()
        chosen = self._fallbacks.get(decision) if fallback is None else fallback
        return DECIDE.call(message, _answer, timeout, None if chosen is None else for_point(chosen, asked))

    @Method
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
        fallback: Fallbacks | None = None,
        timeout: float | None = None,
    ) -> Call[Page]:
        """Decide several decision points from one profile read, no treatment twice.

        Local answers stand in only for a whole page: each of its points needs one, in `fallback` or the client's own.
        """
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
        message = asked.message()
        local = for_page(self._with(fallback), asked, message.decisions)
        return DECIDE.call(message, answers.read_page, timeout, local)

    @Method
    def decide_batch(
        self, requests: Iterable[Ask], *, fallback: Fallbacks | None = None, timeout: float | None = None
    ) -> Call[Batch]:
        """Decide many requests on one snapshot; a bad one fails alone, as a CallFailed among the results.

        When no server answers, those whose decision points have a fallback are answered locally, and the others fail.
        """
        fallbacks = self._with(fallback)
        message = decision_pb2.DecideBatchRequest()
        wrong: dict[int, CallFailed] = {}
        local = []
        for place, asked in enumerate(requests):
            try:
                sent = asked.message(f"requests[{place}].")
                local.append(for_request(fallbacks, asked, sent.decisions) if fallbacks else None)
            except InvalidRequest as error:
                # An empty one keeps the places of those after it.
                sent = decision_pb2.DecideRequest()
                local.append(None)
                wrong[place] = error
            message.requests.append(sent)

        def read(response: decision_pb2.DecideBatchResponse) -> Batch:
            return put_together(answers.read_batch(response))

        def put_together(batch: Batch) -> Batch:
            results = [mended(each, result) for each, result in zip(local, batch.results, strict=True)]
            return Batch(tuple(wrong.get(place, result) for place, result in enumerate(results)), batch.snapshot)

        def without_server(failure: CallFailed) -> Batch:
            return put_together(Batch((failure,) * len(local), ""))

        return DECIDE_BATCH.call(message, read, timeout, without_server if any(local) else None)

    @Method
    def update_profile(
        self,
        subject_id: str = "",
        *,
        account_id: str = "",
        set: Mapping[str, Any] | None = None,  # noqa: A002 - the field's name in the API
        unset: Sequence[str] = (),
        increment: Mapping[str, float] | None = None,
        append: Mapping[str, Any] | None = None,
        add_to_set: Mapping[str, Any] | None = None,
        remove: Mapping[str, Any] | None = None,
        min: Mapping[str, Any] | None = None,  # noqa: A002 - as above
        max: Mapping[str, Any] | None = None,  # noqa: A002 - as above
        keep: Mapping[str, int] | None = None,
        ttl: Mapping[str, timedelta] | None = None,
        enter_segments: Sequence[str] = (),
        leave_segments: Sequence[str] = (),
        expected_version: int | None = None,
        idempotency_key: str = "",
        timeout: float | None = None,
    ) -> Call[int]:
        """Change attributes of a subject or, named in its place, an account; return the new version once it is on disk.

        A name stands in one verb only.
        `keep` bounds the lists that `append` and `add_to_set` name to their newest items; `ttl` is how long what is
        written stays. Managed segments are entered and left.
        Without an `idempotency_key` a client that retries makes one, so that the change is done once.
        """
        version = None if expected_version is None else arguments.number(expected_version, "expected_version")
        message = profile_pb2.UpdateProfileRequest(
            subject_id=arguments.text(subject_id, "subject_id"),
            set=arguments.values(set, "set"),
            unset=arguments.texts(unset, "unset"),
            increment=arguments.values(increment, "increment"),
            append=arguments.values(append, "append"),
            add_to_set=arguments.values(add_to_set, "add_to_set"),
            remove=arguments.values(remove, "remove"),
            min=arguments.values(min, "min"),
            max=arguments.values(max, "max"),
            keep=arguments.numbers(keep, "keep"),
            ttl=arguments.durations(ttl, "ttl"),
            expected_version=version,
            idempotency_key=arguments.text(idempotency_key, "idempotency_key"),
            account_id=arguments.text(account_id, "account_id"),
            enter_segments=arguments.texts(enter_segments, "enter_segments"),
            leave_segments=arguments.texts(leave_segments, "leave_segments"),
        )
        return UPDATE_PROFILE.call(message, lambda response: response.version, timeout)

    @Method
    def get_profile(
        self,
        subject_id: str = "",
        *,
        account_id: str = "",
        history: int = 0,
        consent_history: bool = False,
        timeout: float | None = None,
    ) -> Call[ProfileAnswer]:
        """Return what is known of a subject or, named in its place, an account, as a decision would see it now, and its
        `history` newest versions; with `consent_history` all that the subject ever said of purposes, not only what
        holds.
        """
        message = profile_pb2.GetProfileRequest(
            subject_id=arguments.text(subject_id, "subject_id"),
            account_id=arguments.text(account_id, "account_id"),
            history=arguments.number(history, "history", arguments.UINT32),
            consent_history=consent_history,
        )
        return GET_PROFILE.call(message, read_profile, timeout)

    @Method
    def export_profile(
        self,
        subject_id: str = "",
        *,
        account_id: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> Call[HeldPage]:
        """Return a page of everything that is held on a subject or, named in its place, an account: the first, or that
        of a `next_page_token`.
        """
        message = profile_pb2.ExportProfileRequest(
            subject_id=arguments.text(subject_id, "subject_id"),
            page_size=arguments.number(page_size, "page_size", range(1 << 32)),
            page_token=arguments.text(page_token, "page_token"),
            account_id=arguments.text(account_id, "account_id"),
        )
        return EXPORT_PROFILE.call(message, answers.read_held, timeout)

    @Method
    def delete_profile(
        self, subject_id: str = "", *, account_id: str = "", timeout: float | None = None
    ) -> Call[Erasure]:
        """Erase everything that is held on a subject or, named in its place, an account; return when that is on disk.

        May be repeated.
        """
        message = profile_pb2.DeleteProfileRequest(
            subject_id=arguments.text(subject_id, "subject_id"), account_id=arguments.text(account_id, "account_id")
        )
        return DELETE_PROFILE.call(message, answers.read_erasure, timeout)

    @Method
    def health(self, service: str = "", *, timeout: float | None = None) -> Call[bool]:
        """Return whether a server serves; `service` asks for a part of it, as in ``arbiter.worker.0``."""
        return CHECK_HEALTH.call(health_pb2.HealthCheckRequest(service=service), answers.read_health, timeout)

    @Method
    def snapshot(self, *, timeout: float | None = None) -> Call[Status]:
        """Return what runs, and what became of the last attempt to load."""
        return GET_SNAPSHOT.call(admin_pb2.GetSnapshotRequest(), answers.read_status, timeout)

    @Method
    def server_info(self, *, timeout: float | None = None) -> Call[ServerInfo]:
        """Return how the whole server is: its version, its processes, what runs."""
        return GET_STATUS.call(admin_pb2.GetStatusRequest(), standing.read_server, timeout)

    @Method
    def reload(self, *, timeout: float | None = None) -> Call[Status]:
        """Have the files read again; mistakes in them are no exception but in `last_reload`."""
        return RELOAD.call(admin_pb2.ReloadRequest(), answers.read_status, timeout)

    @Method
    def validate(self, files: Mapping[str, bytes], *, timeout: float | None = None) -> Call[list[Diagnostic]]:
        """Return what a server says of rule files, relative posix path to content; it changes nothing."""
        message = admin_pb2.ValidateRequest(files=dict(files))
        return VALIDATE.call(message, lambda response: answers.read_diagnostics(response.diagnostics), timeout)

    @Method
    def keep(self, files: Mapping[str, bytes], *, timeout: float | None = None) -> Call[Staged]:
        """Have a server check rule files and keep their snapshot, for `set_canary`; the last three are kept.

        `digest` is empty when the files hold errors, which `diagnostics` say.
        """
        message = admin_pb2.ValidateRequest(files=dict(files), keep=True)
        return VALIDATE.call(message, answers.read_staged, timeout)

    @Method
    def snapshots(self, *, timeout: float | None = None) -> Call[History]:
        """Return the snapshots that can be rolled back to, and when each was current; both oldest first."""
        return LIST_SNAPSHOTS.call(admin_pb2.ListSnapshotsRequest(), answers.read_history, timeout)

    def _with(self, more: Fallbacks | None) -> Fallbacks:
        return {**self._fallbacks, **more} if more else self._fallbacks


def _answer(response: decision_pb2.DecideResponse) -> Answer:
    return answers.read_answer(response, response.snapshot, response.request_id)
