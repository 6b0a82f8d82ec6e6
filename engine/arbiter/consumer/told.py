"""What is known of the consumer: counted, for telemetry and for status, and now and then logged.

Law: numbers, places and words of ours; nothing of what a message holds.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from arbiter.serving import ConsumerFigures

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.consumer.reading import Record, Rejected
    from arbiter.profiles.store import Ingested
    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.consumer")
_LOGGED_EVERY_S: Final = 10.0


class Told:
    """What the loop says. `paused` is why it stands still, ``""`` while it does not; `clock` gives µs since the epoch.

    `lags` are the messages that are there and not read, by topic and partition.
    """

    def __init__(self, counters: Counters, clock: Callable[[], int]) -> None:
        self._counters = counters
        self._clock = clock
        self.paused = ""
        self.partitions = 0
        self.lags: dict[tuple[str, str], int] = {}
        self._last_error = ""
        self._last_error_at = 0
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}
        counters.sources.append(self._publish)

    def _publish(self) -> None:
        self._counters.consumer_lags = self.lags
        self._counters.consumer_paused = self.paused

    def stored(self, done: Ingested) -> None:
        """A batch is on disk."""
        self._counters.consumed["accepted"] += done.accepted
        self._counters.consumed["duplicate"] += done.duplicates
        self._counters.consumed["erased"] += done.erased

    def rejected(self, record: Record, reason: Rejected) -> None:
        """A message is no event."""
        self._counters.consumed["rejected"] += 1
        self._say(reason.why, f"the message {record.place} is no event, and is passed over: {reason.why}")

    def missed(self, messages: int) -> None:
        """Messages were deleted before they were read."""
        self._counters.consumed["missed"] += messages

    def failed(self, kind: str, message: str) -> None:
        """Something went wrong; `kind` is a word for it, of which there are few."""
        self._counters.consumer_errors[kind] += 1
        self._last_error, self._last_error_at = message, self._clock()
        self._say(kind, message)

    def figures(self) -> ConsumerFigures:
        """All of it."""
        consumed = self._counters.consumed
        return ConsumerFigures(
            partitions=self.partitions,
            lag=sum(self.lags.values()),
            accepted=consumed["accepted"],
            duplicates=consumed["duplicate"],
            erased=consumed["erased"],
            rejected=consumed["rejected"],
            missed=consumed["missed"],
            paused=self.paused,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
        )

    def _say(self, kind: str, message: str) -> None:
        """Log it, but of each kind once in ten seconds at most, with how many were left out."""
        now = time.monotonic()
        if now - self._logged_at.get(kind, -_LOGGED_EVERY_S) < _LOGGED_EVERY_S:
            self._unlogged[kind] = self._unlogged.get(kind, 0) + 1
            return
        self._logged_at[kind] = now
        more = self._unlogged.pop(kind, 0)
        _log.warning("%s%s", message, f" (and {more} like it before)" if more else "")
