"""The gate: what is well passes, each thing that is not is said with what to do, and no file takes the caller down."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from arbiter.models.judge import Asked, judge
from arbiter.training.declared import read_declarations
from arbiter.training.export import converted
from arbiter.training.folder import contents, write_folder
from arbiter.training.gate import Check, Demands, check_folder
from arbiter.training.reading import read_spec
from arbiter.training.run import train
from arbiter.training.table import TrainingFailed, read_table
from tests.training.conftest import text_of

if TYPE_CHECKING:
    from pathlib import Path

EASY = Demands(latency=1e6)  # times are for those tests that are about them
FLOAT = TensorProto.FLOAT
value = helper.make_tensor_value_info


def made(table: Path, place: Path, estimator: str = "logistic_regression", current: Path | None = None) -> Path:
    """A trained folder called `m` below `place`."""
    from arbiter.cli.trainingdata import model_in  # noqa: PLC0415 - what the command reads

    content = text_of("propensity", estimator).encode()
    spec = read_spec(content, "train.yaml")
    in_place = None if current is None else model_in(current)
    trained = train(spec, content, read_table(spec, table), in_place)
    write_folder(place / "m", contents(spec, content, trained, ()), replace=False)
    return place / "m"


@pytest.fixture(scope="session")
def good(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(table, tmp_path_factory.mktemp("good"))


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(good, tmp_path / "m")
    return tmp_path / "m"


def failed(folder: Path, demands: Demands = EASY) -> dict[str, Check]:
    """The checks that failed, by name."""
    return {each.name: each for each in check_folder(folder, demands) if each.ok is False}


def with_onnx(folder: Path, onnx: bytes, outputs: str = "", inputs: int = 0) -> Path:
    """Put another model into the folder, whose manifest names it."""
    text = (folder / "manifest.yaml").read_text("utf-8")
    old = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    text = text.replace(old, hashlib.sha256(onnx).hexdigest())
    if outputs:
        text = text[: text.index("outputs:")] + f"outputs: {outputs}\n"
    if inputs:
        listed = "".join(f"  - {{name: i{number}, from: features.i{number}}}\n" for number in range(inputs))
        text = text[: text.index("inputs:")] + f"inputs:\n{listed}" + text[text.index("outputs:") :]
    (folder / "manifest.yaml").write_text(text, "utf-8")
    (folder / "model.onnx").write_bytes(onnx)
    return folder


def test_what_was_trained_passes_and_what_was_not_asked_is_said(good: Path) -> None:
    checks = {each.name: each for each in check_folder(good, EASY)}
    assert {name: each.ok for name, each in checks.items()} == {
        "files": True, "parity": True, "latency": True, "inputs": None, "outputs": None, "figures": True,
        "metric": None,
    }  # fmt: skip
    assert checks["inputs"].todo == "say which: --rules DIR"
    assert "over 20 rows" in checks["parity"].said


def test_a_folder_is_replaced_only_when_that_is_said(good: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in good.iterdir()}
    write_folder(tmp_path / "m", files, replace=False)
    with pytest.raises(TrainingFailed, match="is there already"):
        write_folder(tmp_path / "m", files, replace=False)
    write_folder(tmp_path / "m", files | {"CARD.md": b"new"}, replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]
    assert (tmp_path / "m" / "CARD.md").read_bytes() == b"new"


class TestParity:
    """Converters err in places; what they make is no model of ours."""

    draw = np.random.default_rng(4)
    x = np.column_stack([draw.normal(0, 1, 600), draw.exponential(2, 600), draw.normal(50, 20, 600)])
    x = x.astype(np.float32).astype(np.float64)
    y = (x[:, 0] + x[:, 1] + draw.normal(0, 1, 600) > 2).astype(int)

    def converted(self, folder: Path, model: Any, outputs: str = "") -> Path:
        """The model as skl2onnx converts it, with rows and what scikit-learn says of them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            onnx = to_onnx(
                model,
                initial_types=[("features", FloatTensorType([None, 3]))],
                options={id(model): {"zipmap": False}},
                target_opset={"": 17, "ai.onnx.ml": 3},
            )
        onnx.ir_version = 8
        said = outputs or "{probability: {tensor: probabilities, index: 1, type: double}}"
        place = with_onnx(folder, onnx.SerializeToString(), said)
        rows = self.x[:200]
        parity = json.loads((folder / "parity.json").read_text("utf-8"))
        parity["rows"] = rows.tolist()
        parity["answers"] = model.predict_proba(rows)[:, 1:].tolist()
        (folder / "parity.json").write_text(json.dumps(parity), "utf-8")
        return place

    def test_a_forest_that_is_converted_well_passes(self, folder: Path) -> None:
        forest = RandomForestClassifier(30, max_depth=4, random_state=1).fit(self.x, self.y)
        assert "parity" not in failed(self.converted(folder, forest))

    def test_isotonic_calibration_is_refused_where_it_is_off(self, folder: Path) -> None:
        forest = RandomForestClassifier(30, max_depth=4, random_state=1)
        model = CalibratedClassifierCV(forest, method="isotonic", cv=3).fit(self.x, self.y)
        check = failed(self.converted(folder, model))["parity"]
        assert float(check.said.split(" by at most ")[1].split(";")[0]) > 1e-3
        assert "calibrated classifiers are known for it" in check.todo

    def test_a_sigmoid_over_a_pipeline_is_refused(self, folder: Path) -> None:
        pipeline = make_pipeline(StandardScaler(), LogisticRegression())
        model = CalibratedClassifierCV(pipeline, method="sigmoid", cv=3).fit(self.x, self.y)
        assert "parity" in failed(self.converted(folder, model))

    def test_histogram_boosting_does_not_convert(self) -> None:
        model = HistGradientBoostingClassifier(max_iter=10, random_state=1).fit(self.x, self.y)
        with pytest.raises(TrainingFailed, match="the converter to ONNX failed"):
            converted(model, 3, "features")

    @pytest.mark.parametrize(
        ("spoil", "why"),
        [
            (lambda parity: parity.pop("rows"), "missing required field"),
            (lambda parity: parity.update(tolerance=0.5), "the tolerance is 0.5"),
            (lambda parity: parity.update(inputs=["a"]), "not of this manifest's inputs"),
            (lambda parity: parity.update(rows=[]), "no rows with an answer each"),
            (lambda parity: parity["answers"][3].append(1.0), "by at most inf"),
        ],
        ids=["no rows", "loose", "other inputs", "empty", "another shape"],
    )
    def test_rows_that_prove_nothing_are_refused(self, folder: Path, spoil: Any, why: str) -> None:
        parity = json.loads((folder / "parity.json").read_text("utf-8"))
        spoil(parity)
        (folder / "parity.json").write_text(json.dumps(parity), "utf-8")
        assert why in failed(folder)["parity"].said


