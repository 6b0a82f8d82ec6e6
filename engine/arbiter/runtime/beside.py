"""What a process beside the workers hears from the supervisor, and says to it, over its pipe.

Law: two threads, neither of which does the process' work: one hears, the other tells once a second. When the pipe ends
the supervisor is gone, and the process is to end too.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Final

from arbiter.errors import ArbiterError
from arbiter.runtime import messages
from arbiter.telemetry import instruments

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from arbiter.runtime.admin import Live
    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.supervisor")
_TOLD_EVERY_S: Final = 1.0


class Beside:
    """The pipe. `keep_to` is called for what is live from now on, `stop` from any thread when all is to end; `told`
    gives what to tell, which is sent when it has changed.
    """

    def __init__(
        self,
        pipe: Connection,
        counters: Counters,
        *,
        keep_to: Callable[[Live], None],
        told: Callable[[], messages.ToSupervisor],
        stop: Callable[[], None],
    ) -> None:
        self._pipe = pipe
        self._counters = counters
        self._keep_to = keep_to
        self._told = told
        self._stop = stop
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._said: messages.ToSupervisor | None = None
        self._fault: ArbiterError | None = None

    def first(self) -> messages.Load | None:
        """Wait for what is live; None where all is to end."""
        while True:
            match self._received():
                case messages.Load() as load:
                    return load
                case None | messages.Stop():
                    return None

    def follow(self, load: messages.Load | None = None) -> None:
        """Begin to hear and to tell, in threads, with `load` as the first thing that was heard."""
        threading.Thread(
            target=self._guarded, args=(lambda: self._hear(load),), name="arbiter-pipe", daemon=True
        ).start()
        threading.Thread(target=self._guarded, args=(self._tell,), name="arbiter-telling", daemon=True).start()

    def take_up(self, load: messages.Load) -> None:
        """Keep to what is live, and say so. Raises StoreError."""
        self._keep_to(load.live)
        self.send(messages.Serving(load.live.digest, load.revision))

    def end(self) -> None:
        """Tell for the last time what was done. Raises what ended a thread."""
        self._ended.set()
        with contextlib.suppress(ArbiterError):
            self._say()
        self._count(0)
        if self._fault is not None:
            raise self._fault

    def send(self, message: messages.ToSupervisor) -> None:
        """Say something; when the supervisor is gone, whoever hears finds that out."""
        with self._sending, contextlib.suppress(OSError):
            self._pipe.send_bytes(messages.encode(message))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except ArbiterError as error:
            self._fault = error
        except Exception:  # noqa: BLE001 - a thread that dies here would leave a process that nobody can end
            _log.exception("a process ends for a fault of its own")
            self._fault = ArbiterError("a fault of its own, see above")
        self._stop()

    def _hear(self, load: messages.Load | None) -> None:
        if load is not None:
            self.take_up(load)
        while not self._ended.is_set():
            match self._received():
                case messages.Load() as load:
                    self.take_up(load)
                case messages.Count(number):
                    self._count(number)
                case messages.Stop():
                    return
                case None:
                    _log.warning("the supervisor is gone, stopping")
                    return

    def _tell(self) -> None:
        while not self._ended.wait(_TOLD_EVERY_S):
            self._say()

    def _say(self) -> None:
        said = self._told()
        if said != self._said:
            self._said = said
            self.send(said)

    def _count(self, number: int) -> None:
        self.send(messages.Counted(number, instruments.read(self._counters, "worker")))

    def _received(self) -> messages.ToWorker | None:
        try:
            return messages.to_worker.decode(self._pipe.recv_bytes())
        except (EOFError, OSError):
            return None
