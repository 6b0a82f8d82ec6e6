"""From a model folder, or its bytes, to a warmed `Model`.

Law: the only module of `models` that reads the disk. Whatever is wrong with a folder comes out as diagnostics, all of
them; no file, however broken, makes it raise anything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import AuthorError, Diagnostic
from arbiter.models.agreement import unlike
from arbiter.models.failure import ModelFailure, first_line
from arbiter.models.graph import MAX_MODEL_BYTES, inspect
from arbiter.models.model import Model
from arbiter.models.places import Places
from arbiter.models.reader import FORM, read_manifest
from arbiter.models.session import open_session
from arbiter.models.trial import MOST_TRIALS, Trial
from arbiter.models.versions import FILE, Share, Versions, read_versions, version_of
from arbiter.models.versions import FORM as VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MANIFEST = "manifest.yaml"
ONNX = "model.onnx"


def digest_of(manifest: bytes, onnx: bytes) -> str:
    """Compute a model's identity: SHA-256 over both files, each with its length before it."""
    digest = hashlib.sha256()
    for part in (manifest, onnx):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def from_bytes(manifest: bytes, onnx: bytes, *, file: str = MANIFEST) -> Model:
    """Check, open and warm up one model. `file` is how diagnostics name the manifest.

    Raises AuthorError with every mistake found.
    """
    folder, _, _ = file.rpartition("/")
    about = Places(f"{folder}/{ONNX}" if folder else ONNX)
    told, places, found = read_manifest(manifest, file)
    if told is None:
        raise AuthorError(found)
    layout, found = inspect(onnx, told, places, about)
    if layout is None:
        raise AuthorError(found)
    try:
        session = open_session(onnx)
    except Exception as error:  # onnxruntime's exceptions have no root but Exception
        message = f"onnxruntime refuses the model: {first_line(error)}"
        raise AuthorError([about.mistake("", message)]) from error
    try:
        model = Model(told, digest_of(manifest, onnx), layout, session)
        model.warm_up()
    except UnicodeDecodeError as error:
        raise AuthorError([about.mistake("", "the model's metadata is not all UTF-8 text")]) from error
    except ModelFailure as error:
        raise AuthorError([about.mistake("", str(error))]) from error
    return model


# What makes a model of its two files, as `from_bytes` does.
Opener = Callable[[bytes, bytes, str], Model]


def _opened(manifest: bytes, onnx: bytes, file: str) -> Model:
    return from_bytes(manifest, onnx, file=file)


class Loaded(msgspec.Struct, frozen=True):
    """What a directory of models holds: by name the models that are live, and those that are tried beside them."""

    models: dict[str, Model]
    trials: dict[str, Trial]
    found: list[Diagnostic]


def load_models(
    directory: Path, loaded: Mapping[str, Model] | None = None, *, folder: str = ""
) -> tuple[dict[str, Model], list[Diagnostic]]:
    """The live models of `load_directory`, and its diagnostics."""
    everything = load_directory(directory, (loaded or {}).values(), folder=folder)
    return everything.models, everything.found


def load_directory(
    directory: Path, loaded: Iterable[Model] = (), *, folder: str = "", opener: Opener = _opened
) -> Loaded:
    """Load what a directory says is live or tried of every model; folders with a dot before their name are none.

    A model is a folder that holds a manifest and an ONNX file, or that holds a folder of these for each version and, in
    `versions.yaml`, which one is live and which one is tried. The others are not looked at.
    A model of `loaded` whose files have not changed is taken over as it is, others are made by `opener`. Diagnostics
    are sorted, and name files by their path below `directory` with `folder` before it (``models/rfm/manifest.yaml``);
    models with none are returned even when others have some, and it is for the caller to refuse the whole.
    """
    result = Loaded({}, {}, [])
    if not directory.is_dir():
        result.found.append(Diagnostic(file=folder or directory.name, message="no such directory of models"))
        return result
    known = {model.digest: model for model in loaded}
    for place in sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")):
        shown = PurePosixPath(folder, place.name)
        try:
            _load_into(result, place, shown, known, opener)
        except AuthorError as error:
            result.found.extend(error.diagnostics)
    result.found.sort()
    if len(result.trials) > MOST_TRIALS:
        first = sorted(result.trials)[MOST_TRIALS]
        message = f"{len(result.trials)} models have a canary, and at most {MOST_TRIALS} may at once"
        result.found.append(Diagnostic(file=str(PurePosixPath(folder, first, FILE)), message=message, hint="end some"))
    return result


def _load_into(result: Loaded, place: Path, shown: PurePosixPath, known: Mapping[str, Model], opener: Opener) -> None:
    """Load what is live, and tried, of the model at `place`. Raises AuthorError."""
    choice = _choose(place, shown)
    if choice is None:
        return
    model = _load(choice.live, shown, place, known, opener)
    result.models[model.name] = model
    share = choice.share
    if share is None or choice.canary is None:
        return
    tried = _load(choice.canary, shown, place, known, opener)
    lacking = unlike((model.kind, model.told), (tried.kind, tried.told))
    if lacking:
        said = f"version {tried.version} cannot be tried in place of {model.version}: {lacking}"
        raise AuthorError([choice.places.mistake("canary", said, "rules must be able to do with both")])
    salt = share.salt or f"model:{model.name}:v{tried.version}"
    result.trials[model.name] = Trial(model=tried, share=share.share, salt=salt)


