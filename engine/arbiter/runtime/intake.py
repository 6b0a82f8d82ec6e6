"""The process that reads Kafka's topics, as the supervisor sees it: started, started again, told to end.

Law: called from the supervisor's one thread alone, and never waits. It is no worker: whatever becomes of it, calls are
answered, and so it is never given up. Without topics to read nothing here does anything.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from arbiter.runtime import messages
from arbiter.runtime.crew import Crew
from arbiter.runtime.doubts import FATAL
from arbiter.runtime.roster import MARGIN_S, Place, phase_of
from arbiter.serving import ConsumerInfo

if TYPE_CHECKING:
    from arbiter.runtime.admin import Live
    from arbiter.runtime.crew import Run
    from arbiter.runtime.doubts import Doubts
    from arbiter.runtime.mailbox import Mailbox
    from arbiter.runtime.settings import RunConsumer
    from arbiter.runtime.tally import Tally
    from arbiter.serving import ConsumerFigures
    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.supervisor")


class Intake:
    """One process, whose entry is `consume`; without one there is none. `settings` are what it gets, encoded."""

    def __init__(
        self,
        consume: RunConsumer | None,
        settings: bytes,
        grace: float,
        mail: Mailbox,
        doubts: Doubts,
        tally: Tally,
        counters: Counters,
    ) -> None:
        self._crew = consume and Crew(
            "consumer", consume, (settings,), lambda run, said: mail.post(lambda: self._heard(run, said))
        )
        self._grace = grace
        self._mail = mail
        self._doubts = doubts
        self._tally = tally
        self._counters = counters
        self._place = Place(0)
        self._load: messages.Load | None = None
        self._figures: ConsumerFigures | None = None
        self._stopping = False

    @property
    def empty(self) -> bool:
        """Whether no process is left."""
        return self._place.run is None

    def load(self, live: Live, revision: int) -> None:
        """Have it keep to this from now on; it starts with the first."""
        first = self._load is None
        self._load = messages.Load(live, revision)
        if first:
            self._doubts.after(self._start)
        elif self._place.run is not None:
            self._place.run.send(self._load)

    def count(self, number: int) -> list[int]:
        """Ask it what it has counted; the process that was asked, if any."""
        run = self._place.run
        if run is None or not run.serving:
            return []
        run.send(messages.Count(number))
        return [run.pid]

    def info(self) -> ConsumerInfo | None:
        """How it is; None where no topics are read."""
        if self._crew is None:
            return None
        run = self._place.run
        return ConsumerInfo(
            pid=0 if run is None else run.pid,
            phase=phase_of(run),
            digest="" if run is None else run.serving,
            restarts=self._place.restarts,
            since=self._place.since if run is None else run.since,
            figures=self._figures,
        )

    def stop(self) -> None:
        """Let it store what it has read, and end."""
        self._stopping = True
        if (run := self._place.run) is not None:
            run.leaving = True
            run.send(messages.Stop(self._grace))
            self._mail.later(self._grace + MARGIN_S, self.kill)

    def kill(self) -> None:
        """End it at once."""
        if self._place.run is not None:
            self._place.run.process.kill()

    def _start(self) -> None:
        if self._stopping or self._crew is None or self._load is None:
            return
        self._place.starts += 1
        self._place.run = run = self._crew.start(self._place.number)
        run.send(self._load)

    def _heard(self, run: Run, message: messages.ToSupervisor | None) -> None:
        """What the process says; None when it has ended."""
        match message:
            case None:
                self._ended(run)
            case messages.Serving(digest, revision):
                if not run.serving:
                    run.since = time.time_ns() // 1000
                run.serving, run.revision = digest, revision
            case messages.Counted(number, reading):
                self._tally.heard(run.pid, "consumer", number, reading)
            case messages.Consumed(figures):
                self._figures = figures
            case _:
                _log.error("the consumer says %s, which is no business of it", type(message).__name__)

    def _ended(self, run: Run) -> None:
        run.end()
        self._tally.ended(run.pid)
        place, code = self._place, run.process.exitcode
        place.run, place.since = None, time.time_ns() // 1000
        if self._stopping:
            _log.info("the consumer (process %d) has ended with exit code %s", run.pid, code)
            return
        pause = place.pause(run)
        self._counters.consumer_restarts += 1
        _log.error("the consumer (process %d) ended with exit code %s, and is started again in %.1f s", run.pid, code,
                   pause)  # fmt: skip
        if code in FATAL:
            self._doubts.begin("the consumer may have died over it")
        self._mail.later(pause, lambda: self._doubts.after(self._start))
