"""A process beside the workers, as the supervisor sees it: started, started again, told to end, ended when it hangs.

Law: called from the supervisor's one thread alone, and never waits. It is no worker: whatever becomes of it, calls are
answered, and so it is never given up. Where it has nothing to do there is none.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.runtime import messages
from arbiter.runtime.crew import Crew
from arbiter.runtime.doubts import FATAL
from arbiter.runtime.roster import MARGIN_S, Place, phase_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.runtime.admin import Live
    from arbiter.runtime.crew import Run
    from arbiter.runtime.doubts import Doubts
    from arbiter.runtime.mailbox import Mailbox
    from arbiter.runtime.settings import RunBeside
    from arbiter.runtime.tally import Tally

_log = logging.getLogger("arbiter.supervisor")


class Kind(msgspec.Struct, frozen=True):
    """What kind of process: its `name`, its `entry`, what is to be done for every one that is started `again`.

    With `patience` it says something at least as often, in seconds, once it serves, or it hangs. One that `calls_out`
    runs what may end it by no fault of the store's.
    """

    name: str
    entry: RunBeside
    again: Callable[[], None]
    patience: float = 0.0
    calls_out: bool = False


class Companion:
    """One process of a kind; none of no kind. `settings` are what it gets, encoded."""

    def __init__(
        self, kind: Kind | None, settings: bytes, grace: float, mail: Mailbox, doubts: Doubts, tally: Tally
    ) -> None:
        self._kind = kind
        self._crew: Crew | None = None
        if kind is not None:
            self._crew = Crew(
                kind.name, kind.entry, (settings,), lambda run, said: mail.post(lambda: self._heard(run, said))
            )
        self._grace = grace
        self._mail = mail
        self._doubts = doubts
        self._tally = tally
        self._place = Place(0)
        self._load: messages.Load | None = None
        self._wanted = False
        self._heard_at = 0.0  # by the monotonic clock
        self._said: Any = None
        self._stopping = False

    @property
    def empty(self) -> bool:
        """Whether no process is left."""
        return self._place.run is None

    def load(self, live: Live, revision: int, *, wanted: bool = True) -> None:
        """Have it keep to this from now on; it starts with the first that is `wanted`. By another it ends itself."""
        self._load = messages.Load(live, revision)
        before, self._wanted = self._wanted, wanted
        if self._place.run is not None:
            self._place.run.send(self._load)
        elif wanted and not before:
            self._doubts.after(self._start)

    def count(self, number: int) -> list[int]:
        """Ask it what it has counted; the process that was asked, if any."""
        run = self._place.run
        if run is None or not run.serving:
            return []
        run.send(messages.Count(number))
        return [run.pid]

    def info(self) -> dict[str, Any] | None:
        """How it is, by the fields of a `ConsumerInfo`; None where there is nothing for it to do."""
        if self._kind is None or not (self._wanted or self._place.run):
            return None
        run = self._place.run
        return {
            "pid": 0 if run is None else run.pid,
            "phase": phase_of(run),
            "digest": "" if run is None else run.serving,
            "restarts": self._place.restarts,
            "since": self._place.since if run is None else run.since,
            "figures": self._said,
        }

    def stop(self) -> None:
        """Let it write what it has, and end."""
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
        if self._stopping or self._crew is None or self._load is None or not self._wanted or self._place.run:
            return
        self._place.starts += 1
        self._place.run = run = self._crew.start(self._place.number)
        run.send(self._load)

    def _heard(self, run: Run, message: messages.ToSupervisor | None) -> None:
        """What the process says; None when it has ended."""
        self._heard_at = time.monotonic()
        match message:
            case None:
                self._ended(run)
            case messages.Serving(digest, revision):
                if not run.serving:
                    run.since = time.time_ns() // 1000
                    self._watch(run)
                run.serving, run.revision = digest, revision
            case messages.Counted(number, reading):
                self._tally.heard(run.pid, self._name, number, reading)
            case messages.Consumed(figures) | messages.Triggered(figures):
                self._said = figures
            case _:
                _log.error("the %s says %s, which is no business of it", self._name, type(message).__name__)

    def _watch(self, run: Run) -> None:
        """End one of which nothing was heard for too long; look again in a while."""
        patience = 0.0 if self._kind is None else self._kind.patience
        if not patience or self._place.run is not run:
            return
        silent = time.monotonic() - self._heard_at
        if silent >= patience and not run.leaving:
            _log.error("the %s (process %d) hangs: nothing was heard of it for %.0f s, killed", self._name, run.pid,
                       silent)  # fmt: skip
            run.process.kill()
            return
        self._mail.later(patience / 4, lambda: self._watch(run))

    def _ended(self, run: Run) -> None:
        run.end()
        self._tally.ended(run.pid)
        place, code = self._place, run.process.exitcode
        place.run, place.since = None, time.time_ns() // 1000
        if self._stopping or (code == 0 and not self._wanted):
            _log.info("the %s (process %d) has ended with exit code %s", self._name, run.pid, code)
            return
        pause = place.pause(run)
        if self._kind is not None:
            self._kind.again()
        _log.error("the %s (process %d) ended with exit code %s, and is started again in %.1f s", self._name, run.pid,
                   code, pause)  # fmt: skip
        if code in FATAL and not (self._kind is not None and self._kind.calls_out):
            self._doubts.begin(f"the {self._name} may have died over it")
        self._mail.later(pause, lambda: self._doubts.after(self._start))

    @property
    def _name(self) -> str:
        return "" if self._kind is None else self._kind.name
