"""The yardstick for how long a model takes: a logistic regression over as many columns.

Law: the cheapest model that is one, so that a time can be said as a multiple of it on whatever machine.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from arbiter.models.loader import from_bytes

if TYPE_CHECKING:
    from arbiter.models.model import Model


def reference(width: int, file: str) -> Model:
    """A logistic regression over `width` columns of floats, ready to run."""
    value = helper.make_tensor_value_info
    weights = np.linspace(-1, 1, width, dtype=np.float32).reshape(-1, 1)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["z"]), helper.make_node("Sigmoid", ["z"], ["p"])],
        "reference",
        [value("x", TensorProto.FLOAT, [None, width])],
        [value("p", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = made.SerializeToString()
    inputs = "".join(f"  - {{name: i{number}, from: context.i{number}}}\n" for number in range(width))
    manifest = (
        f"name: reference\nversion: 1\nkind: propensity\nsha256: {hashlib.sha256(content).hexdigest()}\n"
        f"inputs:\n{inputs}outputs: {{probability: {{tensor: p, type: double}}}}\n"
    )
    return from_bytes(manifest.encode(), content, file=file)
