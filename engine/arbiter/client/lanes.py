"""Which of a client's connections a call takes.

Law: numbers in, a number out; no gRPC and no clock. Safe between threads.
"""

from __future__ import annotations

import threading

_REST_S = 1.0
_LONGEST_REST_S = 32.0


class Lanes:
    """Connections by number. A call takes the one with the fewest calls under way, the first of equals.

    So a caller that asks one thing at a time keeps to one connection, and the others are opened when they are needed.
    One that could not carry a call rests for a second, and twice as long each time that it fails again; when all rest,
    all are taken.
    """

    def __init__(self, count: int) -> None:
        self._under_way = [0] * count
        self._rests = [0.0] * count
        self._rests_until = [0.0] * count
        self._any_rests = False  # while none does, nobody needs to look
        self._lock = threading.Lock()

    @property
    def under_way(self) -> tuple[int, ...]:
        """How many calls each carries."""
        return tuple(self._under_way)

    def take(self, now: float) -> int:
        """Return a connection for a call that begins at `now`, in seconds of a steady clock; `leave` it afterwards."""
        with self._lock:
            under_way = self._under_way
            lane = self._awake(now) if self._any_rests else under_way.index(min(under_way))
            under_way[lane] += 1
            return lane

    def leave(self, lane: int) -> None:
        """Say that a call has ended which the connection has carried."""
        with self._lock:
            self._under_way[lane] -= 1
            self._rests[lane] = 0.0

    def leave_broken(self, lane: int, now: float) -> None:
        """Say that a call has ended because the connection could not carry it."""
        with self._lock:
            self._under_way[lane] -= 1
            if now >= self._rests_until[lane]:  # calls that fail together are one failure
                self._rests[lane] = min(_LONGEST_REST_S, 2 * self._rests[lane] or _REST_S)
                self._rests_until[lane] = now + self._rests[lane]
                self._any_rests = True

    def _awake(self, now: float) -> int:
        rests = [until > now for until in self._rests_until]
        self._any_rests = any(rests)
        return min(range(len(rests)), key=lambda lane: (rests[lane], self._under_way[lane]))
