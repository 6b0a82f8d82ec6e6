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
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from arbiter.consumer.properties import BadProperties, consumer_properties, read_properties
from arbiter.consumer.reading import reader_of
from arbiter.consumer.told import Told
from arbiter.errors import ArbiterError
from arbiter.profiles.store import Store
from arbiter.runtime import messages
from arbiter.runtime.archive import Archive
from arbiter.runtime.beside import Beside
from arbiter.runtime.declared import keep_to
from arbiter.runtime.keyfiles import read_secrets
from arbiter.runtime.logs import start_logging
from arbiter.runtime.settings import Settings
from arbiter.runtime.survey import follow
from arbiter.server.settings import FaceSettings
from arbiter.telemetry import publish
from arbiter.telemetry.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from arbiter.config.limits import Limits
    from arbiter.config.options import Kafka
    from arbiter.consumer.loop import Loop
    from arbiter.runtime.admin import Live

_log = logging.getLogger("arbiter.consumer")


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
        archive = Archive(settings.snapshots_directory)

        def keep(live: Live) -> None:
            frame = archive.frame(live.digest)
            keep_to(store, frame, None if live.canary is None else archive.frame(live.canary.digest))

        beside = Beside(pipe, counters, keep_to=keep, told=lambda: messages.Consumed(told.figures()), stop=loop.stop)
        load = beside.first()
        if load is None:
            return
        beside.take_up(load)
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        beside.follow()
        loop.run()
        beside.end()


def _given(options: Kafka) -> dict[str, str]:
    return read_properties(Path(options.properties)) if options.properties else {}


def wall_clock() -> int:
    """µs since the epoch."""
    return time.time_ns() // 1000
