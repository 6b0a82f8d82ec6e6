"""Whether, and when, a call is sent again: a machine that is told what happened and says what to do.

Law: no gRPC, no clock, no sleep, no randomness: moments are arguments, in seconds of one steady clock, and so is the
draw. Both faces drive this one machine, so that they cannot differ.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import msgspec

from arbiter.client.failures import CallFailed, Misconfigured, held_back, too_late
from arbiter.client.restraint import Restraint

if TYPE_CHECKING:
    from typing import Final


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """How a client retries. Delays are in seconds.

    A call is sent at most `attempts` times. Before its n-th retry it waits for the delay that the server asks for, if
    it does, and then for a random part of ``first * 2**(n-1)``, but at most of `longest`. All calls of a client share a
    budget: `burst` tokens at first and at most; a failure that could be retried takes one, a success gives back
    `share` of one, and at half of `burst` or below nothing is retried. So a server that is away gets fewer than
    ``burst / 2`` retries from a client, and one that fails now and then `share` of the good calls on top.

    While a server turns calls away because it has too many, the client sends as many as it lately answered and `more`
    of that on top, and fails the rest at once. Raises Misconfigured.
    """

    attempts: int = 5
    first: float = 0.05
    longest: float = 1.0
    burst: float = 100.0
    share: float = 0.1
    more: float = 0.2

    def __post_init__(self) -> None:
        """Raise Misconfigured for numbers that make no sense."""
        if self.attempts < 1:
            raise Misconfigured(f"retries: `attempts` is {self.attempts}: a call is sent at least once")
        for name in ("first", "longest", "burst", "share", "more"):
            if not 0 < getattr(self, name) < math.inf:
                raise Misconfigured(f"retries: `{name}` is {getattr(self, name)}: give a positive number")


class Budget:
    """The tokens that all calls of a client share, as gRPC's retry throttling counts them, and what it holds back. Safe
    between threads.
    """

    def __init__(self, retries: Retries) -> None:
        self._most = self._tokens = retries.burst
        self._share = retries.share
        self._lock = threading.Lock()
        self.restraint = Restraint(retries.more)

    @property
    def tokens(self) -> float:
        """What is left."""
        return self._tokens

    def earn(self) -> None:
        """Give back for a success."""
        if self._tokens < self._most:  # read without the lock: nearly always it is full
            with self._lock:
                self._tokens = min(self._most, self._tokens + self._share)

    def spend(self) -> bool:
        """Take for a failure. Return whether a retry is within the budget."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1.0)
            return self._tokens > self._most / 2


class Send(msgspec.Struct, frozen=True):
    """Send the call, and give it `timeout` seconds."""

    timeout: float


class Wait(msgspec.Struct, frozen=True):
    """Let `seconds` pass."""

    seconds: float


class Raise(msgspec.Struct, frozen=True):
    """Give up: the call failed with this."""

    failure: CallFailed


class AnswerLocally(msgspec.Struct, frozen=True):
    """Give up on the server: what stands in for it answers, out of this failure."""

    failure: CallFailed


Step = Send | Wait | Raise | AnswerLocally


class Attempts:
    """The attempts of one call. `begin`, then tell it of each failure and each wait that is over, until it gives up."""

    __slots__ = ("_budget", "_deadline", "_failure", "_local", "_retries", "_safe", "sent")

    def __init__(self, retries: Retries | None, budget: Budget, *, safe: bool, local: bool) -> None:
        """Prepare. `safe`: it may be sent again; `local`: something can answer in a server's place."""
        self._retries = retries
        self._budget = budget
        self._safe = safe
        self._local = local
        self._deadline = 0.0
        self._failure: CallFailed | None = None
        self.sent = 0

    def begin(self, now: float, timeout: float, draw: float) -> Step:
        """Begin at `now`. All attempts and waits together have `timeout` seconds. `draw` as below."""
        self._deadline = now + timeout
        if self._retries is not None and not self._budget.restraint.allows(now, draw):
            return self._end(held_back())
        return self._send(now)

    def failed(self, failure: CallFailed, now: float, draw: float) -> Step:
        """Say that what was sent came to nothing. `draw` is evenly distributed in [0, 1)."""
        failure.attempts = self.sent
        self._failure = failure
        if failure.limit == _FULL:
            self._budget.restraint.refused(now)
        if not may_pass(failure):
            return self._end(failure)
        allowed = self._budget.spend()
        if not (allowed and self._safe and self._retries is not None and self.sent < self._retries.attempts):
            return self._end(failure)
        longest = min(self._retries.longest, self._retries.first * 2 ** (self.sent - 1))
        wait = (failure.retry_after or 0.0) + draw * longest
        # A retry that could not be answered in time would only add to the load.
        return Wait(wait) if now + wait < self._deadline else self._end(failure)

    def waited(self, now: float) -> Step:
        """Say that the wait is over."""
        return self._send(now)

    def succeeded(self, now: float) -> None:
        """Say that the call was answered."""
        self._budget.earn()
        self._budget.restraint.taken(now)

    def _send(self, now: float) -> Step:
        timeout = self._deadline - now
        if not timeout > 0:
            return self._end(self._failure or too_late())
        self.sent += 1
        return Send(timeout)

    def _end(self, failure: CallFailed) -> Step:
        return AnswerLocally(failure) if self._local and stands_in(failure) else Raise(failure)


_FULL: Final = "concurrent_calls"  # the limit that says that a server has too many calls
# Not of the caller's making: no server, no time, or a fault on the way or behind it.
_AWAY: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"})
# No server took it. CANCELLED, when it was not we who cancelled, is a call that reached a server as it stopped.
NOT_TAKEN: Final = frozenset({"UNAVAILABLE", "CANCELLED"})


def may_pass(failure: CallFailed) -> bool:
    """Whether the same call may succeed a moment later: no server took it, or one asks for a delay."""
    return failure.code in NOT_TAKEN or (failure.code == "RESOURCE_EXHAUSTED" and failure.retry_after is not None)


def stands_in(failure: CallFailed) -> bool:
    """Whether a local answer may stand in for it: never for what is the caller's to mend."""
    return failure.code in _AWAY or may_pass(failure)
