"""The client that blocks.

Law: sends and waits, as the turns of a call say. What may be asked stands in `methods`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from arbiter.client.calls import Blocking
from arbiter.client.channels import failure_of
from arbiter.client.face import Face, Turns
from arbiter.client.failures import cancelled
from arbiter.client.retry import Send, Wait

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from arbiter.client.calls import Call

_T = TypeVar("_T")


class Client(Blocking, Face):
    """Calls of servers; every method returns when the answer is there. Safe to share between threads."""

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections; calls under way, and all later ones, fail as CANCELLED."""
        for channel in self._shut():
            channel.close()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Return once a connection to some target stands. Raises TimeoutError."""
        seconds = self._shared.timeout if timeout is None else timeout
        stands = threading.Event()
        waits = [grpc.channel_ready_future(self._channel(lane)) for lane in self._shared.first_lanes()]
        for wait in waits:
            wait.add_done_callback(lambda done: None if done.cancelled() else stands.set())
        try:
            if not stands.wait(seconds):
                raise TimeoutError(f"no server answers at {self.target}")
        finally:
            for wait in waits:
                wait.cancel()

    def run(self, call: Call[_T]) -> _T:
        """Run a call. Raises CallFailed."""
        turns = Turns(self._shared, call)
        try:
            while True:
                step = turns.step
                if isinstance(step, Send):
                    metadata = turns.take()
                    try:
                        send = self._sender(turns.lane, call.rpc)
                        response = send(call.message, timeout=step.timeout, metadata=metadata)
                    except grpc.RpcError as error:
                        turns.failed(failure_of(error))
                    except ValueError as error:
                        # A channel that was closed between the turns; anything else is no business of ours.
                        if not self._closed.is_set():
                            raise
                        raise cancelled("the client was closed while it waited") from error
                    else:
                        return turns.answered(response)
                elif isinstance(step, Wait):
                    self._closed.wait(step.seconds)
                    turns.waited()
                else:
                    return turns.given_up(step)
        finally:
            turns.close()

    def _open(self, target: str) -> Any:
        if self._credentials is None:
            return grpc.insecure_channel(target, self._options)
        return grpc.secure_channel(target, self._credentials, self._options)
