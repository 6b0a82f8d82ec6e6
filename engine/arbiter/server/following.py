"""Who follows firings: from a position on, as they come, at whatever pace they are taken.

Law: the log of firings is the only buffer. Each stream reads it from its own position, a piece at a time, and reads on
when that was taken; so who is slow costs no memory and misses nothing that is kept. One thread looks for new firings,
for all streams of a worker, and only while there are any.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import TYPE_CHECKING, Final

from arbiter.errors import FellBehind, NotKept, NotReady

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from arbiter.profiles.fired import Fired, Told
    from arbiter.profiles.firings import FiringRecord
    from arbiter.telemetry.counters import Counters

LOOK_S: Final = 0.005  # how often the log is looked at; a look takes some µs
BEAT_S: Final = 10.0  # after how long without firings the position is told
STALL_S: Final = 30.0  # how long an answer may wait to be taken
PIECE: Final = 64  # firings of an answer


class Tail:
    """The end of a log of firings, looked at while somebody follows."""

    def __init__(self, fired: Fired) -> None:
        self.fired = fired
        self.newest = 0
        self._changed = threading.Condition()
        self._followers: set[Follower] = set()
        self._looks = False
        self._fault: BaseException | None = None

    @contextlib.contextmanager
    def followed(self, follower: Follower) -> Iterator[None]:
        """While the block runs, `newest` is the last position that was given, give or take `LOOK_S`."""
        newest = self.fired.last()
        with self._changed:
            self.newest = max(self.newest, newest)
            self._followers.add(follower)
            if not self._looks:
                self._looks, self._fault = True, None
                threading.Thread(target=self._look, name="arbiter-tail", daemon=True).start()
        try:
            yield
        finally:
            with self._changed:
                self._followers.discard(follower)

    def wait(self, position: int, seconds: float, otherwise: Callable[[], bool]) -> None:
        """Return when there is a firing after a position, when `otherwise` says so and `wake` was called, or when the
        time is over. Raises StoreError when the log cannot be read.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.newest > position or self._fault or otherwise(), seconds)
            if self._fault is not None:
                raise self._fault.with_traceback(None)

    def wake(self) -> None:
        """Have those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def _look(self) -> None:
        while True:
            newest, fault = self.newest, None
            try:
                newest = self.fired.last()
            except Exception as error:  # noqa: BLE001 - raised by those who wait
                fault = error
            with self._changed:
                followers = tuple(self._followers)
                if fault is not None or not followers:
                    self._looks, self._fault = False, fault
                    self._changed.notify_all()
                    return
                if newest != self.newest:
                    self.newest = newest
                    self._changed.notify_all()
            for each in followers:
                each.break_off()
            time.sleep(LOOK_S)


class Following:
    """What a stream asks for: firings `after` a position, None for from now on, that are `wanted`, of one subject if
    one is named.
    """

    def __init__(self, after: int | None, subject_id: str, wanted: Callable[[FiringRecord], bool] | None) -> None:
        self.after = after
        self.subject_id = subject_id
        self.wanted = wanted


class Follower:
    """One stream. `write` makes an answer of firings, of the position up to which the log was read, and of the newest
    one; `cancel` breaks it off.

    Who takes nothing for `STALL_S` is told so when it takes something at last, and is broken off when it does not.
    """

    def __init__(
        self,
        tail: Tail,
        asked: Following,
        write: Callable[[Sequence[Told], int, int], bytes],
        counters: Counters,
        cancel: Callable[[], object],
    ) -> None:
        """Raises NotKept for a position that nobody can follow from, and StoreError."""
        self._tail = tail
        self._asked = asked
        self._write = write
        self._counters = counters
        self._cancel = cancel
        self._ends = self._left = False
        self._offered = math.inf  # since when an answer waits to be taken, by the monotonic clock
        newest = tail.fired.last()
        self._position = newest if asked.after is None else asked.after
        self._check(newest)
        if self._position == 0:
            self._position = tail.fired.gone()

    def end(self) -> None:
        """Have it end soon, with an error that says that the server stops."""
        self._ends = True
        self._tail.wake()

    def leave(self) -> None:
        """Know that nobody hears answers any more."""
        self._left = True
        self._tail.wake()

    def break_off(self) -> None:
        """Break it off when what it says is not taken at all: its place is for others."""
        if time.monotonic() - self._offered > 2 * STALL_S:
            self._cancel()

    def answers(self) -> Iterator[bytes]:
        """The firings, and from time to time how far the log was read.

        Raises NotKept and FellBehind for who is too slow, NotReady when the server stops, StoreError.
        """
        tail, asked = self._tail, self._asked
        with tail.followed(self):
            self._counters.followers += 1
            try:
                yield from self._told([])
                told_at = time.monotonic()
                while not self._left:
                    if self._ends:
                        raise NotReady(f"the server stops: follow elsewhere, after the position {self._position}")
                    newest, before = tail.newest, self._position
                    found, self._position = tail.fired.after(before, PIECE, asked.wanted, asked.subject_id)
                    if self._position == before:  # what was there is erased
                        self._position = max(before, newest)
                    self._check(max(newest, self._position))
                    now = time.monotonic()
                    if found or now - told_at >= BEAT_S:
                        yield from self._told(found)
                        told_at = time.monotonic()
                    elif self._position == before:
                        tail.wait(before, BEAT_S - (now - told_at), lambda: self._left or self._ends)
            finally:
                self._counters.followers -= 1

    def _told(self, found: Sequence[Told]) -> Iterator[bytes]:
        """One answer. Raises FellBehind when it was not taken in time."""
        content = self._write(found, self._position, max(self._tail.newest, self._position))
        self._counters.firings_told += len(found)
        self._offered = began = time.monotonic()
        try:
            yield content
        finally:
            self._offered = math.inf
        if time.monotonic() - began > STALL_S:
            raise FellBehind(
                f"the last answer was not taken for {STALL_S:.0f} seconds: go on after the position {self._position}, "
                "and take answers sooner",
                self._position,
            )

    def _check(self, newest: int) -> None:
        """Raise NotKept when what follows is not there."""
        gone = self._tail.fired.gone()
        if self._position > newest:
            raise NotKept(
                f"after is {self._position:,}, and the newest position is {newest:,}: the store may be an older copy; "
                "begin from now, or with the oldest (0)",
                field="after",
                earliest=gone + 1,
                newest=newest,
            )
        if 0 < self._position < gone:
            raise NotKept(
                f"after is {self._position:,}, and firings up to {gone:,} are no longer kept "
                "(`triggers.keep_days`): begin with the oldest (0), and know that some are missing",
                field="after",
                earliest=gone + 1,
                newest=newest,
            )
