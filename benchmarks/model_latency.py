"""How long one row takes through a model, by each way that onnxruntime offers: `python benchmarks/model_latency.py`.

Medians of nine rounds, the ways taking turns within each round, so that a slow moment of the machine meets all alike.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from arbiter.models import load_models
from arbiter.models.model import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, CALLS = 9, 2000


def ways(name: str) -> dict[str, Callable[[], object]]:
    """Return the ways to run one row of the shipped model `name`."""
    folder = ROOT / "models" / name
    models, _ = load_models(ROOT / "models")
    model = models[name]
    row = json.loads((folder / "parity.json").read_text("utf-8"))["rows"][0]
    session = open_session((folder / "model.onnx").read_bytes())
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


def measure(candidates: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median time of each in microseconds."""
    rounds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, call in candidates.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            rounds[name].append((time.perf_counter() - start) / CALLS * 1e6)
    return {name: statistics.median(times) for name, times in rounds.items()}


def main() -> None:
    """Print the figures of both shipped models."""
    for name in ("repurchase", "rfm"):
        for way, micros in measure(ways(name)).items():
            print(f"{name:12}{way:28}{micros:7.2f} µs")


if __name__ == "__main__":
    main()
