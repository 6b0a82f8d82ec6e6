"""What a transport tells of each call, for metrics and traces.

Law: knows no transport. A transport without an observer pays nothing; with one, a call that is not traced pays two
looks at the clock, a look at its metadata, and a few additions.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from arbiter.telemetry.histogram import DURATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.trace import Span

    from arbiter.telemetry.counters import Counters
    from arbiter.telemetry.tracing import Tracing

_P = ParamSpec("_P")
_R = TypeVar("_R")
_clock = time.perf_counter_ns


class Seen:
    """A call under way: its path, when it began (ns of `time.perf_counter_ns`), and its span if it is traced."""

    __slots__ = ("began", "path", "span")

    def __init__(self, path: str, began: int, span: Span | None) -> None:
        self.path = path
        self.began = began
        self.span = span


class Observer:
    """Follows calls. Without `tracing` none is traced. Any thread may end a call that another began."""

    def __init__(self, counters: Counters, tracing: Tracing | None = None) -> None:
        self._counters = counters
        self._tracing = tracing
        counters.watched = True

    def begin(self, path: str, metadata: Iterable[tuple[str, str | bytes]]) -> Seen:
        """Note that a call of `path` came: ``/arbiter.v1.DecisionService/Decide``, only ever one that is known."""
        counters = self._counters
        counters.in_flight += 1
        if self._tracing is None:
            return Seen(path, _clock(), None)
        began = _clock()
        span = self._tracing.begin(path, metadata)
        if span is not None:
            counters.traced += 1
        return Seen(path, began, span)

    def run(self, seen: Seen, work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Return what `work` returns. What it logs and what takes time in it belongs to the call."""
        if seen.span is None or self._tracing is None:
            return work(*args, **kwargs)
        return self._tracing.within(seen.span, work, *args, **kwargs)

    def end(self, seen: Seen, status: str) -> None:
        """Note that a call is answered; `status` is a gRPC code by name. Once for each call."""
        counters = self._counters
        took = _clock() - seen.began
        durations = counters.calls[seen.path, status]
        # This is `histogram.add`, written out: a call costs a third of it.
        durations[bisect_left(DURATIONS, took)] += 1
        durations[-1] += took
        counters.in_flight -= 1
        if seen.span is not None and self._tracing is not None:
            counters.traced -= 1
            self._tracing.end(seen.span, status)
