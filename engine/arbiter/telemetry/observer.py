"""What a transport tells of each call, for metrics and traces.

Law: knows no transport. A transport without an observer pays nothing; with one, a call that is not traced pays two
looks at the clock, a look at its metadata, and an append. A transport to which the calls of functions are too dear does
these itself, with `takes`, `trace`, `well` and `ended` (docs/decisions/0122).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from arbiter.telemetry.counters import Each
from arbiter.telemetry.histogram import Durations

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
    """Follows calls. Without `tracing` none is traced. Any thread may end a call that another began.

    `well` are the durations of calls that end OK, by path. `takes` says of a call's metadata whether it is traced, None
    that none is.
    """

    def __init__(self, counters: Counters, tracing: Tracing | None = None) -> None:
        self._counters = counters
        self._tracing = tracing
        self.takes = None if tracing is None else tracing.takes
        # Nearly all calls end so: found by one text instead of two.
        self.well = Each[str, Durations](lambda path: counters.calls[path, "OK"])
        counters.watched = True

    def counts(self, under_way: Callable[[], int]) -> None:
        """Ask who begins and ends calls himself how many of them are under way, whenever somebody reads."""
        self._counters.under_way.append(under_way)

    def begin(self, call: Seen, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Note that a call came."""
        call.began = _clock()
        self._counters.in_flight += 1
        if self.takes is not None and self.takes(metadata):
            self.trace(call, metadata)

    def trace(self, call: Seen, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Begin the span of a call."""
        if self._tracing is not None:
            call.span = self._tracing.begin(call.path, metadata)
            self._counters.traced += 1

    def run(self, seen: Seen, work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Return what `work` returns. What it logs and what takes time in it belongs to the call."""
        if seen.span is None or self._tracing is None:
            return work(*args, **kwargs)
        return self._tracing.within(seen.span, work, *args, **kwargs)

    def end(self, seen: Seen, status: str) -> None:
        """Note that a call is answered that was begun by `begin`; `status` is a gRPC code by name. Once for each."""
        self._counters.in_flight -= 1
        self.ended(seen, status)

    def ended(self, seen: Seen, status: str) -> None:
        """As `end`, of a call that whoever answers it began, and counts, himself."""
        took, counters = _clock() - seen.began, self._counters
        (self.well[seen.path] if status == "OK" else counters.calls[seen.path, status]).add(took)
        if seen.span is not None and self._tracing is not None:
            counters.traced -= 1
            self._tracing.end(seen.span, status)
