"""Who works: what follows when a worker starts, serves, leaves or dies, and when there is something new to serve.

Law: called from the supervisor's one thread alone, and never waits: what comes later is a letter in the mailbox. It
knows no snapshots, only that there is something with a number to be served.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING

from arbiter import __version__
from arbiter.errors import ArbiterError
from arbiter.runtime import messages
from arbiter.runtime.doubts import FATAL
from arbiter.serving import ServerInfo, WorkerInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arbiter.runtime.admin import Live
    from arbiter.runtime.crew import Crew, Run
    from arbiter.runtime.doubts import Doubts
    from arbiter.runtime.mailbox import Mailbox
    from arbiter.serving import Phase, Status, StoreSize, WorkerFigures
    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.supervisor")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_PROVEN_AFTER_S = 10.0
_STARTS = 3  # how often a worker that never served may die before starting is given up
MARGIN_S = 5.0  # beyond the grace, for a store to close
# Workers take up what is new one after another, so that not all of them are slower at once. One that takes longer than
# its part of this time is not waited for.
_ROUND_S = 0.5


class StartFailed(ArbiterError):
    """The workers cannot start; the log says why."""


class Place:
    """One of the N workers: the process that holds the place, if one does, and what became of those before it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.run: Run | None = None
        self.proven = False  # whether it ever served
        self.failures = 0
        self.starts = 0
        self.since = _now()  # when it was last left

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.starts - 1)

    def pause(self, run: Run) -> float:
        """The seconds to wait before the one that follows `run`: longer with each that ended early."""
        if time.monotonic() - run.began > _PROVEN_AFTER_S:
            self.failures = 0
        self.failures += 1
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (self.failures - 1))


