"""What enters a model: imputation, categories, times and ranges, the same as a slow reading of the manifest says."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from arbiter.errors import AuthorError
from arbiter.expr.reads import FeatureRead
from arbiter.expr.view import Symbols, View
from arbiter.models import Model, ModelFailure, from_bytes
from arbiter.models.rows import row_of, rows_of

if TYPE_CHECKING:
    from arbiter.models.manifest import Input

NOW = 1_780_272_000_000_000
DAY = 86_400_000_000
FLOAT, STRING = TensorProto.FLOAT, TensorProto.STRING
value = helper.make_tensor_value_info

# One line each: what an author may write of an input, in all the ways that do not contradict each other.
LINES = [
    "from: profile.x",
    "from: profile.x, default: 3",
    "from: profile.x, impute: mean, training: {mean: 2.5, median: 2}",
    "from: profile.x, impute: median, training: {mean: 2.5, median: 2}",
    "from: profile.x, impute: nan",
    "from: profile.x, as: missing",
    "from: profile.x, range: [-5, 5]",
    "from: profile.x, range: [-5, 5], default: 0.5",
    "from: profile.x, range: [-5, 5.5], outside: clip, impute: nan",
    "from: profile.x, range: [-5, 5], as: missing",
    "from: profile.x, unit: d, default: -1",
    "from: profile.x, unit: h, range: [0, 100], outside: clip",
    "from: profile.x, unit: d, as: missing",
    "from: profile.x, categories: [a, b, c]",
    "from: profile.x, categories: [a, b, c], default: b",
    "from: profile.x, categories: [a, b, c], as: onehot, unseen: other",
    "from: profile.x, categories: [a, b, c], as: onehot, default: c",
    "from: profile.x, categories: [a, b, c], unseen: other, default: a",
    "from: profile.x, categories: [a, b], unseen: error",
    "from: profile.x, categories: [a, b], as: missing",
    "from: profile.x, categories: [3, 1, 2], unseen: other",
    "from: profile.x, categories: [false, true], as: onehot, default: true",
    "from: context.x, default: 1",
    "from: account.x, impute: nan",
    "from: features.count, default: 0",
    "from: features.since, range: [0, 30], outside: clip, default: 99",
    "from: features.decayed, impute: nan",
    "from: features.nothing, as: missing",
]
FEATURES = {
    "count": FeatureRead("k1"),
    "since": FeatureRead("k2", unit=DAY),
    "decayed": FeatureRead("k3", half_life=DAY),
}
moments = st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
anything = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-9, 9), st.floats(), st.floats(-9, 9), st.booleans(),
    st.sampled_from(["a", "b", "c", "d", "", "a" * 1_000_000]), st.binary(max_size=2), moments,
    st.lists(st.integers(), max_size=2),
)  # fmt: skip


def opened(lines: list[str]) -> Model:
    """A model of one matrix, that adds up its columns; NaN and infinities make the sum no number."""
    width = sum(3 if "[a, b, c], as: onehot" in line else 2 if "as: onehot" in line else 1 for line in lines)
    node = helper.make_node("MatMul", ["m", "w"], ["y"])
    weights = numpy_helper.from_array(np.ones((width, 1), dtype=np.float32), "w")
    graph = helper.make_graph(
        [node], "g", [value("m", FLOAT, [None, width])], [value("y", FLOAT, [None, 1])], initializer=[weights]
    )
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    text = [f"name: m\nversion: 1\nkind: score\nsha256: {hashlib.sha256(onnx).hexdigest()}\ninputs:"]
    text += [f"  - {{name: i{number}, {line}}}" for number, line in enumerate(lines)]
    return from_bytes("\n".join([*text, "outputs: {s: {tensor: y, type: double}}", ""]).encode(), onnx)


class Unknown(Exception):
    """The oracle's: all outputs are unknown."""


