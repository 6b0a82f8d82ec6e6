"""How much of what it is asked for a client still sends to a server that turns calls away.

Law: as `retry`: moments are arguments, in seconds of one steady clock, and so is the draw.
"""

from __future__ import annotations

import math
import threading
from typing import Final

# What was long ago says little: after so many seconds it counts for a third.
_MEMORY_S: Final = 1.0
_MOST: Final = 0.95  # of what it is asked for it holds back: a server that took nothing is not given up
_NOTHING: Final = 0.01  # of a call: what was refused long ago


class Restraint:
    """Holds back what would be turned away. To turn a call away costs a server a good part of what an answer does, so
    what it refuses it takes from those whom it could serve.

    Beyond what a server took lately a client sends `more` of that, so as to notice when it takes more; what else it is
    asked for ends here, by lot. This is the adaptive throttling of Beyer et al., Site Reliability Engineering, 2016,
    chapter 21, where 1 + `more` is K. While nothing is refused, nothing is held back. Safe between threads.
    """

    __slots__ = ("_at", "_lock", "_more", "_refused", "_taken")

    def __init__(self, more: float) -> None:
        self._more = more
        self._taken = self._refused = 0.0  # calls: answered; refused, by a server or by us
        self._at = 0.0  # when they were counted
        self._lock = threading.Lock()

    def allows(self, now: float, draw: float) -> bool:
        """Return whether a call may be sent. `draw` is evenly distributed in [0, 1)."""
        if self._refused < _NOTHING:  # read without the lock: nearly always so
            return True
        with self._lock:
            self._fade(now)
            share = (self._refused - self._more * self._taken) / (self._refused + self._taken + 1)
            allowed = draw >= min(share, _MOST)
            if not allowed:
                self._refused += 1
        return allowed

    def taken(self, now: float) -> None:
        """Say that a server answered a call."""
        with self._lock:
            self._fade(now)
            self._taken += 1

    def refused(self, now: float) -> None:
        """Say that a server turned a call away, since it had too many."""
        with self._lock:
            self._fade(now)
            self._refused += 1

    def _fade(self, now: float) -> None:
        left = math.exp(min(0.0, self._at - now) / _MEMORY_S)
        self._taken *= left
        self._refused *= left
        self._at = now
