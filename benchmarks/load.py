"""Steady load on a server from a process of its own: calls at a fixed rate, each kept with its time and its answer.

Law: one call at a time over one connection. A call is due at a fixed moment; when the one before it was late, waiting
for that counts as its own: a server that stalls is not asked less.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from typing import TYPE_CHECKING, NamedTuple, Self

import grpc

from arbiter.v1 import decision_pb2, decision_pb2_grpc
from benchmarks.conditions import POINT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

MARKS = "bench.marks"
_PATIENCE = 5.0  # seconds until a call counts as failed


class Call(NamedTuple):
    """One call: when it was due and how long it took (ns of the system's monotonic clock), the digest that answered,
    and the versions that its marks carry. `error` is empty when it went well.
    """

    due: int
    took: int
    snapshot: str
    versions: tuple[int, ...]
    error: str


class Load:
    """Load on `address` while the block runs: `stop` ends it and gives the calls."""

    def __init__(self, address: str, subjects: Sequence[str], rate: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_ask, args=(address, list(subjects), rate, there), daemon=True)

    def __enter__(self) -> Self:
        """Begin; returns when the first call was answered."""
        self._process.start()
        self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()

    def stop(self) -> list[Call]:
        """End it."""
        self._pipe.send("stop")
        return [Call(*call) for call in self._pipe.recv()]


def _ask(address: str, subjects: list[str], rate: int, pipe: Connection) -> None:
    requests = itertools.cycle(
        [decision_pb2.DecideRequest(subject_id=each, decisions=[POINT, MARKS]) for each in subjects]
    )
    calls: list[Call] = []
    step = 1_000_000_000 // rate
    with grpc.insecure_channel(address) as channel:
        decide = decision_pb2_grpc.DecisionServiceStub(channel).Decide
        decide(next(requests), timeout=_PATIENCE)
        pipe.send("started")
        due = time.monotonic_ns()
        while not pipe.poll():
            due += step
            ahead = due - time.monotonic_ns()
            if ahead > 0:
                time.sleep(ahead / 1e9)
            # The sleep's own lateness is the caller's affair, waiting for the call before is the server's.
            begun = time.monotonic_ns() if ahead > 0 else due
            try:
                answer = decide(next(requests), timeout=_PATIENCE)
            except grpc.RpcError as error:
                calls.append(Call(begun, time.monotonic_ns() - begun, "", (), str(error)))
                continue
            took = time.monotonic_ns() - begun
            marks = answer.decisions[1].treatments
            calls.append(Call(begun, took, answer.snapshot, tuple(m.params["version"].int_value for m in marks), ""))
    pipe.send([tuple(call) for call in calls])
