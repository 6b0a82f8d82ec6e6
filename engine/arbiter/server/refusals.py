"""What calls are told that are turned away unheard.

Law: made once. What turning away takes, those that are served lack: building a status takes longer than a decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_status import rpc_status

from arbiter.server.status import status_of

if TYPE_CHECKING:
    from arbiter.errors import ArbiterError


class Refusal:
    """An error that is the same for every call, with its status."""

    __slots__ = ("code", "error", "status")

    def __init__(self, error: ArbiterError) -> None:
        self.error = error
        self.status = rpc_status.to_status(status_of(error, "a call"))
        self.code: int = self.status.code.value[0]
