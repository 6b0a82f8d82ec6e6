"""Snapshots on disk: the history, the last good start, and how workers get what the loader made.

Law: one folder per digest, written whole or not at all, read without running anything that stands in it. The folder's
name is checked against what is read. `history.json` says in which order snapshots became current. Snapshots that are
alike share most of their parts; a part goes when the last snapshot that holds it goes.

    snapshots/history.json
    snapshots/parts/KEY
    snapshots/DIGEST/meta.json  image.msgpack  models/NAME/manifest.yaml  models/NAME/model.onnx
                     models/NAME/canary/manifest.yaml  models/NAME/canary/model.onnx
"""

from __future__ import annotations

import errno
import logging
import shutil
from typing import TYPE_CHECKING

import msgspec

from arbiter.durable import replace, sync_folder, write_through
from arbiter.errors import ArbiterError, StoreError
from arbiter.models.loader import from_bytes
from arbiter.models.trial import Trial
from arbiter.runtime.parts import Parts
from arbiter.runtime.sources import CANARY
from arbiter.serving import Cause, Counts, SnapshotFile
from arbiter.snapshot import finished, open_snapshot, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from pathlib import Path

    from arbiter.models.model import Model
    from arbiter.ruleset.rules import Ruleset
    from arbiter.snapshot import Snapshot

_log = logging.getLogger("arbiter.archive")

KEPT = 50
_TURNS = 10  # entries of the history for each snapshot that is kept
_FORMAT = 2
_META = "meta.json"
_IMAGE = "image.msgpack"
_PARTS = "parts"
_HISTORY = "history.json"
# msgspec says of bytes that are no UTF-8 what Python says.
_UNREADABLE = (OSError, msgspec.DecodeError, UnicodeDecodeError)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Adopted(msgspec.Struct, frozen=True, omit_defaults=True):
    """That a snapshot became current: its digest, when in µs since the epoch, by what, and why if somebody said so."""

    digest: str
    at: int
    cause: Cause = "files"
    reason: str = ""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model that a snapshot tries on a share of the subjects: its digest, and who they are."""

    digest: str
    share: float
    salt: str


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot's folder says about itself, by model its digest, and what is tried beside it."""

    format: int
    digest: str
    counts: Counts
    files: tuple[SnapshotFile, ...]
    models: dict[str, str]
    trials: dict[str, Tried] = {}


