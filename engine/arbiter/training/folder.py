"""A model folder on the disk: written whole, and read again by the gate.

Law: a folder is made beside its place and moved there in one step, so that who watches it never sees half of it.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from arbiter.durable import sync_folder, write_through
from arbiter.models.loader import MANIFEST, ONNX
from arbiter.training.card import PICTURE, card
from arbiter.training.gate import METRICS, PARITY
from arbiter.training.plots import picture
from arbiter.training.table import TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from arbiter.ruleset.rules import Feature
    from arbiter.training.paritycheck import ParityFile
    from arbiter.training.run import Trained
    from arbiter.training.spec import Spec

CARD = "CARD.md"
SPEC = "train.yaml"


def contents(spec: Spec, content: bytes, trained: Trained, features: Sequence[Feature]) -> dict[str, bytes]:
    """All files of the folder, by name. `content` is the spec's own file, which goes with it."""
    return {
        ONNX: trained.onnx,
        MANIFEST: trained.manifest,
        PARITY: _parity(trained.parity.file),
        METRICS: _json(trained.metrics),
        CARD: card(spec, trained.metrics, features).encode(),
        PICTURE: picture(trained.metrics),
        SPEC: content,
    }


def check_free(place: Path, *, replace: bool) -> None:
    """Raise TrainingFailed where a folder is that is not to be replaced."""
    if place.exists() and not replace:
        raise TrainingFailed(f"{place} is there already: say --replace, or write elsewhere with --out")


def write_folder(place: Path, files: Mapping[str, bytes], *, replace: bool) -> None:
    """Write the folder; with `replace` one that is there goes. Raises TrainingFailed."""
    check_free(place, replace=replace)
    draft, old = place.with_name(f".{place.name}.new"), place.with_name(f".{place.name}.old")
    try:
        for each in (draft, old):
            shutil.rmtree(each, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, content in files.items():
            write_through(draft / name, content)
        sync_folder(draft)
        if place.exists():
            place.rename(old)
        draft.rename(place)
        sync_folder(place.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise TrainingFailed(f"{place} cannot be written: {error.strerror or error}") from error


def _parity(file: ParityFile) -> bytes:
    """A row on each line, for those who read differences."""
    encode = msgspec.json.encode
    rows = b",\n".join(encode(row) for row in file.rows)
    answers = b",\n".join(encode(each) for each in file.answers)
    head = b'{\n"tolerance": %b,\n"inputs": %b,\n"outputs": %b,\n"rows": [\n'
    start = head % (encode(file.tolerance), encode(file.inputs), encode(file.outputs))
    return start + rows + b'\n],\n"answers": [\n' + answers + b"\n]\n}\n"


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
