"""Questions to the supervisor: who asks, what is answered later, and what is looked into meanwhile.

Law: it knows nothing of workers but the number that all of them serve. `Waiting` belongs to the supervisor's one
thread; `Checks` has one of its own, for what takes long and changes nothing.
"""

from __future__ import annotations

import functools
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from arbiter.errors import NotReady, StoreError
from arbiter.runtime import messages
from arbiter.runtime.desk import abridged

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.runtime.link import Link
    from arbiter.runtime.loader import Loader
    from arbiter.runtime.mailbox import Mailbox
    from arbiter.runtime.versions import Versions
    from arbiter.serving import Status

_log = logging.getLogger("arbiter.supervisor")

_PATIENCE_S = 30.0  # how long a Reload waits for all workers before it answers with what they serve


class Asker(Protocol):
    """Who asks and is answered: a worker's process, or the supervisor's own listener."""

    def send(self, message: messages.ToWorker) -> None:
        """Tell it something; never waits."""


class Own:
    """The supervisor's own listener: it asks as a worker does, and only its answers take a shorter way."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def send(self, message: messages.ToWorker) -> None:
        """Tell it what a listener needs to know; the rest is for workers."""
        if isinstance(message, messages.Told | messages.Answer | messages.Shown):
            self._link.hear(message)


def refuse(asker: Asker, ask: int) -> None:
    """Answer that nothing will come of it, since the server ends."""
    asker.send(messages.refusal(ask, NotReady("the server is stopping, nothing was done")))


class Waiting:
    """Questions that are answered with the status once all workers serve what was current when they were put."""

    def __init__(self, mail: Mailbox, status: Callable[[], Status]) -> None:
        self._mail = mail
        self._status = status
        self._questions: list[tuple[Asker, int, int]] = []

    def add(self, asker: Asker, ask: int, revision: int) -> None:
        """Answer this when `revision` is served, or after a while."""
        question = (asker, ask, revision)
        self._questions.append(question)
        self._mail.later(_PATIENCE_S, functools.partial(self._answer, question))

    def reached(self, revision: int) -> None:
        """Answer those that wait for this."""
        for question in [each for each in self._questions if each[2] <= revision]:
            self._answer(question)

    def forget(self, asker: Asker) -> None:
        """Who asked is no more."""
        self._questions = [question for question in self._questions if question[0] is not asker]

    def _answer(self, question: tuple[Asker, int, int]) -> None:
        if question in self._questions:
            self._questions.remove(question)
            asker, ask, _ = question
            asker.send(messages.Answer(ask, self._status()))


class Checks:
    """Answers, in a thread of its own, what takes long and changes nothing."""

    def __init__(self, loader: Loader, versions: Versions) -> None:
        self._loader = loader
        self._versions = versions
        self._thread = ThreadPoolExecutor(1, "arbiter-validate")

    def validate(self, asker: Asker, ask: int, files: dict[str, bytes]) -> None:
        """Say what is wrong with these files."""
        self._submit(asker, ask, lambda: messages.Answer(ask, diagnostics=abridged(self._loader.validate(files))))

    def history(self, asker: Asker, ask: int) -> None:
        """Say which snapshots are kept."""
        self._submit(asker, ask, lambda: messages.Answer(ask, history=self._versions.history()))

    def close(self) -> None:
        """Begin nothing more, and wait for nothing."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _submit(self, asker: Asker, ask: int, find: Callable[[], messages.Answer]) -> None:
        self._thread.submit(self._answer, asker, ask, find)

    @staticmethod
    def _answer(asker: Asker, ask: int, find: Callable[[], messages.Answer]) -> None:
        try:
            answer = find()
        except Exception as error:  # noqa: BLE001 - an executor keeps it to itself, and the caller would wait
            _log.exception("cannot answer")
            answer = messages.refusal(ask, StoreError(f"{type(error).__name__}: {error}"))
        asker.send(answer)
