"""A worker's side of the pipe: the `Admin` that its server asks, answered by the supervisor.

Law: it forwards and waits, and knows no answer itself, so that every worker tells the same story. Any thread may ask.
"""

from __future__ import annotations

import itertools
import logging
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

from arbiter.errors import InvalidField, LimitExceeded, NotFound, NotReady, StoreError, VersionConflict
from arbiter.runtime import messages
from arbiter.serving import History, Staged, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

    from arbiter.errors import Diagnostic
    from arbiter.runtime.admin import Command

_log = logging.getLogger("arbiter.worker")

_PATIENCE_S = 60.0
_PROBLEMS: dict[str, type[InvalidField | LimitExceeded | NotFound | VersionConflict]] = {
    each.__name__: each for each in (InvalidField, LimitExceeded, NotFound, VersionConflict)
}


class SupervisorGone(NotReady):
    """The supervisor cannot be asked: it ends, or did not answer in time."""


class Link:
    """Asks the supervisor. Raises SupervisorGone from every method of `Admin` but `watch`."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._asked: dict[int, Future[messages.Answer]] = {}
        self._closed = False
        self._watching = threading.Lock()
        self._status = Status()
        self._listeners: list[Callable[[Status], None]] = []

    def snapshot_info(self) -> Status:
        """What runs now."""
        return self._status_of(self._ask("info"))

    def reload(self) -> Status:
        """Have the files read again; returns when every worker serves the result."""
        return self._status_of(self._ask("reload"))

    def validate(self, files: Mapping[str, bytes]) -> list[Diagnostic]:
        """Have these files checked."""
        return list(self._ask("validate", files=dict(files)).diagnostics)

    def stage(self, files: Mapping[str, bytes]) -> Staged:
        """Have these files checked, and their snapshot kept."""
        answer = self._ask("stage", files=dict(files))
        return Staged(digest=answer.digest, diagnostics=answer.diagnostics)

    def history(self) -> History:
        """The snapshots that are kept."""
        return self._ask("history").history or History()

    def carry_out(self, command: Command) -> Status:
        """Have this done; returns when every worker serves the result."""
        return self._status_of(self._ask("command", command=command))

    def watch(self, listener: Callable[[Status], None]) -> None:
        """Call `listener` now and after every change."""
        with self._watching:
            self._listeners.append(listener)
            listener(self._status)

    def told(self, status: Status) -> None:
        """The supervisor says how things stand."""
        with self._watching:
            self._status = status
            for listener in self._listeners:
                try:
                    listener(status)
                except Exception:  # noqa: BLE001
                    # One listener's fault is no reason to stop following the supervisor.
                    _log.exception("a listener of the status failed")

    def answered(self, answer: messages.Answer) -> None:
        """The supervisor answers a question."""
        future = self._asked.pop(answer.ask, None)
        if future is not None:
            future.set_result(answer)

    def send(self, message: messages.ToSupervisor) -> None:
        """Tell the supervisor something; silent when it is gone, since the reader of the pipe finds that out."""
        try:
            with self._sending:
                self._pipe.send_bytes(messages.encode(message))
        except OSError:
            _log.debug("the supervisor is gone, not told: %s", type(message).__name__)

    def close(self) -> None:
        """Nothing will be answered any more, neither what was asked nor what will be."""
        self._closed = True
        for ask in list(self._asked):
            future = self._asked.pop(ask, None)
            if future is not None:
                future.set_exception(SupervisorGone("this worker is stopping"))

    def _ask(self, what: Any, **details: Any) -> messages.Answer:
        number = next(self._numbers)
        future: Future[messages.Answer] = Future()
        self._asked[number] = future
        if self._closed:
            raise SupervisorGone("this worker is stopping")
        self.send(messages.Ask(number, what, **details))
        try:
            answer = future.result(timeout=_PATIENCE_S)
        except FutureTimeoutError:
            self._asked.pop(number, None)
            raise SupervisorGone(f"the supervisor did not answer within {_PATIENCE_S:.0f} s") from None
        if answer.problem is None:
            return answer
        if answer.problem in _PROBLEMS:
            raise _PROBLEMS[answer.problem](answer.message, field=answer.field, reason=answer.reason)
        raise StoreError(answer.message)

    @staticmethod
    def _status_of(answer: messages.Answer) -> Status:
        return answer.status or Status()
