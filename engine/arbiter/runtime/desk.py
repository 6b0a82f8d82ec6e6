"""What is known about snapshots: which runs, what became of the last attempt, what operators ordered.

Law: the one place that turns attempts and orders into what workers serve and people are told (status, log, counters).
No threads, no processes: its owner calls it from one thread at a time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import Diagnostic, StoreError
from arbiter.runtime.admin import Live
from arbiter.runtime.archive import counts_of
from arbiter.runtime.standing import Standing
from arbiter.serving import ReloadReport, SnapshotInfo, Status
from arbiter.telemetry.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from arbiter.runtime.archive import Archive
    from arbiter.runtime.loader import Attempt, Built
    from arbiter.runtime.standing import StandingFile
    from arbiter.serving import Cause
    from arbiter.snapshot import Snapshot

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
    """Keeps the books. `archive` (None: none is kept) learns what became current, `file` what operators ordered.

    `running` is what should decide, `beside` what should for the canary's share.
    """

    def __init__(
        self, archive: Archive | None = None, counters: Counters | None = None, file: StandingFile | None = None
    ) -> None:
        self.counters = counters or Counters()
        self.workers: dict[int, str] = {}
        self.running: Built | None = None
        self.beside: Built | None = None
        self.standing = Standing()
        self._archive = archive
        self._file = file
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

    def deciding(self) -> list[Snapshot]:
        """The snapshots that should decide: what runs, and the canary's."""
        return [built.snapshot for built in (self.running, self.beside) if built is not None]

    @property
    def status(self) -> Status:
        """How things stand."""
        standing = self.standing
        return Status(
            snapshot=self._info,
            last_reload=self._report,
            workers=dict(self.workers),
            hold=standing.hold,
            canary=standing.canary,
            overrides=standing.overrides,
            models=standing.models,
        )

    @property
    def live(self) -> Live:
        """What workers should serve."""
        return Live(digest=self.digest, canary=self.standing.canary, overrides=self.standing.overrides)

    def order(self, **changes: Any) -> None:
        """Change fields of the standing orders, on disk first. Raises StoreError, and then nothing has changed."""
        standing = msgspec.structs.replace(self.standing, **changes)
        if standing == self.standing:
            return
        if self._file is not None:
            self._file.write(standing)
        self.stand(standing)

    def over(self, **changes: Any) -> None:
        """Change fields of the standing orders that hold no longer, whether that can be written or not."""
        try:
            self.order(**changes)
        except StoreError as error:
            # A restart sees the same, and comes to the same end.
            _log.error("%s", error)
            self.stand(msgspec.structs.replace(self.standing, **changes))

    def stand(self, standing: Standing) -> None:
        """Take over standing orders as they are on disk."""
        self.standing = standing
        hold, canary, counters = standing.hold, standing.canary, self.counters
        if canary is None:
            self.beside = None
        counters.snapshot_held = hold is not None
        counters.canary_digest, counters.canary_percent = (canary.digest, canary.percent) if canary else ("", 0.0)
        counters.overrides = len(standing.overrides)
        if self._archive is not None:
            self._archive.spared = frozenset(
                {*standing.staged, *([hold.digest] if hold else ()), *([canary.digest] if canary else ())}
            )

    def record(self, attempt: Attempt, *, asked: bool = False) -> bool:
        """Note an attempt, and adopt what came of it; tells whether another snapshot is to run now.

        What was set aside is not adopted unless somebody `asked` for the files to be read.
        """
        counters = self.counters
        built = attempt.built
        found = abridged(attempt.diagnostics)
        held = built is not None and not asked and self._is_aside(built.snapshot.digest)
        changed = built is not None and not held and self._follow(built, attempt.at)
        self._report = ReloadReport(
            ok=built is not None,
            at=attempt.at,
            changed=changed,
            digest=self.digest,
            diagnostics=found,
        )
        counters.last_reload_ok = built is not None
        counters.last_reload_at = attempt.at
        counters.last_reload_mistakes = 0 if built is not None else len(attempt.diagnostics)
        counters.last_reload_fault = "author" if attempt.fault is None else type(attempt.fault).__name__
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
        if held:
            _log.warning("the files still give %s, which was set aside: %s stays", built.snapshot.digest[:12],
                         self.digest[:12])  # fmt: skip
        else:
            _log.info("loaded snapshot %s%s", self.digest[:12], "" if changed else ", as before")
        return changed

    def _is_aside(self, digest: str) -> bool:
        return self.standing.hold is not None and self.standing.hold.aside == digest

    def _follow(self, built: Built, at: int) -> bool:
        """The files lead again: what they give runs, and what stood in place of it ends."""
        changes: dict[str, Any] = {}
        if self.standing.hold is not None:
            _log.warning("the hold of %s ends: the files give %s", self.standing.hold.digest[:12],
                         built.snapshot.digest[:12])  # fmt: skip
            changes["hold"] = None
        canary = self.standing.canary
        if canary is not None and canary.digest == built.snapshot.digest:
            _log.warning("the canary %s ends: the files give it to everybody", canary.digest[:12])
            changes["canary"] = None
        held = tuple(each for each in self.standing.models if each.name in built.held)
        for each in self.standing.models:
            if each not in held:
                _log.warning("the hold of model %s, version %d, ends", each.name, each.version)
        self.over(**changes, models=held)
        return self.adopt(built, at)

    def adopt(self, built: Built, at: int, cause: Cause = "files", reason: str = "") -> bool:
        """Make `built` what should run; tells whether that is a change."""
        digest = built.snapshot.digest
        changed = digest != self.digest
        if changed:
            if self._archive is not None and not self._goes_on(digest):
                try:
                    self._archive.adopt(digest, at, cause, reason)
                except StoreError as error:
                    # It runs all the same; only a start on broken files would miss it.
                    _log.error("snapshot %s is missing in the history: %s", digest[:12], error)
            self.counters.snapshot_digest = digest
            self.counters.snapshot_at = at
        loaded_at = at if changed or self._info is None else self._info.loaded_at
        self.running = built
        self._info = SnapshotInfo(
            digest=digest, loaded_at=loaded_at, counts=counts_of(built.snapshot), files=built.files
        )
        return changed

    def _goes_on(self, digest: str) -> bool:
        """Whether this is a start on what ran when it ended: that is no turn of its own."""
        return self._info is None and self._archive is not None and self._archive.latest() == digest
