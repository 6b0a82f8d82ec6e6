"""How things stand: what runs, what was tried, what is kept, what operators ordered, which processes serve.

Law: plain data that the runtime knows, the server tells and the client gives; nothing here comes to know anything.
Everything encodes to MessagePack as it stands.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# A field's type at run time: msgspec reads it to decode a Status that another process sent.
from arbiter.errors import Diagnostic  # noqa: TC001

# What made a snapshot current: the files, a rollback, a canary that was promoted.
Cause = Literal["files", "rollback", "promotion"]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many of each thing a snapshot holds."""

    rules: int
    decisions: int
    segments: int
    features: int
    models: int
    triggers: int = 0


class SnapshotFile(msgspec.Struct, frozen=True, order=True, kw_only=True):
    """A file that a snapshot was built from: its path as diagnostics show it, lower-case hex SHA-256, bytes."""

    path: str
    sha256: str
    size: int


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshot that runs. `loaded_at` is µs since the epoch; `files` are sorted by path."""

    digest: str
    loaded_at: int
    counts: Counts
    files: tuple[SnapshotFile, ...] = ()


class ReloadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one attempt to load. `at` is µs since the epoch.

    `changed`: another snapshot runs than before it. `digest` names what runs after it, ``""`` when nothing does.
    `diagnostics` holds what was found, warnings too, sorted; of more than a hundred the first, errors before warnings,
    and one that counts the rest. With `ok` false it is never empty.
    """

    ok: bool
    at: int
    changed: bool
    digest: str
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def first_error(self) -> str:
        """The first line of the first error, ``""`` when `ok`."""
        if self.ok:
            return ""
        errors = [d for d in self.diagnostics if d.severity == "error"] or self.diagnostics
        return errors[0].render().partition("\n")[0] if errors else "the reload failed"


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """That an operator, by `cause`, put another snapshot in place of what the files give.

    `digest` runs, and `aside` does not come back by itself: the hold ends when the files give anything but `aside`, or
    by a reload that is asked for. `since` is µs since the epoch.
    """

    digest: str
    aside: str
    cause: Cause
    since: int
    reason: str = ""


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that decides for a share of subjects: those whose ``share(salt, subject_id) * 100 < percent``.

    `since` is when it began, in µs since the epoch; `counts` are the snapshot's.
    """

    digest: str
    percent: float
    since: int
    reason: str = ""
    counts: Counts

    @property
    def salt(self) -> str:
        """Its own: another candidate meets other subjects, a growing share keeps those that it has."""
        return f"canary:{self.digest}"


Kind = Literal["rule", "model", "experiment"]
"""What can be switched off."""


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, a model or an experiment that is switched off until `until`. Times are µs since the epoch."""

    kind: Kind
    name: str
    since: int
    until: int
    reason: str = ""


