"""What the gRPC face and the runtime say to each other about snapshots.

Law: plain data and one protocol. The supervisor knows the answers; a worker forwards the calls to it. Everything here
encodes to MessagePack as it stands. No gRPC, no files, no threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

# A field's type at run time: msgspec reads it to decode a Status that another process sent.
from arbiter.errors import Diagnostic  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about snapshots at one moment.

    `snapshot` is None before the first good one, `last_reload` before the first attempt ended. `workers` maps a
    worker's number, from 0, to the digest that it serves, ``""`` while it is down.
    """

    snapshot: SnapshotInfo | None = None
    last_reload: ReloadReport | None = None
    workers: dict[int, str] = {}


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

    def watch(self, listener: Callable[[Status], None]) -> None:
        """Call `listener` now, and after every change of what `snapshot_info` answers, from any thread."""
