"""The consumer's process: a store, a loop, and a pipe to the supervisor.

Law: as a worker it opens the store once, and keeps to what the snapshot declares that it is told of. A fault ends it:
another follows, and reads on from what is stored. When the pipe ends the supervisor is gone, and it ends too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.consumer.properties import BadProperties, consumer_properties, read_properties
from arbiter.consumer.reading import reader_of
from arbiter.consumer.told import Told
from arbiter.errors import ArbiterError
from arbiter.profiles.store import Store
from arbiter.runtime import messages
from arbiter.runtime.archive import Archive
from arbiter.runtime.declared import keep_to
from arbiter.runtime.keyfiles import read_secrets
from arbiter.runtime.logs import start_logging
from arbiter.runtime.settings import Settings
from arbiter.runtime.survey import follow
from arbiter.server.settings import FaceSettings
from arbiter.telemetry import instruments, publish
from arbiter.telemetry.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from arbiter.config.limits import Limits
    from arbiter.config.options import Kafka
    from arbiter.consumer.loop import Loop
    from arbiter.runtime.admin import Live

_log = logging.getLogger("arbiter.consumer")
_TOLD_EVERY_S: Final = 1.0


def check_consumer(options: Kafka) -> None:
    """Raise BadProperties for what would keep the process from starting, as far as it can be known without brokers."""
    if importlib.util.find_spec("confluent_kafka") is None:
        raise BadProperties("topics are to be read, and Kafka's client is missing: pip install 'arbiter[kafka]'")
    consumer_properties(options, _given(options))


def open_loop(options: Kafka, limits: Limits, store: Store, told: Told, clock: Callable[[], int]) -> Loop:
    """A loop that has not begun. Raises BadProperties."""
    from arbiter.consumer import aside, loop  # noqa: PLC0415 - bring confluent_kafka, which may be missing

    given = _given(options)
    asides: list[aside.Aside] = []
    if options.rejected_file:
        asides.append(aside.AsideFile(Path(options.rejected_file)))
    if options.rejected_topic:
        asides.append(aside.AsideTopic(options.rejected_topic, options.brokers, given))
    return loop.Loop(options, given, store, reader_of(options, limits, clock), asides, told)


def run_consumer(pipe: Connection, _number: int, settings: bytes) -> None:
    """Read topics until told to stop, by the pipe or by SIGTERM. The entry of a spawned process."""
    # Ctrl-C reaches the whole process group; the supervisor decides what follows from it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    chosen = msgspec.msgpack.decode(settings, type=Settings)
    start_logging(chosen.log_level.upper(), "consumer")
    try:
        _run(pipe, chosen)
    except ArbiterError as error:
        # The sentence says it all; a traceback is for faults of ours.
        _log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)


def _run(pipe: Connection, settings: Settings) -> None:
    with contextlib.ExitStack() as stack:
        counters = Counters()
        publisher = publish.start(counters, "consumer", scraped=bool(settings.metrics))
        stack.callback(publisher.shutdown)
        # Records of another feature set are rewritten by the workers.
        store = stack.enter_context(
            Store.open(
                settings.store_directory,
                limits=settings.store_limits,
                background=False,
                secrets=read_secrets(settings.profiles),
            )
        )
        follow(store, counters)
        told = Told(counters, wall_clock)
        limits = msgspec.msgpack.decode(settings.face, type=FaceSettings).limits
        loop = open_loop(settings.kafka, limits, store, told, wall_clock)
        wire = _Wire(pipe, Archive(settings.snapshots_directory), store, loop, told, counters)
        if not wire.begin():
            return
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        threading.Thread(target=wire.follow, name="arbiter-pipe", daemon=True).start()
        loop.run()
        wire.end()


class _Wire:
    """The pipe to the supervisor, and what follows from what it says."""

    def __init__(
        self, pipe: Connection, archive: Archive, store: Store, loop: Loop, told: Told, counters: Counters
    ) -> None:
        self._pipe = pipe
        self._archive = archive
        self._store = store
        self._loop = loop
        self._told = told
        self._counters = counters
        self._sending = threading.Lock()
        self._said = told.figures()
        self._fault: ArbiterError | None = None

    def begin(self) -> bool:
        """Wait for the first snapshot to keep to; whether there is one. Raises StoreError."""
        while True:
            match self._received():
                case messages.Load(live, revision):
                    self._keep_to(live, revision)
                    return True
                case None | messages.Stop():
                    return False

    def follow(self) -> None:
        """Do what the supervisor says, and tell it of what is done, until the loop is to stop. In a thread."""
        try:
            while self._told_and_heard():
                pass
        except ArbiterError as error:
            self._fault = error
        except Exception:  # noqa: BLE001 - a thread that dies here would leave a loop that nobody can end
            _log.exception("the consumer ends for a fault of its own")
            self._fault = ArbiterError("a fault of its own, see above")
        self._loop.stop()

    def end(self) -> None:
        """Tell for the last time what was done. Raises what ended the loop."""
        self._tell()
        self._send(messages.Counted(0, instruments.read(self._counters, "worker")))
        if self._fault is not None:
            raise self._fault

    def _told_and_heard(self) -> bool:
        """Whether to go on."""
        until = time.monotonic() + _TOLD_EVERY_S
        while (left := until - time.monotonic()) > 0:
            if not self._pipe.poll(left):
                continue
            match self._received():
                case messages.Load(live, revision):
                    self._keep_to(live, revision)
                case messages.Count(number):
                    self._send(messages.Counted(number, instruments.read(self._counters, "worker")))
                case messages.Stop():
                    return False
                case None:
                    _log.warning("the supervisor is gone, stopping")
                    return False
        self._tell()
        return True

    def _keep_to(self, live: Live, revision: int) -> None:
        frame = self._archive.frame(live.digest)
        beside = None if live.canary is None else self._archive.frame(live.canary.digest)
        keep_to(self._store, frame, beside)
        self._send(messages.Serving(live.digest, revision))

    def _tell(self) -> None:
        figures = self._told.figures()
        if figures != self._said:
            self._said = figures
            self._send(messages.Consumed(figures))

    def _received(self) -> messages.ToWorker | None:
        try:
            return messages.to_worker.decode(self._pipe.recv_bytes())
        except (EOFError, OSError):
            return None

    def _send(self, message: messages.ToSupervisor) -> None:
        with self._sending, contextlib.suppress(OSError):  # whoever reads the pipe finds that out
            self._pipe.send_bytes(messages.encode(message))


def _given(options: Kafka) -> dict[str, str]:
    return read_properties(Path(options.properties)) if options.properties else {}


def wall_clock() -> int:
    """µs since the epoch."""
    return time.time_ns() // 1000
