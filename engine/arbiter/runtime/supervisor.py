"""The supervisor: it loads, tells the workers, and keeps them running. It never serves a decision.

Law: all state belongs to the one thread that empties the mailbox; every other thread (watcher, loader, pipes) and the
signals only post to it. Nothing that takes long runs in that thread, so the supervisor answers while it compiles.
"""

from __future__ import annotations

import functools
import logging
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import ArbiterError, AuthorError, CallerError, StoreError
from arbiter.runtime import messages
from arbiter.runtime.admin import Live
from arbiter.runtime.archive import Archive
from arbiter.runtime.companions import Companions
from arbiter.runtime.crew import Crew
from arbiter.runtime.desk import Desk, abridged
from arbiter.runtime.doubts import Doubts
from arbiter.runtime.link import Link
from arbiter.runtime.loader import Loader
from arbiter.runtime.mailbox import Mailbox
from arbiter.runtime.onlooking import AskedFor
from arbiter.runtime.questions import Checks, Own, Waiting, refuse
from arbiter.runtime.quiet import step_back
from arbiter.runtime.roster import Roster, StartFailed
from arbiter.runtime.standing import StandingFile
from arbiter.runtime.survey import Survey
from arbiter.runtime.tally import Tally
from arbiter.runtime.versions import Versions
from arbiter.runtime.watcher import Watcher
from arbiter.runtime.worker import run_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.errors import Diagnostic
    from arbiter.runtime.crew import Run
    from arbiter.runtime.loader import Attempt, Built
    from arbiter.runtime.questions import Asker
    from arbiter.runtime.settings import AdminFace, OpenAdmin, OpenFace, RunBeside, Settings

_log = logging.getLogger("arbiter.supervisor")

_FACE_GRACE_S = 1.0  # for the calls on the supervisor's own listener, when all workers have ended


def _now() -> int:
    return time.time_ns() // 1000


