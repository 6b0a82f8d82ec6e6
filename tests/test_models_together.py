"""Models that are needed together: what a walk asks for at once, and that one graph answers as they do one by one."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import struct
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from arbiter.decision.explain import explain
from arbiter.decision.walk import Need, Walk
from arbiter.expr.view import View
from arbiter.models import Model, ModelFailure, from_bytes
from arbiter.models.merged import Merged, families
from arbiter.models.rows import row_of, rows_of
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine
from arbiter.runtime.merging import MOST_SETS
from arbiter.snapshot import Snapshot
from arbiter.types import ExplainLevel, Lack, Request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import ModelProto

NOW = 1_780_272_000_000_000
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
_KIND: dict[int, Any] = {FLOAT: np.float32, DOUBLE: np.float64}
value = helper.make_tensor_value_info


def graph(nodes: list[Any], width: int, outputs: list[Any], weights: list[Any], dtype: int, opset: int) -> ModelProto:
    made = helper.make_graph(nodes, "g", [value("x", dtype, ["n", width])], outputs, initializer=weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def linear(seed: int, width: int, *, dtype: int = FLOAT, opset: int = 17) -> ModelProto:
    """A matrix product, in floats of either size."""
    weights = np.random.default_rng(seed).normal(size=(width, 2)).astype(_KIND[dtype])
    named = [numpy_helper.from_array(weights, "w")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="same name everywhere")
    return graph([node], width, [value("y", dtype, ["n", 2])], named, dtype, opset)


def logistic(seed: int, width: int) -> ModelProto:
    """A classifier: labels and probabilities."""
    weights = np.random.default_rng(seed).normal(size=width)
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "y"], domain="ai.onnx.ml", coefficients=[*(-weights), *weights],
        intercepts=[0.1, -0.1], classlabels_ints=[0, 1], multi_class=0, post_transform="LOGISTIC",
    )  # fmt: skip
    return graph([node], width, [value("label", INT64, ["n"]), value("y", FLOAT, ["n", 2])], [], FLOAT, 17)


def stump(seed: int, width: int) -> ModelProto:
    """Two trees of one split each."""
    draw = np.random.default_rng(seed)
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[0, 0, 0, 1, 1, 1], nodes_nodeids=[0, 1, 2, 0, 1, 2],
        nodes_featureids=[int(draw.integers(width)), 0, 0, int(draw.integers(width)), 0, 0],
        nodes_values=[float(draw.normal()), 0.0, 0.0, float(draw.normal()), 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * 2, nodes_truenodeids=[1, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[2, 0, 0, 2, 0, 0], nodes_hitrates=[1.0] * 6, nodes_missing_value_tracks_true=[0] * 6,
        target_treeids=[0, 0, 1, 1], target_nodeids=[1, 2, 1, 2], target_ids=[0] * 4,
        target_weights=[float(each) for each in draw.normal(size=4)],
    )  # fmt: skip
    return graph([node], width, [value("y", FLOAT, ["n", 1])], [], FLOAT, 17)


def model(name: str, proto: ModelProto, inputs: list[str], outputs: str = "{tensor: y, type: double}") -> Model:
    onnx = proto.SerializeToString()
    lines = [f"name: {name}", "version: 1", "kind: score", f"sha256: {hashlib.sha256(onnx).hexdigest()}", "inputs:"]
    lines += [f"  - {each}" for each in inputs]
    return from_bytes("\n".join([*lines, f"outputs: {{s: {outputs}}}", ""]).encode(), onnx)


def reads(*names: str, default: str = "") -> list[str]:
    return [f"{{name: {name}, from: profile.{name}{default}}}" for name in names]


ALL = [
    model("linear", linear(1, 3), reads("a", "b", "c")),
    model("second", linear(2, 2), reads("b", "c"), "{tensor: y, type: double, index: 1}"),
    model("double", linear(3, 1, dtype=DOUBLE), reads("a", default=", default: 2.5")),
    model("click", logistic(4, 2), reads("c", "d"), "{tensor: y, type: double, index: 1}"),
    model("label", logistic(5, 3), reads("a", "b", "d", default=", default: 1"), "{tensor: label, type: int}"),
    model("trees", stump(6, 4), reads("a", "b", "c", "d")),
    model("stump", stump(7, 1), reads("d", default=", default: -1")),
]
# What a profile may hold, whether a model likes it or not.
anything = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.floats(-10, 10), st.booleans(), st.text(max_size=3), st.none(),
)  # fmt: skip


def bits(answer: Any) -> Any:
    return tuple(struct.pack("d", each) if isinstance(each, float) else each for each in answer)


@settings(max_examples=40)
@given(
    st.sets(st.sampled_from(range(len(ALL))), min_size=2),
    st.lists(st.fixed_dictionaries(dict.fromkeys("abcd", anything))),
)
def test_one_graph_answers_bit_for_bit_as_each_model_alone(chosen: set[int], profiles: list[dict[str, Any]]) -> None:
    models = [ALL[number] for number in sorted(chosen)]
    snapshot = Snapshot(ruleset(), {each.name: each for each in models})
    merged, rows = Merged(models), rows_of(models, snapshot.symbols)
    for profile in profiles:
        view = View({name: each for name, each in profile.items() if each is not None}, {}, {}, NOW)
        values, unknown = rows(view)
        together = merged.score(values)
        for number, each in enumerate(models):
            row = row_of(each, snapshot.symbols)(view)
            assert bool(unknown >> number & 1) is (row is None)
            if together is not None and row is not None:
                assert bits(together[number].values()) == bits(each.score(row).values())
                assert not any(isinstance(one, float) and not math.isfinite(one) for one in together[number].values())


@settings(max_examples=40)
@given(
    st.sets(st.sampled_from(range(len(ALL))), min_size=2),
    st.lists(st.fixed_dictionaries(dict.fromkeys("abcd", anything)), min_size=1, max_size=9),
)
def test_a_batch_is_answered_bit_for_bit_as_by_each_model_alone(
    chosen: set[int], profiles: list[dict[str, Any]]
) -> None:
    models = [ALL[number] for number in sorted(chosen)]
    snapshot = Snapshot(ruleset(), {each.name: each for each in models})
    merged, rows = Merged(models), rows_of(models, snapshot.symbols)
    views = [
        View({name: each for name, each in profile.items() if each is not None}, {}, {}, NOW) for profile in profiles
    ]
    read = [rows(view) for view in views]
    together = merged.run([values for values, _ in read])
    assert len(together) == len(views)
    for number, each in enumerate(models):
        whole = [row_of(each, snapshot.symbols)(view) or [0.0] * len(each.inputs) for view in views]
        for answers, alone, (values, unknown) in zip(together, each.run(whole), read, strict=True):
            assert (answers is None) is (merged.score(values) is None)
            if answers is not None and not unknown >> number & 1:
                assert bits(answers[number]) == bits(alone)


def test_a_value_that_is_no_number_leaves_all_to_run_alone() -> None:
    merged = Merged(ALL[:2])
    assert merged.score([10**400, 0.0, 0.0, 1.0, 2.0]) is None
    assert merged.score(["x", 0.0, 0.0, 1.0, 2.0]) is None
    assert merged.score([1.0, 0.0, 0.0, 1.0, 2.0]) == (ALL[0].score([1.0, 0, 0]), ALL[1].score([1.0, 2.0]))


def test_only_models_that_one_version_of_the_operators_suits_are_one_graph() -> None:
    def summing(name: str, opset: int) -> Model:
        # `ReduceSum` took its axes otherwise before 13; a product means the same since then.
        axes: dict[str, Any] = {"axes": [1]} if opset < 13 else {}
        inputs = ["x"] if opset < 13 else ["x", "axes"]
        weights = [] if opset < 13 else [numpy_helper.from_array(np.array([1], np.int64), "axes")]
        node = helper.make_node("ReduceSum", inputs, ["y"], keepdims=1, **axes)
        return model(name, graph([node], 2, [value("y", FLOAT, ["n", 1])], weights, FLOAT, opset), reads("a", "b"))

    old, older, new, lone = (summing(f"m{opset}", opset) for opset in (12, 11, 13, 17))
    product = model("product", linear(9, 2, opset=15), reads("a", "b"))
    found = families([old, product, new, older, lone])
    assert [[each.name for each in family] for family in found] == [["m12", "m11"], ["product", "m13", "m17"]]
    for family in found:
        rows = [1.0, 2.5] * len(family)
        assert Merged(family).score(rows) == tuple(each.score([1.0, 2.5]) for each in family)


def ruleset(rules: str = "decisions: {d: }\n", models: tuple[Model, ...] = ()) -> Any:
    loaded, found = load_ruleset({"a.yaml": rules.encode()}, {each.name: each.outputs for each in models})
    assert loaded is not None, [each.render() for each in found]
    return loaded


def rule(name: str, decision: str, priority: int, **more: str) -> str:
    said = "".join(f", {key}: {text}" for key, text in more.items())
    action = f"{{action: show, params: {{n: {name}}}}}"
    return f"  - {{id: {name}, decision: {decision}, priority: {priority}, then: {action}{said}}}\n"


FEW = tuple(ALL[number] for number in (0, 1, 3, 5))
RULES = (
    "decisions:\n  first: {slots: 1, order: [priority]}\n  three: {slots: 3, order: [priority]}\n"
    "  worth: {order: [priority, value]}\n  grouped: {slots: 2, order: [priority]}\nrules:\n"
    + rule("f1", "first", 9, when="models.linear.s > 0.0")
    + rule("f2", "first", 8, when="models.second.s > 0.0")
    + rule("t1", "three", 9, when="profile.never == 1 && models.linear.s > 0.0")
    + rule("t2", "three", 8, when="models.linear.s > -1000.0")
    + rule("t3", "three", 7)
    + rule("t4", "three", 6, when="models.click.s > 2.0")
    + rule("t5", "three", 5, when="models.trees.s > -1000.0")
    + rule("w1", "worth", 9, value="models.linear.s")
    + rule("w2", "worth", 9, value="models.second.s")
    + rule("w3", "worth", 9, when="models.click.s > 2.0", value="models.trees.s")
    + rule("w4", "worth", 1, value="models.trees.s")
    + rule("g1", "grouped", 9, when="models.linear.s > -1000.0", group="g")
    + rule("g2", "grouped", 8, when="models.second.s > -1000.0", group="g")
    + rule("g3", "grouped", 7, when="models.click.s > -1000.0")
)  # fmt: skip


@pytest.mark.parametrize(
    ("point", "asked"),
    [
        # The first may win: then the second is not needed.
        ("first", [("linear",), ("second",)]),
        # Three slots: the second rule, the third and the fourth are reached for sure, the fifth only when one fails.
        ("three", [("click", "linear"), ("trees",)]),
        # A tier is settled as a whole. What only a fallen condition would ask for is not asked for.
        ("worth", [("click", "linear", "second")]),
        # Who is behind one of its group is not sure to be needed, and is not when that one won.
        ("grouped", [("linear",), ("click",)]),
    ],
)
def test_what_is_sure_to_be_needed_is_asked_for_at_once(point: str, asked: list[tuple[str, ...]]) -> None:
    snapshot = Snapshot(ruleset(RULES, FEW), {each.name: each for each in FEW})
    view = View({}, {}, {}, NOW)
    walk, found = Walk(snapshot.point(point), view, "s"), []
    while isinstance(need := walk.advance(), Need):
        found.append(need.models)
        view.models |= {name: {"s": -5.0 if point == "first" else 1.0} for name in need.models}
    assert found == asked


class Strict(Walk):
    """A walk that asks for what its next rule lacks, and never looks ahead."""

    def _need(self, lacking: tuple[str, ...], rule: Any, behind: int) -> Need:  # noqa: ARG002 - as it is called
        return Need(lacking)


NAMES = [each.name for each in FEW]
drawn_rule = st.fixed_dictionaries(
    {
        "priority": st.integers(1, 2),
        "holds": st.sampled_from(["true", "true", "profile.on == 1", "profile.on == 1 && now > timestamp(5)"]),
        "asks": st.sampled_from(["", *NAMES]),
        "value": st.sampled_from(["", *NAMES]),
        "shows": st.sampled_from(["", "", *NAMES]),
        "group": st.sampled_from(["", "", "g", "h"]),
        "rollout": st.sampled_from([0, 50, 100]),
    }
)


def authored(number: int, drawn: dict[str, Any]) -> str:
    when = [drawn["holds"], *([f"models.{drawn['asks']}.s > 0.0"] if drawn["asks"] else [])]
    shows = f'"${{models.{drawn["shows"]}.s}}"' if drawn["shows"] else f"r{number}"
    lines = [
        f"  - id: r{number}", "    decision: d", f"    priority: {drawn['priority']}",
        f"    when: [{', '.join(repr(each) for each in when)}]", f"    then: {{action: show, params: {{n: {shows}}}}}",
        *([f"    value: models.{drawn['value']}.s"] if drawn["value"] else []),
        *([f"    group: {drawn['group']}"] if drawn["group"] else []),
        *([f"    rollout: {{percent: {drawn['rollout']}, by: subject, salt: s}}"] if drawn["rollout"] else []),
    ]  # fmt: skip
    return "\n".join([*lines, ""])


def walked(kind: type[Walk], snapshot: Snapshot, view: View, outputs: dict[str, Any]) -> tuple[Any, set[str], int]:
    """The decision, the models that were asked for, and how often it stopped."""
    view.models = {}
    walk, asked, stops = kind(snapshot.point("d"), view, "s"), set[str](), 0
    while isinstance(outcome := walk.advance(), Need):
        assert not asked & set(outcome.models)
        asked |= set(outcome.models)
        stops += 1
        view.models |= {name: outputs[name] for name in outcome.models}
    return outcome, asked, stops


@settings(max_examples=150)
@given(
    st.lists(drawn_rule, min_size=1, max_size=7),
    st.sampled_from(["[priority]", "[value]", "[priority, value]"]),
    st.integers(1, 3),
    st.fixed_dictionaries({name: st.sampled_from([{}, {"s": -1.0}, {"s": 1.0}, {"s": 2.0}]) for name in NAMES}),
    st.integers(0, 1),
)
def test_looking_ahead_asks_for_no_model_that_would_not_have_been_asked(
    rules: list[dict[str, Any]], order: str, slots: int, outputs: dict[str, Any], on: int
) -> None:
    head = f"decisions: {{d: {{slots: {slots}, order: {order}}}}}\nrules:\n"
    text = head + "".join(authored(number, drawn) for number, drawn in enumerate(rules))
    snapshot = Snapshot(ruleset(text, FEW), {each.name: each for each in FEW})
    view = View({"on": on}, {}, {}, NOW)
    ahead, strict = walked(Walk, snapshot, view, outputs), walked(Strict, snapshot, view, outputs)
    assert ahead[:2] == strict[:2]
    assert ahead[2] <= strict[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", map_size=1 << 28, background=False) as opened:
        yield opened


def engine_of(store: Store, models: tuple[Model, ...] = FEW, rules: str = RULES) -> Engine:
    engine = Engine(store, clock=lambda: NOW)
    engine.activate(Snapshot(ruleset(rules, models), {each.name: each for each in models}))
    store.update(Update(subject_id="s", set={"a": 1, "b": 2.5, "c": -1, "d": 4})).result()
    return engine


def decide(engine: Engine, point: str = "worth", deadline: float | None = None) -> Any:
    (decision,) = engine.decide(Request("s", (point,), NOW), deadline)
    return decision


def test_a_set_is_merged_once_it_was_asked_for_and_answers_alike(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(store)
    before = decide(engine)
    engine.scorer.merger.wait()
    snapshot = engine.snapshot
    assert snapshot is not None
    assert [[each.name for each in joint.merged.models] for joint in snapshot.merged["click", "linear", "second"]] == [
        ["click", "linear", "second"]
    ]
    with monkeypatch.context() as patched:
        patched.setattr(Model, "score", None)  # alone none would run
        assert decide(engine) == before
    assert before.treatments[0].value is not None


PLAIN = {"linear": linear(1, 3), "second": linear(2, 2), "click": logistic(4, 2), "trees": stump(6, 4)}


@functools.cache
def session(name: str) -> Any:
    return onnxruntime.InferenceSession(PLAIN[name].SerializeToString())


def slowly(models: tuple[Model, ...], profile: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The outputs of each model by a plain session of its own, for one subject."""
    found: dict[str, dict[str, Any]] = {}
    for each in models:
        given = [profile.get(item.attribute, item.default) for item in each.inputs]
        known = [
            one if isinstance(one, int | float) else item.default for one, item in zip(given, each.inputs, strict=True)
        ]
        found[each.name] = {}
        if None in known:
            continue
        assert each.matrix is not None
        (output,) = each.told
        with np.errstate(over="ignore"):
            matrix = np.array([known], dtype=each.matrix.dtype)
        (result,) = session(each.name).run([output.tensor], {"x": matrix})
        answer = result.reshape(1, -1)[0, output.index].item()
        if math.isfinite(answer):
            found[each.name] = {"s": answer}
    return found


