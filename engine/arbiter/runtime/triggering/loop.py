"""The loop: look at what follows from the log, write it, and again; where nothing follows, wait a little.

Law: one thread. An evaluation is written before the next one begins, so that each starts from what is stored. `beat`
goes up with every turn: whoever watches it sees that the thread lives.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.errors import LimitExceeded, StoreError
from arbiter.profiles.arrivals import arrivals_from
from arbiter.profiles.holdings import last_position
from arbiter.profiles.reached import Reached, read_reached
from arbiter.runtime.triggering.advancing import Adopt, Advance, Overtaken
from arbiter.runtime.triggering.evaluating import Evaluation, Evaluator
from arbiter.serving import TriggerFigures

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.profiles.group import Operation
    from arbiter.profiles.store import Store
    from arbiter.runtime.triggering.advancing import Advanced
    from arbiter.runtime.triggering.aside import AtWork
    from arbiter.runtime.triggering.running import Rules, Running
    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.triggers")
_POLL_S: Final = 0.005  # how often the end of the log is looked at
_GATHER_S: Final = 0.01  # between two writes at the end of the log: each waits for the disk
_BEAT_S: Final = 0.5
_KEPT_S: Final = 5.0  # after which it is written how far the log was looked at, though nothing followed
_PAUSE_S: Final = 1.0  # while the store is full
_NICE: Final = 5


class Loop:
    """Runs triggers over a store. `at_work` knows what ended the process before; `clock` gives µs since the epoch."""

    def __init__(self, store: Store, at_work: AtWork, counters: Counters, clock: Callable[[], int]) -> None:
        self.beat = 0
        self._store = store
        self._at_work = at_work
        self._counters = counters
        self._clock = clock
        self._running: Running | None = None
        self._reached = Reached()
        self._written_at = 0.0  # when it was last written how far it came, by the monotonic clock
        self._full_told = False
        self._wanted: tuple[Rules, threading.Event] | None = None
        self._stopping = threading.Event()

    # From other threads

    def take_up(self, rules: Rules) -> None:
        """Have the triggers of these run from now on; returns when they do, or when the loop is to end."""
        taken = threading.Event()
        self._wanted = rules, taken
        while not (taken.wait(_BEAT_S) or self._stopping.is_set()):
            pass

    def stop(self) -> None:
        """Write what was found, and let `run` return."""
        self._stopping.set()

    def figures(self) -> TriggerFigures:
        """What it has done, and how far behind the log it is. Raises StoreError."""
        counters, place = self._counters, self._reached.position
        triggers = 0 if self._running is None else len(self._running.rules.triggers)
        with self._store.fired.looking() as (environment, txn):
            behind = max(0, last_position(environment, txn) - place) if triggers else 0
            waits = arrivals_from(environment, txn, place + 1, place + 1) if behind else []
        counters.trigger_lag = behind
        counters.trigger_delay = max(0.0, (self._clock() - waits[0][1]) / 1e6) if waits else 0.0
        return TriggerFigures(
            triggers=triggers,
            position=place,
            lag=behind,
            lag_seconds=counters.trigger_delay,
            firings=sum(counters.trigger_firings.values()),
            passed=sum(counters.trigger_passed.values()),
            set_aside=sum(counters.trigger_set_aside.values()),
        )

    # The loop

    def run(self) -> None:
        """Go on until `stop`. Raises StoreError."""
        # Less than what answers calls; the thread that writes stays as it is, since others wait for what it holds.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        try:
            while not self._stopping.is_set():
                self.beat += 1
                self._take()
                if not self.step():
                    self._stopping.wait(_POLL_S)
        finally:
            self._leave()

    def step(self) -> bool:
        """Look at what follows, and write it; whether more may follow at once. Raises StoreError."""
        running = self._running
        if running is None:
            return False
        evaluation = self._evaluated(running)
        if evaluation is None:
            if time.monotonic() - self._written_at >= _KEPT_S:
                self._note()
            return False
        if evaluation.empty:
            self._reached = msgspec.structs.replace(self._reached, position=evaluation.position)
            return not evaluation.quiet
        try:
            self._account(running, evaluation, self._written(Advance(running, evaluation)))
        except Overtaken as error:
            _log.debug("evaluated again: %s", error)
            self._look_again()
        except LimitExceeded as error:
            if not self._full_told:
                _log.warning("triggers wait: %s", error)
            self._full_told = True
            self._stopping.wait(_PAUSE_S)
        return True

    def _evaluated(self, running: Running) -> Evaluation | None:
        began = time.perf_counter_ns()
        with self._store.fired.looking() as (environment, txn):
            evaluator = Evaluator(environment, txn, running.machine, self._reached, self._at_work)
            evaluation = evaluator.evaluate(self._clock())
        if evaluation is not None:
            self._counters.trigger_time += time.perf_counter_ns() - began
            self._counters.trigger_events += evaluation.events
        return evaluation

    def _account(self, running: Running, evaluation: Evaluation, advanced: Advanced) -> None:
        counters = self._counters
        self._reached, self._written_at, self._full_told = advanced.reached, time.monotonic(), False
        for trigger, number in advanced.fired.items():
            counters.trigger_firings[trigger] += number
        for why, number in advanced.passed.items():
            counters.trigger_passed[why] += number
        if cancelled := running.cancelled():
            counters.trigger_passed["unless"] += cancelled
        if evaluation.at_end:
            self._stopping.wait(_GATHER_S)

    def _look_again(self) -> None:
        """Go on from what is stored. Raises StoreError when another process runs triggers."""
        with self._store.fired.looking() as (environment, txn):
            stored = read_reached(environment, txn)
        if stored.since != self._reached.since:
            raise StoreError("another process runs triggers on this store: let one server alone use it")
        self._reached = stored

    def _take(self) -> None:
        """Take up what is wanted, between two evaluations."""
        if self._wanted is None:
            return
        (rules, taken), self._wanted = self._wanted, None
        self.begin(rules)
        taken.set()

    def begin(self, rules: Rules) -> None:
        """Have the triggers of these run from the next step on. Raises StoreError."""
        self._leave()
        self._reached = self._written(Adopt([(each.trigger.id, each.trigger.key) for each in rules.triggers]))
        if rules.triggers:
            self._running = rules.run(self._reached)
        else:
            _log.info("the rules have no triggers any more")
            self._at_work.forget()
            self._stopping.set()

    def _leave(self) -> None:
        """Let go of what runs."""
        if self._running is not None:
            self._note()
            self._running.machine.close()
            self._running = None

    def _note(self) -> None:
        """Write how far the log was looked at."""
        running = self._running
        if running is not None:
            nothing = Evaluation(self._reached, self._reached.position, 0, 0, {}, [])
            with contextlib.suppress(Overtaken, LimitExceeded):  # of no matter: it is looked at again
                self._written(Advance(running, nothing))
        self._written_at = time.monotonic()

    def _written(self, operation: Operation) -> Any:
        """What the operation is answered with. The disk may take its time: that is no hang."""
        future = self._store.write(operation)
        while not wait([future], _BEAT_S).done:
            self.beat += 1
        return future.result()