class ModelHold(msgspec.Struct, frozen=True, kw_only=True):
    """That an operator put another version of a model in place of the one that the files give.

    `digest` is that of the model that runs, and `aside` that of the files', with a plus and that of the one that is
    tried beside it, if any: the hold ends when they give anything but `aside`, or by a reload that is asked for.
    `since` is µs since the epoch.
    """

    name: str
    version: int
    digest: str
    aside: str
    since: int
    reason: str = ""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that can be rolled back to. `at` is when it last became current, in µs since the epoch."""

    digest: str
    at: int
    cause: Cause
    reason: str
    counts: Counts
    models: tuple[str, ...]


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """That a snapshot became current, at a moment in µs since the epoch."""

    digest: str
    at: int
    cause: Cause
    reason: str


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshots that are kept, each once, and the turns that they took; both oldest first."""

    kept: tuple[Kept, ...] = ()
    turns: tuple[Turn, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about snapshots at one moment.

    `snapshot` is None before the first good one, `last_reload` before the first attempt ended. `workers` maps a
    worker's number, from 0, to the digest that it serves, ``""`` while it is down. `models` are those that are held.
    """

    snapshot: SnapshotInfo | None = None
    last_reload: ReloadReport | None = None
    workers: dict[int, str] = {}
    hold: Hold | None = None
    canary: Canary | None = None
    overrides: tuple[Override, ...] = ()
    models: tuple[ModelHold, ...] = ()


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of files that were sent to be staged: the digest of their snapshot, ``""`` when they hold errors."""

    digest: str
    diagnostics: tuple[Diagnostic, ...]


# What a worker process does: `draining` takes no new calls and ends, `down` waits to be started again.
Phase = Literal["starting", "serving", "draining", "down"]


class StoreSize(msgspec.Struct, frozen=True, kw_only=True):
    """How the store is that all workers share. `used` and `quota` are in bytes; beyond `quota` writes are refused.

    While profiles are rewritten for changed features, `rebuilding` names these and about so many profiles are `left`.
    `previous_ids` still lie under an earlier key than that of `profiles.key`.
    """

    used: int
    quota: int
    rebuilding: tuple[str, ...] = ()
    left: int = 0
    previous_ids: int = 0


class LogFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The log of decisions: how many were `written` down and `dropped`, rows of which Parquet was made (`kept`), its
    bytes, how many seconds old the oldest rows are that are no Parquet yet, and what keeps it from going on.
    """

    written: int = 0
    dropped: int = 0
    kept: int = 0
    size: int = 0
    lag_s: float = 0.0
    error: str = ""


class WorkerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has to do, as it said when it was asked.

    `calls` are under way in it, None while nobody follows calls, since neither metrics nor traces are on; `writes` wait
    for the disk. `shed` counts the calls that it refused because there were too many, by the limit that was full. `log`
    is None where decisions are not written down.
    """

    calls: int | None
    writes: int
    shed: dict[str, int]
    log: LogFigures | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process. `pid` is 0 while it is down, `since` when its phase began, in µs since the epoch.

    `digest` names what it serves, ``""`` for nothing; `restarts` counts how often it was started again. `figures` is
    None when it does not serve, or did not answer soon.
    """

    number: int
    pid: int
    phase: Phase
    digest: str
    restarts: int
    since: int
    figures: WorkerFigures | None = None


class ConsumerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the consumer of Kafka's topics has done since it started.

    `partitions` are read by it now, `lag` counts the messages in them that it has not read. Of those that it has read
    `accepted` became events, `duplicates` were known by their ids, `erased` are of subjects that were erased since,
    `rejected` are no events; `missed` were deleted before they were read. `paused` says which limit it
    waits for, ``""`` while it reads. `last_error_at` is µs since the epoch, 0 for never.
    """

    partitions: int = 0
    lag: int = 0
    accepted: int = 0
    duplicates: int = 0
    erased: int = 0
    rejected: int = 0
    missed: int = 0
    paused: str = ""
    last_error: str = ""
    last_error_at: int = 0


class BesideInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A process beside the workers; fields are as a worker's."""

    pid: int
    phase: Phase
    digest: str
    restarts: int
    since: int


class ConsumerInfo(BesideInfo, frozen=True, kw_only=True):
    """The process that reads Kafka's topics. `figures` is None before it said anything."""

    figures: ConsumerFigures | None = None


class TriggerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the process that runs triggers has done since it started.

    It runs so many `triggers`, and has looked at the log up to `position`; `lag` events are behind that, of which the
    first came `lag_seconds` ago. `firings` were done, `passed` occurrences were passed over, and `set_aside` events,
    over which the engine died.
    """

    triggers: int = 0
    position: int = 0
    lag: int = 0
    lag_seconds: float = 0.0
    firings: int = 0
    passed: int = 0
    set_aside: int = 0


class TriggerInfo(BesideInfo, frozen=True, kw_only=True):
    """The process that runs triggers. `figures` is None before it said anything."""

    figures: TriggerFigures | None = None


class WatchedField(msgspec.Struct, frozen=True, kw_only=True):
    """An input or an output of a model, ``inputs.age``: how many values fell into each of the bins of its training.

    `expected` are the shares at training. `missing` values fell into none, and `outside` are beyond all that was
    trained on. `drift` is the population stability index of the last window, None before there is one, and `chance`
    what it hardly passes by chance; `alarms` are those of that window, in words. Of what is `withheld`, since it is
    personal, only whether it is there is told.
    """

    name: str
    bins: tuple[str, ...]
    expected: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int
    missing_before: float
    outside: int
    drift: float | None = None
    chance: float = 0.0
    alarms: tuple[str, ...] = ()
    withheld: bool = False


class WatchedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Some decisions in a row that were looked into, from `began` to `ended` (µs since the epoch): by output how many
    answers fell into each of its bins, and last how many were unknown.
    """

    began: int
    ended: int
    rows: int
    outputs: dict[str, tuple[int, ...]]


class WatchedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model that is served, and what all workers saw of it where they looked into decisions.

    `trained_on` is a number of rows, 0 where its file does not tell of its training: then it is not watched. `rows` are
    those since `since`; `windows` the last of those that were full, the oldest first; the last was judged at
    `judged_at`, 0 for never. `filling` are the rows of the one that fills. Times are µs since the epoch.
    """

    name: str
    version: int
    digest: str
    trained_on: int
    since: int
    rows: int
    filling: int
    judged_at: int
    fields: tuple[WatchedField, ...]
    windows: tuple[WatchedWindow, ...]


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How a whole server is: its version, its processes, and what stands with its snapshots.

    Times are µs since the epoch. With `draining` it ends. A worker that drains stands beside the one that follows it.
    `store` is None when no worker answered soon, `consumer` when no topics are read, `triggers` when the rules
    have none, `decision_log` when no decisions are written down.
    """

    version: str
    at: int
    started_at: int
    draining: bool
    workers: tuple[WorkerInfo, ...]
    status: Status
    store: StoreSize | None = None
    consumer: ConsumerInfo | None = None
    triggers: TriggerInfo | None = None
    decision_log: LogFigures | None = None
