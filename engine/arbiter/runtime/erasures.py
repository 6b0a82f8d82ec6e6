"""What was erased leaves the disk in time: now and then a process of its own compacts the store, if there is cause.

Law: one process at a time, beside the workers, which know nothing of it. The supervisor never opens the store. Killed
at any moment, the process leaves the store as it was, and the next one begins anew.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from arbiter.errors import StoreError
from arbiter.profiles.compaction import compact_if_erased
from arbiter.runtime.doubts import FATAL
from arbiter.runtime.logs import start_logging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arbiter.runtime.settings import Settings

_log = logging.getLogger("arbiter.compaction")
_HOUR_S = 3600.0
_FIRST_S = 60.0  # at the latest, after a start: what was erased before it waits already
_KINDLY = 10


@contextmanager
def compacting(settings: Settings, suspect: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, see to it that what is erased leaves the disk within `profiles.compact_hours`.

    `suspect` is told, from another thread, of a compaction that died as one does over a damaged page.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_go_round, args=(settings, suspect, ended), name="arbiter-compaction", daemon=True)
    if settings.profiles.compact_hours:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()


def _go_round(settings: Settings, suspect: Callable[[str], None], ended: threading.Event) -> None:
    # Twice in that time: what is erased just after a look is gone half of it later, and the compaction's time.
    every = settings.profiles.compact_hours * _HOUR_S / 2
    pause = min(every, _FIRST_S)
    while not ended.wait(pause):
        pause = every
        process = multiprocessing.get_context("spawn").Process(
            target=_compact, args=(str(settings.store_directory), settings.log_level.upper()), daemon=True
        )
        process.start()
        while process.is_alive() and not ended.is_set():
            process.join(0.2)
        if process.is_alive():
            process.kill()
            process.join()
        elif process.exitcode in FATAL:
            suspect("a compaction may have died over it")


def _compact(path: str, level: str) -> None:
    """The entry of the spawned process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the supervisor ends us
    os.nice(_KINDLY)
    start_logging(level, "compaction")
    try:
        done = compact_if_erased(Path(path))
    except StoreError as error:
        _log.error("what was erased is still on the disk, and is tried again: %s", error)
        return
    if done is not None:
        _log.info(
            "the store in %s is compacted into its generation %d: %d bytes before, %d now; writes waited %.0f ms%s",
            path, done.generation, done.bytes_before, done.bytes_after, done.waited_s * 1e3,
            ", and a process has not left the old one yet" if done.held_open else "",
        )  # fmt: skip
