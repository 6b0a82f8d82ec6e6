"""The client for asyncio.

Law: sends and waits, as the turns of a call say, and never blocks the loop. What may be asked stands in `methods`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from grpc import aio

from arbiter.client.calls import Awaiting
from arbiter.client.channels import failure_of
from arbiter.client.face import Face, Turns
from arbiter.client.retry import Send, Wait

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from arbiter.client.calls import Call

_T = TypeVar("_T")


class AsyncClient(Awaiting, Face):
    """Calls of servers; every method is a coroutine of the answer. It belongs to the loop that first uses it."""

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls under way, and all later ones, fail as CANCELLED."""
        for channel in self._shut():
            await channel.close(None)

    async def wait_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as on every other method
        """Return once a connection to some target stands. Raises TimeoutError."""
        seconds = self._shared.timeout if timeout is None else timeout
        waits = {asyncio.create_task(self._channel(lane).channel_ready()) for lane in self._shared.first_lanes()}
        try:
            done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise TimeoutError(f"no server answers at {self.target}")
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def run(self, call: Call[_T]) -> _T:
        """Run a call. Raises CallFailed."""
        turns = Turns(self._shared, call)
        try:
            while True:
                step = turns.step
                if isinstance(step, Send):
                    metadata = turns.take()
                    try:
                        send = self._sender(turns.lane, call.rpc)
                        response = await send(call.message, timeout=step.timeout, metadata=metadata)
                    except grpc.RpcError as error:
                        turns.failed(failure_of(error))
                    else:
                        return turns.answered(response)
                elif isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    turns.waited()
                else:
                    return turns.given_up(step)
        finally:
            turns.close()

    def _open(self, target: str) -> Any:
        if self._credentials is None:
            return aio.insecure_channel(target, self._options)
        return aio.secure_channel(target, self._credentials, self._options)
