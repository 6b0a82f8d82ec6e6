"""How long a run is likely to take at most: a moving estimate.

Law: arithmetic on durations that others measured; no clock here. The estimate is the one that TCP waits by: a smoothed
mean and four times a smoothed deviation (V. Jacobson, Congestion Avoidance and Control, SIGCOMM 1988; RFC 6298).
"""

from __future__ import annotations

_MEAN, _DEVIATION = 1 / 8, 1 / 4
# A run that was refused teaches nothing: without this, one slow run would be the last.
_FORGETTING = 7 / 8


class Pace:
    """The pace of one model. Times are in seconds; a new one knows nothing, and takes no time.

    Threads may teach it at once: one's lesson may then be lost, which the next makes good.
    """

    __slots__ = ("_deviation", "_mean", "longest")

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0
        self.longest = 0.0

    def took(self, seconds: float) -> None:
        """Learn from a run."""
        off = seconds - self._mean
        mean = self._mean = self._mean + _MEAN * off
        deviation = self._deviation = self._deviation + _DEVIATION * ((off if off > 0 else -off) - self._deviation)
        self.longest = mean + 4 * deviation

    def refused(self) -> None:
        """Learn that a run was not tried since it takes so long: it will be, some time."""
        self._mean *= _FORGETTING
        self._deviation *= _FORGETTING
        self.longest *= _FORGETTING
