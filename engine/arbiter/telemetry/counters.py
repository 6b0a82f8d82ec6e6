"""What a process counts.

Law: plain memory and nothing else, because a recorded measurement costs as much as a decision. Adding one to a name
here is the whole cost on the hot path; `instruments` reads the figures when somebody asks. No OpenTelemetry, no clock,
no locks.

Adding in place to an attribute, to an item of a list or to a `defaultdict` entry under a plain string (or a tuple of
them) holds no point at which CPython changes threads, so nothing is lost between threads; a test holds that. Reading by
`get` and writing back would lose some.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from arbiter.profiles.figures import Figures
from arbiter.telemetry.histogram import Durations

_Key = TypeVar("_Key", bound=Hashable)
_Made = TypeVar("_Made")


class Each(dict[_Key, _Made], Generic[_Key, _Made]):
    """Makes what a key has not yet, once, whichever thread asks first: a `defaultdict` would make two, and lose one."""

    def __init__(self, make: Callable[[_Key], _Made]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: _Key) -> _Made:
        """Return what the key has from now on."""
        return self.setdefault(key, self._make(key))


def _counts() -> defaultdict[str, int]:
    return defaultdict(int)


def _pairs() -> defaultdict[tuple[str, str], int]:
    return defaultdict(int)


@dataclass(slots=True)
class Model:
    """What running one model took: `rows` in `runs`, and how many runs failed. `time` is ns."""

    runs: int = 0
    rows: int = 0
    time: int = 0
    failures: int = 0


@dataclass(slots=True)
class Counters:
    """Totals since the process started. Times are µs since the epoch, 0 for never; durations are ns.

    `watched` says that somebody reads durations, and that clocks are worth reading; `traced` is how many calls under
    way have a span. `sources` are called before anybody reads: they fill in what is only worth looking up then.
    """

    watched: bool = False
    traced: int = 0
    sources: list[Callable[[], None]] = field(default_factory=list)

    # Calls: durations by path and status, refusals by what was full, errors by status.
    # `in_flight` are those that who answers them counts here, `under_way` tell of those that he counts for himself.
    calls: Each[tuple[str, str], Durations] = field(default_factory=lambda: Each(lambda _: Durations()))
    in_flight: int = 0
    under_way: list[Callable[[], int]] = field(default_factory=list)
    decide_streams: int = 0  # that are open
    shed: defaultdict[str, int] = field(default_factory=_counts)
    errors: defaultdict[str, int] = field(default_factory=_counts)

    # Decisions, by decision point: only names that a snapshot declares, so there are few. `degraded` counts by model
    # and cause, `by_snapshot` by digest.
    decisions: defaultdict[str, int] = field(default_factory=_counts)
    defaulted: defaultdict[str, int] = field(default_factory=_counts)
    canary_decisions: defaultdict[str, int] = field(default_factory=_counts)
    durations: Each[str, Durations] = field(default_factory=lambda: Each(lambda _: Durations()))
    degraded: defaultdict[tuple[str, str], int] = field(default_factory=_pairs)
    by_snapshot: defaultdict[str, int] = field(default_factory=_counts)

    # Rules. `wins` counts every one, by rule; the rest is of decisions that were looked into, see `runtime.sampling`:
    # `sampled` by decision point, `matches` by rule, `outcomes` by decision point and reason, `unknowns` by what was
    # missing.
    wins: defaultdict[str, int] = field(default_factory=_counts)
    sampled: defaultdict[str, int] = field(default_factory=_counts)
    matches: defaultdict[str, int] = field(default_factory=_counts)
    outcomes: defaultdict[tuple[str, str], int] = field(default_factory=_pairs)
    unknowns: defaultdict[str, int] = field(default_factory=_counts)

    models: Each[tuple[str, str], Model] = field(default_factory=lambda: Each(lambda _: Model()))
    # Of decisions that were looked into: by model, version, field and bin of training; and each field's last window.
    model_values: defaultdict[tuple[str, str, str, str], int] = field(default_factory=lambda: defaultdict(int))
    model_drift: dict[tuple[str, str, str], float] = field(default_factory=dict)
    model_alarms: dict[tuple[str, str, str], int] = field(default_factory=dict)
    reused: int = 0  # treatments that were serialised already when an answer took them,
    rendered: int = 0  # and those that were not

    store: Figures = field(default_factory=Figures)
    store_writes: int = 0

    # The consumer of Kafka's topics: messages by what became of them, those not read by topic and partition, errors by
    # kind, and which limit it waits for.
    consumed: defaultdict[str, int] = field(default_factory=_counts)
    consumer_lags: dict[tuple[str, str], int] = field(default_factory=dict)
    consumer_errors: defaultdict[str, int] = field(default_factory=_counts)
    consumer_paused: str = ""
    consumer_restarts: int = 0

    # Triggers, counted by the process that runs them: events looked at and the ns that took, firings by trigger, what
    # did not fire by reason, errors that were set aside by kind; how far behind the log it is, in events and seconds.
    trigger_events: int = 0
    trigger_time: int = 0
    trigger_firings: defaultdict[str, int] = field(default_factory=_counts)
    trigger_passed: defaultdict[str, int] = field(default_factory=_counts)
    trigger_set_aside: defaultdict[str, int] = field(default_factory=_counts)
    trigger_lag: int = 0
    trigger_delay: float = 0.0
    trigger_restarts: int = 0
    followers: int = 0  # streams that a worker serves with firings,
    firings_told: int = 0  # and how many it sent over them
    # The log of decisions: whether there is one, rows on disk and those that were lost, by what for; what keeps it from
    # going on; and what the process beside it has made of them.
    logs: bool = False
    log_rows: int = 0
    log_dropped: defaultdict[str, int] = field(default_factory=_counts)
    log_error: str = ""
    log_kept: int = 0
    log_size: int = 0
    log_lag_s: float = 0.0
    log_restarts: int = 0
    guardrail_looks: int = 0
    guardrail_pauses: int = 0

    reloads_ok: int = 0
    reloads_failed: int = 0
    last_reload_ok: bool = True
    last_reload_at: int = 0
    last_reload_mistakes: int = 0
    last_reload_fault: str = ""
    worker_restarts: int = 0
    workers_serving: int = 0
    snapshot_digest: str = ""
    snapshot_at: int = 0
    snapshot_held: bool = False
    canary_digest: str = ""
    canary_percent: float = 0.0
    overrides: int = 0

    @property
    def active(self) -> int:
        """How many calls are under way."""
        return self.in_flight + sum(each() for each in self.under_way)

    def refresh(self) -> None:
        """Have the sources fill in what they know."""
        for source in self.sources:
            source()
