"""From authored files to a snapshot that is known to work, or to the full list of what is wrong.

Law: the one place that turns directories into snapshots. It remembers the last good one and the content of the last
attempt, changes nothing else, and never raises for what an author wrote. One thread calls `look`; `validate` may run
beside it. What fails for no fault of the files is tried again less and less often.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping  # noqa: TC003 - a field's type at run time
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import Diagnostic, StoreError
from arbiter.models.loader import load_models
from arbiter.ruleset.cache import Cache
from arbiter.ruleset.image import Maker
from arbiter.ruleset.load import load_ruleset
from arbiter.ruletests import failed_tests
from arbiter.runtime.quiet import undisturbed
from arbiter.runtime.sources import names_of, read_sources
from arbiter.serving import SnapshotFile
from arbiter.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arbiter.models.model import Model
    from arbiter.runtime.archive import Archive
    from arbiter.runtime.sources import Names, Sources

_log = logging.getLogger("arbiter.loader")

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0


class Built(msgspec.Struct, frozen=True):
    """A snapshot that was built and is on disk, the files that it came from, and its model files by ``NAME/FILE``."""

    snapshot: Snapshot
    files: tuple[SnapshotFile, ...]
    models: Mapping[str, bytes]


class Attempt(msgspec.Struct, frozen=True):
    """What became of one look at the files. `built` is None when they hold errors; `at` is µs since the epoch.

    `fault` is what went wrong when the files are not to blame, a full disk say.
    """

    built: Built | None
    diagnostics: tuple[Diagnostic, ...]
    at: int
    fault: Exception | None = None


class _Fault(msgspec.Struct, frozen=True):
    """What failed for no fault of the files: their content, what was said, how long to wait, and until when."""

    fingerprint: str
    said: str
    pause: float
    until: float


class Loader:
    """Loads `rules` and `models` (None: no models) and puts what is good into `archive` (None: nowhere).

    Files are shown as `names` says, by default below the names of their directories: ``rules/store/banner.yaml``,
    ``models/rfm/manifest.yaml``. With `require_tests` a set whose own tests fail is as bad as one with a mistake.
    `clock` gives seconds from any start on.
    """

    def __init__(
        self,
        rules: Path,
        models: Path | None,
        archive: Archive | None,
        names: Names | None = None,
        *,
        require_tests: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._models = models
        self._archive = archive
        self._names = names or names_of(rules, models)
        self._require_tests = require_tests
        self._clock = clock
        self._cache = Cache()
        self._maker = Maker()
        self._good: Built | None = None
        self._seen = ""  # the content that need not be loaded again
        self._fault: _Fault | None = None  # of the last attempt

    def look(self) -> Attempt | None:
        """Load the files if they are not as at the last attempt; None when they are.

        What failed for no fault of theirs, on a full disk say, is tried again after 2 s, then after twice as long each
        time, up to a minute; None meanwhile, and when it fails as before.
        """
        sources = self._read()
        before = self._fault
        waits = before is not None and before.fingerprint == sources.fingerprint and self._clock() < before.until
        if waits or sources.fingerprint == self._seen:
            return None
        attempt = self._settled(sources)
        return None if self._fault is not None and self._fault.pause > _FIRST_PAUSE_S else attempt

    def load(self) -> Attempt:
        """Load the files, changed or not."""
        return self._settled(self._read())

    def _settled(self, sources: Sources) -> Attempt:
        """Load `sources`, and again whatever the files became meanwhile."""
        with undisturbed():
            while True:
                attempt = self._load(sources)
                seen = sources.fingerprint
                sources = self._read()
                # Models are read by their own loader: when anything moved meanwhile, the attempt mixes two states.
                if sources.fingerprint == seen:
                    break
        self._seen = "" if self._fault is not None else seen
        if attempt.built is not None:
            self._good = attempt.built
        return attempt

    def last_good(self) -> Built | None:
        """The newest snapshot in the archive that can still be built; it becomes what `validate` checks against."""
        if self._archive is None:
            return None
        for entry in reversed(self._archive.history()):
            try:
                self._good = self.fetch(entry.digest)
            except StoreError as error:
                _log.warning("%s", error)
            else:
                return self._good
        return None

    def runs(self, built: Built) -> None:
        """Another snapshot than the files' runs: it becomes what `validate` checks against."""
        self._good = built

    def fetch(self, digest: str) -> Built:
        """A snapshot out of the archive. Raises StoreError when it is not there or damaged."""
        if self._archive is None:
            raise StoreError(f"snapshot {digest[:12]} is not there: no snapshots are kept")
        loaded = {} if self._good is None else {each.digest: each for each in self._good.snapshot.models.values()}
        files = self._archive.meta(digest).files
        return Built(self._archive.read(digest, loaded), files, self._archive.model_files(digest))

    def restore(self, built: Built, at: int | None) -> None:
        """Put a snapshot into the archive again if it went or was damaged; it is current from `at` (µs) on, if ever."""
        if self._archive is None:
            return
        try:
            known = self._archive.latest() == built.snapshot.digest
            self._archive.write(built.snapshot, built.files, built.models)
            if at is not None and not known:
                self._archive.adopt(built.snapshot.digest, at)
        except StoreError as error:
            _log.error("%s", error)

    def stage(self, files: Mapping[str, bytes]) -> tuple[Built | None, list[Diagnostic]]:
        """Build and keep what these rule files give with the models of the last good snapshot; changes nothing else.

        Like `look`, not beside another of its kind. Raises StoreError.
        """
        good = self._good
        models, model_files = ({}, {}) if good is None else (good.snapshot.models, good.models)
        ruleset, found = load_ruleset(files, _outputs(models), _labels(models), _inputs(models), _purposes(models))
        found = sorted(found)
        if ruleset is None or any(each.severity == "error" for each in found):
            return None, found
        sent = [
            SnapshotFile(path=path, sha256=sha256(content).hexdigest(), size=len(content))
            for path, content in sorted(files.items())
        ]
        built = Built(Snapshot(ruleset, models), tuple(sent), model_files)
        failed = self._failed_tests(files, built.snapshot)
        if failed:
            return None, sorted([*found, *failed])
        if self._archive is not None:
            self._archive.write(built.snapshot, built.files, built.models)
        return built, found

    def validate(self, files: Mapping[str, bytes]) -> list[Diagnostic]:
        """What is wrong with these rule files, given the models of the last good snapshot; sorted, changes nothing.

        Diagnostics name the files as `files` does.
        """
        try:
            models = {} if self._good is None else self._good.snapshot.models
            ruleset, found = load_ruleset(files, _outputs(models), _labels(models), _inputs(models), _purposes(models))
            if ruleset is not None and self._require_tests:
                found += failed_tests(files, Snapshot(ruleset, models))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is to be told
            _log.exception("cannot check the files")
            found = [_our_fault(error)]
        return sorted(found)

    def _read(self) -> Sources:
        return read_sources(self._rules, self._models, self._names, with_tests=self._require_tests)

    def _failed_tests(self, files: Mapping[str, bytes], snapshot: Snapshot, folder: str = "") -> list[Diagnostic]:
        return failed_tests(files, snapshot, folder=folder) if self._require_tests else []

    def _load(self, sources: Sources) -> Attempt:
        fault: Exception | None = None
        try:
            built, found = self._build(sources)
        except Exception as error:  # noqa: BLE001 - a bug of ours, or a full disk: it must not end what runs
            built, found, fault = None, [_our_fault(error)], error
        self._fault = None if fault is None else self._failed(sources.fingerprint, fault)
        return Attempt(built, tuple(sorted(found)), time.time_ns() // 1000, fault)

    def _failed(self, fingerprint: str, error: Exception) -> _Fault:
        before, said = self._fault, repr(error)
        again = before is not None and (before.fingerprint, before.said) == (fingerprint, said)
        if not again and not isinstance(error, StoreError):
            _log.error("cannot load the files", exc_info=error)
        pause = min(2 * before.pause, _LONGEST_PAUSE_S) if again and before is not None else _FIRST_PAUSE_S
        return _Fault(fingerprint, said, pause, self._clock() + pause)

    def _build(self, sources: Sources) -> tuple[Built | None, list[Diagnostic]]:
        if sources.refused:
            return None, list(sources.refused)
        models, found = self._load_models()
        ruleset, more = load_ruleset(
            sources.rules,
            _outputs(models),
            _labels(models),
            _inputs(models),
            _purposes(models),
            folder=self._names.rules,
            cache=self._cache,
        )
        found += more
        if ruleset is None or any(each.severity == "error" for each in found):
            return None, found
        before = None if self._good is None else self._good.snapshot
        snapshot = Snapshot(ruleset, models, self._maker, before)
        failed = self._failed_tests(sources.tests, snapshot, self._names.rules)
        if failed:
            return None, found + failed
        built = Built(snapshot, sources.files(), sources.models)
        if self._archive is not None:
            self._archive.write(built.snapshot, built.files, built.models)
        return built, found

    def _load_models(self) -> tuple[dict[str, Model], list[Diagnostic]]:
        if self._models is None:
            return {}, []
        loaded = {} if self._good is None else self._good.snapshot.models
        return load_models(self._models, loaded, folder=self._names.models)


def _outputs(models: Mapping[str, Model]) -> dict[str, Mapping[str, str]]:
    return {name: model.outputs for name, model in models.items()}


def _labels(models: Mapping[str, Model]) -> dict[str, Mapping[str, tuple[str, ...]]]:
    return {name: model.labels for name, model in models.items()}


def _inputs(models: Mapping[str, Model]) -> dict[str, list[tuple[str, str]]]:
    return {name: [(each.root, each.attribute) for each in model.inputs] for name, model in models.items()}


def _purposes(models: Mapping[str, Model]) -> dict[str, tuple[str, ...]]:
    return {name: model.purposes for name, model in models.items()}


def _our_fault(error: Exception) -> Diagnostic:
    if isinstance(error, StoreError):
        return Diagnostic(
            file="data/snapshots", message=str(error), hint="mend it: the files are loaded again by themselves"
        )
    return Diagnostic(
        file="",
        message=f"Arbiter itself failed: {type(error).__name__}: {error}",
        hint="the log holds the whole story; please report it",
    )
