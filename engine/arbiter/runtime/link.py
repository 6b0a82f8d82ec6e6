"""The `Admin` that a server asks, answered by the supervisor: a worker's over its pipe, or the supervisor's own.

Law: it forwards and waits, and knows no answer itself, so that every server tells the same story. Any thread may ask.
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
from arbiter.serving import History, ServerInfo, Staged, Status, WatchedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbiter.errors import Diagnostic
    from arbiter.runtime.admin import Command

_log = logging.getLogger("arbiter.worker")

_PATIENCE_S = 60.0
_STOPPING = "this server is stopping: ask again, another answers or will"
_PROBLEMS: dict[str, type[InvalidField | LimitExceeded | NotFound | VersionConflict]] = {
    each.__name__: each for each in (InvalidField, LimitExceeded, NotFound, VersionConflict)
}


class SupervisorGone(NotReady):
    """The supervisor cannot be asked: it ends, or did not answer in time."""


class Link:
    """Asks the supervisor by `send`, which any thread may call. What the supervisor says is handed to `hear`.

    Raises SupervisorGone from every method of `Admin` but `watch`.
    """

    def __init__(self, send: Callable[[messages.ToSupervisor], None]) -> None:
        self._send = send
        self._numbers = itertools.count()
        self._asked: dict[int, Future[messages.Answer]] = {}
        self._closed = False
        self._watching = threading.Lock()
        self._status = Status()
        self._listeners: list[Callable[[Status], None]] = []
        self._onlookers: Mapping[int, bytes] = {}
        self._looks: Callable[[Mapping[int, bytes]], None] | None = None
        self._shown: dict[int, Callable[[bytes, int], None]] = {}

    def snapshot_info(self) -> Status:
        """What runs now."""
        return self._status_of(self._ask("info"))

    def server_info(self) -> ServerInfo:
        """How the whole server is."""
        answer = self._ask("server")
        if answer.server is None:
            raise SupervisorGone("the supervisor sent no answer to what it was asked")
        return answer.server

    def models(self) -> tuple[WatchedModel, ...]:
        """What all workers saw of models."""
        return self._ask("models").models

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

    def look_on(self, asked: bytes, shown: Callable[[bytes, int], None]) -> Callable[[], None]:
        """Have all workers show decisions, until what is returned is called."""
        number = next(self._numbers)
        self._shown[number] = shown
        if self._closed:
            raise SupervisorGone(_STOPPING)
        self._send(messages.Onlook(number, asked))

        def end() -> None:
            if self._shown.pop(number, None) is not None:
                self._send(messages.Onlook(number, None))

        return end

    def onlookers(self, listener: Callable[[Mapping[int, bytes]], None]) -> Callable[[int, bytes, int], None]:
        """Call `listener` now and after every change of who looks on."""
        with self._watching:
            self._looks = listener
            listener(self._onlookers)
        return lambda number, content, dropped: self._send(messages.Shown(number, content, dropped))

    def hear(self, message: messages.Told | messages.Answer | messages.Onlookers | messages.Shown) -> None:
        """The supervisor says how things stand, answers a question, or tells of decisions and who looks on at them."""
        match message:
            case messages.Told(status):
                self._tell(status)
            case messages.Answer(ask):
                future = self._asked.pop(ask, None)
                if future is not None:
                    future.set_result(message)
            case messages.Onlookers(each):
                with self._watching:
                    self._onlookers = each
                    if self._looks is not None:
                        self._looks(each)
            case messages.Shown(number, content, dropped):
                shown = self._shown.get(number)
                if shown is not None:
                    shown(content, dropped)

    def _tell(self, status: Status) -> None:
        with self._watching:
            self._status = status
            for listener in self._listeners:
                try:
                    listener(status)
                except Exception:  # noqa: BLE001
                    # One listener's fault is no reason to stop following the supervisor.
                    _log.exception("a listener of the status failed")

    def close(self) -> None:
        """Nothing will be answered any more, neither what was asked nor what will be."""
        self._closed = True
        for ask in list(self._asked):
            future = self._asked.pop(ask, None)
            if future is not None:
                future.set_exception(SupervisorGone(_STOPPING))

    def _ask(self, what: Any, **details: Any) -> messages.Answer:
        number = next(self._numbers)
        future: Future[messages.Answer] = Future()
        self._asked[number] = future
        if self._closed:
            raise SupervisorGone(_STOPPING)
        self._send(messages.Ask(number, what, **details))
        try:
            answer = future.result(timeout=_PATIENCE_S)
        except FutureTimeoutError:
            self._asked.pop(number, None)
            raise SupervisorGone(f"the supervisor did not answer within {_PATIENCE_S:.0f} s") from None
        if answer.problem is None:
            return answer
        if answer.problem == "NotReady":
            raise SupervisorGone(answer.message)
        if answer.problem in _PROBLEMS:
            raise _PROBLEMS[answer.problem](answer.message, field=answer.field, reason=answer.reason)
        raise StoreError(answer.message)

    @staticmethod
    def _status_of(answer: messages.Answer) -> Status:
        return answer.status or Status()
