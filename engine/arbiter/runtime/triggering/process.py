"""The process that runs triggers: a store, the rules that are live, a loop, and a pipe to the supervisor.

Law: a fault ends it, and another follows, which goes on from what is stored. Only here is the correlating engine
loaded. Where the rules have no triggers any more it writes that down and ends.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import ArbiterError
from arbiter.runtime import messages
from arbiter.runtime.logs import start_logging
from arbiter.runtime.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_log = logging.getLogger("arbiter.triggers")
_SECOND = 1_000_000


def run_triggers(pipe: Connection, _number: int, settings: bytes) -> None:
    """Run triggers until told to stop, by the pipe or by SIGTERM. The entry of a spawned process."""
    # Ctrl-C reaches the whole process group; the supervisor decides what follows from it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    chosen = msgspec.msgpack.decode(settings, type=Settings)
    start_logging(chosen.log_level.upper(), "triggers")
    try:
        _run(pipe, chosen)
    except ArbiterError as error:
        # The sentence says it all; a traceback is for faults of ours.
        _log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)


def _run(pipe: Connection, settings: Settings) -> None:
    # Loaded here: the supervisor imports this module, and is to hold none of it.
    from arbiter.profiles.store import Store  # noqa: PLC0415 - as above, as are the next
    from arbiter.runtime.archive import Archive  # noqa: PLC0415
    from arbiter.runtime.beside import Beside  # noqa: PLC0415
    from arbiter.runtime.engine import Engine, wall_clock  # noqa: PLC0415
    from arbiter.runtime.keyfiles import read_secrets  # noqa: PLC0415
    from arbiter.runtime.survey import follow  # noqa: PLC0415
    from arbiter.runtime.triggering.aside import AtWork  # noqa: PLC0415
    from arbiter.runtime.triggering.loading import opened  # noqa: PLC0415
    from arbiter.runtime.triggering.loop import Loop  # noqa: PLC0415
    from arbiter.telemetry import publish  # noqa: PLC0415
    from arbiter.telemetry.counters import Counters  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        counters = Counters()
        publisher = publish.start(counters, "triggers", scraped=bool(settings.metrics))
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
        engine, archive = Engine(store, counters=counters), Archive(settings.snapshots_directory)
        loop = Loop(store, AtWork(settings.triggers_file, counters), counters, wall_clock)
        beside = Beside(
            pipe,
            counters,
            keep_to=lambda live: loop.take_up(opened(live, archive, engine, settings.triggers)),
            told=lambda: messages.Triggered(loop.figures(), loop.beat),
            stop=loop.stop,
        )
        load = beside.first()
        if load is None:
            return
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        beside.follow(load)
        loop.run()
        beside.end()
