"""What the gRPC face and the runtime say to each other about snapshots.

Law: plain data and one protocol. The supervisor knows the answers; a worker forwards the calls to it. Everything here
encodes to MessagePack as it stands. No gRPC, no files, no threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

# Fields' types at run time: msgspec reads them.
from arbiter.serving import Canary, Kind, Override  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbiter.errors import Diagnostic
    from arbiter.serving import History, ServerInfo, Staged, Status, WatchedModel


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What workers serve: the current snapshot, and what operators ordered."""

    digest: str
    canary: Canary | None = None
    overrides: tuple[Override, ...] = ()


class Rollback(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Make a kept snapshot current, and hold it. `digest` is whole."""

    digest: str
    reason: str = ""


class RollbackModel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Run another version of one model, and hold it: `version`, or with 0 the one that ran before."""

    name: str
    version: int = 0
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
    """Switch a rule, a model or an experiment off until `until` (µs since the epoch), or on again when `until` is 0."""

    kind: Kind
    name: str
    until: int
    reason: str = ""


class PauseExperiment(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Switch an experiment off, since a guardrail broke by decisions from `since` on, when it was switched on again
    (0: never was). Nothing is done where that is not so any more, or an override stands.
    """

    name: str
    since: int
    reason: str


Command = Rollback | RollbackModel | SetCanary | PromoteCanary | DropCanary | SetOverride | PauseExperiment


class Admin(Protocol):
    """What the server asks the runtime. Every method may be called from any thread."""

    def snapshot_info(self) -> Status:
        """What runs now, without loading anything."""

    def server_info(self) -> ServerInfo:
        """How the whole server is."""

    def models(self) -> tuple[WatchedModel, ...]:
        """What all workers saw of each version of a model that is served, by name."""

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

    def look_on(self, asked: bytes, shown: Callable[[bytes, int], None]) -> Callable[[], None]:
        """Have all servers that decide `show` what `asked` says, until what is returned is called. `shown` is called,
        from any thread, with each decision as bytes, or none, and how many others were too many.
        """

    def onlookers(self, listener: Callable[[Mapping[int, bytes]], None]) -> Callable[[int, bytes, int], None]:
        """Call `listener` now, and after every change, from any thread, with all that is asked for, by number.

        What is returned takes such a number and what `shown` of it is called with.
        """