stored = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.floats(-5, 5),
                   st.booleans(), st.text(max_size=3))  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), stored), min_size=1, max_size=4))
def test_decisions_are_those_of_plain_sessions_and_the_slow_evaluator(
    store: Store, people: list[dict[str, Any]]
) -> None:
    engine = merged_engine(store)
    for number, profile in enumerate(people):
        update = Update(subject_id=f"s{number}", set=profile, unset=tuple(set("abcd") - set(profile)))
        store.update(update).result()
    for name in ("first", "three", "worth", "grouped"):
        point = engine.current().snapshot.point(name)
        requests = [Request(f"s{number}", (name,), NOW) for number in range(len(people))]
        together = engine.decide_batch(requests)
        for number, profile in enumerate(people):
            view = View(profile, {}, {}, NOW)
            view.models = dict(slowly(FEW, profile))
            outcomes = explain(point, view, f"s{number}", 0, (), dict, ExplainLevel.WINNERS)
            expected = [(each.rule_id, each.value) for each in outcomes]
            (decision,) = engine.decide(requests[number])
            assert [(each.rule_id, each.value) for each in decision.treatments] == expected
            assert decision.degraded == ()
            assert together[number] == (decision,)


_ENGINES: dict[int, Engine] = {}


def merged_engine(store: Store) -> Engine:
    """One engine for all examples, which runs as one what it can."""
    if id(store) not in _ENGINES:
        _ENGINES.clear()
        engine = _ENGINES[id(store)] = engine_of(store)
        snapshot = engine.current().snapshot
        for names in (("click", "linear"), ("click", "linear", "second")):
            snapshot.merge(names)
            assert snapshot.merged[names]
    return _ENGINES[id(store)]


