"""From a fitted model to the bytes of its `model.onnx`.

Law: one matrix of float32 in, named tensors out, opset and IR pinned, no name from a counter or an address, so that the
same model gives the same bytes. What is exported is compared by whoever calls; nothing is compared here.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)

from arbiter.training.calibrating import Sigmoid, Steps
from arbiter.training.table import TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from arbiter.training.fitting import Fitted, Scaling

# Old enough for every onnxruntime that we run on: left to itself, onnx writes its newest, which an older one refuses.
OPSETS: Final = {"": 17, "ai.onnx.ml": 3}
IR_VERSION: Final = 8
INPUT: Final = "features"
_VECTOR: Final = 16  # floats that the widest processors take at once


def export(fitted: Fitted, width: int, metadata: Mapping[str, str]) -> bytes:
    """The model's ONNX form over `width` columns, with its `metadata`. Raises TrainingFailed when a converter fails.

    Its outputs are `probability` of a propensity; `label` and `probability` of a class, the label as a number;
    `cluster`, a number, and `distance` or `probability` of a segment; `score`.
    """
    name = fitted.estimator.name
    if name in {"logistic_regression", "linear_regression"}:
        graph = _linear(fitted, width)
    elif name == "kmeans":
        graph = _centres(fitted, width)
    else:
        graph = _converted(fitted, width)
    return _pinned(graph.model(), metadata)


class _Graph:
    """Nodes that are added one after the other; the last one's output is what comes next."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._nodes: list[Any] = []
        self._weights: list[TensorProto] = []
        self._outputs: list[Any] = []

    def take(self, model: ModelProto, names: Mapping[str, str]) -> None:
        """Begin with a converter's graph; `names` maps its outputs that are wanted to what they are called here."""
        graph = model.graph
        wanted, kept = set(names), []
        for node in reversed(graph.node):
            if wanted & set(node.output):
                kept.append(node)
                wanted |= set(node.input)
        weights = [each for each in graph.initializer if each.name in wanted]
        # A converter's own names must not be ones that are given here.
        called = {each: f"converted.{each}" for each in (*wanted, *(each for node in kept for each in node.output))}
        called |= {each.name: each.name for each in graph.input} | {"": ""} | dict(names)
        for weight in weights:
            weight.name = called[weight.name]
        for node in reversed(kept):
            node.input[:] = [called[each] for each in node.input]
            node.output[:] = [called[each] for each in node.output]
            self._nodes.append(node)
        self._weights += weights

    def weights(self, name: str, values: NDArray[Any]) -> str:
        """A constant."""
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node with one output."""
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def give(self, name: str, kind: int, *shape: int) -> None:
        """An output of the graph, with this shape for each row."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, [None, *shape]))

    def best(self, scores: str, label: str, chance: str) -> None:
        """Which column has the most, and how much."""
        self.add("ArgMax", [scores], label, axis=1, keepdims=0)
        self.add("ReduceMax", [scores], chance, axes=[1], keepdims=0)
        self.give(label, TensorProto.INT64)
        self.give(chance, TensorProto.FLOAT)

    def model(self) -> ModelProto:
        """The whole."""
        matrix = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, self._width])
        graph = helper.make_graph(self._nodes, "model", [matrix], self._outputs, self._weights)
        # Both always, used or not: only models of the same opsets are merged where several are asked.
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _logs(graph: _Graph, width: int) -> tuple[str, int]:
    """log(1 + x) of every column, of what is below 0 as of 0; and how many columns that has.

    It is widened to whole vectors of the processor: onnxruntime takes the logarithm of what does not fill one in
    another way, with another last digit, and a row would not answer alone as it does in a batch.
    """
    wide = -(-width // _VECTOR) * _VECTOR
    graph.weights("one", np.ones(1, dtype=np.float32))
    widened = graph.add("MatMul", [INPUT, graph.weights("widen", np.eye(width, wide, dtype=np.float32))], "wide")
    return graph.add("Log", [graph.add("Add", [graph.add("Relu", [widened], "relu"), "one"], "plus_one")], "logs"), wide


def _linear(fitted: Fitted, width: int) -> _Graph:
    """One matrix product, the scaling folded into its weights; two where some columns are logarithms."""
    scaling, model = fitted.scaling, fitted.model
    assert scaling is not None  # noqa: S101 - linear models are scaled
    coefficients = np.atleast_2d(model.coef_)
    weights = (coefficients / scaling.deviation).T
    offset = np.atleast_1d(model.intercept_) - scaling.mean @ weights
    graph = _Graph(width)
    before = graph.weights("offset", offset.astype(np.float32))
    if not scaling.logs.all():
        plain = np.where(scaling.logs[:, None], 0.0, weights).astype(np.float32)
        before = graph.add("Gemm", [INPUT, graph.weights("weights", plain), before], "plain")
    if scaling.logs.any():
        logs, wide = _logs(graph, width)
        logged = _widened(np.where(scaling.logs[:, None], weights, 0.0), wide).astype(np.float32)
        before = graph.add("Gemm", [logs, graph.weights("log_weights", logged), before], "logged")
    if fitted.kind == "score":
        graph.add("Identity", [before], "score")
        graph.give("score", TensorProto.FLOAT, 1)
    elif fitted.kind == "propensity":
        graph.add("Sigmoid", [before], _said(fitted))
        _calibrated(graph, fitted)
    else:
        if weights.shape[1] == 1:  # scikit-learn keeps one column for two classes
            graph.weights("signs", np.array([[-1.0, 1.0]], dtype=np.float32))
            before = graph.add("Sigmoid", [graph.add("MatMul", [before, "signs"], "both")], "probabilities")
        else:
            before = graph.add("Softmax", [before], "probabilities", axis=1)
        graph.best(before, "label", "probability")
    return graph


def _widened(rows: NDArray[Any], wide: int) -> NDArray[Any]:
    """Rows of 0 below, so that there are so many."""
    return np.pad(rows, [(0, wide - len(rows)), (0, 0)])


def _centres(fitted: Fitted, width: int) -> _Graph:
    """The distance to each centre as it is by definition: no digits are lost where a row lies near one."""
    scaling = fitted.scaling
    assert scaling is not None  # noqa: S101 - what clusters is scaled
    graph = _Graph(width)
    mixed, wide = _mixed(graph, scaling, width)
    centres = _widened((fitted.model.cluster_centers_ * scaling.deviation + scaling.mean).T, wide).T
    graph.weights("axis", np.array([1], dtype=np.int64))
    graph.weights("centres", centres.astype(np.float32)[None])
    graph.weights("per_deviation", _widened(1 / scaling.deviation[:, None], wide)[:, 0].astype(np.float32))
    away = graph.add("Sub", [graph.add("Unsqueeze", [mixed, "axis"], "rows"), "centres"], "away")
    scaled = graph.add("Mul", [away, "per_deviation"], "scaled")
    distances = graph.add("ReduceL2", [scaled], "distances", axes=[2], keepdims=0)
    graph.add("ArgMin", [distances], "cluster", axis=1, keepdims=0)
    graph.add("ReduceMin", [distances], "distance", axes=[1], keepdims=0)
    graph.give("cluster", TensorProto.INT64)
    graph.give("distance", TensorProto.FLOAT)
    return graph


def _mixed(graph: _Graph, scaling: Scaling, width: int) -> tuple[str, int]:
    """The columns, those of them as logarithms that are meant so, and how many there are: more where there are any."""
    if not scaling.logs.any():
        return INPUT, width
    logs, wide = _logs(graph, width)
    if scaling.logs.all():
        return logs, wide
    logged = _widened(scaling.logs[:, None], wide)[:, 0]
    return graph.add("Where", [graph.weights("logged", logged[None]), logs, "wide"], "mixed"), wide


def _converted(fitted: Fitted, width: int) -> _Graph:
    """What the library's converter makes of it, and what is read out of that."""
    model, kind = fitted.model, fitted.kind
    graph = _Graph(width)
    source = INPUT
    if fitted.scaling is not None:
        scaling = fitted.scaling
        mixed, wide = _mixed(graph, scaling, width)
        if wide > width:
            narrow = graph.weights("narrow", np.eye(wide, width, dtype=np.float32))
            mixed = graph.add("MatMul", [mixed, narrow], "own_columns")
        graph.weights("mean", scaling.mean.astype(np.float32))
        graph.weights("per_deviation", (1 / scaling.deviation).astype(np.float32))
        source = graph.add("Mul", [graph.add("Sub", [mixed, "mean"], "centred"), "per_deviation"], "scaled")
    made = converted(model, width, source)
    names = [each.name for each in made.graph.output]
    probabilities = "probabilities" in names
    if kind == "score" or not probabilities:
        wanted = "score" if kind == "score" else _said(fitted)
        graph.take(made, {names[0]: wanted})
        if kind == "score":
            graph.give(wanted, TensorProto.FLOAT, 1)
        else:
            _calibrated(graph, fitted)
    else:
        graph.take(made, {"probabilities": "probabilities"})
        if kind == "propensity" and fitted.curve is not None:
            graph.weights("second", np.array([[0.0], [1.0]], dtype=np.float32))
            graph.add("MatMul", ["probabilities", "second"], _said(fitted))
            _calibrated(graph, fitted)
        elif kind == "propensity":
            graph.give("probabilities", TensorProto.FLOAT, 2)
        else:
            graph.best("probabilities", "label" if kind == "class" else "cluster", "probability")
    return graph


def _said(fitted: Fitted) -> str:
    """What the probability is called that the model itself says."""
    return "probability" if fitted.curve is None else "said"


def _calibrated(graph: _Graph, fitted: Fitted) -> None:
    """Give the probability: what was said, by the curve if there is one. Each of its parts rises by a few hundredths
    and is held between its ends, so that no digits are lost by adding what nearly cancels.
    """
    match fitted.curve:
        case Sigmoid(slope, offset):
            graph.weights("slope", np.array([slope], dtype=np.float32))
            graph.weights("shift", np.array([offset], dtype=np.float32))
            graph.add("Sigmoid", [graph.add("Add", [graph.add("Mul", ["said", "slope"], "steeper"), "shift"], "moved")],
                      "probability")  # fmt: skip
        case Steps(x, y):
            knots, wide, high = np.array(x), np.diff(x), np.diff(y)
            graph.weights("knots", knots[None, :-1].astype(np.float32))
            graph.weights("zero", np.zeros(1, dtype=np.float32))
            graph.weights("widths", wide[None].astype(np.float32))
            graph.weights("rises", (high / wide)[:, None].astype(np.float32))
            graph.weights("least", np.array([y[0]], dtype=np.float32))
            beyond = graph.add("Sub", ["said", "knots"], "beyond")
            held = graph.add("Min", [graph.add("Max", [beyond, "zero"], "begun"), "widths"], "held")
            graph.add("Add", [graph.add("MatMul", [held, "rises"], "risen"), "least"], "probability")
    graph.give("probability", TensorProto.FLOAT, 1)


def converted(model: Any, width: int, source: str) -> ModelProto:
    """What skl2onnx makes of a model over `width` columns of the tensor `source`. Raises TrainingFailed."""
    _register(type(model).__module__.partition(".")[0])
    classifier = hasattr(model, "predict_proba")
    options = {id(model): {"zipmap": False}} if classifier and "Mixture" not in type(model).__name__ else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a converter thinks of other libraries' versions is for nobody here
            made: ModelProto = to_onnx(
                model, initial_types=[(source, FloatTensorType([None, width]))], options=options, target_opset=OPSETS
            )
    except Exception as error:  # whatever a converter says: there is no model
        raise TrainingFailed(f"the converter to ONNX failed: {type(error).__name__}: {error}") from error
    return made


def _register(library: str) -> None:
    """Make the converters of other libraries known to skl2onnx."""
    if library == "lightgbm":
        import lightgbm  # noqa: PLC0415 - an extra
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm  # noqa: PLC0415

        made, convert, prefix = (lightgbm.LGBMClassifier, lightgbm.LGBMRegressor), convert_lightgbm, "LightGbmLGBM"
    elif library == "xgboost":
        import xgboost  # noqa: PLC0415 - an extra
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost  # noqa: PLC0415

        made, convert, prefix = (xgboost.XGBClassifier, xgboost.XGBRegressor), convert_xgboost, "XGBoostXGB"
    else:
        return
    classifier, regressor = made
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    shapes = calculate_linear_classifier_output_shapes
    update_registered_converter(classifier, f"{prefix}Classifier", shapes, convert, options=options)
    shapes = calculate_linear_regressor_output_shapes
    update_registered_converter(regressor, f"{prefix}Regressor", shapes, convert)


def _pinned(model: ModelProto, metadata: Mapping[str, str]) -> bytes:
    """The bytes, once it is sure that the versions are those that were asked for."""
    versions = {each.domain: each.version for each in model.opset_import}
    if any(version > OPSETS.get(domain, 0) for domain, version in versions.items()):
        raise TrainingFailed(f"the converter wrote opset {versions}, newer than {OPSETS}")
    model.producer_name = "arbiter"
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
