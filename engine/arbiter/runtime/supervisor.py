"""The supervisor: it loads, tells the workers, and keeps them running. It never serves a decision.

Law: all state belongs to the one thread that empties the mailbox; every other thread (watcher, loader, pipes) and the
signals only post to it. Nothing that takes long runs in that thread, so the supervisor answers while it compiles.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.errors import ArbiterError, AuthorError, CallerError, StoreError
from arbiter.runtime import messages
from arbiter.runtime.address import reserve
from arbiter.runtime.admin import Live
from arbiter.runtime.archive import Archive
from arbiter.runtime.crew import Crew, Member
from arbiter.runtime.desk import Desk, abridged
from arbiter.runtime.loader import Loader
from arbiter.runtime.mailbox import Mailbox
from arbiter.runtime.quiet import step_back
from arbiter.runtime.standing import StandingFile
from arbiter.runtime.tally import Tally
from arbiter.runtime.versions import Versions
from arbiter.runtime.watcher import Watcher
from arbiter.runtime.worker import SWITCH_INTERVAL_S
from arbiter.telemetry import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess

    from arbiter.errors import Diagnostic
    from arbiter.runtime.loader import Attempt, Built
    from arbiter.runtime.settings import OpenFace, Settings

_log = logging.getLogger("arbiter.supervisor")

_PATIENCE_S = 30.0  # how long a Reload waits for all workers before it answers with what they serve
_STARTS = 3  # how often a worker that never served may die before starting is given up
_MARGIN_S = 5.0  # beyond the grace, for a store to close


def _now() -> int:
    return time.time_ns() // 1000


class StartFailed(ArbiterError):
    """The workers cannot start; the log says why."""


def supervise(settings: Settings, open_face: OpenFace) -> None:
    """Serve until SIGTERM or SIGINT. Call it in the main thread, after `logs.start_logging`.

    Prints one line on standard output when all workers serve. Raises AuthorError when the files hold errors and there
    is no last good snapshot, and ListenError, StoreError, TelemetryError, EndpointError or StartFailed when it cannot
    start.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with ExitStack() as stack:
        stack.enter_context(_alone(Path(settings.data)))
        held, address = reserve(settings.listen)
        stack.enter_context(held)
        supervisor = _Supervisor(settings, address, open_face)
        publisher = publish.start(supervisor.desk.counters, "supervisor")
        stack.callback(publisher.shutdown)
        stack.enter_context(supervisor.tally.scraped(settings.metrics))
        supervisor.run()


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the data directory, since two supervisors would prune each other's snapshots; freed with the process."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "supervisor.lock").open("w")
    except OSError as error:
        raise StoreError(f"cannot use the data directory {data}: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(f"the data directory {data} is in use by another `arbiter serve`") from None
        yield


class _Supervisor:
    def __init__(self, settings: Settings, address: str, open_face: OpenFace) -> None:
        archive = Archive(settings.snapshots_directory, settings.snapshots)
        file = StandingFile(settings.data_directory)
        self.desk = Desk(archive, file=file)
        self.desk.stand(file.read())
        self._settings = settings
        self._address = address
        self._mail = Mailbox()
        self._loader = Loader(
            settings.rules_directory, settings.models_directory, archive, require_tests=settings.require_tests
        )
        self._versions = Versions(self.desk, self._loader, archive)
        self._crew = Crew(settings, address, open_face, self._heard)
        self._checking = ThreadPoolExecutor(1, "arbiter-validate")
        self._busy = False  # an attempt or an order is under way
        self._stale = False  # something may have changed since it began
        self._unreadable = False  # a worker could not read the snapshot that is current
        self._asking: list[tuple[Member, int]] = []  # reloads that wait for an attempt that begins after them
        self._orders: deque[tuple[Member, messages.Ask]] = deque()  # what operators want, in the order it came
        self._live = Live(digest="")  # what workers were told last,
        self._revision = 0  # and its number
        self._waiting: list[tuple[Member, int, int]] = []  # questions that wait for the workers to serve a revision
        self._expiring = 0  # when a timer looks at the overrides, in µs since the epoch; 0 for none
        self._announced = False
        self.tally = Tally(lambda number: self._mail.post(lambda: self._count(number)), self.desk.counters)
        self._running = True

    def run(self) -> None:
        """Load, start the workers, and follow the mailbox until told to end."""
        # Until then a signal ends the process as it is: nothing runs yet, and reading may hang.
        self._first_load()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._mail.post(self._end))
        watched = [self._settings.rules_directory, self._settings.models_directory]
        watcher = Watcher([path for path in watched if path], lambda: self._mail.post(self._look))
        try:
            for member in self._crew.members:
                self._start(member)
            watcher.start()
            while self._running:
                self._mail.next()()
        finally:
            watcher.stop()
            self._crew.stop(self._settings.grace, self._settings.grace + _MARGIN_S)
            self._checking.shutdown(wait=False, cancel_futures=True)

    def _end(self) -> None:
        _log.info("stopping: %g s for the calls under way", self._settings.grace)
        self._running = False

    # Loading

    def _first_load(self) -> None:
        attempt = self._loader.load()
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
        self._settle()

    def _settle(self) -> None:
        """After a start's attempt: what operators ordered goes on, and is what workers are told first."""
        if self.desk.running is not None:
            self._loader.runs(self.desk.running)
        self._versions.take_up(_now())
        self._live = self.desk.live
        self._watch_expiry()

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

    def _load(self, asking: list[tuple[Member, int]], restored: tuple[Built | None, Built | None, int] | None) -> None:
        """In a thread of its own, one at a time. `restored` is what must be written again, and since when it runs."""
        if not asking:
            step_back()  # whoever asks waits for it; an edit that was seen takes no time from calls
        attempt = None
        try:
            for built, since in ((restored[0], restored[2]), (restored[1], None)) if restored else ():
                if built is not None:
                    self._loader.restore(built, since)
            attempt = self._loader.load() if asking else self._loader.look()
        finally:
            self._mail.post(lambda: self._looked(attempt, asking))

    def _looked(self, attempt: Attempt | None, asking: list[tuple[Member, int]]) -> None:
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
            for member in self._crew.members:
                member.send(messages.Load(self._live, self._revision))
            self._watch_expiry()
        self._tell()

    def _await(self, asking: list[tuple[Member, int]]) -> None:
        """Answer these when the workers serve what they were told last."""
        for member, ask in asking:
            question = (member, ask, self._revision)
            self._waiting.append(question)
            self._mail.later(_PATIENCE_S, functools.partial(self._give_up, question))
        self._answer_waiting()

    def _answer_waiting(self) -> None:
        reached = min(member.revision for member in self._crew.members)
        for question in [each for each in self._waiting if each[2] <= reached]:
            self._give_up(question)

    def _give_up(self, question: tuple[Member, int, int]) -> None:
        if question in self._waiting:
            self._waiting.remove(question)
            member, ask, _ = question
            member.send(messages.Answer(ask, self.desk.status))

    # Orders

    def _prepare(self, member: Member, asked: messages.Ask) -> None:
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
        self._mail.post(lambda: self._prepared(member, asked, built, found, error))

    def _prepared(
        self,
        member: Member,
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
                self._await([(member, asked.ask)])
            else:
                if built is not None:
                    self._versions.stage(built)
                digest = built.snapshot.digest if built is not None else ""
                member.send(messages.Answer(asked.ask, digest=digest, diagnostics=abridged(found)))
        except (CallerError, StoreError) as refused:
            member.send(messages.refusal(asked.ask, refused))
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

    # Workers

    def _heard(
        self,
        member: Member,
        process: BaseProcess,
        message: messages.ToSupervisor | None,
    ) -> None:
        """From a reading thread."""
        if isinstance(message, messages.Counted):
            self.tally.heard(process.pid or 0, f"worker-{member.number}", message.number, message.reading)
            return
        self._mail.post(lambda: self._hear(member, process, message))

    def _hear(
        self,
        member: Member,
        process: BaseProcess,
        message: messages.ToSupervisor | None,
    ) -> None:
        match message:
            case None:
                self._died(member, process)
            case messages.Serving(digest, revision):
                member.serving, member.revision = digest, revision
                member.proven = True
                self._tell()
                self._answer_waiting()
                self._announce()
            case messages.Refused(revision, reason) if revision == self._revision:
                # The supervisor built it: either what is on disk went or was damaged, and is written again, or the
                # fault is that process's. A new one gets the snapshot anew.
                _log.error(
                    "worker %d cannot serve %s, starting another: %s", member.number, self._live.digest[:12], reason
                )
                process.terminate()
                self._unreadable = True
                self._look()
            case messages.Refused():
                pass
            case messages.Ask(ask, "info"):
                member.send(messages.Answer(ask, self.desk.status))
            case messages.Ask(ask, "reload"):
                self._asking.append((member, ask))
                self._look()
            case messages.Ask(ask, "validate", files):
                self._checking.submit(self._validate, member, ask, files)
            case messages.Ask(_, "history"):
                self._checking.submit(self._tell_history, member, message.ask)
            case messages.Ask():
                self._orders.append((member, message))
                self._go_on()

    def _validate(self, member: Member, ask: int, files: dict[str, bytes]) -> None:
        """In the checking thread."""
        self._answer(member, ask, lambda: messages.Answer(ask, diagnostics=abridged(self._loader.validate(files))))

    def _tell_history(self, member: Member, ask: int) -> None:
        """In the checking thread."""
        self._answer(member, ask, lambda: messages.Answer(ask, history=self._versions.history()))

    def _answer(self, member: Member, ask: int, found: Callable[[], messages.Answer]) -> None:
        try:
            answer = found()
        except Exception as error:  # noqa: BLE001 - an executor keeps it to itself, and the caller would wait
            _log.exception("cannot answer")
            answer = messages.refusal(ask, StoreError(f"{type(error).__name__}: {error}"))
        member.send(answer)

    def _count(self, number: int) -> None:
        """Somebody scrapes."""
        living = {member.process.pid or 0: member for member in self._crew.members if member.process is not None}
        self.tally.asked(number, living)
        for member in living.values():
            member.send(messages.Count(number))

    def _start(self, member: Member) -> None:
        member.start()
        member.send(messages.Told(self.desk.status))
        member.send(messages.Load(self._live, self._revision))

    def _died(self, member: Member, process: BaseProcess) -> None:
        pause = member.gone()
        self.tally.ended(process.pid or 0)
        self._waiting = [question for question in self._waiting if question[0] is not member]
        self._asking = [question for question in self._asking if question[0] is not member]
        self._orders = deque(order for order in self._orders if order[0] is not member)
        if not member.proven and member.failures >= _STARTS:
            raise StartFailed(f"worker {member.number} died {_STARTS} times before it served; the log says why")
        self.desk.counters.worker_restarts += 1
        _log.error(
            "worker %d ended with exit code %s, starting another in %.1f s", member.number, process.exitcode, pause
        )
        self._tell()
        self._mail.later(pause, lambda: self._start(member))

    def _tell(self) -> None:
        """Let every worker know how things stand."""
        self.desk.workers = {member.number: member.serving for member in self._crew.members}
        self.desk.counters.workers_serving = sum(map(bool, self.desk.workers.values()))
        for member in self._crew.members:
            member.send(messages.Told(self.desk.status))

    def _announce(self) -> None:
        members = self._crew.members
        if self._announced or not all(member.serving for member in members):
            return
        self._announced = True
        count = f"{len(members)} worker{'s' * (len(members) != 1)}"
        print(f"arbiter ready on {self._address}, snapshot {self.desk.digest[:12]}, {count}", flush=True)  # noqa: T201
