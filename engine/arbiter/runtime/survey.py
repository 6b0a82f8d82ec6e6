"""How the whole server is, and its models: workers are asked what they have to do, what came soon is told.

Law: `Survey` belongs to the supervisor's one thread and never waits: a worker that hangs costs who asks its patience,
and nobody else anything. Only the last lines know what a worker counts.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.errors import StoreError
from arbiter.runtime import messages
from arbiter.runtime.modelwatch import ModelWatch
from arbiter.runtime.watchfile import WatchFile
from arbiter.serving import LogFigures, StoreSize, WorkerFigures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from arbiter.profiles.store import Store
    from arbiter.runtime.desk import Desk
    from arbiter.runtime.mailbox import Mailbox
    from arbiter.runtime.questions import Asker
    from arbiter.runtime.roster import Roster
    from arbiter.serving import ServerInfo
    from arbiter.telemetry.counters import Counters

PATIENCE_S: Final = 0.5


class _Question(msgspec.Struct):
    """Who asks, which workers have not answered, and what the others said, by process."""

    asker: Asker
    ask: int
    awaited: set[int]
    figures: dict[int, WorkerFigures] = {}
    store: StoreSize | None = None


class Survey:
    """Answers how the server is. `beside` adds how the processes beside the workers are, `desk` says how things stand
    with snapshots, and what was noticed of models lies in `data`.
    """

    def __init__(
        self,
        mail: Mailbox,
        roster: Roster,
        beside: Callable[[ServerInfo], ServerInfo],
        desk: Desk,
        data: Path,
    ) -> None:
        self._mail = mail
        self._roster = roster
        self._beside = beside
        self._desk = desk
        self._models = ModelWatch(desk.counters, desk.deciding, file=WatchFile(data), later=mail.later)
        self._started_at = time.time_ns() // 1000
        self._numbers = itertools.count()
        self._open: dict[int, _Question] = {}

    def close(self) -> None:
        """Have on disk what was noticed of models."""
        self._models.close()

    def begin(self, asker: Asker, asked: messages.Ask) -> None:
        """Ask the workers, and answer when all have said what there is to say, or after a while; of models at once."""
        ask = asked.ask
        if asked.what == "models":
            asker.send(messages.Answer(ask, models=self._models.reports()))
            return
        number = next(self._numbers)
        self._open[number] = question = _Question(asker, ask, set(self._roster.look(number)))
        if question.awaited:
            self._mail.later(PATIENCE_S, functools.partial(self._answer, number))
        else:
            self._answer(number)

    def heard(self, worker: int, said: messages.Looked | messages.Noticed) -> None:
        """A worker answers, maybe too late, or says what it noticed."""
        if isinstance(said, messages.Noticed):
            self._models.noticed(said)
            return
        question = self._open.get(said.number)
        if question is not None:
            question.figures[worker] = said.figures
            question.store = said.store or question.store
            self._without(said.number, worker)

    def ended(self, worker: int) -> None:
        """A worker is no more, or takes no more questions."""
        for number in list(self._open):
            self._without(number, worker)

    def _without(self, number: int, worker: int) -> None:
        awaited = self._open[number].awaited
        awaited.discard(worker)
        if not awaited:
            self._answer(number)

    def _answer(self, number: int) -> None:
        question = self._open.pop(number, None)
        if question is not None:
            server = self._roster.info(self._started_at, self._desk.status, question.figures, question.store)
            log = log_of(question.figures.values(), self._desk.counters)
            server = msgspec.structs.replace(self._beside(server), decision_log=log)
            question.asker.send(messages.Answer(question.ask, server=server))


def follow(store: Store, counters: Counters) -> None:
    """Have the counters tell of this store, whenever somebody reads them."""

    def read() -> None:
        # A store that is closed, or cannot be read, says no more than it did.
        with contextlib.suppress(StoreError):
            counters.store = store.figures()

    counters.sources.append(read)


def log_of(workers: Iterable[WorkerFigures], counters: Counters) -> LogFigures | None:
    """The log of decisions by what workers say, and the counters of who keeps it; None where there is none."""
    logs = [each.log for each in workers if each.log is not None]
    if not logs:
        return None
    return LogFigures(
        written=sum(each.written for each in logs),
        dropped=sum(each.dropped for each in logs),
        kept=counters.log_kept,
        size=counters.log_size,
        lag_s=counters.log_lag_s,
        error=next((each.error for each in logs if each.error), counters.log_error),
    )


def look(counters: Counters) -> tuple[WorkerFigures, StoreSize | None]:
    """Return what the process of these counters has to do, and its store; None when that could never be read."""
    counters.refresh()
    store = counters.store
    log = LogFigures(written=counters.log_rows, dropped=sum(counters.log_dropped.values()), error=counters.log_error)
    figures = WorkerFigures(
        calls=counters.active if counters.watched else None,
        writes=store.waiting,
        shed=dict(counters.shed),
        log=log if counters.logs else None,
    )
    if not store.quota_bytes:
        return figures, None
    rebuilding = store.rebuilding
    size = StoreSize(
        used=store.used_bytes,
        quota=store.quota_bytes,
        rebuilding=() if rebuilding is None else rebuilding.features,
        left=0 if rebuilding is None else rebuilding.left,
        previous_ids=store.previous_ids,
    )
    return figures, size
