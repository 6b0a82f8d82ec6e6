"""Models: what they answer, alone, in batches and in threads; and no file, however broken, is more than a mistake."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from arbiter.errors import AuthorError
from arbiter.models import Answer, Model, ModelFailure, from_bytes, load_models

SHIPPED = Path(__file__).resolve().parent.parent / "models"
FLOAT, STRING, INT64 = TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT64
Run = Callable[[Model, list[Any]], Answer]
value = helper.make_tensor_value_info
TWO_INPUTS = "  - {name: a, from: features.a}\n  - {name: b, from: profile.b, default: 1}\n"


def graph(
    nodes: list[NodeProto], inputs: list[ValueInfoProto], outputs: list[ValueInfoProto], *weights: TensorProto
) -> ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_graph(nodes, "g", inputs, outputs, initializer=weights)
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def total() -> ModelProto:
    """A matrix of two columns in, their sum out."""
    return graph(
        [helper.make_node("MatMul", ["x", "w"], ["sum"])],
        [value("x", FLOAT, [None, 2])],
        [value("sum", FLOAT, [None, 1])],
        numpy_helper.from_array(np.ones((2, 1), dtype=np.float32), "w"),
    )


def manifest(onnx: bytes, inputs: str = TWO_INPUTS, outputs: str = "{s: {tensor: sum, type: double}}") -> bytes:
    digest = hashlib.sha256(onnx).hexdigest()
    text = f"name: m\nversion: 1\nkind: score\nsha256: {digest}\ninputs:\n{inputs}outputs: {outputs}\n"
    return text.encode()


def model(proto: ModelProto, **parts: str) -> Model:
    onnx = proto.SerializeToString()
    return from_bytes(manifest(onnx, **parts), onnx)


def refusal(onnx: ModelProto | bytes, **parts: str) -> list[str]:
    content = onnx if isinstance(onnx, bytes) else onnx.SerializeToString()
    with pytest.raises(AuthorError) as raised:
        from_bytes(manifest(content, **parts), content, file="models/m/manifest.yaml")
    return [each.render() for each in raised.value.diagnostics]


@pytest.mark.parametrize("name", ["repurchase", "rfm"])
def test_a_shipped_model_answers_as_scikit_learn_did(name: str) -> None:
    models, found = load_models(SHIPPED)
    assert found == []
    parity = json.loads((SHIPPED / name / "parity.json").read_text("utf-8"))
    assert [each.name for each in models[name].inputs] == parity["inputs"]
    answers = models[name].run(parity["rows"])
    assert len(answers) == 20
    for answer, expected in zip(answers, parity["answers"], strict=True):
        assert list(answer) == [each if isinstance(each, str) else pytest.approx(each, abs=1e-5) for each in expected]


@pytest.mark.parametrize("name", ["repurchase", "rfm"])
def test_a_row_gets_the_same_answer_alone_as_in_a_batch_of_any_size(name: str) -> None:
    shipped = load_models(SHIPPED)[0][name]
    draw = random.Random(5)  # noqa: S311 - rows, not secrets
    rows = [[draw.choice([0, 1, 2, 9, draw.uniform(0, 300)]) for _ in shipped.inputs] for _ in range(1500)]
    alone = [shipped.run_one(row) for row in rows]
    assert shipped.run(rows) == alone
    assert shipped.run(rows[:7]) == alone[:7]
    assert len(set(alone)) > 3


def test_every_segment_of_the_shipped_clusters_can_be_reached() -> None:
    rfm = load_models(SHIPPED)[0]["rfm"]
    rows = [[day, orders, spend] for day in (5, 30, 100, 220) for orders in (1, 3, 9) for spend in (10, 50, 100, 400)]
    assert {cluster for (cluster, _) in rfm.run(rows)} == {"champions", "loyal", "cooling", "lapsed", "one_time"}
    assert rfm.run_one([5, 3, -40.0]) == rfm.run_one([5, 3, 0])


def test_threads_do_not_disturb_each_other() -> None:
    adder = model(total())

    def work(offset: int) -> bool:
        return all(adder.run_one([offset, n]) == (float(offset + n),) for n in range(300))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(0, 8000, 1000)))


def test_a_model_says_what_it_wants_and_what_it_gives() -> None:
    adder = model(total())
    assert [(each.root, each.attribute, each.default) for each in adder.inputs] == [
        ("features", "a", None),
        ("profile", "b", 1),
    ]
    assert adder.outputs == {"s": "double"}
    assert adder.name == "m"
    onnx = total().SerializeToString()
    assert adder.digest != from_bytes(manifest(onnx).replace(b"version: 1", b"version: 2"), onnx).digest


@pytest.mark.parametrize("run", [lambda m, row: m.run_one(row), lambda m, row: m.run([row])[0]], ids=["one", "batch"])
class TestAlike:
    """What holds for a row alone and in a batch."""

    def test_what_overflows_a_float_is_unknown(self, run: Run) -> None:
        assert run(model(total()), [1e300, 1.0]) == (None,)
        assert run(model(total()), [3e38, 3e38]) == (None,)

    @pytest.mark.parametrize("row", [["12", 1.0], [None, 1.0], [1.0, b"2"]])
    def test_a_value_of_the_wrong_type_makes_the_outputs_unknown(self, run: Run, row: list[Any]) -> None:
        assert run(model(total()), row) == (None,)

    @pytest.mark.parametrize("row", [[1.0], [1.0, 2.0, 3.0]])
    def test_a_row_of_another_length_is_refused(self, run: Run, row: list[Any]) -> None:
        with pytest.raises(ModelFailure, match=r"^model `m` cannot answer: it has 2 inputs, the row [13] values$"):
            run(model(total()), row)

    def test_booleans_and_integers_are_numbers(self, run: Run) -> None:
        assert run(model(total()), [True, 3]) == (4.0,)

    def test_a_tensor_per_input_may_hold_strings(self, run: Run) -> None:
        mixed = graph(
            [helper.make_node("Identity", ["plan"], ["same"]), helper.make_node("Add", ["age", "age"], ["twice"])],
            [value("age", INT64, [None]), value("plan", STRING, [None, 1])],
            [value("same", STRING, [None, 1]), value("twice", INT64, [None])],
        )
        both = model(
            mixed,
            inputs="  - {name: plan, from: profile.plan, default: free}\n  - {name: age, from: context.age}\n",
            outputs="{p: {tensor: same, type: string}, t: {tensor: twice, type: int}}",
        )
        assert run(both, ["pro", 21]) == ("pro", 42)
        assert [run(both, row) for row in (["pro", "21"], [5, 21], ["pro", 1.5])] == [(None, None)] * 3

    def test_an_index_without_a_label_is_unknown(self, run: Run) -> None:
        cast = graph(
            [helper.make_node("Cast", ["x"], ["c"], to=INT64)],
            [value("x", FLOAT, [None, 2])],
            [value("c", INT64, [None, 2])],
        )
        labelled = model(cast, outputs="{c: {tensor: c, index: 1, type: string, labels: [low, high]}}")
        assert [run(labelled, [0, n]) for n in (0, 1, 2, -1)] == [("low",), ("high",), (None,), (None,)]


def test_one_bad_row_does_not_spoil_a_batch() -> None:
    assert model(total()).run([[1, 2], [1e300, 0], ["x", 0], [3, 4]]) == [(3.0,), (None,), (None,), (7.0,)]
    assert model(total()).run([]) == []


def test_a_graph_with_an_operator_of_another_domain_is_refused() -> None:
    proto = total()
    proto.graph.node[0].domain = "com.microsoft"
    assert refusal(proto) == [
        (
            "models/m/model.onnx: operator domain `com.microsoft` is not allowed\n"
            "  hint: only plain ONNX and ai.onnx.ml operators are allowed"
        )
    ]


def test_data_outside_the_file_is_refused(tmp_path: Path) -> None:
    proto = total()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(8))
    weights = proto.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=str(secret))
    assert refusal(proto) == [
        (
            "models/m/model.onnx: the model keeps data in other files, which is not allowed\n"
            "  hint: export it with all weights inside"
        )
    ]


def test_loops_lots_and_functions_are_refused() -> None:
    proto = total()
    draw = helper.make_node("RandomUniform", [], ["r"], shape=[1])
    loop = helper.make_node("Loop", ["", ""], ["l"], body=total().graph)
    proto.graph.node.extend([draw, loop])
    proto.functions.add(name="f", domain="")
    assert [line.splitlines()[0] for line in refusal(proto)] == [
        "models/m/model.onnx: functions inside the model are not allowed",
        "models/m/model.onnx: operator `Loop` is not allowed",
        "models/m/model.onnx: operator `RandomUniform` is not allowed",
    ]
    hidden = total()
    hidden.graph.node[0].attribute.append(helper.make_attribute("body", total().graph, attr_type=AttributeProto.GRAPH))
    assert "operator `MatMul` holds a graph of its own" in refusal(hidden)[0]


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not a model", b"\xff" * 4096], ids=repr)
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    (line,) = refusal(content)
    assert line.startswith("models/m/model.onnx: not an ONNX model")


@pytest.mark.parametrize("name", ["repurchase", "rfm"])
def test_a_damaged_file_is_a_mistake_and_never_a_crash(name: str) -> None:
    whole = (SHIPPED / name / "model.onnx").read_bytes()
    text = (SHIPPED / name / "manifest.yaml").read_text("utf-8")
    digest = hashlib.sha256(whole).hexdigest()
    draw = random.Random(9)  # noqa: S311 - damage, not secrets
    outcomes = set()
    for _ in range(60):
        bad = bytearray(whole[: draw.randrange(len(whole))] if draw.random() < 0.5 else whole)
        for _ in range(draw.randrange(1, 4)):
            if bad:
                bad[draw.randrange(len(bad))] = draw.randrange(256)
        renamed = text.replace(digest, hashlib.sha256(bad).hexdigest()).encode()
        try:
            survivor = from_bytes(renamed, bytes(bad))
        except AuthorError as error:
            outcomes.add(error.diagnostics[0].file)
        else:
            outcomes.add("loaded")
            assert len(survivor.run_one([1.0] * len(survivor.inputs))) == len(survivor.outputs)
    assert "model.onnx" in outcomes


def test_a_file_other_than_the_manifest_names_is_refused() -> None:
    onnx = total().SerializeToString()
    with pytest.raises(AuthorError) as raised:
        from_bytes(manifest(b"another"), onnx)
    (found,) = raised.value.diagnostics
    assert (found.line, found.message) == (4, "`model.onnx` is not the file that the manifest names")
    assert hashlib.sha256(onnx).hexdigest() in found.hint


MISFITS = {
    "too few inputs": (
        {"inputs": "  - {name: a, from: features.a}\n"},
        "models/m/manifest.yaml:6:3: graph input `x` has 2 columns",
    ),
    "a default of the wrong type": (
        {"inputs": TWO_INPUTS.replace("default: 1", "default: free")},
        "models/m/manifest.yaml:7:41: default `free` does not fit a tensor of float32",
    ),
    "an output that the graph lacks": (
        {"outputs": "{s: {tensor: probs, type: double}}"},
        "models/m/manifest.yaml:8:23: the graph has no output `probs`",
    ),
    "an output of another type": (
        {"outputs": "{s: {tensor: sum, type: int}}"},
        "models/m/manifest.yaml:8:23: output `s` needs a tensor of int64 or int32",
    ),
    "labels for something that does not count": (
        {"outputs": "{s: {tensor: sum, type: string, labels: [a]}}"},
        "models/m/manifest.yaml:8:23: output `s` needs a tensor of int64 or int32",
    ),
    "an index that the tensor lacks": (
        {"outputs": "{s: {tensor: sum, type: double, index: 1}}"},
        "models/m/manifest.yaml:8:49: `sum` has 1 values a row, so there is no index 1",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_manifest_that_does_not_fit_its_graph_is_told_where(case: str) -> None:
    parts, expected = MISFITS[case]
    (line,) = refusal(total(), **parts)
    assert line.splitlines()[0] == expected


def test_a_graph_with_a_tensor_per_input_needs_each_of_them_by_name() -> None:
    proto = graph(
        [helper.make_node("Add", ["a", "z"], ["sum"])],
        [value("a", FLOAT, [None, 1]), value("z", FLOAT, [None, 1])],
        [value("sum", FLOAT, [None, 1])],
    )
    assert [line.splitlines()[0] for line in refusal(proto)] == [
        "models/m/manifest.yaml:6:3: the graph has an input `z`, the manifest has none",
        "models/m/manifest.yaml:7:12: the graph has no input `b`",
    ]


def test_an_input_too_narrow_for_the_engines_integers_is_refused() -> None:
    proto = graph(
        [helper.make_node("Identity", ["a"], ["sum"])],
        [value("a", TensorProto.INT32, [None])],
        [value("sum", TensorProto.INT32, [None])],
    )
    (line,) = refusal(proto, inputs="  - {name: a, from: features.a}\n", outputs="{s: {tensor: sum, type: int}}")
    assert "graph input `a` is not a tensor of a type and shape that rows fit in" in line


def test_what_only_onnxruntime_can_see_is_a_mistake_too() -> None:
    proto = total()
    proto.ir_version = 99
    (line,) = refusal(proto)
    assert line.startswith("models/m/model.onnx: onnxruntime refuses the model: ")
    proto = graph(
        [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)],
        [value("x", FLOAT, [None, 2])],
        [value("sum", FLOAT, None)],
    )
    (line,) = refusal(proto)
    assert line.endswith("`sum` does not hold one value, or one row of values, per row of input")


def test_a_directory_of_models_tells_every_mistake_and_ignores_what_is_no_model(tmp_path: Path) -> None:
    onnx = total().SerializeToString()
    for name in ("m", "other", "empty", ".hidden", "half"):
        (tmp_path / name).mkdir()
    for name in ("m", "other", ".hidden"):
        (tmp_path / name / "manifest.yaml").write_bytes(manifest(onnx))
        (tmp_path / name / "model.onnx").write_bytes(onnx)
    (tmp_path / "half" / "model.onnx").write_bytes(onnx)
    models, found = load_models(tmp_path)
    assert list(models) == ["m"]
    assert [(each.file, each.line, each.message) for each in found] == [
        ("half/manifest.yaml", 0, "cannot be read: No such file or directory"),
        ("other/manifest.yaml", 1, "model `m` lies in a folder called `other`"),
    ]
    assert [each.file for each in load_models(tmp_path, folder="mine")[1]] == [f"mine/{each.file}" for each in found]
    assert [each.render() for each in load_models(tmp_path / "nowhere")[1]] == ["nowhere: no such directory of models"]


def test_a_model_that_has_not_changed_is_taken_over(tmp_path: Path) -> None:
    onnx = total().SerializeToString()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "manifest.yaml").write_bytes(manifest(onnx))
    (tmp_path / "m" / "model.onnx").write_bytes(onnx)
    first, _ = load_models(tmp_path)
    again, _ = load_models(tmp_path, first)
    assert again["m"] is first["m"]
    (tmp_path / "m" / "manifest.yaml").write_bytes(manifest(onnx) + b"description: changed\n")
    changed, _ = load_models(tmp_path, first)
    assert changed["m"] is not first["m"]


def test_serving_needs_none_of_the_libraries_that_train() -> None:
    script = "import sys, arbiter.models; print(sorted({'sklearn', 'skl2onnx', 'grpc', 'lmdb'} & sys.modules.keys()))"
    command = [sys.executable, "-c", script]
    engine = str(SHIPPED.parent / "engine")
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": engine}, capture_output=True, text=True, check=True)  # noqa: S603 - constant
    assert done.stdout == "[]\n"


def test_loading_a_model_leaves_nothing_behind_that_could_be_sent_anywhere(tmp_path: Path) -> None:
    """Left to itself, onnxruntime writes an id of the machine, and events to be sent, below the home directory."""
    script = f"import pathlib, arbiter.models as m; print(len(m.load_models(pathlib.Path({str(SHIPPED)!r}))[0]))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    environment = {**clean, "HOME": str(tmp_path), "PYTHONPATH": str(SHIPPED.parent / "engine")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - constant
    assert done.stdout == "2\n"
    assert list(tmp_path.iterdir()) == []
