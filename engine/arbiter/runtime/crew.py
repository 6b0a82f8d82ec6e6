"""The worker processes as the supervisor sees them: started, spoken to, listened to, started again.

Law: processes and pipes. What a worker says, and that it died, goes to whoever made the crew; nothing here waits for a
worker, so that one that hangs holds up nobody.
"""

from __future__ import annotations

import logging
import multiprocessing
import queue
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from arbiter.runtime import messages
from arbiter.runtime.worker import run_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from arbiter.runtime.settings import OpenFace, Settings

_log = logging.getLogger("arbiter.supervisor")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_PROVEN_AFTER_S = 10.0


class Member:
    """One worker: its number, its process while it lives, and the digest that it serves (``""`` for none).

    `revision` is that of what it was told and serves, -1 before the first.
    """

    def __init__(self, number: int, start: Callable[[Member], None]) -> None:
        self.number = number
        self.serving = ""
        self.revision = -1
        self.proven = False  # whether it ever served
        self.failures = 0
        self.process: multiprocessing.process.BaseProcess | None = None
        self.listener = threading.Thread()
        self._start = start
        self._letters: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._began = 0.0

    def start(self) -> None:
        """Spawn the process."""
        self._began = time.monotonic()
        self._start(self)

    def joined(self, process: multiprocessing.process.BaseProcess, pipe: Connection) -> None:
        """The process runs: from now on letters go to it."""
        self.process = process
        self._letters = queue.SimpleQueue()
        threading.Thread(target=_deliver, args=(pipe, self._letters), name=f"to-{self.number}", daemon=True).start()

    def send(self, message: messages.ToWorker) -> None:
        """Post a message; never waits. What a dead worker is told is lost, it is told anew when it is back."""
        self._letters.put(messages.encode(message))

    def gone(self) -> float:
        """The process ended. Returns the seconds to wait before another start: longer with each early death."""
        self.process = None
        self.serving = ""
        self.revision = -1
        self._letters.put(None)
        if time.monotonic() - self._began > _PROVEN_AFTER_S:
            self.failures = 0
        self.failures += 1
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (self.failures - 1))


class Crew:
    """All workers. `heard(member, process, message)` is called from reading threads, None when the process ended."""

    def __init__(
        self,
        settings: Settings,
        address: str,
        open_face: OpenFace,
        heard: Callable[[Member, multiprocessing.process.BaseProcess, messages.ToSupervisor | None], None],
    ) -> None:
        # Never fork: gRPC, ONNX and LMDB do not survive it.
        self._context = multiprocessing.get_context("spawn")
        self._arguments = (msgspec.msgpack.encode(settings), address, open_face)
        self._heard = heard
        self.members = [Member(number, self._start) for number in range(settings.workers)]

    def _start(self, member: Member) -> None:
        ours, theirs = self._context.Pipe()
        settings, address, open_face = self._arguments
        process = self._context.Process(
            target=run_worker,
            args=(theirs, member.number, settings, address, open_face),
            name=f"arbiter-worker-{member.number}",
            daemon=True,
        )
        process.start()
        # Only the worker holds its end now, so that its death ends the pipe.
        theirs.close()
        member.joined(process, ours)
        member.listener = threading.Thread(
            target=self._listen, args=(member, process, ours), name=f"from-{member.number}", daemon=True
        )
        member.listener.start()

    def _listen(self, member: Member, process: multiprocessing.process.BaseProcess, pipe: Connection) -> None:
        while True:
            try:
                message = messages.to_supervisor.decode(pipe.recv_bytes())
            except (EOFError, OSError):
                break
            self._heard(member, process, message)
        # Only this thread waits for the process: two that do would race for its exit code.
        process.join()
        self._heard(member, process, None)

    def stop(self, grace: float, patience: float) -> None:
        """Tell all to drain within `grace` seconds; kill those that have not ended after `patience` seconds."""
        for member in self.members:
            member.send(messages.Stop(grace))
        deadline = time.monotonic() + patience
        for member in self.members:
            if member.process is None:
                continue
            member.listener.join(max(0.0, deadline - time.monotonic()))
            if member.listener.is_alive():
                _log.warning("worker %d did not end within %.0f s, killed", member.number, patience)
                member.process.kill()
                member.listener.join()


def _deliver(pipe: Connection, letters: queue.SimpleQueue[bytes | None]) -> None:
    while (letter := letters.get()) is not None:
        try:
            pipe.send_bytes(letter)
        except OSError:
            return
