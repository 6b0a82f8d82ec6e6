"""The process beside the workers that keeps the decision log: makes Parquet, lets go of what is old or erased, looks at
guardrails.

Law: one process at a time, with a low priority, started anew when it dies; killed at any moment it leaves the log such
that the next one goes on. What goes wrong is told and tried again, and is no matter to who decides. At the end of a
server it makes Parquet of what the workers left.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.errors import ArbiterError
from arbiter.runtime.admin import PauseExperiment
from arbiter.runtime.guardrails import Breach, Lookout
from arbiter.runtime.logs import start_logging
from arbiter.runtime.quiet import in_bulk
from arbiter.runtime.settings import Settings
from arbiter.runtime.spool import MIB, segments
from arbiter.runtime.storing import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from arbiter.profiles.store import Store
    from arbiter.runtime.admin import Admin
    from arbiter.runtime.settings import NoteOrder
    from arbiter.telemetry.counters import Counters

    Pause = Callable[[Breach], None]

_log = logging.getLogger("arbiter.log")

_ROUND_S: Final = 1.0
_FIRST_S: Final = 5.0  # after a start, before the first look at who was erased
_HOUR_S: Final = 3600.0
_DAY: Final = 24 * 3600 * 1_000_000
_SHORTEST_S, _LONGEST_S = 1.0, 60.0  # before it is started again
_END_S: Final = 30.0  # for what is left at the end
_KINDLY: Final = 10


class NoParquet(ArbiterError):
    """The log needs pyarrow, which is not there."""


class Kept(msgspec.Struct, frozen=True):
    """What the process has done: rows in Parquet, rows taken out for erased subjects, the bytes of the log, how many
    seconds old the oldest segment is, what goes wrong, empty for nothing, the experiments that are to pause,
    and how often it looked for these.
    """

    rows: int = 0
    erased: int = 0
    size: int = 0
    lag_s: float = 0.0
    error: str = ""
    breaches: tuple[Breach, ...] = ()
    looks: int = 0


def check_log(settings: Settings) -> None:
    """Raise NoParquet when decisions are to be logged and cannot be."""
    if settings.decision_log.directory and importlib.util.find_spec("pyarrow") is None:
        raise NoParquet(
            "decision_log.directory is given, and Parquet needs pyarrow, which is not installed: "
            "pip install 'arbiter[parquet]', or leave the option out"
        )


@contextlib.contextmanager
def keeping(settings: Settings, counters: Counters, admin: Admin, note: NoteOrder) -> Iterator[None]:
    """While the block runs, the process runs, if there is a log. Its figures are put into `counters`, and `admin` is
    asked to pause experiments whose guardrails broke, of which `note` makes a line of the audit log.
    """
    if not settings.decision_log.directory:
        yield
        return
    ended = threading.Event()
    pause = functools.partial(_pause, settings, counters, admin, note)
    thread = threading.Thread(
        target=_go_round, args=(settings, counters, pause, ended), name="arbiter-log", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _go_round(settings: Settings, counters: Counters, pause_one: Pause, ended: threading.Event) -> None:
    context = multiprocessing.get_context("spawn")
    encoded, pause = msgspec.msgpack.encode(settings), _SHORTEST_S
    while not ended.is_set():
        ours, theirs = context.Pipe()
        process = context.Process(target=run_keeper, args=(theirs, encoded), name="arbiter-log", daemon=True)
        process.start()
        theirs.close()
        began = time.monotonic()
        _follow(ours, counters, pause_one, ended)
        if ended.is_set():
            with contextlib.suppress(OSError):
                ours.send_bytes(b"")
            process.join(_END_S)
            if process.is_alive():
                _log.error("what is left of the decision log becomes Parquet at the next start: it took too long")
                process.kill()
        process.join()
        ours.close()
        if ended.is_set():
            return
        pause = _SHORTEST_S if time.monotonic() - began > _LONGEST_S else min(2 * pause, _LONGEST_S)
        counters.log_restarts += 1
        _log.error("the process of the decision log ended with exit code %s, and is started again in %.0f s",
                   process.exitcode, pause)  # fmt: skip
        ended.wait(pause)


def _follow(pipe: Connection, counters: Counters, pause: Pause, ended: threading.Event) -> None:
    """Take its figures until it ends, or is to end."""
    before, looked = counters.log_kept, counters.guardrail_looks
    with contextlib.suppress(EOFError, OSError):
        while not ended.is_set():
            if pipe.poll(0.2):
                kept = msgspec.msgpack.decode(pipe.recv_bytes(), type=Kept)
                counters.log_kept = before + kept.rows
                counters.log_size, counters.log_lag_s, counters.log_error = kept.size, kept.lag_s, kept.error
                counters.guardrail_looks = looked + kept.looks
                for breach in kept.breaches:
                    pause(breach)


def _pause(settings: Settings, counters: Counters, admin: Admin, note: NoteOrder, breach: Breach) -> None:
    """Have the experiment paused on every worker. What fails is found again at the next look."""
    failed: ArbiterError | None = None
    try:
        status = admin.carry_out(PauseExperiment(name=breach.experiment, since=breach.since, reason=breach.reason))
    except ArbiterError as error:
        _log.error("experiment `%s` is to pause, and that failed, which is tried again: %s (%s)",
                   breach.experiment, error, breach.reason)  # fmt: skip
        failed = error
    else:
        if not any(each.kind == "experiment" and each.reason == breach.reason for each in status.overrides):
            return  # an operator was quicker
        counters.guardrail_pauses += 1
    try:
        note(settings.face, breach.experiment, breach.reason, failed)
    except ArbiterError as error:
        _log.error("%s", error)


def run_keeper(pipe: Connection, encoded: bytes) -> None:
    """Keep the log until told to end by the pipe, or until that is cut. The entry of a spawned process."""
    # Ctrl-C and SIGTERM may reach the whole group: the supervisor says when the workers have written their last.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_KINDLY)
    in_bulk()
    settings = msgspec.msgpack.decode(encoded, type=Settings)
    start_logging(settings.log_level.upper(), "decision log")
    with contextlib.ExitStack() as stack:
        keeper = Keeper(settings, lambda: stack.enter_context(open_store(settings)))
        with contextlib.suppress(EOFError, OSError):
            while not pipe.poll(_ROUND_S):
                pipe.send_bytes(msgspec.msgpack.encode(keeper.round()))
        keeper.round(last=True)


class Keeper:
    """Keeps the log of these settings, a round at a time. `open_store` gives the store that knows who was erased."""

    def __init__(self, settings: Settings, open_store: Callable[[], Store]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - an extra, as is the next

        from arbiter.runtime import logfiles  # noqa: PLC0415

        # One processor is enough for us, and the others have better to do.
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        self._files = logfiles
        self._arrow = pa.ArrowException
        self._open_store = open_store
        options = settings.decision_log
        self._directory = Path(options.directory)
        self._spare = options.spare_mib * MIB
        self._most = options.keep_mib * MIB
        self._keep = round(options.keep_days * _DAY) or None
        # What is erased is to leave the disk within these hours, and goes half as long after it at the latest.
        self._erase_every = min(settings.profiles.compact_hours or 1.0, 1.0) * _HOUR_S / 4
        # A row may wait in a worker, and then in a segment, for so long before a round meets it.
        self._settling = 2 * options.flush_seconds + options.rotate_seconds + self._erase_every
        self._erase_at = time.monotonic() + _FIRST_S
        self._met: dict[str, float] = {}
        self._store: Store | None = None
        self._rows = self._erased = self._looks = 0
        self._finished = False
        self._error = self._blind = ""
        self._lookout = Lookout(settings)

    def round(self, *, last: bool = False) -> Kept:
        """Do what there is to be done, and tell; in the `last` one nobody waits for guardrails."""
        try:
            self._work()
        except (OSError, ArbiterError, self._arrow) as error:
            if str(error) != self._error:
                _log.error("the decision log is not kept, and that is tried again: %s", error)
            self._error = str(error)
        else:
            if self._error:
                _log.warning("the decision log is kept again")
            self._error = ""
        breaches = () if last else self._breaches()
        return Kept(self._rows, self._erased, self._size(), self._lag(), self._error or self._blind, breaches,
                    self._looks)  # fmt: skip

    def _breaches(self) -> tuple[Breach, ...]:
        """The experiments that are to pause, when it is time to look."""
        try:
            found = self._lookout.breaches(self._directory)
        except (OSError, ArbiterError, self._arrow) as error:
            said = f"guardrails are not looked at, and that is tried again: {error}"
            if said != self._blind:
                _log.error("%s", said)
            self._blind = said
            return ()
        if found is None:
            return ()
        self._blind = ""
        self._looks += 1
        return found

    def _work(self) -> None:
        files = self._files
        if not self._finished:
            files.finish(self._directory)
            self._finished = True
        made = files.convert(self._directory, self._spare, self._met.keys())
        self._rows += made.rows
        self._erased += made.erased
        oldest = None if self._keep is None else time.time_ns() // 1000 - self._keep
        files.retain(self._directory, oldest=oldest, most=self._most)
        if time.monotonic() >= self._erase_at:
            self._erase()
            self._erase_at = time.monotonic() + self._erase_every

    def _erase(self) -> None:
        """Take the rows of the erased out of the files; know no more of those that can have none any longer."""
        if self._store is None:
            self._store = self._open_store()
        now, listed = time.monotonic(), {each.hex() for each in self._store.unlinked()}
        self._met = {each: self._met.get(each, now) for each in listed}
        if not listed:
            return
        self._erased += self._files.rewrite(self._directory, self._spare, listed)
        settled = [bytes.fromhex(each) for each, met in self._met.items() if now - met >= self._settling]
        if settled:
            self._store.forget(settled).result()

    def _size(self) -> int:
        try:
            return self._files.size_of(self._directory)
        except OSError:
            return 0

    def _lag(self) -> float:
        """How old the oldest segment is, in seconds."""
        waiting = segments(self._directory)
        began = int(waiting[0].name.split("-")[0]) if waiting else 0
        return max(0.0, time.time() - began / 1e6) if began else 0.0