def slowly(item: Input, given: Any) -> list[float]:  # noqa: C901, PLR0912 - each branch is a sentence of the page
    """What the documentation says of one input, read word by word."""
    kinds: tuple[type, ...] = (bool, int, float)
    if item.unit:
        kinds = (datetime,)
    elif item.categories:
        kinds = (type(item.categories[0]),)
        kinds = (int, float) if kinds == (int,) else kinds
    missing = type(given) not in kinds
    if not missing and item.unit:
        given = (NOW - (given - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)) / item.unit
    if not missing and item.low is not None and item.high is not None:
        if item.outside == "clip":
            given = min(max(given, item.low), item.high) if given == given else given  # noqa: PLR0124 - NaN
        elif not (item.low <= given <= item.high):
            missing = True
    if item.form == "missing":
        plain = not item.unit and not item.categories and item.low is None
        return [float(given is None if plain else missing)]
    if missing:
        if item.impute == "nan":
            return [math.nan]
        given = item.default if item.impute is None else getattr(item.training, item.impute)
        if given is None:
            raise Unknown
    if not item.categories:
        return [given]
    codes = list(item.categories)
    if given not in codes and item.unseen == "unknown":
        raise Unknown
    if given not in codes and item.unseen == "error":
        raise ModelFailure("none of the categories")
    place = codes.index(given) if given in codes else len(codes)
    return [float(place == n) for n in range(len(codes))] if item.form == "onehot" else [place]


def row_by_row(model: Model, values: list[Any]) -> Any:
    try:
        return [each for item, one in zip(model.inputs, values, strict=True) for each in slowly(item, one)]
    except Unknown:
        return None
    except ModelFailure:
        return ModelFailure


def tried(run: Any) -> Any:
    try:
        return run()
    except ModelFailure:
        return ModelFailure


def same(found: Any, expected: Any) -> bool:
    if not isinstance(expected, list) or not isinstance(found, list):
        return bool(found == expected)
    return len(found) == len(expected) and all(
        a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))
        for a, b in zip(found, expected, strict=True)
    )


EACH = [opened([line]) for line in LINES]


@settings(max_examples=150)
@given(anything)
def test_each_input_enters_as_its_manifest_says(one: Any) -> None:
    for model in EACH:
        assert same(tried(lambda m=model: m.encode([one], NOW)), row_by_row(model, [one])), (model.inputs, one)


# Stored values of features are checked where they are written.
numbers = st.one_of(st.none(), st.integers(0, 2**40), st.floats(0, 1e9))


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([line for line in LINES if "error" not in line]), min_size=1, max_size=6),
    st.lists(st.sampled_from(LINES), min_size=1, max_size=6),
    st.tuples(anything, anything, anything, numbers, numbers, numbers),
)
def test_what_a_view_holds_enters_alike_alone_and_with_other_models(
    first: list[str], second: list[str], values: tuple[Any, ...]
) -> None:
    x, context, account, count, since, total = values
    symbols = Symbols(features=FEATURES)
    stored = {
        "k1": count,
        "k2": None if since is None else NOW - int(since),
        "k3": None if total is None else [total, NOW - DAY],
    }
    view = View(
        {"x": x} if x is not None else {},
        {"x": context} if context is not None else {},
        {name: each for name, each in stored.items() if each is not None},
        NOW,
        {"x": account} if account is not None else {},
    )
    known = {
        "profile.x": x, "context.x": context, "account.x": account, "features.count": count,
        "features.since": None if since is None else int(since) / DAY,
        "features.decayed": None if total is None else total / 2, "features.nothing": None,
    }  # fmt: skip
    models = [opened(first), opened(second)]
    alone = []
    for model in models:
        expected = row_by_row(model, [known[f"{each.root}.{each.attribute}"] for each in model.inputs])
        found = tried(lambda m=model: row_of(m, symbols)(view))
        assert same(found, expected)
        alone.append(expected)
    together = tried(lambda: rows_of(models, symbols)(view))
    if ModelFailure in alone:
        # A value that is no category fails both, unless it is known before that nothing comes of it.
        assert together is ModelFailure or None in alone
        return
    if together is ModelFailure:
        # The other way round too: such a value of a model of which nothing comes. They run alone then.
        assert None in alone
        return
    row, unknown = together
    places = [sum(each.width for each in model.inputs) for model in models]
    for number, (start, end) in enumerate([(0, places[0]), (places[0], sum(places))]):
        expected = alone[number]
        assert bool(unknown >> number & 1) is (expected is None)
        assert expected is None or same(row[start:end], expected)


