"""What is known about snapshots: which runs, what became of the last attempt, what each worker serves.

Law: the one place that turns attempts into what people are told (status, log, counters). No threads, no processes: its
owner calls it from one thread at a time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from arbiter.errors import Diagnostic, StoreError
from arbiter.runtime.admin import ReloadReport, SnapshotInfo, Status
from arbiter.runtime.archive import counts_of
from arbiter.telemetry.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.runtime.archive import Archive
    from arbiter.runtime.loader import Attempt, Built

_log = logging.getLogger("arbiter.reload")

_MOST_TOLD = 100


def abridged(found: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The first hundred, errors before warnings, and how many more there are: nobody reads thousands of them."""
    if len(found) <= _MOST_TOLD:
        return tuple(found)
    ranked = sorted(found, key=lambda each: each.severity)  # `error` stands before `warning`
    more = len(found) - _MOST_TOLD
    rest = Diagnostic(file="…", message=f"and {more:,} more", severity=ranked[_MOST_TOLD].severity)
    return (*sorted(ranked[:_MOST_TOLD]), rest)


class Desk:
    """Keeps the books. `archive` (None: none is kept) learns what became current."""

    def __init__(self, archive: Archive | None = None, counters: Counters | None = None) -> None:
        self.counters = counters or Counters()
        self.workers: dict[int, str] = {}
        self._archive = archive
        self._info: SnapshotInfo | None = None
        self._report: ReloadReport | None = None

    @property
    def digest(self) -> str:
        """The digest of what should run now, ``""`` before the first."""
        return "" if self._info is None else self._info.digest

    @property
    def loaded_at(self) -> int:
        """Since when that runs, in µs since the epoch; 0 before the first."""
        return 0 if self._info is None else self._info.loaded_at

    @property
    def status(self) -> Status:
        """How things stand."""
        return Status(snapshot=self._info, last_reload=self._report, workers=dict(self.workers))

    def record(self, attempt: Attempt) -> bool:
        """Note an attempt, and adopt what came of it; tells whether another snapshot is to run now."""
        counters = self.counters
        built = attempt.built
        found = abridged(attempt.diagnostics)
        changed = built is not None and self.adopt(built, attempt.at)
        self._report = ReloadReport(
            ok=built is not None,
            at=attempt.at,
            changed=changed,
            digest=self.digest,
            diagnostics=found,
        )
        counters.last_reload_ok = built is not None
        counters.last_reload_at = attempt.at
        if built is None:
            counters.reloads_failed += 1
            _log.error(
                "rejected, nothing changes, snapshot %s stays\n%s",
                self.digest[:12] or "(none)",
                "\n".join(each.render() for each in found),
                extra={"snapshot": self.digest, "diagnostics": found},
            )
            return False
        counters.reloads_ok += 1
        for each in found:
            _log.warning("%s", each.render())
        _log.info("loaded snapshot %s%s", self.digest[:12], "" if changed else ", as before")
        return changed

    def adopt(self, built: Built, at: int) -> bool:
        """Make `built` what should run; tells whether that is a change."""
        changed = built.snapshot.digest != self.digest
        if changed:
            if self._archive is not None:
                try:
                    self._archive.adopt(built.snapshot.digest, at)
                except StoreError as error:
                    # It runs all the same; only a start on broken files would miss it.
                    _log.error("snapshot %s is missing in the history: %s", built.snapshot.digest[:12], error)
            self.counters.snapshot_digest = built.snapshot.digest
            self.counters.snapshot_at = at
        loaded_at = at if changed or self._info is None else self._info.loaded_at
        self._info = SnapshotInfo(
            digest=built.snapshot.digest, loaded_at=loaded_at, counts=counts_of(built.snapshot), files=built.files
        )
        return changed