class Roster:
    """All workers. `load` and `status` are what they are to serve and to know."""

    def __init__(self, count: int, grace: float, crew: Crew, mail: Mailbox, doubts: Doubts, counters: Counters) -> None:
        self.places = [Place(number) for number in range(count)]
        self.hopeless = ""  # why starting is given up
        self._grace = grace
        self._crew = crew
        self._mail = mail
        self._doubts = doubts
        self._counters = counters
        self._leaving: list[Run] = []
        self._stopping = False
        self._load: messages.Load | None = None
        self._told: messages.Told | None = None
        self._onlookers = messages.Onlookers({})
        self._turn: Run | None = None  # whose turn it is to take up what is new

    @property
    def empty(self) -> bool:
        """Whether no process is left."""
        return next(self._runs(), None) is None

    @property
    def revision(self) -> int:
        """The number of what every worker serves, or something later; -1 while one is down."""
        return min(-1 if place.run is None else place.run.revision for place in self.places)

    @property
    def digests(self) -> dict[int, str]:
        """What each worker serves, ``""`` for nothing."""
        return {place.number: "" if place.run is None else place.run.serving for place in self.places}

    def info(
        self, started_at: int, status: Status, figures: Mapping[int, WorkerFigures], store: StoreSize | None
    ) -> ServerInfo:
        """How the whole server is; a worker that leaves stands after the one that follows it.

        `figures` are what workers said of themselves, by their process ids.
        """
        held: list[tuple[int, Run | None, int]] = [(place.number, place.run, place.since) for place in self.places]
        left: list[tuple[int, Run | None, int]] = [(run.number, run, run.since) for run in self._leaving]
        workers = tuple(
            WorkerInfo(
                number=number,
                pid=0 if run is None else run.pid,
                phase=phase_of(run),
                digest="" if run is None else run.serving,
                restarts=self.places[number].restarts,
                since=since if run is None else run.since,
                figures=None if run is None else figures.get(run.pid),
            )
            for number, run, since in sorted(held + left, key=lambda each: each[0])
        )
        return ServerInfo(
            version=__version__,
            at=_now(),
            started_at=started_at,
            draining=self._stopping,
            workers=workers,
            status=status,
            store=store,
        )

    def start(self, live: Live, revision: int, status: Status) -> None:
        """Start all workers on this."""
        self._load, self._told = messages.Load(live, revision), messages.Told(status)
        for place in self.places:
            self._start_soon(place)

    def load(self, live: Live, revision: int) -> None:
        """Have every worker serve this, one after another."""
        self._load = messages.Load(live, revision)
        if self._turn is None:
            self._next_turn()

    def tell(self, status: Status) -> None:
        """Let every worker know how things stand."""
        self._told = messages.Told(status)
        for run in self._runs():
            run.send(self._told)

    def look_on(self, onlookers: messages.Onlookers) -> None:
        """Let every worker know who looks on at decisions."""
        self._onlookers = onlookers
        for run in self._runs():
            run.send(onlookers)

    def count(self, number: int) -> list[int]:
        """Ask every worker what it has counted; the processes that were asked. One that leaves answers no more."""
        asked = [place.run for place in self.places if place.run is not None]
        for run in asked:
            run.send(messages.Count(number))
        return [run.pid for run in asked]

    def look(self, number: int) -> list[int]:
        """Ask every worker that serves what it has to do; the processes that were asked."""
        asked = [place.run for place in self.places if place.run is not None and place.run.serving]
        for run in asked:
            run.send(messages.Look(number))
        return [run.pid for run in asked]

    def served(self, run: Run, digest: str, revision: int) -> None:
        """A worker says what it serves."""
        if not run.serving:
            run.since = _now()
        run.serving, run.revision = digest, revision
        self.places[run.number].proven = True
        self._end_turn(run, revision)

    def passed(self, run: Run) -> None:
        """A worker could not load what it was told, and that is out of date by now."""
        self._end_turn(run)

    def refused(self, run: Run) -> None:
        """A worker cannot load what it was told: it ends, and another follows it."""
        self._end_turn(run)
        run.process.terminate()

    def left(self, run: Run) -> None:
        """A worker takes no more calls, and ends: told to by us, or by a signal."""
        if run.leaving:
            return
        _log.warning("worker %d (process %d) was told to end: it finishes its calls, another follows", run.number,
                     run.pid)  # fmt: skip
        self._leave(run)
        self._follow(run)

    def ended(self, run: Run) -> None:
        """A process is no more."""
        run.end()
        self._end_turn(run)
        code = run.process.exitcode
        if run in self._leaving:
            self._leaving.remove(run)
            _log.info("worker %d (process %d) has ended with exit code %s", run.number, run.pid, code)
            return
        place = self.places[run.number]
        place.run, place.since = None, _now()
        _log.error("worker %d (process %d) ended with exit code %s, untold", run.number, run.pid, code)
        self._counters.worker_restarts += 1
        if code in FATAL:
            self._doubts.begin(f"worker {run.number} may have died over it")
        self._follow(run)

    def stop(self) -> None:
        """Let all finish their calls within the grace, and end."""
        self._stopping = True
        for run in list(self._runs()):
            run.send(messages.Stop(self._grace))
            if not run.leaving:
                self._leave(run)

    def kill(self) -> None:
        """End all at once."""
        for run in self._runs():
            run.process.kill()

    def _runs(self) -> Iterator[Run]:
        yield from (place.run for place in self.places if place.run is not None)
        yield from self._leaving

    def _start_soon(self, place: Place) -> None:
        self._doubts.after(functools.partial(self._start, place))

    def _start(self, place: Place) -> None:
        if self._stopping or self._load is None or self._told is None:
            return
        place.starts += 1
        place.run = run = self._crew.start(place.number)
        run.send(self._told)
        run.send(self._onlookers)
        self._send_load(run, self._load)

    def _follow(self, run: Run) -> None:
        """Have another process take the place of one that left it."""
        place = self.places[run.number]
        pause = place.pause(run)
        if not place.proven and place.failures >= _STARTS:
            self.hopeless = f"worker {place.number} died {_STARTS} times before it served; the log says why"
        if self._stopping or self.hopeless:
            return
        _log.info("starting worker %d again in %.1f s", place.number, pause)
        self._mail.later(pause, functools.partial(self._start_soon, place))

    def _leave(self, run: Run) -> None:
        place = self.places[run.number]
        if place.run is run:
            place.run, place.since = None, _now()
        run.leaving, run.since = True, _now()
        self._leaving.append(run)
        self._end_turn(run)
        self._mail.later(self._grace + MARGIN_S, functools.partial(self._overdue, run))

    def _overdue(self, run: Run) -> None:
        if run in self._leaving:
            _log.warning("worker %d (process %d) did not end within %g s, killed", run.number, run.pid,
                         self._grace + MARGIN_S)  # fmt: skip
            run.process.kill()

    # Turns

    def _next_turn(self) -> None:
        """Tell the next of those that serve something older."""
        load = self._load
        self._turn = None
        if load is None or self._stopping:
            return
        for place in self.places:
            if place.run is not None and place.run.told < load.revision:
                self._turn = place.run
                self._send_load(place.run, load)
                self._mail.later(
                    _ROUND_S / len(self.places), functools.partial(self._end_turn, place.run, load.revision)
                )
                return

    def _end_turn(self, run: Run, revision: int | None = None) -> None:
        """The turn of `run` is over; with `revision` only if that is what it was told in it."""
        if self._turn is run and revision in {None, run.told}:
            self._next_turn()

    @staticmethod
    def _send_load(run: Run, load: messages.Load) -> None:
        run.told = load.revision
        run.send(load)


def phase_of(run: Run | None) -> Phase:
    """What the process that holds a place does; there may be none."""
    if run is None:
        return "down"
    if run.leaving:
        return "draining"
    return "serving" if run.serving else "starting"


def _now() -> int:
    return time.time_ns() // 1000
