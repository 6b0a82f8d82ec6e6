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

from arbiter.errors import AuthorError, Diagnostic, StoreError
from arbiter.models.loader import load_directory, read_version
from arbiter.models.trial import digest_of_both
from arbiter.ruleset.cache import Cache
from arbiter.ruleset.image import Maker
from arbiter.ruleset.load import load_ruleset
from arbiter.ruletests import failed_tests
from arbiter.runtime.guardrails import unwatched
from arbiter.runtime.judging import Judged
from arbiter.runtime.quiet import undisturbed
from arbiter.runtime.sources import MODEL_FILES, exchanged, files_by_model, names_of, paths_of, read_sources
from arbiter.serving import SnapshotFile
from arbiter.snapshot import Snapshot, model_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from arbiter.models.model import Model
    from arbiter.models.trial import Trial
    from arbiter.ruleset.rules import Ruleset
    from arbiter.runtime.archive import Archive
    from arbiter.runtime.sources import Names, Sources
    from arbiter.serving import ModelHold

_log = logging.getLogger("arbiter.loader")

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0


class Built(msgspec.Struct, frozen=True):
    """A snapshot that was built and is on disk, the files that it came from, and its model files by ``NAME/FILE``.

    `rules` and `tests` are its rule files and their tests, None when it came out of the archive, which has none.
    `held` are the names of the models that operators put in place of what the files give.
    """

    snapshot: Snapshot
    files: tuple[SnapshotFile, ...]
    models: Mapping[str, bytes]
    rules: Mapping[str, bytes] | None = None
    tests: Mapping[str, bytes] = {}
    held: tuple[str, ...] = ()


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
    `holds` says which models are to be in place of those of the files; `clock` gives seconds from any start on. With
    `apart` models are judged in another process before this one opens them. Where decisions are not `logged`, it warns
    of guardrails, which nothing sees break.
    """

    def __init__(
        self,
        rules: Path,
        models: Path | None,
        archive: Archive | None,
        names: Names | None = None,
        *,
        require_tests: bool = False,
        apart: bool = False,
        logged: bool = True,
        holds: Callable[[], Iterable[ModelHold]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._models = models
        self._archive = archive
        self._names = names or names_of(rules, models)
        self._require_tests = require_tests
        self._holds = holds
        self._clock = clock
        self._judged = Judged(apart=apart)
        self._logged = logged
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
        attempt = self._settled(sources, tuple(self._holds()))
        return None if self._fault is not None and self._fault.pause > _FIRST_PAUSE_S else attempt

    def load(self, *, afresh: bool = False) -> Attempt:
        """Load the files, changed or not; with `afresh` as they are, whatever models operators put in their place."""
        return self._settled(self._read(), () if afresh else tuple(self._holds()))

    def _settled(self, sources: Sources, holds: tuple[ModelHold, ...]) -> Attempt:
        """Load `sources`, and again whatever the files became meanwhile."""
        with undisturbed():
            while True:
                attempt = self._load(sources, holds)
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
        files = self._archive.meta(digest).files
        return Built(self._archive.read(digest, self._known()), files, self._archive.model_files(digest))

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
        models, trials = _models_of(good)
        ruleset, found = _ruleset(files, models, trials)
        found = sorted(found)
        if ruleset is None or any(each.severity == "error" for each in found):
            return None, found
        sent = [
            SnapshotFile(path=path, sha256=sha256(content).hexdigest(), size=len(content))
            for path, content in sorted(files.items())
        ]
        model_files, held = ({}, ()) if good is None else (good.models, good.held)
        built = Built(Snapshot(ruleset, models, trials=trials), tuple(sent), model_files, files, files, held)
        failed = self._failed_tests(files, built.snapshot)
        if failed:
            return None, sorted([*found, *failed])
        return self._keep(built), found

    def validate(self, files: Mapping[str, bytes]) -> list[Diagnostic]:
        """What is wrong with these rule files, given the models of the last good snapshot; sorted, changes nothing.

        Diagnostics name the files as `files` does.
        """
        try:
            models, trials = _models_of(self._good)
            ruleset, found = _ruleset(files, models, trials)
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

    def _load(self, sources: Sources, holds: tuple[ModelHold, ...]) -> Attempt:
        fault: Exception | None = None
        try:
            built, found = self._build(sources, holds)
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

    def _build(self, sources: Sources, holds: tuple[ModelHold, ...]) -> tuple[Built | None, list[Diagnostic]]:
        if sources.refused:
            return None, list(sources.refused)
        models, trials, found = self._load_models()
        files = files_by_model(sources.models, models, trials)
        held = []
        for hold in holds:
            live = models.get(hold.name)
            if live is None or digest_of_both(live, trials.get(hold.name)) != hold.aside:
                continue
            content = self.model_files(hold.name, hold.digest)
            if content is None:
                _log.error("the hold of model %s ends: version %d is no longer kept", hold.name, hold.version)
                continue
            models[hold.name] = self._known().get(hold.digest) or self._open(hold.name, *content)
            trials.pop(hold.name, None)
            files = exchanged(files, hold.name, *content)
            held.append(hold.name)
        snapshot, more = self._assembled(sources.rules, sources.tests, models, trials)
        found += more
        if snapshot is None or any(each.severity == "error" for each in found):
            return None, found
        built = Built(snapshot, sources.files(), files, sources.rules, sources.tests, tuple(held))
        return self._keep(built), found

    def exchange(self, built: Built, name: str, manifest: bytes, onnx: bytes) -> Built:
        """Build and keep `built` with another model of that name, and nothing tried beside it; changes nothing else.

        Not beside another of its kind. Raises AuthorError when the rules cannot do with it, StoreError.
        """
        model = self._open(name, manifest, onnx)
        models = {**built.snapshot.models, name: self._known().get(model.digest, model)}
        trials = {each: trial for each, trial in built.snapshot.trials.items() if each != name}
        snapshot, found = self._assembled(built.rules or {}, built.tests, models, trials)
        if snapshot is None:
            raise AuthorError(found)
        files = exchanged(built.models, name, manifest, onnx)
        return self._keep(msgspec.structs.replace(built, snapshot=snapshot, models=files))

    def _assembled(
        self,
        rules: Mapping[str, bytes],
        tests: Mapping[str, bytes],
        models: Mapping[str, Model],
        trials: Mapping[str, Trial],
    ) -> tuple[Snapshot | None, list[Diagnostic]]:
        """The snapshot of these rules and models; None when there are mistakes."""
        ruleset, found = _ruleset(rules, models, trials, self._names.rules, self._cache)
        if ruleset is None or any(each.severity == "error" for each in found):
            return None, found
        before = None if self._good is None else self._good.snapshot
        snapshot = Snapshot(ruleset, models, self._maker, before, trials)
        found += unwatched(ruleset, self._names.rules, logged=self._logged)
        failed = self._failed_tests(tests, snapshot, self._names.rules)
        return (None if failed else snapshot), found + failed

    def _keep(self, built: Built) -> Built:
        if self._archive is not None:
            self._archive.write(built.snapshot, built.files, built.models)
        return built

    def model_files(self, name: str, digest: str) -> tuple[bytes, bytes] | None:
        """Manifest and graph of a model that runs or is in the archive; None when it is not there."""
        good = self._good
        if good is not None and name in good.snapshot.models and good.snapshot.models[name].digest == digest:
            return good.models[paths_of(name)[0]], good.models[paths_of(name)[1]]
        return None if self._archive is None else self._archive.find_model(name, digest)

    def version_files(self, name: str, version: int) -> tuple[bytes, bytes] | None:
        """Manifest and graph of a version that lies in the directory of models; None when it is not there."""
        return None if self._models is None else read_version(self._models / name, version)

    def _known(self) -> dict[str, Model]:
        """The models in memory, by digest."""
        return {} if self._good is None else {each.digest: each for each in self._good.snapshot.known_models()}

    def _open(self, name: str, manifest: bytes, onnx: bytes) -> Model:
        """A model that is not in memory. Raises AuthorError."""
        with self._judged.opening() as opener:
            return opener(manifest, onnx, f"{self._names.models}/{name}/{MODEL_FILES[0]}")

    def _load_models(self) -> tuple[dict[str, Model], dict[str, Trial], list[Diagnostic]]:
        if self._models is None:
            return {}, {}, []
        with self._judged.opening() as opener:
            loaded = load_directory(self._models, self._known().values(), folder=self._names.models, opener=opener)
        return loaded.models, loaded.trials, loaded.found


def _models_of(built: Built | None) -> tuple[Mapping[str, Model], Mapping[str, Trial]]:
    return ({}, {}) if built is None else (built.snapshot.models, built.snapshot.trials)


def _ruleset(
    files: Mapping[str, bytes],
    models: Mapping[str, Model],
    trials: Mapping[str, Trial],
    folder: str = "",
    cache: Cache | None = None,
) -> tuple[Ruleset | None, list[Diagnostic]]:
    """The rule set of these files with these models, and what is wrong with it."""
    purposes = {name: set(model.purposes) for name, model in models.items()}
    for name, trial in trials.items():
        purposes[name].update(trial.model.purposes)
    return load_ruleset(
        files,
        {name: model.outputs for name, model in models.items()},
        {name: model.labels for name, model in models.items()},
        model_inputs(models, trials),
        {name: sorted(each) for name, each in purposes.items()},
        folder=folder,
        cache=cache,
    )


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
