"""Looks into a decision now and then: which rules matched, and why others were unknown.

Law: beside the calls, in a thread of its own, and so little of it that it does not show (docs/decisions/0038). Of a
subject it counts nothing: rules, decision points and names of what was missing are all that it notes.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from typing import TYPE_CHECKING

from arbiter.decision.explain import explain, judge_condition
from arbiter.errors import ArbiterError
from arbiter.runtime.quiet import SURVIVORS
from arbiter.runtime.watching import Watch
from arbiter.types import ExplainLevel, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.runtime.active import Active
    from arbiter.runtime.engine import Engine
    from arbiter.runtime.messages import Noticed
    from arbiter.telemetry.counters import Counters
    from arbiter.types import Request

_log = logging.getLogger("arbiter.worker")

PERIOD_S = 1.0
RULES = 32  # that are judged in a decision beside those that the index let through
SHARE = 300  # of a processor's time one part in so many, at most


class Curiosity:
    """Asks the engine for a request every `period` seconds, or less often where looking takes long, until `close`.

    `tell` is told what models saw and said, see `runtime.watching`.
    """

    def __init__(
        self, engine: Engine, counters: Counters, tell: Callable[[Noticed], None], period: float = PERIOD_S
    ) -> None:
        self._engine = engine
        self._counters = counters
        self._watch = Watch(counters, tell)
        self._period = period
        self._taken: queue.SimpleQueue[tuple[Request, Active] | None] = queue.SimpleQueue()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arbiter-curiosity", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; waits for what it is at."""
        self._end.set()
        self._engine.look = None
        self._taken.put(None)
        self._thread.join()

    def _take(self, request: Request, active: Active) -> None:
        """In the thread of a call."""
        self._taken.put((request, active))

    def _run(self) -> None:
        pause = self._period
        while not self._end.wait(pause):
            self._engine.look = self._take
            taken = self._taken.get()
            if taken is None:
                return
            began = time.thread_time()
            try:
                self.look_into(*taken)
            except ArbiterError:
                # The store, for one: whoever asked was told, and the next one is looked into.
                _log.debug("a decision could not be looked into", exc_info=True)
            pause = max(self._period, SHARE * (time.thread_time() - began))

    def look_into(self, request: Request, active: Active) -> None:
        """Judge the rules of one of the decision points that were asked for, and count what became of them."""
        name = random.choice(request.decisions)  # noqa: S311 - no secret
        point = active.snapshot.point(name)
        view, profile = self._engine.view(request, active, point.models)
        self._watch.note(active.snapshot, view)
        if len(point.survivors(view)) > SURVIVORS:
            return
        counters = self._counters
        counters.sampled[name] += 1
        matched = explain(
            point, view, request.subject_id, request.slots, (), profile.changes, ExplainLevel.LOSERS, off=active.told
        )
        for outcome in matched:
            counters.matches[outcome.rule_id] += 1
        for rule in point.some(random.randrange(max(1, point.size)), RULES):  # noqa: S311 - as above
            if not rule.enabled:
                continue
            failed = judge_condition(rule, point, view)
            reason = "true" if failed is None else "unknown" if failed.reason is Reason.UNKNOWN else "false"
            counters.outcomes[name, reason] += 1
            for missing in () if failed is None or failed.reason is not Reason.UNKNOWN else failed.missing:
                counters.unknowns[missing] += 1