def test_a_row_that_was_encoded_is_answered() -> None:
    model = opened(["from: profile.x, default: 3", "from: profile.y, categories: [a, b, c], as: onehot"])
    row = model.encode([None, "b"])
    assert row == [3, 0.0, 1.0, 0.0]
    assert model.run_one(row) == (4.0,)
    assert model.run([row, row]) == [(4.0,), (4.0,)]
    assert model.encode([None, "z"]) is None
    with pytest.raises(ModelFailure, match="it has 2 inputs, here are 1 values"):
        model.encode([1])


@pytest.mark.parametrize("run", [lambda m, row: m.run_one(row), lambda m, row: m.run([row])[0]], ids=["one", "batch"])
def test_outputs_may_look_at_all_columns(run: Any) -> None:
    node = helper.make_node("Identity", ["m"], ["y"])
    graph = helper.make_graph([node], "g", [value("m", FLOAT, [None, 3])], [value("y", FLOAT, [None, 3])])
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    outputs = (
        "{label: {tensor: y, reduce: argmax, type: string, labels: [a, b, c]},"
        " nearest: {tensor: y, reduce: argmin, type: int},"
        " p: {tensor: y, reduce: max, type: double}, distance: {tensor: y, reduce: min, type: double}}"
    )
    inputs = "".join(f"  - {{name: i{n}, from: profile.i{n}}}\n" for n in range(3))
    head = f"name: m\nversion: 1\nkind: class\nsha256: {hashlib.sha256(onnx).hexdigest()}\n"
    text = f"{head}inputs:\n{inputs}outputs: {outputs}\n"
    model = from_bytes(text.encode(), onnx)
    assert run(model, [1, 5, 2]) == ("b", 0, 5.0, 1.0)
    assert run(model, [7, 7, 7]) == ("a", 0, 7.0, 7.0)  # of equals the first
    assert run(model, [1, math.nan, 2]) == (None,) * 4
    assert run(model, [1, math.inf, 2]) == ("b", 0, None, 1.0)


def test_a_tensor_of_texts_takes_texts() -> None:
    node = helper.make_node("Identity", ["plan"], ["same"])
    graph = helper.make_graph([node], "g", [value("plan", STRING, [None, 1])], [value("same", STRING, [None, 1])])
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()

    def given(line: str) -> Model:
        digest = hashlib.sha256(onnx).hexdigest()
        text = (
            f"name: m\nversion: 1\nkind: score\nsha256: {digest}\ninputs: [{{name: plan, from: profile.plan{line}}}]\n"
        )
        return from_bytes(f"{text}outputs: {{p: {{tensor: same, type: string}}}}\n".encode(), onnx)

    read = row_of(given(", default: free"), Symbols())
    assert [read(View({"plan": each}, {}, {}, NOW)) for each in ("pro", 5, True)] == [["pro"], ["free"], ["free"]]
    assert read(View({}, {}, {}, NOW)) == ["free"]
    for line, said in (
        (", as: missing", "takes texts, and this makes a number"),
        (", categories: [a, b], as: onehot", "takes several columns, and a tensor has one"),
        (", default: 3", "default `3` does not fit a tensor of str"),
    ):
        with pytest.raises(AuthorError) as raised:
            given(line)
        assert said in raised.value.diagnostics[0].message
