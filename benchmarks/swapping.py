"""Decisions while a model is replaced: a real server under steady load, quiet and with a new version every second.

Each version is the forest that ships, with a constant of its own as a second output; a symlink is renamed into place.
Every decision needs the forest together with four logistic models, so that they run as one graph, which is merged anew
for each version. As in `reload`, whose load and phases these are, both marks of an answer carry the version that made
it: two versions in one answer, or two digests for one version, would be two snapshots mixed.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from arbiter.client import Client
from arbiter.runtime.engine import wall_clock
from arbiter.types import Event
from benchmarks import reload
from benchmarks.conditions import POINT, point_lines
from benchmarks.decision import FEATURES, MODEL, ROOT
from benchmarks.load import MARKS, Load
from benchmarks.needing import logistic_files

PEOPLE = 200
OTHERS = 4
LIVE = "live"


def run() -> dict[str, Any]:
    """Latencies in ms quiet and swapping, from rename to live in ms, and the ratio of the 99th percentiles."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        (home / "rules").mkdir()
        (home / "models").mkdir()
        (home / "rules" / "features.yaml").write_bytes(FEATURES)
        (home / "rules" / "bench.yaml").write_text("\n".join(_rules()), "utf-8")
        for number in range(OTHERS):
            _folder(home / "models" / f"m{number}", *logistic_files(f"m{number}", number))
        count = reload.PAIRS * int(reload.PHASE / reload.EVERY)
        edits = {version: _version(home / "versions", version) for version in range(count + 1)}
        place = home / "models" / LIVE
        edits[0].rename(place)
        with reload.server(home, str(home / "models")) as address:
            with Client(address) as client:
                subjects = [_add(client, number) for number in range(PEOPLE)]
            with Load(address, subjects, reload.RATE) as load:
                ran, changes = reload.phases({v: edit for v, edit in edits.items() if v}, lambda _: place)
                calls = load.stop()
    return reload.told(calls, ran, changes)


def _rules() -> list[str]:
    lines = [*point_lines(), f"  {MARKS}: {{slots: 2, order: [priority]}}", "rules:"]
    likely = f"models.{LIVE}.probability"
    total = " + ".join([likely, *(f"models.m{number}.probability" for number in range(OTHERS))])
    lines.append(f"  - {{id: all, decision: {POINT}, when: '{total} >= 0.0', then: {{action: show}}}}")
    for slot in "ab":
        action = f'{{action: mark, params: {{slot: {slot}, version: "${{models.{LIVE}.version}}"}}}}'
        lines.append(f"  - {{id: mark-{slot}, decision: {MARKS}, when: '{likely} >= 0.0', then: {action}}}")
    return [*lines, ""]


def _version(folder: Path, version: int) -> Path:
    """A version of the forest, and the symlink that is to be renamed into place."""
    proto = ModelProto.FromString((ROOT / "models" / MODEL / "model.onnx").read_bytes())
    graph = proto.graph
    (output,) = graph.output
    for name, value in (("nothing", 0.0), ("number", float(version))):
        graph.initializer.append(numpy_helper.from_array(np.array([value], dtype=np.float32), name))
    graph.node.append(helper.make_node("Mul", [output.name, "nothing"], ["zero"]))
    graph.node.append(helper.make_node("Add", ["zero", "number"], ["count"]))
    graph.node.append(helper.make_node("Cast", ["count"], ["version"], to=TensorProto.INT64))
    graph.output.append(helper.make_tensor_value_info("version", TensorProto.INT64, [None, 1]))
    onnx = proto.SerializeToString()
    text = (ROOT / "models" / MODEL / "manifest.yaml").read_text("utf-8")
    before = next(line for line in text.splitlines() if line.startswith("sha256: "))
    text = text.replace(before, f"sha256: {hashlib.sha256(onnx).hexdigest()}").replace(
        f"name: {MODEL}", f"name: {LIVE}"
    )
    _folder(folder / f"{version:03d}", (text + "  version: {tensor: version, type: int}\n").encode(), onnx)
    link = folder / f"link-{version:03d}"
    link.symlink_to(folder / f"{version:03d}")
    return link


def _folder(folder: Path, manifest: bytes, onnx: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.yaml").write_bytes(manifest)
    (folder / "model.onnx").write_bytes(onnx)


def _add(client: Client, number: int) -> str:
    subject_id = f"customer-{number}"
    client.ingest_events([Event(f"e-{number}", subject_id, "purchase", wall_clock() - 1, {"amount": 5.0 + number})])
    return subject_id