def test_a_batch_runs_each_set_of_models_once_for_every_slice_of_it(store: Store) -> None:
    engine = merged_engine(store)
    count = 100
    for number in range(count):
        store.update(
            Update(subject_id=f"p{number}", set={"a": number % 7, "b": 1.5, "c": number % 5, "d": 0.5})
        ).result()
    requests = [Request(f"p{number}", ("worth",), NOW) for number in range(count)]
    expected = [engine.decide(request) for request in requests]
    engine.counters.watched = True
    try:
        before = {name: figures.runs for name, figures in engine.counters.models.items()}
        assert engine.decide_batch(requests) == expected
    finally:
        engine.counters.watched = False
    runs = {name: figures.runs - before.get(name, 0) for (name, figures) in engine.counters.models.items()}
    assert runs == {("click", "1"): 2, ("linear", "1"): 2, ("second", "1"): 2}
    (joint,) = engine.current().snapshot.merged["click", "linear", "second"]
    assert joint.pace_of_row.longest > 0


def test_a_batch_that_would_be_late_together_is_tried_one_by_one(store: Store) -> None:
    engine = merged_engine(store)
    requests = [Request(f"p{number}", ("worth",), NOW) for number in range(20)]
    expected = [engine.decide(request) for request in requests]
    (joint,) = engine.current().snapshot.merged["click", "linear", "second"]
    joint.pace_of_row.took(1e6)
    longest = joint.pace_of_row.longest
    assert engine.decide_batch(requests, time.monotonic() + 3600) == expected
    assert joint.pace_of_row.longest < longest
    joint.pace_of_row.took(0.0)
    for _ in range(100):
        joint.pace_of_row.refused()


