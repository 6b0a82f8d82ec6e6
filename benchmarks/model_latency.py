"""How long one row takes through the shipped models, by each way that onnxruntime offers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from arbiter.models import load_models
from arbiter.models.session import open_session
from benchmarks.measure import alternate

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = Path(__file__).resolve().parent.parent / "models"


def run() -> dict[str, Any]:
    """µs per row, by model and way; the ratio is ours over the shortest plain call of onnxruntime."""
    took = {name: alternate(_ways(name)) for name in ("repurchase", "rfm")}
    return {
        **{f"{name}_us": ways for name, ways in took.items()},
        "ratios": {
            f"{name}_over_session_run": ways["Model.run_one"] / ways["session.run, new array"]
            for name, ways in took.items()
        },
    }


def _ways(name: str) -> dict[str, Callable[[], object]]:
    models, _ = load_models(MODELS)
    model = models[name]
    row = json.loads((MODELS / name / "parity.json").read_text("utf-8"))["rows"][0]
    session = open_session((MODELS / name / "model.onnx").read_bytes())
    tensor, outputs = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    ready = np.array([row], dtype=np.float32)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(ready)
    return {
        "Model.run_one": lambda: model.run_one(row),
        "Model.run of one": lambda: model.run([row]),
        "session.run, new array": lambda: session.run(outputs, {tensor: np.array([row], dtype=np.float32)}),
        "session.run, array at hand": lambda: session.run(outputs, {tensor: ready}),
        "run_with_ort_values": lambda: session.run_with_ort_values(outputs, {tensor: value}),
    }
