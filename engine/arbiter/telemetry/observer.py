"""What a transport tells of each call, for metrics and traces.

Law: knows no transport. A transport without an observer pays nothing; with one, a call that is not traced pays two
looks at the clock, a look at its metadata, and a few additions.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from arbiter.telemetry.counters import Each
from arbiter.telemetry.histogram import DURATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arbiter.telemetry.counters import Counters
    from arbiter.telemetry.tracing import Traced, Tracing

_P = ParamSpec("_P")
_R = TypeVar("_R")
_clock = time.perf_counter_ns


class Seen:
    """A call under way: its path (``/arbiter.v1.DecisionService/Decide``, only ever one that is known), when it began
    (ns of `time.perf_counter_ns`), and its span if it is traced. What a transport keeps of a call may be one itself.
    """

    __slots__ = ("began", "path", "span")

    def __init__(self, path: str) -> None:
        self.path = path
        self.began = 0
        self.span: Traced | None = None


class Observer:
    """Follows calls. Without `tracing` none is traced. Any thread may end a call that another began."""

    def __init__(self, counters: Counters, tracing: Tracing | None = None) -> None:
        self._counters = counters
        self._tracing = tracing
        # Nearly all calls end so: found by one text instead of two.
        self._well = Each[str, list[int]](lambda path: counters.calls[path, "OK"])
        counters.watched = True

    def begin(self, call: Seen, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Note that a call came."""
        call.began = _clock()
        counters, tracing = self._counters, self._tracing
        counters.in_flight += 1
        if tracing is not None and tracing.takes(metadata):
            call.span = tracing.begin(call.path, metadata)
            counters.traced += 1

    def run(self, seen: Seen, work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Return what `work` returns. What it logs and what takes time in it belongs to the call."""
        if seen.span is None or self._tracing is None:
            return work(*args, **kwargs)
        return self._tracing.within(seen.span, work, *args, **kwargs)

    def end(self, seen: Seen, status: str) -> None:
        """Note that a call is answered; `status` is a gRPC code by name. Once for each call."""
        counters = self._counters
        took = _clock() - seen.began
        durations = self._well[seen.path] if status == "OK" else counters.calls[seen.path, status]
        # This is `histogram.add`, written out: a call costs a third of it.
        durations[bisect_left(DURATIONS, took)] += 1
        durations[-1] += took
        counters.in_flight -= 1
        if seen.span is not None and self._tracing is not None:
            counters.traced -= 1
            self._tracing.end(seen.span, status)
