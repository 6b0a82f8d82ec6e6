"""The consumer's process: a store, a loop, and a pipe to the supervisor.

Law: as a worker it opens the store once, and keeps to what the snapshot declares that it is told of. A fault ends it:
another follows, and reads on from what is stored. When the pipe ends the supervisor is gone, and it ends too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from arbiter.consumer.properties import BadProperties, consumer_properties, read_properties
from arbiter.consumer.reading import reader_of
from arbiter.consumer.told import Told
from arbiter.runtime import messages
from arbiter.runtime.archive import Archive
from arbiter.runtime.beside import Beside
from arbiter.runtime.declared import keep_to
from arbiter.runtime.engine import wall_clock
from arbiter.runtime.entry import enter
from arbiter.runtime.storing import open_store
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
    from arbiter.profiles.store import Store
    from arbiter.runtime.admin import Live
    from arbiter.runtime.settings import Settings


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
    enter("consumer", settings, lambda chosen: _run(pipe, chosen))


def _run(pipe: Connection, settings: Settings) -> None:
    with contextlib.ExitStack() as stack:
        counters = Counters()
        publisher = publish.start(counters, "consumer", scraped=bool(settings.metrics))
        stack.callback(publisher.shutdown)
        store = stack.enter_context(open_store(settings))
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
