"""The processes that the supervisor starts, as it sees them: started, spoken to, listened to.

Law: processes and pipes. What one says, and that it died, goes to whoever made the crew; nothing here waits for a
process, so that one that hangs holds up nobody. What follows from it all stands in `roster` and `companion`.
"""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from typing import TYPE_CHECKING

from arbiter.runtime import messages

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess


class Run:
    """One process, of the worker `number` for instance, and what is known of it.

    `serving` is the digest that it serves (``""`` for none), `revision` the number of what it serves, `told` that of
    what it was told to, both -1 for nothing. `leaving`: it takes no new calls. `since` is when its phase began, in µs
    since the epoch; `began` is on the monotonic clock, in seconds.
    """

    def __init__(self, number: int, process: BaseProcess, pipe: Connection) -> None:
        self.number = number
        self.process = process
        self.pid = process.pid or 0
        self.serving = ""
        self.revision = -1
        self.told = -1
        self.leaving = False
        self.since = time.time_ns() // 1000
        self.began = time.monotonic()
        self._letters: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=_deliver, args=(pipe, self._letters), name=f"to-{number}", daemon=True).start()

    def send(self, message: messages.ToWorker) -> None:
        """Post a message; never waits. What a dead worker is told is lost, it is told anew when it is back."""
        self._letters.put(messages.encode(message))

    def end(self) -> None:
        """The process has ended: nothing more is delivered."""
        self._letters.put(None)


class Crew:
    """Starts processes of one kind. Each runs ``entry(pipe, number, *arguments)``, a function of a module.

    `heard(run, message)` is called from reading threads, with None when the process has ended.
    """

    def __init__(
        self,
        kind: str,
        entry: Callable[..., None],
        arguments: tuple[object, ...],
        heard: Callable[[Run, messages.ToSupervisor | None], None],
    ) -> None:
        # Never fork: gRPC, ONNX, LMDB and librdkafka do not survive it.
        self._context = multiprocessing.get_context("spawn")
        self._kind = kind
        self._entry = entry
        self._arguments = arguments
        self._heard = heard

    def start(self, number: int) -> Run:
        """Spawn a process with this number."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=self._entry,
            args=(theirs, number, *self._arguments),
            name=f"arbiter-{self._kind}-{number}",
            daemon=True,
        )
        process.start()
        # Only the process holds its end now, so that its death ends the pipe.
        theirs.close()
        run = Run(number, process, ours)
        threading.Thread(target=self._listen, args=(run, ours), name=f"from-{number}", daemon=True).start()
        return run

    def _listen(self, run: Run, pipe: Connection) -> None:
        while True:
            try:
                message = messages.to_supervisor.decode(pipe.recv_bytes())
            except (EOFError, OSError):
                break
            self._heard(run, message)
        # Only this thread waits for the process: two that do would race for its exit code.
        run.process.join()
        self._heard(run, None)


def _deliver(pipe: Connection, letters: queue.SimpleQueue[bytes | None]) -> None:
    while (letter := letters.get()) is not None:
        try:
            pipe.send_bytes(letter)
        except OSError:
            return
