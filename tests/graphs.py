"""Small models for tests: folders that hold what a test says."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path


def times(factor: float, *, metadata: dict[str, str] | None = None, logistic: bool = False) -> bytes:
    """A graph of one column `x` that answers `y`, that many times as much, or the logistic function of it."""
    nodes = [helper.make_node("Mul", ["x", "k"], ["z"]), helper.make_node("Sigmoid", ["z"], ["y"])]
    made = helper.make_graph(
        nodes if logistic else [helper.make_node("Mul", ["x", "k"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        initializer=[numpy_helper.from_array(np.array([factor], dtype=np.float32), "k")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, metadata or {})
    content: bytes = model.SerializeToString()
    return content


def write_model(
    folder: Path,
    name: str,
    version: int,
    onnx: bytes,
    *,
    source: str = "profile.age",
    outputs: str = "{score: {tensor: y, type: double}}",
    kind: str = "score",
) -> None:
    """Write a model's manifest and graph into `folder`, the graph first, as a tool that deploys would."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx)
    (folder / "manifest.yaml").write_text(
        f"name: {name}\nversion: {version}\nkind: {kind}\nsha256: {hashlib.sha256(onnx).hexdigest()}\n"
        f"inputs: [{{name: x, from: {source}}}]\noutputs: {outputs}\n"
    )