class Supervisor:
    """Serves on `address`, which is held for the workers. `consume` is the entry of the process that reads topics."""

    def __init__(
        self,
        settings: Settings,
        address: str,
        open_face: OpenFace,
        open_admin: OpenAdmin,
        consume: RunBeside | None = None,
    ) -> None:
        archive = Archive(settings.snapshots_directory, settings.snapshots)
        file = StandingFile(settings.data_directory)
        self.desk = Desk(archive, file=file)
        self.desk.stand(file.read())
        self._settings = settings
        self._address = address
        self._open_admin = open_admin
        self._mail = Mailbox()
        self._loader = Loader(
            settings.rules_directory, settings.models_directory, archive, logged=bool(settings.decision_log.directory),
            require_tests=settings.require_tests, apart=True, holds=lambda: self.desk.standing.models,
        )  # fmt: skip
        self._versions = Versions(self.desk, self._loader, archive, settings.limits.overrides)
        self.tally = Tally(lambda number: self._mail.post(lambda: self._scraped(number)), self.desk.counters)
        encoded = msgspec.msgpack.encode(settings)
        workers = Crew(
            "worker",
            run_worker,
            (encoded, address, open_face),
            lambda run, said: self._mail.post(lambda: self._heard(run, said)),
        )
        self.doubts = Doubts(settings.store_directory, settings.log_level.upper(), self._mail, self._give_up)
        self._roster = Roster(settings.workers, settings.grace, workers, self._mail, self.doubts, self.desk.counters)
        self._beside = Companions(settings, consume, self._mail, self.doubts, self.tally, self.desk.counters)
        self._onlookers = AskedFor(self._roster.look_on)
        self._survey = Survey(self._mail, self._roster, self._beside.beside, self.desk, settings.data_directory)
        self.admin = Link(lambda said: self._mail.post(lambda: self._hear(self._own, said)))
        self._own = Own(self.admin)
        self._admin_face: AdminFace | None = None
        self._checks = Checks(self._loader, self._versions)
        self._busy = False  # an attempt or an order is under way
        self._stale = False  # something may have changed since it began
        self._unreadable = False  # a worker could not read the snapshot that is current
        self._asking: list[tuple[Asker, int]] = []  # reloads that wait for an attempt that begins after them
        self._orders: deque[tuple[Asker, messages.Ask]] = deque()  # what operators want, in the order it came
        self._live = Live(digest="")  # what workers were told last,
        self._revision = 0  # and its number
        self._waiting = Waiting(self._mail, lambda: self.desk.status)
        self._expiring = 0  # when a timer looks at the overrides, in µs since the epoch; 0 for none
        self._announced = False
        self._ending = False

    def run(self) -> None:
        """Load, start the workers, and follow the mailbox until told to end."""
        signal.signal(signal.SIGTERM, lambda *_: self._mail.post(self._end))
        signal.signal(signal.SIGINT, lambda *_: self._mail.post(self._interrupted))
        if not self._first_load():
            return
        watched = filter(None, (self._settings.rules_directory, self._settings.models_directory))
        watcher = Watcher(list(watched), lambda: self._mail.post(self._look))
        try:
            if self._settings.admin:
                self._admin_face = self._open_admin(self.admin, self._settings.admin, self._settings.face)
            self.doubts.resume()
            self._roster.start(self._live, self._revision, self.desk.status)
            self._beside.load(self._live, self._revision, self.desk.running)
            watcher.start()
            while not (self._ending and self._roster.empty and self._beside.empty):
                self._mail.next()()
        finally:
            watcher.stop()
            self._roster.kill()  # those that a fault of ours left running
            self._beside.kill()
            self.admin.close()
            if self._admin_face is not None:
                self._admin_face.stop(_FACE_GRACE_S)
            self._checks.close()
            self._survey.close()
        if self._roster.hopeless:
            raise StartFailed(self._roster.hopeless)
        _log.info("ended")

    def _end(self) -> None:
        if self._ending:
            return
        _log.info("stopping: %g s for the calls under way", self._settings.grace)
        self._ending = True
        self._refuse_all()
        self._beside.stop()
        self._roster.stop()
        self._tell()

    def _interrupted(self) -> None:
        """Ctrl-C ends it as SIGTERM does; again, it waits no longer."""
        if self._ending:
            _log.warning("interrupted again: calls under way are cut off")
            self._roster.kill()
            self._beside.kill()
        self._end()

    def _refuse_all(self) -> None:
        """Answer what waits: nothing will come of it any more."""
        for asker, ask in [*self._asking, *((asker, order.ask) for asker, order in self._orders)]:
            refuse(asker, ask)
        self._asking.clear()
        self._orders.clear()

    # Loading

    def _first_load(self) -> bool:
        """Whether there is something to serve; not when it was told to end meanwhile, since reading may hang."""
        attempt = self._mail.during(self._loader.load, lambda: self._ending)
        if attempt is None:
            return False
        if not self._versions.held(attempt) and attempt.built is None:
            built = self._loader.last_good()
            if built is None and attempt.fault is not None:
                raise StartFailed(attempt.diagnostics[0].message)
            if built is None:
                raise AuthorError(attempt.diagnostics)
            self.desk.adopt(built, attempt.at)
            why = "the files hold errors" if attempt.fault is None else "the files cannot be loaded"
            _log.error("%s: starting on the last good snapshot, %s", why, built.snapshot.digest[:12])
        self.desk.record(attempt)
        # What operators ordered goes on, and is what workers are told first.
        if self.desk.running is not None:
            self._loader.runs(self.desk.running)
        self._versions.take_up(_now())
        self._live = self.desk.live
        self._watch_expiry()
        return True

    def _look(self) -> None:
        self._stale = True
        self._go_on()

    def _go_on(self) -> None:
        """Begin what waits: orders first, since files are looked at again and again anyway."""
        if self._busy:
            return
        if self._orders:
            self._begin(self._prepare, *self._orders.popleft())
        elif self._stale or self._asking:
            asking, self._asking, self._stale = self._asking, [], False
            restored = (self.desk.running, self.desk.beside, self.desk.loaded_at) if self._unreadable else None
            self._unreadable = False
            self._begin(self._load, asking, restored)

    def _begin(self, work: Callable[..., None], *given: Any) -> None:
        self._busy = True
        # A daemon, where an executor's thread would be waited for: a file system that hangs must not hold up the end.
        threading.Thread(target=work, args=given, name="arbiter-loader", daemon=True).start()

    def _load(self, asking: list[tuple[Asker, int]], restored: tuple[Built | None, Built | None, int] | None) -> None:
        """In a thread of its own, one at a time. `restored` is what must be written again, and since when it runs."""
        if not asking and not self._settings.admin:
            step_back()  # whoever asks waits for it, and so would who asks the listener that shares this interpreter
        attempt = None
        try:
            for built, since in ((restored[0], restored[2]), (restored[1], None)) if restored else ():
                if built is not None:
                    self._loader.restore(built, since)
            attempt = self._loader.load(afresh=True) if asking else self._loader.look()
        finally:
            self._mail.post(lambda: self._looked(attempt, asking))

    def _looked(self, attempt: Attempt | None, asking: list[tuple[Asker, int]]) -> None:
        self._busy = False
        if attempt is not None:
            self.desk.record(attempt, asked=bool(asking))
            if self.desk.running is not None:
                self._loader.runs(self.desk.running)
            self._publish()
        self._await(asking)
        self._go_on()

    def _publish(self) -> None:
        """Let the workers serve what the desk says now, and know how things stand."""
        if self.desk.live != self._live:
            self._live = self.desk.live
            self._revision += 1
            self._roster.load(self._live, self._revision)
            self._beside.load(self._live, self._revision, self.desk.running)
            self._watch_expiry()
        self._tell()

    def _await(self, asking: list[tuple[Asker, int]]) -> None:
        """Answer these when the workers serve what they were told last."""
        for asker, ask in asking:
            self._waiting.add(asker, ask, self._revision)
        self._waiting.reached(self._roster.revision)

    def _prepare(self, asker: Asker, asked: messages.Ask) -> None:
        """In a thread of its own, one at a time."""
        built: Built | None = None
        found: list[Diagnostic] = []
        error: ArbiterError | None = None
        try:
            if asked.command is not None:
                built = self._versions.prepare(asked.command)
            else:
                built, found = self._loader.stage(asked.files)
        except ArbiterError as caught:
            error = caught
        except Exception as caught:  # noqa: BLE001 - a bug of ours must not leave the caller waiting
            _log.exception("cannot carry out %s", asked.what)
            error = StoreError(f"{type(caught).__name__}: {caught}")
        self._mail.post(lambda: self._prepared(asker, asked, built, found, error))

    def _prepared(
        self,
        asker: Asker,
        asked: messages.Ask,
        built: Built | None,
        found: list[Diagnostic],
        error: ArbiterError | None,
    ) -> None:
        self._busy = False
        try:
            if error is not None:
                raise error
            if asked.command is not None:
                self._versions.apply(asked.command, built, _now())
                self._publish()
                self._await([(asker, asked.ask)])
            else:
                if built is not None:
                    self._versions.stage(built)
                digest = built.snapshot.digest if built is not None else ""
                asker.send(messages.Answer(asked.ask, digest=digest, diagnostics=abridged(found)))
        except (CallerError, StoreError) as refused:
            asker.send(messages.refusal(asked.ask, refused))
        self._go_on()

    def _watch_expiry(self) -> None:
        """Set a timer for the override that ends first."""
        first = min((each.until for each in self.desk.standing.overrides), default=0)
        if first and first != self._expiring:
            self._expiring = first
            self._mail.later(max(0.0, (first - _now()) / 1e6), functools.partial(self._expire, first))

    def _expire(self, first: int) -> None:
        if self._expiring == first:
            self._expiring = 0
        self._versions.expire(_now())
        self._publish()
        self._watch_expiry()

    # Workers, and the listener here

    def _heard(self, run: Run, message: messages.ToSupervisor | None) -> None:
        """What a worker says, and what follows for the others."""
        match message:
            case None:
                self._roster.ended(run)
                self.tally.ended(run.pid)
                self._survey.ended(run.pid)
                self._forget(run)
                self._changed()
            case messages.Leaving():
                self._roster.left(run)
                self._survey.ended(run.pid)
                self._changed()
            case messages.Serving(digest, revision):
                self._roster.served(run, digest, revision)
                self._tell()
                self._waiting.reached(self._roster.revision)
                self._announce()
            case messages.Refused(revision, reason) if revision == self._revision:
                # The supervisor built it: either what is on disk went or was damaged, and is written again, or the
                # fault is that process's. A new one gets the snapshot anew.
                _log.error("worker %d cannot serve %s: %s", run.number, self._live.digest[:12], reason)
                self._roster.refused(run)
                self._unreadable = True
                self._look()
            case messages.Refused():
                self._roster.passed(run)
            case messages.Counted(number, reading):
                self.tally.heard(run.pid, f"worker-{run.number}", number, reading)
            case messages.Looked() | messages.Noticed():
                self._survey.heard(run.pid, message)
            case messages.Ask() | messages.Onlook() | messages.Shown():
                self._hear(run, message)

    def _scraped(self, number: int) -> None:
        self.tally.asked(number, [*self._roster.count(number), *self._beside.count(number)])

    def _give_up(self, why: str) -> None:
        self._roster.hopeless = why
        self._changed()

    def _changed(self) -> None:
        if self._roster.hopeless:
            self._end()
        self._tell()

    def _hear(self, asker: Asker, asked: messages.ToSupervisor) -> None:
        """A question."""
        match asked:
            case messages.Ask(ask, "info"):
                asker.send(messages.Answer(ask, self.desk.status))
            case messages.Onlook() | messages.Shown():
                self._onlookers.heard(asker, asked)
            case messages.Ask(what="server" | "models"):
                self._survey.begin(asker, asked)
            case messages.Ask(ask, "validate", files):
                self._checks.validate(asker, ask, files)
            case messages.Ask(ask, "history"):
                self._checks.history(asker, ask)
            case messages.Ask(ask) if self._ending:
                refuse(asker, ask)
            case messages.Ask(ask, "reload"):
                self._asking.append((asker, ask))
                self._look()
            case messages.Ask():
                self._orders.append((asker, asked))
                self._go_on()

    def _forget(self, run: Run) -> None:
        """Who asked is no more."""
        self._waiting.forget(run)
        self._onlookers.forget(run)
        self._asking = [question for question in self._asking if question[0] is not run]
        self._orders = deque(order for order in self._orders if order[0] is not run)

    def _tell(self) -> None:
        """Let every worker, and the listener here, know how things stand."""
        self.desk.workers = self._roster.digests
        self.desk.counters.workers_serving = sum(map(bool, self.desk.workers.values()))
        self._roster.tell(self.desk.status)
        self._own.send(messages.Told(self.desk.status))

    def _announce(self) -> None:
        digests = self._roster.digests
        if self._announced or not all(digests.values()):
            return
        self._announced = True
        count = f"{len(digests)} worker{'s' * (len(digests) != 1)}"
        aside = f", admin on {self._admin_face.address}" if self._admin_face is not None else ""
        print(f"arbiter ready on {self._address}, snapshot {self.desk.digest[:12]}, {count}{aside}", flush=True)  # noqa: T201
