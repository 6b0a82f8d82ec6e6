"""What a process counts.

Law: plain memory and nothing else, because a recorded measurement costs as much as a decision. Adding one to a name
here is the whole cost on the hot path; `publish` reads the figures when somebody asks. No OpenTelemetry, no clock, no
locks.

Adding in place to an attribute or to a `defaultdict` entry under a plain string holds no point at which CPython changes
threads, so nothing is lost between threads; a test holds that. Reading by `get` and writing back would lose some.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Totals since the process started. Times are µs since the epoch, 0 for never.

    `decisions`, `defaulted` and `canary_decisions` (those that a canary made) count by decision point (only names that
    a snapshot declares, so there are few); `errors` counts refused or failed calls by status or class name.
    """

    decisions: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    defaulted: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    canary_decisions: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    errors: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    store_writes: int = 0
    reloads_ok: int = 0
    reloads_failed: int = 0
    last_reload_ok: bool = True
    last_reload_at: int = 0
    worker_restarts: int = 0
    snapshot_digest: str = ""
    snapshot_at: int = 0
    snapshot_held: bool = False
    canary_digest: str = ""
    canary_percent: float = 0.0
    overrides: int = 0
