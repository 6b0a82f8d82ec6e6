"""The one thread of a store that writes: it drains a bounded queue into transactions, and answers after the commit.

Law: threads, commits and futures; what an operation does is its own matter. An operation is acknowledged only when the
commit that holds it is on disk, and when a commit fails, everything in it fails.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

from arbiter.errors import ArbiterError, LimitExceeded, StoreError
from arbiter.profiles.declared import Declarations
from arbiter.profiles.environment import failure, unwritten
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.figures import Written
from arbiter.profiles.group import Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.profiles.current import Current
    from arbiter.profiles.group import Operation
    from arbiter.profiles.keys import Keys
    from arbiter.profiles.values import Limits

_log = logging.getLogger(__name__)
_TOLD_EVERY_S = 60.0
_GROUP_WEIGHT = 2_000  # about 0.1 s of work: writers in other processes wait for the same lock


class Settings(msgspec.Struct, frozen=True):
    """What writes keep to from now on: replaced whole."""

    features: FeatureSet
    declared: Declarations = Declarations()


class _Entry(msgspec.Struct, frozen=True):
    operation: Operation
    future: Future[Any]


class Writer:
    """Group commit. `written` counts what reached the disk; `clock` gives the time of each transaction, in µs."""

    def __init__(self, current: Current, keys: Keys, clock: Callable[[], int], limits: Limits, quota: int) -> None:
        self.settings = Settings(FeatureSet(()))
        self.written = Written()
        self._current = current
        self._keys = keys
        self.clock = clock
        self._limits = limits
        self._quota = quota
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self.broken: Callable[[], None] = lambda: None  # called when LMDB gave up
        self._told_at = -math.inf  # when the log was last told of such a disk, by the monotonic clock
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="arbiter-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation) -> Future[Any]:
        """Queue an operation; its future is resolved after the commit that holds it."""
        if self._queue.qsize() >= self._limits.write_queue:
            message = f"{self._limits.write_queue} writes are waiting already: retry a little later"
            return refused(LimitExceeded(message, reason="write_queue"))
        with self._closing:  # nothing may come after the end mark: nobody would answer it
            if self._closed:
                return refused(StoreError(f"the store in {self._current.path} is closed"))
            future: Future[Any] = Future()
            self._queue.put(_Entry(operation, future))
        return future

    def close(self) -> None:
        """Write what is queued, then end."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            entries, weight, more = [entry], entry.operation.weight, True
            while weight < _GROUP_WEIGHT and more:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._queue.put(None)  # it is the last: the outer loop shall see it
                    more = False
                else:
                    entries.append(following)
                    weight += following.operation.weight
            self._write([entry for entry in entries if entry.future.set_running_or_notify_cancel()])

    def _write(self, entries: list[_Entry]) -> None:
        """One transaction, and the answers to all that are in it."""
        try:
            outcomes = self._commit(entries)
        except lmdb.Error as error:
            _refuse(entries, self._unwritten(error))
            self._check_whole()
        except StoreError as error:
            _refuse(entries, error)
        except Exception as error:  # noqa: BLE001 - a fault of one operation must not end the thread or harm others
            if len(entries) > 1:
                for entry in entries:
                    self._write([entry])
                return
            _refuse(entries, StoreError(f"the write failed and left nothing: {error!r}"))
        else:
            for entry, (result, refused) in zip(entries, outcomes, strict=True):
                if refused is None:
                    entry.future.set_result(result)
                else:
                    entry.future.set_exception(refused)

    @property
    def waiting(self) -> int:
        """How many operations wait."""
        return self._queue.qsize()

    def _unwritten(self, error: lmdb.Error) -> ArbiterError:
        """The refusal of all that a failed transaction held. Of a disk that is full, or takes no writes, the log is
        told once a minute: on a full one a small write may find room between two that do not.
        """
        refusal = unwritten(error, self._current.path)
        if isinstance(refusal, LimitExceeded) and time.monotonic() - self._told_at >= _TOLD_EVERY_S:
            self._told_at = time.monotonic()
            _log.error("the store in %s refuses writes: %s", self._current.path, refusal)
        return refusal

    def _check_whole(self) -> None:
        """After an error in writing its meta page LMDB lets nobody read or write before the file is opened anew."""
        try:
            self._current.environment.handle.begin().abort()
        except lmdb.PanicError as error:
            _log.error("%s", failure(error, self._current.path, "read"))
            self.broken()

    def _commit(self, entries: list[_Entry]) -> list[tuple[Any, ArbiterError | None]]:
        began = time.perf_counter_ns()
        settings = self.settings
        outcomes: list[tuple[Any, ArbiterError | None]] = []
        environment, txn = self._current.begin_write()
        try:
            group = Group(
                environment,
                txn,
                features=settings.features,
                declared=settings.declared,
                limits=self._limits,
                quota=self._quota,
                now=self.clock(),
            )
            group.wrote = self._keys.hold(environment, txn)
            for entry in entries:
                try:
                    outcomes.append((entry.operation.apply(group), None))
                except ArbiterError as error:
                    outcomes.append((None, error.with_traceback(None)))  # kept, its frames would keep all of this
            group.flush()
            if group.wrote:
                txn.commit()
                self.written.add(len(entries), time.perf_counter_ns() - began)
        finally:
            txn.abort()  # of a committed transaction it does nothing
        return outcomes


def _refuse(entries: list[_Entry], refusal: ArbiterError) -> None:
    refusal = refusal.with_traceback(None)
    for entry in entries:
        entry.future.set_exception(refusal)


def refused(error: ArbiterError) -> Future[Any]:
    """A future that has failed already."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future
