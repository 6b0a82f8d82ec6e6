"""One worker process: a store, an engine, a server, and a pipe to the supervisor.

Law: it never reads authored files and decides nothing about snapshots; it loads what it is told, beside the calls that
go on, and swaps with one assignment. When the pipe ends the supervisor is gone, and the worker ends too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from arbiter.errors import ArbiterError
from arbiter.profiles.store import Store
from arbiter.runtime import messages
from arbiter.runtime.active import Candidate
from arbiter.runtime.archive import Archive
from arbiter.runtime.curiosity import Curiosity
from arbiter.runtime.engine import Engine
from arbiter.runtime.keyfiles import read_secrets
from arbiter.runtime.link import Link
from arbiter.runtime.logs import start_logging
from arbiter.runtime.quiet import at_work, undisturbed
from arbiter.runtime.recording import open_recorder
from arbiter.runtime.settings import Backing, Face, OpenFace, Settings
from arbiter.runtime.sockets import WorkerSocket
from arbiter.runtime.survey import follow, look
from arbiter.snapshot import finished
from arbiter.telemetry import instruments, publish
from arbiter.telemetry.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from multiprocessing.connection import Connection
    from types import FrameType

    from arbiter.runtime.admin import Live
    from arbiter.snapshot import Snapshot

_log = logging.getLogger("arbiter.worker")
_Found = TypeVar("_Found")

_DIGESTS = 16  # snapshots whose decisions are counted: the newest
# A worker that serves opens a snapshot in slices, and leaves the interpreter to its calls in between.
SLICE_S = 0.0001
PAUSE_S = 0.001


def run_worker(pipe: Connection, number: int, settings: bytes, address: str, open_face: OpenFace) -> None:
    """Serve until told to stop, by the pipe or by SIGTERM. The entry of a spawned process."""
    # Ctrl-C reaches the whole process group; the supervisor decides what follows from it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    at_work()
    chosen = msgspec.msgpack.decode(settings, type=Settings)
    start_logging(chosen.log_level.upper(), f"worker {number}")
    try:
        _run(pipe, number, chosen, address, open_face)
    except ArbiterError as error:
        # The sentence says it all; a traceback is for faults of ours.
        _log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)


def _run(pipe: Connection, number: int, settings: Settings, address: str, open_face: OpenFace) -> None:
    grace = settings.grace
    with contextlib.ExitStack() as stack:
        counters = Counters()
        publisher = publish.start(
            counters, f"worker-{number}", scraped=bool(settings.metrics), traces=settings.telemetry.traces
        )
        stack.callback(publisher.shutdown)
        secrets = read_secrets(settings.profiles)
        store = stack.enter_context(Store.open(settings.store_directory, limits=settings.store_limits, secrets=secrets))
        store.when_broken(lambda: os.kill(os.getpid(), signal.SIGTERM))  # another opens it anew
        sending = threading.Lock()

        def send(message: messages.ToSupervisor) -> None:
            try:
                with sending:
                    pipe.send_bytes(messages.encode(message))
            except OSError:
                # Whoever reads the pipe finds that out.
                _log.debug("the supervisor is gone, not told: %s", type(message).__name__)

        link = Link(send)
        follow(store, counters)
        engine = Engine(store, counters=counters)
        recorder = open_recorder(settings.decision_log, engine) if settings.decision_log.directory else None
        purpose = settings.decision_log.purpose
        backing = Backing(engine, link, counters, publisher.observer, recorder, purpose)
        stack.callback(Curiosity(backing.engine, counters, send).close)
        archive = Archive(settings.snapshots_directory)
        socket = WorkerSocket(Path(settings.sockets), number) if settings.sockets else None
        worker = _Worker(backing, archive, link, send, socket)
        try:
            grace = worker.serve(pipe, address, settings.face, open_face) or grace
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            send(messages.Leaving())
            # First, so that no call waits for an answer that cannot come.
            link.close()
            worker.stop(grace)
            if recorder is not None:
                recorder.close()
            worker.count(0)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


class _Worker:
    def __init__(
        self,
        backing: Backing,
        archive: Archive,
        link: Link,
        send: Callable[[messages.ToSupervisor], None],
        socket: WorkerSocket | None,
    ) -> None:
        self._backing = backing
        self._archive = archive
        self._link = link
        self._send = send
        self._socket = socket
        self._face: Face | None = None
        self._wanted: queue.SimpleQueue[messages.Load] = queue.SimpleQueue()

    def serve(self, pipe: Connection, address: str, face: bytes, open_face: OpenFace) -> float | None:
        """Follow the supervisor's messages; returns the grace that it gives, None when it is gone."""
        while True:
            try:
                message = messages.to_worker.decode(pipe.recv_bytes())
            except (EOFError, OSError):
                _log.warning("the supervisor is gone, stopping")
                return None
            match message:
                case messages.Load() if self._face is None:
                    # Nobody is served yet: load here, then open the door.
                    if self._load(message.live, message.revision):
                        self._open(open_face, address, face)
                        threading.Thread(target=self._follow, name="arbiter-loader", daemon=True).start()
                        self._send(messages.Serving(message.live.digest, message.revision))
                case messages.Load():
                    self._wanted.put(message)
                case messages.Told() | messages.Answer() | messages.Onlookers() | messages.Shown():
                    self._link.hear(message)
                case messages.Count(number):
                    self.count(number)
                case messages.Look(number):
                    self._send(messages.Looked(number, *look(self._backing.counters)))
                case messages.Stop(grace):
                    return grace

    def count(self, number: int) -> None:
        """Tell the supervisor what was counted."""
        self._send(messages.Counted(number, instruments.read(self._backing.counters, "worker")))

    def _open(self, open_face: OpenFace, address: str, face: bytes) -> None:
        """Open the door. Left by a signal half-way, it would stay open with nobody behind it."""
        told: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        self._face = open_face(self._backing, address, face, "" if self._socket is None else self._socket.address)
        if self._socket is not None:
            self._socket.publish()
        signal.signal(signal.SIGTERM, _leave)
        if told:
            sys.exit(0)

    def stop(self, grace: float) -> None:
        """Drain the server."""
        if self._socket is not None:
            self._socket.withdraw()
        if self._face is not None:
            self._face.stop(grace)

    def _follow(self) -> None:
        while True:
            load = self._wanted.get()
            while not self._wanted.empty():
                load = self._wanted.get()
            if self._load(load.live, load.revision):
                self._send(messages.Serving(load.live.digest, load.revision))

    def _load(self, live: Live, revision: int) -> bool:
        engine, counters = self._backing.engine, self._backing.counters
        digest, canary = live.digest, live.canary
        before = list(engine.snapshots.values())
        try:
            with undisturbed():
                snapshot = self._snapshot(digest)
                candidate = None
                if canary is not None:
                    candidate = Candidate(self._snapshot(canary.digest, snapshot), canary.percent, canary.salt)
                engine.activate(snapshot, candidate, live.overrides)
        except Exception as error:  # noqa: BLE001 - a thread that dies here would leave this worker behind for ever
            _log.exception("cannot serve snapshot %s", digest[:12])
            self._send(messages.Refused(revision, str(error)))
            return False
        counters.canary_digest = "" if canary is None else canary.digest
        if counters.snapshot_digest != digest:
            counters.snapshot_digest = digest
            for gone in list(counters.by_snapshot)[:-_DIGESTS]:
                del counters.by_snapshot[gone]
            counters.snapshot_at = engine.clock()
        pieces = [piece for each in before if each.digest not in engine.snapshots for piece in each.pieces()]
        before.clear()
        self._paced(self._let_go(pieces))
        return True

    @staticmethod
    def _let_go(pieces: list[object]) -> Generator[None, None, None]:
        """Free what held a snapshot that went: at once it would take as long as a slow call."""
        while pieces:
            pieces.pop()
            yield

    def _snapshot(self, digest: str, beside: Snapshot | None = None) -> Snapshot:
        """The snapshot of `digest`: one that decides now, or opened with what those, and `beside`, have of it."""
        known = self._backing.engine.snapshots
        if digest in known:
            return known[digest]
        before = beside or self._backing.engine.snapshot
        alike = [*known.values(), *([beside] if beside else ())]
        loaded = {model.digest: model for snapshot in alike for model in snapshot.known_models()}
        return self._paced(self._archive.opening(digest, loaded, before))

    def _paced(self, steps: Generator[None, None, _Found]) -> _Found:
        """Go through steps; once calls are served, with a pause after every slice of work that they may have to wait
        for.
        """
        if self._face is None:
            return finished(steps)
        while True:
            until = time.perf_counter() + SLICE_S
            try:
                while time.perf_counter() < until:
                    next(steps)
            except StopIteration as end:
                found: _Found = end.value
                return found
            time.sleep(PAUSE_S)
