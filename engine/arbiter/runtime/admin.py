"""What the gRPC face and the runtime say to each other about snapshots.

Law: plain data and one protocol. The supervisor knows the answers; a worker forwards the calls to it. Everything here
encodes to MessagePack as it stands. No gRPC, no files, no threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

# A field's type at run time: msgspec reads it to decode a Status that another process sent.
from arbiter.errors import Diagnostic  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What made a snapshot current: the files, a rollback, a canary that was promoted.
Cause = Literal["files", "rollback", "promotion"]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many of each thing a snapshot holds."""

    rules: int
    decisions: int
    segments: int
    features: int
    models: int


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


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """A rule or a model that is switched off until `until`. Times are µs since the epoch."""

    kind: Literal["rule", "model"]
    name: str
    since: int
    until: int
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
    worker's number, from 0, to the digest that it serves, ``""`` while it is down.
    """

    snapshot: SnapshotInfo | None = None
    last_reload: ReloadReport | None = None
    workers: dict[int, str] = {}
    hold: Hold | None = None
    canary: Canary | None = None
    overrides: tuple[Override, ...] = ()


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What workers serve: the current snapshot, and what operators ordered."""

    digest: str
    canary: Canary | None = None
    overrides: tuple[Override, ...] = ()


class Rollback(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Make a kept snapshot current, and hold it. `digest` is whole."""

    digest: str
    reason: str = ""


class SetCanary(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let a snapshot that is kept or was staged decide for `percent` of the subjects; again for another share."""

    digest: str
    percent: float
    reason: str = ""


class PromoteCanary(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Make the canary current, for everybody. `digest`, unless it is empty, must be the canary's."""

    digest: str = ""
    reason: str = ""


class DropCanary(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End the canary. `digest`, unless it is empty, must be the canary's."""

    digest: str = ""
    reason: str = ""


class SetOverride(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Switch a rule or a model off until `until` (µs since the epoch), or on again when `until` is 0."""

    kind: Literal["rule", "model"]
    name: str
    until: int
    reason: str = ""


Command = Rollback | SetCanary | PromoteCanary | DropCanary | SetOverride


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of files that were sent to be staged: the digest of their snapshot, ``""`` when they hold errors."""

    digest: str
    diagnostics: tuple[Diagnostic, ...]


class Admin(Protocol):
    """What the server asks the runtime. Every method may be called from any thread."""

    def snapshot_info(self) -> Status:
        """What runs now, without loading anything."""

    def reload(self) -> Status:
        """Read the files again and answer when every worker serves the result; `last_reload` is this attempt.

        Mistakes in files are no exception: `last_reload.ok` is false and the running snapshot stays.
        """

    def validate(self, files: Mapping[str, bytes]) -> list[Diagnostic]:
        """Check rule files, relative posix path to content, against the running models; sorted, changes nothing."""

    def stage(self, files: Mapping[str, bytes]) -> Staged:
        """Check rule files as `validate` does, and keep the snapshot that comes of them, for a canary.

        The last few that were staged are kept.
        """

    def history(self) -> History:
        """The snapshots that are kept, and when they were current."""

    def carry_out(self, command: Command) -> Status:
        """Do what an operator wants and answer when every worker serves the result.

        Raises NotFound for a name or a digest that is not there, InvalidField for a value that cannot be, and
        VersionConflict when another canary runs than the command names.
        """

    def watch(self, listener: Callable[[Status], None]) -> None:
        """Call `listener` now, and after every change of what `snapshot_info` answers, from any thread."""
