"""Everything in one process: for programs that embed the engine, for tests, and for offline commands.

Law: the same loader and the same engine as `arbiter serve`, without its processes. Nothing is watched: `reload` looks.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from arbiter.errors import AuthorError
from arbiter.profiles.store import Store
from arbiter.runtime.archive import Archive
from arbiter.runtime.desk import Desk, abridged
from arbiter.runtime.engine import Engine
from arbiter.runtime.loader import Loader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from arbiter.errors import Diagnostic
    from arbiter.runtime.admin import Status
    from arbiter.runtime.loader import Attempt
    from arbiter.telemetry.counters import Counters


class LocalAdmin:
    """The `Admin` of an engine in this process: worker 0 of one."""

    def __init__(self, engine: Engine, loader: Loader, desk: Desk) -> None:
        self._engine = engine
        self._loader = loader
        self._desk = desk
        self._lock = threading.RLock()
        self._listeners: list[Callable[[Status], None]] = []

    def snapshot_info(self) -> Status:
        """What runs now."""
        with self._lock:
            return self._desk.status

    def reload(self) -> Status:
        """Read the files again; `last_reload` says what came of it."""
        with self._lock:
            self.take(self._loader.load())
            return self._desk.status

    def validate(self, files: Mapping[str, bytes]) -> list[Diagnostic]:
        """Check these rule files; changes nothing."""
        return list(abridged(self._loader.validate(files)))

    def watch(self, listener: Callable[[Status], None]) -> None:
        """Call `listener` now and after every reload."""
        with self._lock:
            self._listeners.append(listener)
            listener(self._desk.status)

    def take(self, attempt: Attempt) -> None:
        """Serve what an attempt built, and tell who listens."""
        with self._lock:
            if self._desk.record(attempt) and attempt.built is not None:
                self._engine.activate(attempt.built.snapshot)
                self._desk.workers = {0: attempt.built.snapshot.digest}
            for listener in self._listeners:
                listener(self._desk.status)


def open_local(
    rules: Path, models: Path | None, data: Path, *, counters: Counters | None = None
) -> tuple[Engine, LocalAdmin]:
    """Open an engine over the store below `data`, serving these files, with the means to reload them.

    The caller closes `engine.store`. Raises AuthorError when the files hold errors, StoreError for the store.
    """
    archive = Archive(data / "snapshots")
    loader = Loader(rules, models, archive)
    attempt = loader.load()
    if attempt.built is None:
        raise AuthorError(attempt.diagnostics)
    engine = Engine(Store.open(data / "store"))
    admin = LocalAdmin(engine, loader, Desk(archive, counters))
    admin.take(attempt)
    return engine, admin


def open_engine(rules: Path, models: Path | None, data: Path) -> Engine:
    """As `open_local`, for who never reloads."""
    return open_local(rules, models, data)[0]
