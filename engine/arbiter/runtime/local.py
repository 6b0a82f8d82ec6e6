"""Everything in one process: for programs that embed the engine, for tests, and for offline commands.

Law: the same loader and the same engine as `arbiter serve`, without its processes. Nothing is watched: `reload` looks.
What operators order holds until the process ends.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from arbiter import __version__
from arbiter.errors import AuthorError
from arbiter.profiles.store import Store
from arbiter.runtime.active import Candidate
from arbiter.runtime.admin import Live
from arbiter.runtime.archive import Archive
from arbiter.runtime.desk import Desk, abridged
from arbiter.runtime.engine import Engine
from arbiter.runtime.loader import Loader
from arbiter.runtime.modelwatch import ModelWatch
from arbiter.runtime.onlooking import Onlookers
from arbiter.runtime.survey import follow, look
from arbiter.runtime.versions import Versions
from arbiter.serving import History, ServerInfo, Staged, WorkerInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from arbiter.errors import Diagnostic
    from arbiter.profiles.keys import Secrets
    from arbiter.runtime.admin import Command
    from arbiter.runtime.loader import Attempt
    from arbiter.serving import Status, WatchedModel
    from arbiter.telemetry.counters import Counters


class LocalAdmin:
    """The `Admin` of an engine in this process: worker 0 of one."""

    def __init__(self, engine: Engine, loader: Loader, desk: Desk, versions: Versions) -> None:
        self._engine = engine
        self._loader = loader
        self._desk = desk
        self._versions = versions
        self._watch = ModelWatch(desk.counters, desk.deciding)
        self._live = Live(digest="")
        self._started_at = engine.clock()
        self._lock = threading.RLock()
        self._listeners: list[Callable[[Status], None]] = []
        self._onlookers = Onlookers(self._tell_onlookers)
        self._looks: list[Callable[[Mapping[int, bytes]], None]] = []

    def snapshot_info(self) -> Status:
        """What runs now."""
        with self._lock:
            self._expire()
            return self._desk.status

    def server_info(self) -> ServerInfo:
        """This process, as the one worker that it is."""
        at = self._engine.clock()
        with self._lock:
            status = self.snapshot_info()
            figures, store = look(self._desk.counters)
            serving = WorkerInfo(
                number=0,
                pid=os.getpid(),
                phase="serving" if self._desk.digest else "starting",
                digest=self._desk.digest,
                restarts=0,
                since=self._desk.loaded_at or self._started_at,
                figures=figures,
            )
            return ServerInfo(
                version=__version__,
                at=at,
                started_at=self._started_at,
                draining=False,
                workers=(serving,),
                status=status,
                store=store,
                decision_log=figures.log,
            )

    def models(self) -> tuple[WatchedModel, ...]:
        """The models that are served; nobody looks into decisions here."""
        with self._lock:
            return self._watch.reports()

    def reload(self) -> Status:
        """Read the files again; `last_reload` says what came of it."""
        with self._lock:
            self.take(self._loader.load(afresh=True), asked=True)
            return self._desk.status

    def validate(self, files: Mapping[str, bytes]) -> list[Diagnostic]:
        """Check these rule files; changes nothing."""
        return list(abridged(self._loader.validate(files)))

    def stage(self, files: Mapping[str, bytes]) -> Staged:
        """Check these rule files, and keep the snapshot that comes of them."""
        with self._lock:
            built, found = self._loader.stage(files)
            if built is not None:
                self._versions.stage(built)
            return Staged(digest="" if built is None else built.snapshot.digest, diagnostics=abridged(found))

    def history(self) -> History:
        """The snapshots that are kept."""
        return self._versions.history()

    def carry_out(self, command: Command) -> Status:
        """Do what an operator wants."""
        with self._lock:
            self._versions.apply(command, self._versions.prepare(command), self._engine.clock())
            self._serve()
            return self._desk.status

    def watch(self, listener: Callable[[Status], None]) -> None:
        """Call `listener` now and after every reload."""
        with self._lock:
            self._listeners.append(listener)
            listener(self._desk.status)

    def look_on(self, asked: bytes, shown: Callable[[bytes, int], None]) -> Callable[[], None]:
        """Have the servers of this process show decisions."""
        with self._lock:
            number = self._onlookers.begin(asked, shown)

        def end() -> None:
            with self._lock:
                self._onlookers.end(number)

        return end

    def onlookers(self, listener: Callable[[Mapping[int, bytes]], None]) -> Callable[[int, bytes, int], None]:
        """Call `listener` now and after every change of who looks on."""
        with self._lock:
            self._looks.append(listener)
            listener(self._onlookers.asked)
        return self._onlookers.show

    def _tell_onlookers(self, asked: Mapping[int, bytes]) -> None:
        for listener in self._looks:
            listener(asked)

    def take(self, attempt: Attempt, *, asked: bool = False) -> None:
        """Serve what an attempt built, and tell who listens."""
        with self._lock:
            self._desk.record(attempt, asked=asked)
            self._serve()

    def _expire(self) -> None:
        """Overrides end when somebody looks: nothing here runs by itself."""
        before = self._desk.standing
        self._versions.expire(self._engine.clock())
        if self._desk.standing != before:
            self._serve()

    def _serve(self) -> None:
        desk = self._desk
        if desk.running is not None and desk.live != self._live:
            self._loader.runs(desk.running)
            canary, beside = desk.standing.canary, desk.beside
            candidate = None
            if canary is not None and beside is not None:
                candidate = Candidate(beside.snapshot, canary.percent, canary.salt)
            self._engine.activate(desk.running.snapshot, candidate, desk.standing.overrides)
            self._live = desk.live
            desk.workers = {0: desk.digest}
        for listener in self._listeners:
            listener(desk.status)


def open_local(
    rules: Path,
    models: Path | None,
    data: Path,
    *,
    counters: Counters | None = None,
    secrets: Secrets | None = None,
) -> tuple[Engine, LocalAdmin]:
    """Open an engine over the store below `data`, serving these files, with the means to reload them.

    `secrets` are those of the store, as `read_secrets` has them of a server's options; none for its own salt. The
    caller closes `engine.store`. Raises AuthorError when the files hold errors, StoreError for the store.
    """
    archive = Archive(data / "snapshots")
    desk = Desk(archive, counters)
    loader = Loader(rules, models, archive, holds=lambda: desk.standing.models)
    attempt = loader.load()
    if attempt.built is None:
        raise AuthorError(attempt.diagnostics)
    engine = Engine(Store.open(data / "store", secrets=secrets), counters=counters)
    follow(engine.store, desk.counters)
    admin = LocalAdmin(engine, loader, desk, Versions(desk, loader, archive))
    admin.take(attempt)
    return engine, admin


def open_engine(rules: Path, models: Path | None, data: Path, *, secrets: Secrets | None = None) -> Engine:
    """As `open_local`, for who never reloads."""
    return open_local(rules, models, data, secrets=secrets)[0]
