"""Decisions that never stop: a thread that asks, one after the other, while the rules change under it.

Law: asks and keeps what was answered; judges nothing. It has connections of its own, so that the system spreads them
over the workers.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Self

import msgspec

from arbiter.cli.demo.scene import BANNER, only
from arbiter.client import Client
from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from arbiter.types import Treatment

_CONNECTIONS = 4
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


class Call(msgspec.Struct, frozen=True):
    """One decision: for whom, when it was answered and how long it took (s, `time.perf_counter`), and what it said."""

    customer: str
    at: float
    took: float
    snapshot: str
    given: Treatment


class Flow:
    """Asks for `watched` every second time, and for `others` in turn in between. A context manager."""

    def __init__(self, target: str, watched: str, others: Sequence[str]) -> None:
        self.calls: list[Call] = []
        self.failures: list[str] = []
        self._target = target
        self._customers = itertools.cycle([each for other in others for each in (watched, other)])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-flow", daemon=True)

    def __enter__(self) -> Self:
        """Begin to ask."""
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End."""
        self.stop()

    def stop(self) -> None:
        """End; nothing is added afterwards."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        clients = [Client(self._target, options=_OWN_CONNECTION) for _ in range(_CONNECTIONS)]
        try:
            for client in clients:
                client.wait_ready()
            for client, customer in zip(itertools.cycle(clients), self._customers, strict=False):
                if self._stop.is_set():
                    break
                self._ask(client, customer)
        except TimeoutError as error:
            self.failures.append(str(error))
        finally:
            for client in clients:
                client.close()

    def _ask(self, client: Client, customer: str) -> None:
        began = time.perf_counter()
        try:
            answer = client.decide(customer, BANNER, context={"device": "web"})
            ended = time.perf_counter()
            self.calls.append(Call(customer, ended, ended - began, answer.snapshot, only(answer)))
        except ArbiterError as error:
            self.failures.append(str(error))
