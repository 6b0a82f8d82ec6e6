"""What models cost a decision: none needed, one of 100 trees, one logistic, eight of these as one graph and one by one.

Whole decisions of an engine with a deadline, a profile from LMDB each. `none` and the others differ in what their rules
read and in nothing else: `one`, `eight` and `apart` are eight rules that compete by value, an expression of a model's
output. The promise about one model is a time, and stands beside the machine that it was measured on.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from arbiter.models import from_bytes, load_models
from arbiter.profiles.store import Store
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine, wall_clock
from arbiter.snapshot import Snapshot
from arbiter.types import Request
from benchmarks.decision import FEATURES, MODEL, ROOT, add_people
from benchmarks.measure import alternate

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = 8
BATCHES = (1, 10, 100)
INPUTS = ("orders_90d", "orders_180d", "orders_39w", "spend_39w", "max_order_39w")


def run() -> dict[str, Any]:
    """µs of a decision by what it needs, what that adds to one that needs nothing, and µs of a decision in batches."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store") as store:
        engine, apart = Engine(store), Engine(store)
        snapshots = _snapshot(), _snapshot()
        engine.activate(snapshots[0])
        apart.activate(snapshots[1])
        people = add_people(store)
        eight = tuple(f"m{number}" for number in range(MODELS))
        snapshots[0].merge(eight)
        snapshots[1].merged[eight] = ()  # asked for, and not merged
        subjects = {name: _deciding(engine, people, name) for name in ("none", "trees", "one", "eight")}
        subjects["none, by value"] = _deciding(engine, people, "constant")
        subjects["apart"] = _deciding(apart, people, "eight")
        took = alternate(subjects)
        batches = alternate({str(size): _batch(engine, people, size) for size in BATCHES})
        most = BATCHES[-1]
        several = alternate(
            {name: _batch(of, people, most, "eight") for name, of in {"eight": engine, "apart": apart}.items()}
        )
    adds = {name: took[name] - took["none, by value"] for name in ("one", "eight", "apart")}
    adds["trees"] = took["trees"] - took["none"]
    return {
        "decision_us": took,
        "adds_us": adds,
        "batch_of_trees_us_per_decision": {size: each / int(size) for size, each in batches.items()},
        "batch_of_eight_us_per_decision": {name: each / most for name, each in several.items()},
        "ratios": {
            "trees_add_us": adds["trees"],
            "eight_over_one": took["eight"] / took["one"],
            "eight_add_over_one_adds": adds["eight"] / adds["one"],
            "apart_over_eight": took["apart"] / took["eight"],
            "apart_over_eight_in_batches": several["apart"] / several["eight"],
        },
    }


def logistic_files(name: str, seed: int, inputs: tuple[str, ...] = INPUTS) -> tuple[bytes, bytes]:
    """Manifest and graph of a logistic regression of drawn weights over these features, as skl2onnx writes one."""
    draw = np.random.default_rng(seed)
    weights = draw.normal(size=len(inputs)) / 10
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "probabilities"], domain="ai.onnx.ml", classlabels_ints=[0, 1],
        coefficients=[*(-weights), *weights], intercepts=[0.1, -0.1], multi_class=0, post_transform="LOGISTIC",
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(inputs)])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    lines = [
        f"name: {name}",
        "version: 1",
        "kind: propensity",
        f"sha256: {hashlib.sha256(onnx).hexdigest()}",
        "inputs:",
    ]
    lines += [f"  - {{name: {each}, from: features.{each}, default: 0}}" for each in inputs]
    lines += ["outputs:", "  probability: {tensor: probabilities, index: 1, type: double}", ""]
    return "\n".join(lines).encode(), onnx


def _snapshot() -> Snapshot:
    models = load_models(ROOT / "models")[0] | {f"m{n}": from_bytes(*logistic_files(f"m{n}", n)) for n in range(MODELS)}
    lines = ["decisions: {none: , trees: , batched: , one: {order: [value]}, eight: {order: [value]},"]
    lines += ["  constant: {order: [value]}}", "rules:"]
    probability = f"models.{MODEL}.probability"
    for point, when in (("none", "profile.s0 != ''"), ("trees", f"{probability} >= 0.0")):
        lines.append(f'  - {{id: {point}, decision: {point}, when: "{when}", then: {{action: show}}}}')
    lines.append(f'  - {{id: batched, decision: batched, when: "{probability} >= 0.0", then: {{action: show}}}}')
    for number in range(MODELS):
        for point, value in (
            ("one", f"models.m0.probability * {number + 1}"),
            ("eight", f"models.m{number}.probability * {number + 1}"),
            ("constant", f"profile.n3 * {number + 1}"),
        ):
            action = f"{{action: show, params: {{n: {number}}}}}"
            lines.append(f'  - {{id: {point}-{number}, decision: {point}, value: "{value}", then: {action}}}')
    files = {"features.yaml": FEATURES, "bench.yaml": "\n".join([*lines, ""]).encode()}
    ruleset, found = load_ruleset(files, {name: m.outputs for name, m in models.items()})
    if ruleset is None:
        raise SystemExit("\n".join(each.render() for each in found))
    return Snapshot(ruleset, models)


def _deciding(engine: Engine, people: list[str], point: str) -> Callable[[], object]:
    now, who = wall_clock(), itertools.cycle(people)
    (decision,) = engine.decide(Request(people[0], (point,), now))
    if decision.defaulted or decision.degraded:
        raise SystemExit(f"{point}: nothing was decided")
    return lambda: engine.decide(Request(next(who), (point,), now), time.monotonic() + 1)


def _batch(engine: Engine, people: list[str], size: int, point: str = "batched") -> Callable[[], object]:
    now, who = wall_clock(), itertools.cycle(people)
    return lambda: engine.decide_batch([Request(next(who), (point,), now) for _ in range(size)], time.monotonic() + 1)