def test_models_that_would_be_late_together_are_tried_alone(store: Store) -> None:
    engine = engine_of(store)
    decide(engine)
    engine.scorer.merger.wait()
    assert engine.snapshot is not None
    (joint,) = engine.snapshot.merged["click", "linear", "second"]
    joint.pace.took(1e6)
    before = joint.pace.longest
    decision = decide(engine, deadline=time.monotonic() + 3600)
    assert decision.degraded == ()
    assert decision.treatments[0].value is not None
    assert joint.pace.longest < before


def test_what_is_missing_makes_one_model_unknown_and_not_the_others(store: Store) -> None:
    engine = engine_of(store)
    store.update(Update(subject_id="s", unset=("a",))).result()
    alone = decide(engine)
    engine.scorer.merger.wait()
    assert decide(engine) == alone
    assert alone.treatments[0].rule_id == "w2"
    assert alone.degraded == ()


def test_a_model_that_fails_fails_alone(store: Store) -> None:
    table = graph(
        [helper.make_node("Cast", ["x"], ["at"], to=INT64), helper.make_node("Gather", ["table", "at"], ["y"])],
        1,
        [value("y", FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "table")],
        FLOAT,
        17,
    )  # fmt: skip
    models = (ALL[0], model("fails", table, reads("d")))
    rules = "decisions: {d: {order: [value]}}\nrules:\n" + rule("r1", "d", 1, value="models.linear.s")
    engine = engine_of(store, models, rules + rule("r2", "d", 1, value="models.fails.s"))
    for _ in range(3):
        decision = decide(engine, "d")
        assert [(each.model, each.cause) for each in decision.degraded] == [("fails", Lack.FAILED)]
        assert [each.rule_id for each in decision.treatments] == ["r1"]
        engine.scorer.merger.wait()
    assert engine.counters.models["fails", "1"].failures == 3
    assert engine.snapshot is not None
    assert engine.snapshot.merged["fails", "linear"] != ()
    store.update(Update(subject_id="s", set={"d": 1})).result()
    assert decide(engine, "d").degraded == ()


