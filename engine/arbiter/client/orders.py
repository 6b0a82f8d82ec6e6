"""The methods by which operators order what runs.

Law: as `methods`, of which it is a part: each builds a `Call` and runs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.client import answers, arguments
from arbiter.client.calls import Again, Call, Method, rpc
from arbiter.v1 import admin_pb2

if TYPE_CHECKING:
    from datetime import datetime

    from arbiter.serving import Kind, Status

_admin = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name

# Somebody else may have ordered otherwise in between: none is sent twice.
ROLLBACK = rpc(_admin["Rollback"], admin_pb2.RollbackRequest, admin_pb2.RollbackResponse, Again.NEVER)
SET_CANARY = rpc(_admin["SetCanary"], admin_pb2.SetCanaryRequest, admin_pb2.SetCanaryResponse, Again.NEVER)
PROMOTE_CANARY = rpc(
    _admin["PromoteCanary"], admin_pb2.PromoteCanaryRequest, admin_pb2.PromoteCanaryResponse, Again.NEVER
)
DROP_CANARY = rpc(_admin["DropCanary"], admin_pb2.DropCanaryRequest, admin_pb2.DropCanaryResponse, Again.NEVER)
SET_OVERRIDE = rpc(_admin["SetOverride"], admin_pb2.SetOverrideRequest, admin_pb2.SetOverrideResponse, Again.NEVER)


class OrderMethods:
    """The part of `Methods` that is about orders."""

    @Method
    def rollback(self, digest: str, *, reason: str = "", timeout: float | None = None) -> Call[Status]:
        """Make a kept snapshot current, held until the files give another one than they do; return when it is live."""
        message = admin_pb2.RollbackRequest(
            digest=arguments.text(digest, "digest"), reason=arguments.text(reason, "reason")
        )
        return ROLLBACK.call(message, answers.read_outcome, timeout)

    @Method
    def rollback_model(
        self, model: str, version: int = 0, *, reason: str = "", timeout: float | None = None
    ) -> Call[Status]:
        """Run another version of one model, by default the one before, held until the files give another model than
        now; return when it is live.
        """
        message = admin_pb2.RollbackRequest(
            model=arguments.text(model, "model"), version=version, reason=arguments.text(reason, "reason")
        )
        return ROLLBACK.call(message, answers.read_outcome, timeout)

    @Method
    def set_canary(
        self, digest: str, percent: float, *, reason: str = "", timeout: float | None = None
    ) -> Call[Status]:
        """Let a kept snapshot decide for `percent` of the subjects; again for another share. Return when it does."""
        message = admin_pb2.SetCanaryRequest(
            digest=arguments.text(digest, "digest"), percent=percent, reason=arguments.text(reason, "reason")
        )
        return SET_CANARY.call(message, answers.read_outcome, timeout)

    @Method
    def promote_canary(self, digest: str = "", *, reason: str = "", timeout: float | None = None) -> Call[Status]:
        """Make the canary current, held as by `rollback`. With `digest` only if the canary is that one."""
        message = admin_pb2.PromoteCanaryRequest(
            digest=arguments.text(digest, "digest"), reason=arguments.text(reason, "reason")
        )
        return PROMOTE_CANARY.call(message, answers.read_outcome, timeout)

    @Method
    def drop_canary(self, digest: str = "", *, reason: str = "", timeout: float | None = None) -> Call[Status]:
        """End the canary. With `digest` only if the canary is that one."""
        message = admin_pb2.DropCanaryRequest(
            digest=arguments.text(digest, "digest"), reason=arguments.text(reason, "reason")
        )
        return DROP_CANARY.call(message, answers.read_outcome, timeout)

    @Method
    def override(
        self,
        name: str,
        *,
        kind: Kind = "rule",
        until: datetime,
        reason: str = "",
        timeout: float | None = None,
    ) -> Call[Status]:
        """Switch a rule, by its id, a model or an experiment off until a moment; return when all workers have done
        so.
        """
        message = admin_pb2.SetOverrideRequest(
            until=arguments.moment(until, "until"), reason=arguments.text(reason, "reason")
        )
        setattr(message, "rule_id" if kind == "rule" else kind, arguments.text(name, "name"))
        return SET_OVERRIDE.call(message, answers.read_outcome, timeout)

    @Method
    def clear_override(
        self,
        name: str,
        *,
        kind: Kind = "rule",
        reason: str = "",
        timeout: float | None = None,
    ) -> Call[Status]:
        """Switch a rule, a model or an experiment on again, before its time."""
        message = admin_pb2.SetOverrideRequest(clear=True, reason=arguments.text(reason, "reason"))
        setattr(message, "rule_id" if kind == "rule" else kind, arguments.text(name, "name"))
        return SET_OVERRIDE.call(message, answers.read_outcome, timeout)
