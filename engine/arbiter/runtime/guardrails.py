"""Guardrails, looked at in the process that keeps the log: which experiments are to pause, and why.

Law: reads the log, the snapshot that is current, the canary's and what operators ordered, and says what it finds; it
orders nothing. What the canary alone declares is judged by what the canary decided.
What decided before an experiment was switched on again counts no more. Looks cost a tenth of the process' time at most.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import shutil
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from arbiter.errors import ArbiterError, Diagnostic, StoreError
from arbiter.runtime.archive import Archive
from arbiter.runtime.standing import StandingFile

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

    from arbiter.learning.report.terms import Design
    from arbiter.ruleset.experiments.terms import Experiment, Guardrail
    from arbiter.ruleset.rules import Ruleset
    from arbiter.ruleset.terms import Metric
    from arbiter.runtime.settings import Settings

    Limit = tuple[str, Guardrail, tuple[str, int, str]]

_log = logging.getLogger("arbiter.log")

_MEMORY_MIB: Final = 256
_FRAMES: Final = 50  # rule sets that are remembered
_REST: Final = 10  # a look is followed by so many times as long without one


class Breach(msgspec.Struct, frozen=True):
    """That an experiment is to pause, for what `reason` says, by decisions from `since` on (µs since the epoch)."""

    experiment: str
    since: int
    reason: str


class Watched(NamedTuple):
    """An experiment with the guardrails that are looked at, and the metrics that they name: in all decisions, or in
    those by one `snapshot`.
    """

    experiment: Experiment
    metrics: dict[str, Metric]
    snapshot: str = ""

    @property
    def limits(self) -> Iterator[Limit]:
        """Its guardrails, each with whose it is, and its metric as far as that says what is counted."""
        for each in self.experiment.guardrails:
            metric = self.metrics[each.metric]
            yield self.experiment.name, each, (metric.outcome, metric.within, metric.take)


class NoDuckDB(ArbiterError):
    """Guardrails need DuckDB, which is not there."""


class Lookout:
    """Looks at the guardrails of a server with these settings, when it is time to."""

    def __init__(self, settings: Settings) -> None:
        options = settings.decision_log
        self._every = options.guardrail_seconds
        # What came in time is in Parquet so much later: only then is a figure settled.
        self._lag = round((options.rotate_seconds + 2 * options.flush_seconds) * 1e6)
        self._spill = settings.data_directory / "guardrails.tmp"
        self._archive = Archive(settings.snapshots_directory, settings.snapshots)
        self._standing = StandingFile(settings.data_directory)
        self._frames: dict[str, Ruleset] = {}
        self._next = time.monotonic() + self._every

    def breaches(self, log: Path) -> tuple[Breach, ...] | None:
        """The experiments that are to pause; None when it is not time to look. Raises OSError, ArbiterError."""
        began = time.monotonic()
        if began < self._next:
            return None
        try:
            return tuple(self._look(log))
        finally:
            ended = time.monotonic()
            self._next = ended + max(self._every, _REST * (ended - began))
            shutil.rmtree(self._spill, ignore_errors=True)

    def _look(self, log: Path) -> Iterator[Breach]:
        digest = self._archive.latest()
        if not digest:
            return  # nothing was ever current
        standing = self._standing.read()
        off = {each.name for each in standing.overrides if each.kind == "experiment"}
        wanted = _watched(self._frame(digest), off)
        if standing.canary is not None:
            beside = standing.canary.digest
            wanted += _watched(self._frame(beside), off, beside, known={one for each in wanted for one in each.limits})
        if not wanted:
            return
        # Loads pyarrow, as the next do DuckDB: who warns of guardrails alone has no use for them.
        from arbiter.runtime.logfiles import DECISIONS, OUTCOMES, files  # noqa: PLC0415

        decisions, outcomes = files(log, DECISIONS), files(log, OUTCOMES)
        if not decisions or not outcomes:
            return
        if importlib.util.find_spec("duckdb") is None:
            raise NoDuckDB("guardrails need DuckDB, which is not installed: pip install 'arbiter[report]'")
        from arbiter.learning.report.pausing import broken  # noqa: PLC0415
        from arbiter.learning.report.reading import scanned  # noqa: PLC0415

        paused: set[str] = set()
        with scanned(decisions, outcomes, _MEMORY_MIB, self._spill) as records:
            for experiment, metrics, snapshot in wanted:
                name = experiment.name
                if name in paused:
                    continue
                since = standing.resumed.get(name, 0)
                design_of = functools.partial(self._design, name)
                until = time.time_ns() // 1000 - self._lag
                found = broken(records, experiment, metrics, design_of, since, until, snapshot)
                if found is not None:
                    paused.add(name)
                    yield Breach(name, since, found.said)

    def _design(self, experiment: str, snapshot: str) -> Design | None:
        """How a snapshot had an experiment; None where that is not known any more."""
        from arbiter.learning.report.terms import Design  # noqa: PLC0415

        try:
            known = self._frame(snapshot).experiments.each
        except StoreError:
            return None
        return next((Design(each.shares, each.by) for each in known if each.name == experiment), None)

    def _frame(self, digest: str) -> Ruleset:
        if digest not in self._frames:
            self._frames[digest] = self._archive.frame(digest)
            for oldest in list(self._frames)[:-_FRAMES]:
                del self._frames[oldest]
        return self._frames[digest]


def _watched(
    ruleset: Ruleset, off: Container[str], snapshot: str = "", *, known: Container[Limit] = ()
) -> list[Watched]:
    """The experiments of a rule set with those of their guardrails that are not known; none that is off."""
    metrics = {each.name: each for each in ruleset.metrics}
    found = []
    for each in ruleset.experiments.each:
        own = tuple(limit[1] for limit in Watched(each, metrics).limits if limit not in known)
        if own and each.enabled and each.name not in off:
            found.append(Watched(msgspec.structs.replace(each, guardrails=own), metrics, snapshot))
    return found


def unwatched(ruleset: Ruleset, folder: str, *, logged: bool) -> list[Diagnostic]:
    """Warnings of guardrails that nothing sees break: without a log, or without what reads one. Files are shown below
    `folder`.
    """
    if logged and importlib.util.find_spec("duckdb") is not None:
        return []
    hint = "install DuckDB: pip install 'arbiter[report]'" if logged else "give `decision_log.directory`"
    found = []
    for each in ruleset.experiments.each:
        if each.guardrails:
            file, line, column = each.position.rsplit(":", 2)
            message = f"nothing sees whether the guardrails of `{each.name}` break: this server has no " + (
                "DuckDB" if logged else "decision log"
            )
            path = f"experiments.{each.name}.guardrails"
            found.append(
                Diagnostic(
                    file=f"{folder}/{file}" if folder else file,
                    line=int(line),
                    column=int(column),
                    message=message,
                    hint=hint,
                    path=path,
                    severity="warning",
                )
            )
    return found
