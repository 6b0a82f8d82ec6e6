"""What operators order: rollback, canary, override.

Law: checks an order and turns it into standing orders and what runs. `prepare` may take long and reads only; `apply` is
quick and belongs to the desk's thread. No processes, no gRPC.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import InvalidField, LimitExceeded, NotFound, StoreError, VersionConflict, did_you_mean
from arbiter.models.trial import digest_of_both
from arbiter.runtime.admin import (
    DropCanary,
    PauseExperiment,
    PromoteCanary,
    Rollback,
    RollbackModel,
    SetCanary,
    SetOverride,
)
from arbiter.runtime.archive import counts_of
from arbiter.runtime.modelversions import another_model
from arbiter.serving import Canary, History, Hold, Kept, ModelHold, Override, Turn

if TYPE_CHECKING:
    from arbiter.runtime.admin import Command
    from arbiter.runtime.archive import Archive
    from arbiter.runtime.desk import Desk
    from arbiter.runtime.loader import Attempt, Built, Loader
    from arbiter.serving import Cause
    from arbiter.snapshot import Snapshot

_log = logging.getLogger("arbiter.versions")

LONGEST_US = 366 * 86_400_000_000
_STAGED = 3
_RESUMED = 1000


class Versions:
    """Carries out orders on a desk. At most `overrides` stand at once."""

    def __init__(self, desk: Desk, loader: Loader, archive: Archive, overrides: int = 100) -> None:
        self._desk = desk
        self._overrides = overrides
        self._loader = loader
        self._archive = archive

    def held(self, attempt: Attempt) -> bool:
        """At a start: go on with what operators put in place of what the files give; tells whether that is so."""
        desk, hold = self._desk, self._desk.standing.hold
        if hold is None or (attempt.built is not None and attempt.built.snapshot.digest != hold.aside):
            return False
        try:
            built = self._loader.fetch(hold.digest)
        except StoreError as error:
            _log.error("the hold of %s ends: %s", hold.digest[:12], error)
            desk.over(hold=None)
            return False
        desk.adopt(built, attempt.at, hold.cause, hold.reason)
        _log.warning("starting on %s, as it was put in place of %s", hold.digest[:12], hold.aside[:12])
        return True

    def take_up(self, now: int) -> None:
        """At a start: go on with the canary and the overrides that stand, as far as they still can."""
        self.expire(now)
        canary = self._desk.standing.canary
        if canary is None:
            return
        if canary.digest == self._desk.digest:
            _log.warning("the canary %s ends: it is what runs", canary.digest[:12])
            self._desk.over(canary=None)
            return
        try:
            self._desk.beside = self._loader.fetch(canary.digest)
        except StoreError as error:
            _log.error("the canary %s ends: %s", canary.digest[:12], error)
            self._desk.over(canary=None)
        else:
            _log.warning("the canary %s goes on for %g %% of the subjects", canary.digest[:12], canary.percent)

    def prepare(self, command: Command) -> Built | None:
        """Look up what the order names: the snapshot, when it names one that does not run. Raises NotFound."""
        match command:
            case Rollback(digest=digest) | SetCanary(digest=digest):
                return self._fetch(digest)
            case RollbackModel(name=name, version=version):
                self._check_name("model", name)
                return another_model(self._desk, self._loader, self._archive, name, version)
            case SetOverride(kind=kind, name=name, until=until) if until:
                self._check_name(kind, name)
            case PauseExperiment(name=name):
                self._check_name("experiment", name)
        return None

    def apply(self, command: Command, built: Built | None, now: int) -> None:
        """Do it. Raises CallerError, and StoreError when it cannot be written; nothing has changed then."""
        match command:
            case Rollback(reason=reason) if built is not None:
                self._replace(built, "rollback", reason, now)
            case RollbackModel() if built is not None:
                self._exchange(built, command, now)
            case SetCanary() if built is not None:
                self._begin(command, built, now)
            case PromoteCanary(digest=digest, reason=reason):
                self._the_canary(digest)
                if self._desk.beside is not None:
                    self._replace(self._desk.beside, "promotion", reason, now)
            case DropCanary(digest=digest, reason=reason):
                canary = self._the_canary(digest)
                self._desk.order(canary=None)
                _log.warning("the canary %s is dropped%s", canary.digest[:12], _because(reason))
            case SetOverride():
                self._override(command, now)
            case PauseExperiment():
                self._pause(command, now)

    def stage(self, built: Built) -> None:
        """Keep a snapshot that was sent, with the last few before it. Raises StoreError."""
        digest = built.snapshot.digest
        before = [each for each in self._desk.standing.staged if each != digest]
        self._desk.order(staged=(*before, digest)[-_STAGED:])

    def expire(self, now: int) -> None:
        """End the overrides whose time is over."""
        before = self._desk.standing.overrides
        left = tuple(each for each in before if each.until > now)
        if left == before:
            return
        for each in before:
            if each not in left:
                _log.warning("the override of %s `%s` is over", each.kind, each.name)
        self._desk.over(overrides=left)

    def history(self) -> History:
        """What is kept, and the turns that it took."""
        return history_of(self._archive)

    def _fetch(self, digest: str) -> Built:
        desk = self._desk
        for known in (desk.running, desk.beside):
            if known is not None and known.snapshot.digest == digest:
                return known
        if digest not in {entry.digest for entry in self._archive.history()} | set(desk.standing.staged):
            raise NotFound(
                f"no snapshot {digest[:12]} is kept: `ListSnapshots` and `arbiter snapshot list` say which are; send "
                "the whole digest",
                field="digest",
            )
        try:
            return self._loader.fetch(digest)
        except StoreError as error:
            raise NotFound(f"{error}; choose another", field="digest") from error

    def _replace(self, built: Built, cause: Cause, reason: str, now: int) -> None:
        """Let `built` run in place of what the files give."""
        desk, digest = self._desk, built.snapshot.digest
        if digest == desk.digest:
            return
        standing = desk.standing
        aside = standing.hold.aside if standing.hold is not None else desk.digest
        hold = None
        if digest != aside:
            hold = Hold(digest=digest, aside=aside, cause=cause, since=now, reason=reason)
        canary = standing.canary
        if canary is not None and canary.digest == digest:
            canary = None
        before = desk.digest
        desk.order(hold=hold, canary=canary)
        desk.adopt(built, now, cause, reason)
        self._loader.runs(built)
        until = f"held until the files give anything but {aside[:12]}, or a reload" if hold else "the files give it too"
        what = "rolled back" if cause == "rollback" else "canary promoted"
        _log.warning("%s from %s to %s%s: %s", what, before[:12], digest[:12], _because(reason), until)

    def _exchange(self, built: Built, command: RollbackModel, now: int) -> None:
        """Let `built` run, which is what runs but for one model."""
        desk, name = self._desk, command.name
        running = (desk.running or built).snapshot
        before, trial, after = running.models[name], running.trials.get(name), built.snapshot.models[name]
        holds = {each.name: each for each in desk.standing.models}
        old = holds.pop(name, None)
        aside = old.aside if old is not None else digest_of_both(before, trial)
        if after.digest != aside:
            holds[name] = ModelHold(
                name=name, version=after.version, digest=after.digest, aside=aside, since=now, reason=command.reason
            )
        canary = desk.standing.canary
        if canary is not None and canary.digest == built.snapshot.digest:
            canary = None
        desk.order(models=tuple(holds[each] for each in sorted(holds)), canary=canary)
        built = msgspec.structs.replace(built, held=tuple(sorted(holds)))
        said = f"model {name} from version {before.version} to {after.version}"
        if trial is not None:
            said += f", without version {trial.model.version} beside it"
        desk.adopt(built, now, "rollback", f"{said}{_because(command.reason)}")
        self._loader.runs(built)
        _log.warning("%s%s", said, _because(command.reason))

    def _begin(self, command: SetCanary, built: Built, now: int) -> None:
        desk, percent = self._desk, command.percent
        if not 0 < percent <= 100:  # noqa: PLR2004 - percent
            raise InvalidField(
                f"percent is {percent:g}: send more than 0 and at most 100; DropCanary ends it", field="percent"
            )
        if built.snapshot.digest == desk.digest:
            raise InvalidField(f"digest {desk.digest[:12]} is what runs for everybody: name another", field="digest")
        before = desk.standing.canary
        same = before is not None and before.digest == built.snapshot.digest
        canary = Canary(
            digest=built.snapshot.digest,
            percent=percent,
            since=before.since if before is not None and same else now,
            reason=command.reason or (before.reason if before is not None and same else ""),
            counts=counts_of(built.snapshot),
        )
        desk.order(canary=canary)
        desk.beside = built
        _log.warning("the canary %s decides for %g %% of the subjects%s", canary.digest[:12], percent,
                     _because(command.reason))  # fmt: skip

    def _the_canary(self, digest: str) -> Canary:
        canary = self._desk.standing.canary
        if canary is None:
            raise NotFound("no canary runs: SetCanary begins one")
        if digest and digest != canary.digest:
            raise VersionConflict(
                f"digest is {digest[:12]}, and the canary that runs is {canary.digest[:12]}: look again", field="digest"
            )
        return canary

    def _check_name(self, kind: str, name: str) -> None:
        snapshots = [each.snapshot for each in (self._desk.running, self._desk.beside) if each is not None]
        known = {each for snapshot in snapshots for each in _names(snapshot, kind)}
        # What is off stays off though a reload takes it away, and a rollback may bring it back: it may be prolonged.
        known |= {each.name for each in self._desk.standing.overrides if each.kind == kind}
        if name not in known:
            hint = did_you_mean(name, known)
            raise NotFound(
                f"the running snapshot has no {kind} `{name}`{'; ' + hint if hint else ''}", field=_FIELDS[kind]
            )

    def _override(self, command: SetOverride, now: int) -> None:
        desk, kind, name = self._desk, command.kind, command.name
        others = tuple(each for each in desk.standing.overrides if (each.kind, each.name) != (kind, name))
        if not command.until:
            if len(others) == len(desk.standing.overrides):
                raise NotFound(f"no override of {kind} `{name}` stands", field=_FIELDS[kind])
            resumed = dict(desk.standing.resumed)
            if kind == "experiment":
                resumed = dict([*((each, at) for each, at in resumed.items() if each != name), (name, now)][-_RESUMED:])
            desk.order(overrides=others, resumed=resumed)
            _log.warning("the override of %s `%s` is cleared%s", kind, name, _because(command.reason))
            return
        if not now < command.until <= now + LONGEST_US:
            raise InvalidField(
                "until lies in the past, or more than a year ahead: send a moment between", field="until"
            )
        if len(others) >= self._overrides:
            raise LimitExceeded(
                f"{len(others)} overrides stand, and `overrides` allows {self._overrides}: clear some, or use "
                "`enabled`",
                reason="overrides",
            )
        override = Override(kind=kind, name=name, since=now, until=command.until, reason=command.reason)
        desk.order(overrides=tuple(sorted((*others, override), key=lambda each: (each.kind, each.name))))
        _log.warning("%s `%s` is switched off%s", kind, name, _because(command.reason))

    def _pause(self, command: PauseExperiment, now: int) -> None:
        """Switch it off as an operator does, unless one was quicker."""
        standing, name = self._desk.standing, command.name
        off = any((each.kind, each.name) == ("experiment", name) for each in standing.overrides)
        if off or standing.resumed.get(name, 0) != command.since:
            return
        until = now + LONGEST_US
        self._override(SetOverride(kind="experiment", name=name, until=until, reason=command.reason), now)


_FIELDS = {"rule": "rule_id", "model": "model", "experiment": "experiment"}


def history_of(archive: Archive) -> History:
    """What is kept, and the turns that it took. What is damaged is left out."""
    kept = []
    for entry in archive.history():
        try:
            meta = archive.meta(entry.digest)
        except StoreError as error:
            _log.warning("%s", error)
            continue
        kept.append(
            Kept(
                digest=entry.digest,
                at=entry.at,
                cause=entry.cause,
                reason=entry.reason,
                counts=meta.counts,
                models=tuple(meta.models),
            )
        )
    turns = [Turn(digest=each.digest, at=each.at, cause=each.cause, reason=each.reason) for each in archive.turns()]
    return History(kept=tuple(kept), turns=tuple(turns))


def _names(snapshot: Snapshot, kind: str) -> set[str]:
    if kind == "model":
        return set(snapshot.models)
    if kind == "experiment":
        return {each.name for each in snapshot.frame.experiments.each}
    return {rule.id for point in snapshot.points.values() for rule in point.all_rules}


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
