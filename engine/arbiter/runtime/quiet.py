"""Keeping work that takes long out of the way of work that must be quick.

Law: what the interpreter and the system let us say about it, in one place.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


# At the interpreter's own 5 ms, a thread that compiles a snapshot delays calls by that much.
SWITCH_INTERVAL_S: Final = 0.0002
# New objects until the collector looks at them. At its own 700 it looks at every batch several times, and finds that
# all is in use; what calls leave behind goes without it.
_YOUNG: Final = 20_000
_BULK: Final = 1_000_000  # the same where it is records by the ten thousand
SURVIVORS: Final = 200  # rules that the index lets through: a decision with more is not explained, calls would wait
_APART_NS: Final = 100_000  # of work between two looks whether somebody waits for the core
_LONG_NS: Final = 1_000_000  # a call is answered in less: who has the core longer does not sleep soon


def at_work() -> None:
    """Tell the interpreter, once, that this process answers calls."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(_YOUNG, 10, 10)


def in_bulk() -> None:
    """Tell the interpreter, once, that this process takes record after record through its hands, and makes no circles.

    The collector would walk all that is held again and again, for nothing: half the time of triggers that catch up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_BULK, 10, 10)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the garbage collector off: loading makes many objects and no garbage, and it would walk them all the time.

    What was made is then taken out of its sight. It is free of circles, so it goes when nobody holds it any more. What
    calls left behind before is not: it is collected first, since nobody would find it afterwards.
    """
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def step_back() -> None:
    """Let this thread run on what processor time nobody else wants, until it ends. Only Linux knows that of a thread.

    A lower priority would not do: the kernel lets a thread that runs go on for milliseconds, and calls would wait. Not
    for a process that serves: a thread that holds the interpreter and does not run holds up all the others.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


class Courtesy:
    """For one piece of work of some ms: has whoever waits for this core run first, again and again.

    The kernel does not take a core from a thread that has had it for less than its slice, 1.4 ms and more on few cores,
    and priorities change nothing of that; a thread that is woken meanwhile waits, while the other core is busy too.
    """

    __slots__ = ("_next", "ends")

    def __init__(self) -> None:
        """`ends` says that it was taken advantage of: the core was gone for long, so the machine is full, and who goes
        on giving way there gets nothing done.
        """
        self.ends = False
        self._next = time.perf_counter_ns() + _APART_NS

    def offer(self) -> None:
        """Let others run, unless they could a moment ago. It costs a µs where nobody waits."""
        if self.ends or (now := time.perf_counter_ns()) < self._next:
            return
        os.sched_yield()
        again = time.perf_counter_ns()
        self.ends = again - now > _LONG_NS
        self._next = again + _APART_NS


class Allowance:
    """Processor time that what is done beside calls may take: one part in `share`, and of what it did not take at most
    `at_once` seconds. For one thread.
    """

    __slots__ = ("_at_once", "_left", "_reckoned", "_share")

    def __init__(self, share: int, at_once: float) -> None:
        self._share = share
        self._at_once = self._left = at_once
        self._reckoned = time.monotonic()

    def is_left(self) -> bool:
        """Whether something is left of it now."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._reckoned) / self._share, self._at_once)
        self._reckoned = now
        return self._left > 0

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Take of it what this thread works while the block runs."""
        began = time.thread_time()
        try:
            yield
        finally:
            self._left -= time.thread_time() - began
