"""Another version of one model, for a snapshot that runs: out of the archive, or the directory of models.

Law: finds and builds, and changes nothing that stands. Whoever orders it is told why it cannot be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.errors import AuthorError, InvalidField, NotFound, VersionConflict
from arbiter.models.reader import read_manifest

if TYPE_CHECKING:
    from arbiter.runtime.archive import Archive
    from arbiter.runtime.desk import Desk
    from arbiter.runtime.loader import Built, Loader

_WAY_OUT = "roll back the snapshot, or reload first"


def another_model(desk: Desk, loader: Loader, archive: Archive, name: str, version: int) -> Built:
    """What runs, with the model of that name at `version`, and none tried beside it.

    With 0 it is the one that ran before, so far as the archive knows, or while another is tried the one that is live.
    What ran last is taken first, then what lies in the directory of models. Raises CallerError.
    """
    running = desk.running
    if running is None or desk.standing.hold is not None or running.rules is None:
        raise VersionConflict(f"what runs was rolled back, or comes out of the archive: {_WAY_OUT}", field="model")
    current, trial = running.snapshot.models[name], running.snapshot.trials.get(name)
    if version == current.version and trial is None:
        raise InvalidField(f"version {version} of model `{name}` runs: name another", field="version")
    stays = trial is not None and version in {0, current.version}
    try:
        content = (
            loader.model_files(name, current.digest)
            if stays
            else _found(loader, archive, name, version, current.digest)
        )
        if content is None:
            message = f"no model `{name}` ran before, so far as the snapshots that are kept tell: name a version"
            if version:
                message = f"version {version} of model `{name}` is in no snapshot that is kept, nor in its folder"
            raise NotFound(message, field="version")
        return loader.exchange(running, name, *content)
    except AuthorError as error:
        first = error.diagnostics[0].render().partition("\n")[0]
        raise InvalidField(f"the rules cannot do with that version: {first}", field="version") from error


def _found(loader: Loader, archive: Archive, name: str, version: int, besides: str) -> tuple[bytes, bytes] | None:
    for digest in archive.models_called(name):
        if digest == besides:
            continue
        content = loader.model_files(name, digest)
        if content is not None and version in {0, _version_in(content[0])}:
            return content
    return loader.version_files(name, version) if version else None


def _version_in(manifest: bytes) -> int:
    told, _, _ = read_manifest(manifest, "manifest.yaml")
    return told.version if told is not None else 0