def test_a_budget_that_is_passed_is_said_in_times_of_the_reference(good: Path) -> None:
    check = failed(good, Demands(latency=1e-6))["latency"]
    assert "times as long as in a logistic regression" in check.said


RULES = """
schema: {{profile: {{age: {age}}}, events: {{visit: {{worth: double}}}}}}
consent: {{purposes: [analytics]}}
features:
  visits: {visits}
  spend: {{sum: visit.worth}}
"""


@pytest.mark.parametrize(
    ("age", "visits", "why"),
    [
        ("int", "{count: visit}", ""),
        ("string", "{count: visit}", "`profile.age` is declared as string, and input `age` takes a number"),
        ("{type: int, purposes: [analytics]}", "{count: visit}", "`profile.age` may be used for `analytics` only"),
        ("int", "{last: visit.worth, purposes: [analytics]}", "`features.visits` may be used for `analytics` only"),
    ],
    ids=["well", "type", "purpose of an attribute", "purpose of a feature"],
)
def test_inputs_are_held_to_what_the_rules_declare(good: Path, age: str, visits: str, why: str) -> None:
    rules = read_declarations({"r.yaml": RULES.format(age=age, visits=visits).encode()}, "rules")
    found = failed(good, Demands(latency=1e6, rules=rules))
    assert (found["inputs"].said if "inputs" in found else "").startswith(why)


def test_an_input_that_nobody_declares_is_said(good: Path) -> None:
    rules = read_declarations({"r.yaml": b"features: {visit: {count: x}, spend: {sum: x.y}}"}, "rules")
    assert (
        "`features.visits` is not declared (did you mean `features.visit`?)"
        in failed(good, Demands(latency=1e6, rules=rules))["inputs"].said
    )


class TestTheModelInPlace:
    """A new one must be no worse, by more than allowed, on the same rows."""

    def test_a_model_that_was_not_measured_beside_it_fails(self, good: Path) -> None:
        check = failed(good, Demands(latency=1e6, current=good))["metric"]
        assert f"--against {good}" in check.todo

    def test_a_better_one_passes_and_a_worse_one_does_not(self, good: Path, table: Path, tmp_path: Path) -> None:
        new = made(table, tmp_path, "{type: random_forest, n_estimators: 1, max_depth: 1}", current=good)
        check = failed(new, Demands(latency=1e6, current=good))["metric"]
        assert "`log_loss` is better by -0." in check.said
        assert check.todo == "keep the one in place"
        metrics = json.loads((new / "metrics.json").read_text("utf-8"))
        metrics["gate"]["worse_by"] = 9.0
        (new / "metrics.json").write_text(json.dumps(metrics), "utf-8")
        assert failed(new, Demands(latency=1e6, current=good)) == {}
        metrics["compared"]["digest"] = "another"
        (new / "metrics.json").write_text(json.dumps(metrics), "utf-8")
        assert "metric" in failed(new, Demands(latency=1e6, current=good))

    def test_figures_of_another_file_are_not_believed(self, folder: Path) -> None:
        metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
        (folder / "metrics.json").write_text(json.dumps(metrics | {"sha256": "0" * 64}), "utf-8")
        assert failed(folder)["figures"].said == "metrics.json is of another model.onnx"


