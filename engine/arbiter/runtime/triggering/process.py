"""The process that runs triggers: a store, the rules that are live, a loop, and a pipe to the supervisor.

Law: a fault ends it, and another follows, which goes on from what is stored. Only here is the correlating engine
loaded. Where the rules have no triggers any more it writes that down and ends.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from arbiter.runtime import messages
from arbiter.runtime.entry import enter

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from arbiter.runtime.settings import Settings


def run_triggers(pipe: Connection, _number: int, settings: bytes) -> None:
    """Run triggers until told to stop, by the pipe or by SIGTERM. The entry of a spawned process."""
    enter("triggers", settings, lambda chosen: _run(pipe, chosen))


def _run(pipe: Connection, settings: Settings) -> None:
    # Loaded here: the supervisor imports this module, and is to hold none of it.
    from arbiter.runtime.archive import Archive  # noqa: PLC0415 - as above, as are the next
    from arbiter.runtime.beside import Beside  # noqa: PLC0415
    from arbiter.runtime.engine import Engine, wall_clock  # noqa: PLC0415
    from arbiter.runtime.quiet import in_bulk  # noqa: PLC0415
    from arbiter.runtime.storing import open_store  # noqa: PLC0415
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
        store = stack.enter_context(open_store(settings))
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
        in_bulk()
        loop.run()
        beside.end()