def test_the_next_snapshot_has_its_sets_merged_before_it_decides(store: Store) -> None:
    engine = engine_of(store)
    decide(engine)
    engine.scorer.merger.wait()
    before = engine.snapshot
    assert before is not None
    names = ("click", "linear", "second")
    fresh = model("linear", linear(42, 3), reads("a", "b", "c"))
    same = Snapshot(ruleset(RULES + rule("w5", "worth", 0), FEW), before.models)
    changed = Snapshot(ruleset(RULES, FEW), {**before.models, "linear": fresh})
    engine.activate(same)
    assert same.merged[names][0].merged is before.merged[names][0].merged
    engine.activate(changed)
    (joint,) = changed.merged[names]
    assert joint.merged.models[1] is fresh
    without = {name: each for name, each in before.models.items() if name != "linear"}
    lesser = Snapshot(ruleset("decisions: {d: }\n"), without)
    engine.activate(lesser)
    assert lesser.merged == {}


def test_a_model_that_was_replaced_is_freed_with_its_sessions(store: Store) -> None:
    def fresh() -> tuple[Model, ...]:
        return (*FEW[1:], model("linear", linear(42, 3), reads("a", "b", "c")))

    engine = engine_of(store, fresh())
    gone = []
    for _ in range(3):
        decide(engine)
        engine.scorer.merger.wait()
        snapshot = engine.snapshot
        assert snapshot is not None
        (joint,) = snapshot.merged["click", "linear", "second"]
        gone += [weakref.ref(each) for each in (snapshot, snapshot.models["linear"], joint.merged)]
        del snapshot, joint
        models = fresh()
        engine.activate(Snapshot(ruleset(RULES, models), {each.name: each for each in models}))
        del models
    # By counting references: nobody waits for the collector, and workers keep what they loaded out of its sight.
    assert [each() for each in gone] == [None] * len(gone)


def test_what_cannot_be_merged_is_tried_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(store)
    plain = decide(engine)
    engine.scorer.merger.wait()
    assert engine.snapshot is not None
    snapshot = Snapshot(ruleset(RULES, FEW), engine.snapshot.models)
    tried = []

    def refuses(merged: Merged) -> None:
        tried.append(len(merged.models))
        raise ModelFailure("no")

    monkeypatch.setattr(Merged, "_probe", refuses)
    engine._active = None  # so that nothing is taken over
    engine.activate(snapshot)
    for _ in range(3):
        assert decide(engine) == plain
        engine.scorer.merger.wait()
    assert tried == [3]


def test_sets_are_bounded(store: Store) -> None:
    engine = engine_of(store, tuple(ALL), "decisions: {d: }\n")
    snapshot = engine.snapshot
    assert snapshot is not None
    sets = [names for size in (2, 3) for names in itertools.combinations(sorted(snapshot.models), size)]
    assert len(sets) > MOST_SETS
    for names in sets:
        engine.scorer.merger.ask(snapshot, names)
    assert list(snapshot.merged) == sets[:MOST_SETS]
    engine.scorer.merger.wait()
