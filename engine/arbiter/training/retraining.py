"""Training again, on what is known by now: a version that passes the gate becomes the live one, any other does not.

Law: what the directory of models says is right at every moment. A version is made in a folder that nobody reads, and
moved beside the others in one step, whole; then the file that says which is live is replaced in one step. Whoever is
killed in between left nothing that is live, and the next one finishes what had passed. The same rows and the same spec
make no second version.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from google.protobuf.message import DecodeError
from onnx import ModelProto

from arbiter.durable import hold, replace, sync_folder
from arbiter.errors import ArbiterError
from arbiter.models import from_bytes
from arbiter.models.loader import MANIFEST, ONNX, chosen_in, holds_model, read_version, versions_in
from arbiter.models.versions import FILE, with_live
from arbiter.ruleset.rules import Feature  # noqa: TC001 - msgspec reads the annotations, as below
from arbiter.training.comparing import with_inputs_of
from arbiter.training.declared import Declarations  # noqa: TC001
from arbiter.training.folder import contents, write_folder
from arbiter.training.gate import Check, Demands, check_folder
from arbiter.training.run import Origin, origin_of, train
from arbiter.training.spec import Spec  # noqa: TC001
from arbiter.training.table import TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from arbiter.models import Model
    from arbiter.training.table import Table

Outcome = Literal["promoted", "refused", "unchanged"]
WORKSHOP: Final = ".retrained"  # in the model's folder: where a version is made, and where one that was refused stays
GATE: Final = "gate.json"
_PENDING: Final = ".passed"  # in the folder of a version that passed, until it is live
_LOCK: Final = ".retraining"
_HEAD: Final = "# yaml-language-server: $schema=../../rules/schema/versions.schema.json\n"


class Busy(ArbiterError):
    """Another one trains this model, or it cannot be trained as things stand: the message says why."""


class Retrained(msgspec.Struct, frozen=True):
    """What came of it: `live` is the version that is live now, `before` the one that was, 0 for none; `made` is the
    version that was trained, 0 for none, in `folder`. `checks` are the gate's, `metrics` those of the training.
    """

    model: str
    outcome: Outcome
    said: str
    live: int
    before: int
    made: int = 0
    folder: str = ""
    removed: list[int] = []
    checks: list[Check] = []
    metrics: dict[str, Any] = {}


class Wanted(msgspec.Struct, frozen=True):
    """What is trained: the spec, its file's content and the features that it reads; what the rules declare that are to
    use it (None: nobody said which), how long a row may take (see `Demands`), and how many versions stay, 0 for all.
    """

    spec: Spec
    content: bytes
    features: tuple[Feature, ...]
    declared: Declarations | None
    latency: float
    keep: int = 0


def retrain(models: Path, wanted: Wanted, read: Callable[[Spec], Table]) -> Retrained:
    """Train a new version of the model in its folder below `models`, and make it the live one if the gate lets it.

    `read` gives the rows that a spec's source has. Raises TrainingFailed, Busy, AuthorError for files that hold
    mistakes, and what `read` raises; then nothing has changed.
    """
    spec = wanted.spec
    place = models / spec.name
    with _alone(place):
        _finish(place)
        versions, live = _standing(place)
        current = None if live is None else _model(place, live)
        table = read(spec if current is None else with_inputs_of(spec, current))
        origin = origin_of(spec, wanted.content, table)
        for version, folder in reversed(versions.items()):
            if _origin_in(folder) == origin:
                how = "live" if version == live else "not live: somebody set it aside"
                said = f"version {version} is of the same rows and the same spec, and is {how}"
                return Retrained(spec.name, "unchanged", said, live or 0, live or 0)
        version = max(versions) + 1 if versions else spec.version
        folder = place / WORKSHOP / f"v{version}"
        made = msgspec.structs.replace(spec, version=version)
        trained = train(made, wanted.content, table, current)
        shutil.rmtree(place / WORKSHOP, ignore_errors=True)
        write_folder(folder, contents(made, wanted.content, trained, wanted.features), replace=True)
        against = None if live is None else versions[live]
        checks = check_folder(folder, Demands(wanted.latency, wanted.declared, against))
        (folder / GATE).write_bytes(msgspec.json.format(msgspec.json.encode(checks), indent=2) + b"\n")
        result = Retrained(
            spec.name, "refused", "", live or 0, live or 0, version, folder.as_posix(), [], checks, trained.metrics
        )
        failed = [each for each in checks if each.ok is False]
        if failed:
            return msgspec.structs.replace(result, said=f"version {version} does not pass: {failed[0].said}")
        (folder / _PENDING).touch()
        sync_folder(folder)
        made_live = folder.rename(place / folder.name)
        sync_folder(place)
        _finish(place)
        return msgspec.structs.replace(
            result,
            outcome="promoted",
            said=f"version {version} is live" + (f", in place of {live}" if live else ""),
            live=version,
            folder=made_live.as_posix(),
            removed=_prune(place, wanted.keep, {version, live}),
        )


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold the model's folder: made, if it is not there. Raises Busy, TrainingFailed."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = hold(place / _LOCK)
    except BlockingIOError:
        raise Busy(f"another retraining of {place} is under way: wait until it has ended") from None
    except OSError as error:
        raise TrainingFailed(f"{place} cannot be written: {error.strerror}") from error
    with lock:
        yield


def _shown(place: Path) -> PurePosixPath:
    """What diagnostics call the folder."""
    return PurePosixPath(place.as_posix())


def _standing(place: Path) -> tuple[dict[int, Path], int | None]:
    """The versions that are there, the lowest first, and the one that is live. Raises Busy, AuthorError."""
    if holds_model(place):
        raise Busy(
            f"{place} holds a model and no versions: move its files into a folder of their version, {place}/v1 say, "
            f"and write `live: v1` into {place / FILE}; then a new version can stand beside it"
        )
    versions = versions_in(place, _shown(place))
    chosen = chosen_in(place, _shown(place), versions) if versions or (place / FILE).exists() else None
    if chosen is None:
        return versions, None
    if chosen[0].canary is not None:
        raise Busy(
            f"version {chosen[0].canary.version} of {place} is tried on a share of the subjects, and a new one in "
            f"place of the live one would end what is compared: end that first, in {place / FILE}"
        )
    return versions, chosen[0].live


def _model(place: Path, version: int) -> Model:
    """The model of a version that is there. Raises AuthorError."""
    files = read_version(place, version)
    assert files is not None  # noqa: S101 - it was just found
    return from_bytes(*files, file=f"{place}/v{version}/{MANIFEST}")


def _origin_in(folder: Path) -> Origin | None:
    """What the model in a folder says that it was made of."""
    try:
        said = ModelProto.FromString((folder / ONNX).read_bytes()).metadata_props
    except (OSError, DecodeError):
        return None
    told: Mapping[str, str] = {each.key: each.value for each in said}
    return Origin(*(told.get(f"arbiter.{key}", "") for key in Origin._fields))


def _finish(place: Path) -> None:
    """Make a version the live one that has passed and is not yet. Raises AuthorError."""
    for version, folder in versions_in(place, _shown(place)).items():
        if (folder / _PENDING).exists():
            _make_live(place, version)
            (folder / _PENDING).unlink()
            sync_folder(folder)


def _make_live(place: Path, version: int) -> None:
    """Name a version as live, and change nothing else that `versions.yaml` says."""
    file = place / FILE
    replace(file, with_live(file.read_bytes(), version) if file.exists() else f"{_HEAD}live: v{version}\n".encode())


def _prune(place: Path, keep: int, stay: Collection[int | None]) -> list[int]:
    """Remove all versions but the newest `keep`, 0 for all, and those that are to `stay`."""
    versions = versions_in(place, _shown(place))
    gone = [version for version in list(versions)[:-keep] if version not in stay] if keep else []
    for version in gone:
        folder = versions[version]
        hidden = folder.with_name(f".{folder.name}.gone")  # in one step, so that nobody reads half of it
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    return gone