class Archive:
    """The snapshots below one directory, the last `kept` that were current. One process writes, any number read.

    Those in `spared` are never removed, whether they were current or not.
    """

    def __init__(self, directory: Path, kept: int = KEPT) -> None:
        self._directory = directory
        self._kept = kept
        self.spared: frozenset[str] = frozenset()
        self._parts = Parts(directory / _PARTS)
        self._held: dict[str, frozenset[str]] = {}  # by digest, the parts of snapshots whose images were read

    def write(self, snapshot: Snapshot, files: tuple[SnapshotFile, ...], models: Mapping[str, bytes]) -> None:
        """Put a snapshot on disk; nothing happens when it is there. `models` are model files by ``NAME/FILE``,
        and ``NAME/canary/FILE`` for what is tried.

        Raises StoreError.
        """
        meta = Meta(
            format=_FORMAT,
            digest=snapshot.digest,
            counts=counts_of(snapshot),
            files=files,
            models={name: model.digest for name, model in sorted(snapshot.models.items())},
            trials={
                name: Tried(digest=trial.model.digest, share=trial.share, salt=trial.salt)
                for name, trial in sorted(snapshot.trials.items())
            },
        )
        # Files stand in the meta data alone: a comment changes them, and not the digest.
        contents = {
            _IMAGE: pack(snapshot.image),
            **{f"models/{path}": content for path, content in models.items()},
        }
        about = msgspec.json.format(msgspec.json.encode(meta))
        target = self._directory / snapshot.digest
        try:
            self._parts.put(snapshot.parts)
            if not _holds(target, contents):
                self._put(target, {**contents, _META: about})
            elif not _holds(target, {_META: about}):
                replace(target / _META, about)
        except OSError as error:
            raise StoreError(f"cannot write snapshot {snapshot.digest[:12]}: {_reason(error)}") from error

    def _put(self, target: Path, contents: Mapping[str, bytes]) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        building = self._directory / f".{target.name}.building"
        shutil.rmtree(building, ignore_errors=True)
        for name, content in contents.items():
            path = building / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_through(path, content)
        for folder in (*(path for path in building.rglob("*") if path.is_dir()), building):
            sync_folder(folder)
        if target.exists():
            # What was there is damaged. Readers of it find a missing folder, which they report like a damaged one.
            shutil.rmtree(target)
        building.rename(target)
        sync_folder(self._directory)

    def adopt(self, digest: str, at: int, cause: Cause = "files", reason: str = "") -> None:
        """Note that `digest` became current at `at`, and forget all but the last ones. Raises StoreError."""
        entries = self._bounded([*self._entries(besides=digest), Adopted(digest, at, cause, reason)])
        try:
            replace(self._directory / _HISTORY, msgspec.json.encode(entries))
        except OSError as error:
            raise StoreError(f"cannot write {self._directory / _HISTORY}: {_reason(error)}") from error
        known = {entry.digest for entry in entries} | self.spared
        gone = [
            folder for folder in self._directory.iterdir() if folder.is_dir() and folder.name not in {*known, _PARTS}
        ]
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)
        if gone:
            self._keep_parts(known)

    def _keep_parts(self, digests: Iterable[str]) -> None:
        """Remove the parts that none of these snapshots holds; none when one of them cannot be read."""
        try:
            # What a snapshot holds never changes: each image is read once.
            self._held = {
                digest: self._held.get(digest) or unpack((self._directory / digest / _IMAGE).read_bytes()).parts
                for digest in digests
            }
            self._parts.keep(set().union(*self._held.values()))
        except _UNREADABLE as error:
            _log.warning("parts of old snapshots stay for now: %s", error)

    def history(self) -> list[Adopted]:
        """What became current, oldest first, each digest once, by the last time.

        Without a history that can be read, the snapshots that are there, as their folders say; that is logged.
        """
        newest: dict[str, Adopted] = {}
        for entry in reversed(self._entries()):
            newest.setdefault(entry.digest, entry)
        return list(reversed(newest.values()))

    def latest(self) -> str:
        """The digest of what became current last, ``""`` when nothing says so."""
        try:
            entries = msgspec.json.decode((self._directory / _HISTORY).read_bytes(), type=list[Adopted])
        except _UNREADABLE:
            return ""
        return entries[-1].digest if entries else ""

    def turns(self) -> list[Adopted]:
        """Each time that a snapshot became current, oldest first, of those that are kept."""
        return self._entries()

    def _bounded(self, entries: list[Adopted]) -> list[Adopted]:
        """The entries of the last snapshots, as far back as there is room for."""
        kept = set(list(dict.fromkeys(entry.digest for entry in reversed(entries)))[: self._kept])
        return [entry for entry in entries if entry.digest in kept][-self._kept * _TURNS :]

    def _entries(self, besides: str = "") -> list[Adopted]:
        path, reason = self._directory / _HISTORY, ""
        try:
            entries = msgspec.json.decode(path.read_bytes(), type=list[Adopted])
        except _UNREADABLE as error:
            entries, reason = [entry for entry in self._found() if entry.digest != besides], str(error)
        # A first snapshot is written before there is a history.
        if entries and reason:
            _log.warning("the history of snapshots cannot be read, the folders' own times are taken: %s", reason)
        return entries

    def _found(self) -> list[Adopted]:
        """What stands on disk, by when it was written."""
        written = [
            (about.stat().st_mtime_ns, about.parent.name)
            for about in self._directory.glob(f"*/{_META}")
            if not about.parent.name.startswith(".")
        ]
        return [Adopted(digest, at // 1000) for at, digest in sorted(written)]

    def frame(self, digest: str) -> Ruleset:
        """The rule set of a snapshot without its rules: what it declares. Raises StoreError."""
        try:
            return unpack((self._directory / digest / _IMAGE).read_bytes()).frame
        except _UNREADABLE as error:
            raise StoreError(f"snapshot {digest[:12]} cannot be read: {error}") from error

    def model_files(self, digest: str) -> dict[str, bytes]:
        """The model files of a snapshot by ``NAME/FILE``, as `write` takes them. Raises StoreError."""
        folder = self._directory / digest / "models"
        try:
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        except OSError as error:
            raise StoreError(f"snapshot {digest[:12]} cannot be read: {error}") from error

    def find_model(self, name: str, digest: str) -> tuple[bytes, bytes] | None:
        """Manifest and graph of the model of that digest, out of any snapshot that is kept; None when none has it."""
        for known, meta in self._metas():
            if meta.models.get(name) == digest:
                folder = self._directory / known / "models" / name
                try:
                    return (folder / "manifest.yaml").read_bytes(), (folder / "model.onnx").read_bytes()
                except OSError as error:
                    _log.warning("model %s of snapshot %s cannot be read: %s", name, known[:12], error)
        return None

    def models_called(self, name: str) -> list[str]:
        """The digests of the models of that name in the snapshots that were current, the last first, each once."""
        return list(dict.fromkeys(meta.models[name] for _, meta in self._metas() if name in meta.models))

    def _metas(self) -> Iterator[tuple[str, Meta]]:
        """What the snapshots that were current and those that are spared say, the last first."""
        for digest in dict.fromkeys([*(entry.digest for entry in reversed(self.history())), *sorted(self.spared)]):
            try:
                yield digest, self.meta(digest)
            except StoreError as error:
                _log.warning("%s", error)

    def meta(self, digest: str) -> Meta:
        """What the folder of `digest` says. Raises StoreError."""
        try:
            meta = msgspec.json.decode((self._directory / digest / _META).read_bytes(), type=Meta)
        except _UNREADABLE as error:
            raise StoreError(f"snapshot {digest[:12]} cannot be read: {error}") from error
        if meta.format != _FORMAT:
            raise StoreError(f"snapshot {digest[:12]} has format {meta.format}, this version reads {_FORMAT}")
        return meta

    def read(self, digest: str, loaded: Mapping[str, Model]) -> Snapshot:
        """Open the snapshot of `digest`. `loaded` are models in memory by digest: they are used, not loaded again.

        Raises StoreError when something of it is missing or damaged.
        """
        return finished(self.opening(digest, loaded))

    def opening(
        self, digest: str, loaded: Mapping[str, Model], before: Snapshot | None = None
    ) -> Generator[None, None, Snapshot]:
        """The same in steps of at most a few hundred µs, taking over from `before` what did not change."""
        meta = self.meta(digest)
        yield
        folder = self._directory / digest
        try:
            image = unpack((folder / _IMAGE).read_bytes())
            yield
            models, trials = {}, {}
            for name, model_digest in meta.models.items():
                models[name] = loaded.get(model_digest) or _load_model(folder / "models" / name)
                yield
            for name, tried in meta.trials.items():
                model = loaded.get(tried.digest) or _load_model(folder / "models" / name / CANARY)
                trials[name] = Trial(model=model, share=tried.share, salt=tried.salt)
                yield
            snapshot = yield from open_snapshot(image, self._parts.get, models, before, trials)
        except (*_UNREADABLE, ArbiterError, LookupError, TypeError) as error:
            raise StoreError(f"snapshot {digest[:12]} cannot be read: {error}") from error
        if snapshot.digest != digest:
            raise StoreError(f"snapshot {digest[:12]} is damaged: its content has digest {snapshot.digest[:12]}")
        return snapshot


def counts_of(snapshot: Snapshot) -> Counts:
    """How many of each thing `snapshot` holds."""
    return Counts(**snapshot.counts())


def _reason(error: OSError) -> str:
    return "the disk of the data directory is full" if error.errno in _FULL else str(error)


def _load_model(folder: Path) -> Model:
    return from_bytes((folder / "manifest.yaml").read_bytes(), (folder / "model.onnx").read_bytes())


def _holds(folder: Path, contents: Mapping[str, bytes]) -> bool:
    try:
        return all((folder / name).read_bytes() == content for name, content in contents.items())
    except OSError:
        return False