def bomb(nodes: list[Any], *weights: TensorProto) -> bytes:
    """A graph over three inputs whose last node gives `p`."""
    graph = helper.make_graph(nodes, "g", [value("features", FLOAT, [None, 3])], [value("p", FLOAT, None)], [*weights])
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def ints(name: str, *numbers: int) -> TensorProto:
    return numpy_helper.from_array(np.array(numbers, dtype=np.int64), name)


node = helper.make_node
RANGE = (("a", 0), ("b", 2**50), ("c", 1))
HOSTILE = {
    "a shape of a trillion": bomb([node("ConstantOfShape", ["s"], ["p"])], ints("s", 1_000_000, 1_000_000)),
    "an expansion of a trillion": bomb([node("Expand", ["features", "s"], ["p"])], ints("s", 1_000_000, 1_000_000, 3)),
    "a tile of a billion": bomb(
        [node("Tile", ["features", "s"], ["a"]), node("Tile", ["a", "s"], ["p"])], ints("s", 30_000, 1)
    ),
    "a range that is long": bomb(
        [node("Range", ["a", "b", "c"], ["r"]), node("ReduceSum", ["r"], ["p"])],
        *(numpy_helper.from_array(np.array(number, dtype=np.int64), name) for name, number in RANGE),
    ),
    "a graph of many nodes": bomb(
        [node("Relu", ["features" if number == 0 else f"n{number}"], [f"n{number + 1}"]) for number in range(800)]
        + [node("Identity", ["n800"], ["p"])]
    ),
    "weights that are not there": bomb(
        [node("MatMul", ["features", "w"], ["p"])],
        TensorProto(name="w", data_type=FLOAT, dims=[3, 2**40]),
    ),
    "dimensions below nothing": bomb(
        [node("MatMul", ["features", "w"], ["p"])], TensorProto(name="w", data_type=FLOAT, dims=[-3, -1])
    ),
    "a node that reads itself": bomb([node("Add", ["p", "features"], ["p"])]),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_graph_is_judged_and_nothing_happens_to_the_caller(case: str, folder: Path) -> None:
    with_onnx(folder, HOSTILE[case], "{probability: {tensor: p, type: double}}")
    manifest, onnx = (folder / "manifest.yaml").read_bytes(), (folder / "model.onnx").read_bytes()
    verdict = judge(Asked(manifest, onnx, "m/manifest.yaml"), memory=512 << 20)
    assert not verdict.sound or case == "a graph of many nodes"
    assert verdict.died or verdict.diagnostics or case == "a graph of many nodes"


def test_a_process_that_dies_or_never_ends_is_a_finding(folder: Path) -> None:
    found = failed(folder, Demands(latency=1e6, seconds=0.01))
    assert list(found) == ["files"]
    assert "it took longer than 0.01 seconds" in found["files"].said


def test_broken_bytes_are_findings(good: Path, tmp_path: Path) -> None:
    """Truncated, flipped and random files, each in a process of its own."""
    whole = (good / "model.onnx").read_bytes()
    draw = random.Random(3)  # noqa: S311 - damage, not secrets
    for number in range(4):
        bad = bytearray(whole[: draw.randrange(len(whole))] if number % 2 else whole)
        for _ in range(5):
            if bad:
                bad[draw.randrange(len(bad))] = draw.randrange(256)
        place = tmp_path / str(number) / "m"
        shutil.copytree(good, place)
        with_onnx(place, bytes(bad))
        assert {each.name for each in check_folder(place, EASY)} >= {"files"}


@pytest.mark.parametrize("name", ["manifest.yaml", "model.onnx", "parity.json", "metrics.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"held_out": 5, "compared": []}'], ids=["deep", "odd"])
def test_no_file_of_the_folder_makes_the_gate_fall_over(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert failed(folder, Demands(latency=1e6, current=folder))


@pytest.mark.parametrize("name", ["manifest.yaml", "model.onnx", "parity.json", "metrics.json"])
def test_a_file_that_is_not_there_is_said(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (first, *_) = failed(folder).values()
    assert name in first.said


def test_findings_are_plain_data(good: Path) -> None:
    assert json.loads(msgspec.json.encode(check_folder(good, EASY)))[0]["name"] == "files"
