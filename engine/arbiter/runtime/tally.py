"""What all processes have counted, as one: the supervisor's part of a scrape.

Law: keeps the last that each worker said, and the counters of those that ended, so that totals never fall. Who asks
waits for the workers, but not for long; asking and hearing are the supervisor's own thread's.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from arbiter.telemetry import instruments
from arbiter.telemetry.endpoint import Endpoint
from arbiter.telemetry.totals import joined, kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from arbiter.telemetry.counters import Counters
    from arbiter.telemetry.instrument import Reading

_log = logging.getLogger("arbiter.supervisor")

PATIENCE_S: Final = 1.0


class Tally:
    """Workers are known by their process ids. `ask` has them asked, with a number that their answers repeat.

    `counters` are the supervisor's own.
    """

    def __init__(self, ask: Callable[[int], None], counters: Counters) -> None:
        self._ask = ask
        self._counters = counters
        self._changed = threading.Condition()
        self._round = 0
        self._asked = 0  # the last round in which the workers were asked,
        self._awaited: set[int] = set()  # and whose answers are to come
        self._living: dict[int, tuple[str, Reading]] = {}
        self._ended: dict[str, Reading] = {}

    @contextmanager
    def scraped(self, listen: str) -> Iterator[None]:
        """While the block runs, answer Prometheus on ``HOST:PORT`` (``""`` for nowhere). Raises EndpointError."""
        if not listen:
            yield
            return
        endpoint = Endpoint(listen, self.collect, lambda: self._counters.workers_serving > 0)
        _log.info("metrics on http://%s/metrics", endpoint.address)
        try:
            yield
        finally:
            endpoint.close()

    def collect(self) -> Reading:
        """All that was counted until now; of a worker that does not answer soon, what it said last."""
        with self._changed:
            self._round += 1
            number = self._round
        self._ask(number)
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            self._changed.wait_for(lambda: self._asked >= number and not self._awaited, deadline - time.monotonic())
            living = [("supervisor", instruments.read(self._counters, "supervisor")), *self._living.values()]
            return joined(living, self._ended)

    def asked(self, number: int, workers: Iterable[int]) -> None:
        """These workers were asked."""
        with self._changed:
            self._asked = number
            self._awaited = set(workers)
            self._changed.notify_all()

    def heard(self, worker: int, role: str, number: int, reading: Reading) -> None:
        """A worker answers."""
        with self._changed:
            self._living[worker] = role, reading
            if number == self._asked:
                self._awaited.discard(worker)
                self._changed.notify_all()

    def ended(self, worker: int) -> None:
        """A worker is no more."""
        with self._changed:
            role, reading = self._living.pop(worker, ("", {}))
            if role:
                self._ended[role] = kept(self._ended.get(role, {}), reading)
            self._awaited.discard(worker)
            self._changed.notify_all()