class _Choice(msgspec.Struct):
    """The folders of what is live and what is tried of a model, with its share, and where `versions.yaml` says so."""

    live: Path
    places: Places
    canary: Path | None = None
    share: Share | None = None


def versions_in(place: Path, shown: PurePosixPath) -> dict[int, Path]:
    """The folders in the model's folder `place` that hold a version each, by version, the lowest first.

    Raises AuthorError when two hold the same, or they cannot be listed.
    """
    found: dict[int, Path] = {}
    try:
        folders = sorted(path for path in place.iterdir() if version_of(path.name) and holds_model(path))
    except OSError as error:
        raise AuthorError([Diagnostic(file=str(shown), message=f"cannot be listed: {error.strerror}")]) from error
    for each in folders:
        version = version_of(each.name)
        if version in found:
            message = f"`{found[version].name}` and `{each.name}` are both version {version}"
            raise AuthorError([Diagnostic(file=str(shown / each.name), message=message, hint="rename one")])
        found[version] = each
    return dict(sorted(found.items()))


def read_version(place: Path, version: int) -> tuple[bytes, bytes] | None:
    """Manifest and graph of a version in the model's folder `place`; None when it is not there.

    Raises AuthorError when it cannot be read.
    """
    folder = versions_in(place, PurePosixPath(place.name)).get(version) if place.is_dir() else None
    return None if folder is None else _read_both(folder, PurePosixPath(place.name, folder.name))


def holds_model(place: Path) -> bool:
    """Whether the files of a model lie in a folder, or one of them does."""
    return any((place / name).exists() for name in (MANIFEST, ONNX))


def _choose(place: Path, shown: PurePosixPath) -> _Choice | None:
    """What is live, and tried, of the model at `place`: itself where there is but one; None when it is no model."""
    flat, versions = holds_model(place), versions_in(place, shown)
    file = (shown / FILE).as_posix()
    if not (place / FILE).exists():
        if flat and versions:
            raise AuthorError([_beside(file, _listed(versions))])
        if flat or not versions:
            return _Choice(place, Places(file)) if flat else None
        message = f"{_listed(versions)} are here, and nothing says which is live"
        raise AuthorError([Diagnostic(file=file, message=message, hint=f"write it: `live: v{max(versions)}`")])
    chosen, places = chosen_in(place, shown, versions)
    canary = None if chosen.canary is None else versions[chosen.canary.version]
    return _Choice(versions[chosen.live], places, canary, chosen.canary)


def chosen_in(place: Path, shown: PurePosixPath, versions: Mapping[int, Path]) -> tuple[Versions, Places]:
    """What `versions.yaml` in the model's folder `place`, which diagnostics call `shown`, says of the `versions` there.

    Raises AuthorError with every mistake.
    """
    file = (shown / FILE).as_posix()
    chosen, places, mistakes = read_versions(_read(place / FILE, VERSIONS.max_bytes, file), file)
    if holds_model(place):
        mistakes.append(_beside(file, f"`{FILE}`"))
    hint = f"there are {_listed(versions)}" if versions else "there is none"
    for key, version in () if chosen is None else chosen.named:
        if version not in versions:
            mistakes.append(places.mistake(key, f"there is no folder `v{version}`", hint))
    if chosen is None or mistakes:
        raise AuthorError(mistakes)
    return chosen, places


def _beside(file: str, what: str) -> Diagnostic:
    message = f"a model lies in its folder, or in one for each version: here are its files and {what}"
    return Diagnostic(file=file, message=message, hint="move the files into a folder of their version, `v1`")


def _listed(versions: Iterable[int]) -> str:
    return ", ".join(f"`v{each}`" for each in versions)


def _load(folder: Path, shown: PurePosixPath, place: Path, known: Mapping[str, Model], opener: Opener) -> Model:
    """Load a folder of the model at `place`, which diagnostics call `shown`. Raises AuthorError."""
    shown /= folder.relative_to(place)
    file = (shown / MANIFEST).as_posix()
    manifest, onnx = _read_both(folder, shown)
    model = known.get(digest_of(manifest, onnx)) or opener(manifest, onnx, file)
    if model.name != place.name:
        _, places, _ = read_manifest(manifest, file)
        message = f"model `{model.name}` lies in a folder called `{place.name}`"
        raise AuthorError([places.mistake("name", message, "folder and model must have one name")])
    if folder != place and model.version != version_of(folder.name):
        _, places, _ = read_manifest(manifest, file)
        message = f"version {model.version} lies in a folder called `{folder.name}`"
        raise AuthorError([places.mistake("version", message, "folder and manifest must say one version")])
    return model


def _read_both(folder: Path, shown: PurePosixPath) -> tuple[bytes, bytes]:
    """Manifest and graph of a folder that diagnostics call `shown`. Raises AuthorError."""
    manifest = _read(folder / MANIFEST, FORM.max_bytes, (shown / MANIFEST).as_posix())
    return manifest, _read(folder / ONNX, MAX_MODEL_BYTES, (shown / ONNX).as_posix())


def _read(path: Path, limit: int, shown: str) -> bytes:
    """Read at most one byte more than `limit`: whoever checks the size sees that it is too much."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise AuthorError([Diagnostic(file=shown, message=message)]) from error
