"""From a model folder, or its bytes, to a warmed `Model`.

Law: the only module of `models` that reads the disk. Whatever is wrong with a folder comes out as diagnostics, all of
them; no file, however broken, makes it raise anything else.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from arbiter.errors import AuthorError, Diagnostic
from arbiter.models.failure import ModelFailure
from arbiter.models.graph import MAX_MODEL_BYTES, inspect
from arbiter.models.model import Model
from arbiter.models.places import Places
from arbiter.models.reader import FORM, read_manifest
from arbiter.models.session import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping
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
        message = f"onnxruntime refuses the model: {_first_line(error)}"
        raise AuthorError([about.mistake("", message)]) from error
    model = Model(told, digest_of(manifest, onnx), layout, session)
    try:
        model.warm_up()
    except ModelFailure as error:
        raise AuthorError([about.mistake("", str(error))]) from error
    return model


def load_models(
    directory: Path, loaded: Mapping[str, Model] | None = None, *, folder: str = ""
) -> tuple[dict[str, Model], list[Diagnostic]]:
    """Load every folder in `directory` that holds a manifest or an ONNX file and has no dot before its name.

    A model of `loaded` whose files have not changed is taken over as it is. Diagnostics are sorted, and name
    files by their path below `directory` with `folder` before it (``models/rfm/manifest.yaml``); models with none are
    returned even when others have some, and it is for the caller to refuse the whole.
    """
    if not directory.is_dir():
        return {}, [Diagnostic(file=folder or directory.name, message="no such directory of models")]
    models: dict[str, Model] = {}
    found: list[Diagnostic] = []
    for place in sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not any((place / name).exists() for name in (MANIFEST, ONNX)):
            continue
        try:
            model = _load(place, PurePosixPath(folder, place.name), (loaded or {}).get(place.name))
        except AuthorError as error:
            found += error.diagnostics
        else:
            models[model.name] = model
    return models, sorted(found)


def _load(place: Path, shown: PurePosixPath, loaded: Model | None) -> Model:
    """Load the folder at `place`, which diagnostics call `shown`."""
    file = (shown / MANIFEST).as_posix()
    manifest = _read(place / MANIFEST, FORM.max_bytes, file)
    onnx = _read(place / ONNX, MAX_MODEL_BYTES, (shown / ONNX).as_posix())
    if loaded is not None and loaded.digest == digest_of(manifest, onnx):
        return loaded
    model = from_bytes(manifest, onnx, file=file)
    if model.name != place.name:
        _, places, _ = read_manifest(manifest, file)
        message = f"model `{model.name}` lies in a folder called `{place.name}`"
        raise AuthorError([places.mistake("name", message, "folder and model must have one name")])
    return model


def _read(path: Path, limit: int, shown: str) -> bytes:
    """Read at most one byte more than `limit`: whoever checks the size sees that it is too much."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise AuthorError([Diagnostic(file=shown, message=message)]) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
