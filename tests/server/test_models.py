"""Models over the API: what explanations say they saw and answered, and what a decision did without."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from arbiter.models import Model, from_bytes
from arbiter.ruleset.load import load_ruleset
from arbiter.snapshot import Snapshot
from arbiter.types import ConsentState, ExplainLevel, ModelInput

if TYPE_CHECKING:
    from tests.server.conftest import OpenShop, Shop

INPUTS = """
  - {name: orders, from: features.orders, default: 0}
  - {name: age, from: profile.age, impute: median, training: {median: 39}, range: [0, 120]}
  - {name: plan, from: profile.plan, categories: [free, pro], as: onehot, unseen: error}
  - {name: salary, from: profile.salary, default: 1}
"""
RULES = """
schema:
  profile:
    age: int
    plan: string
    salary: {type: double, personal: true, purposes: [scoring]}
consent: {purposes: [scoring]}
features:
  orders: {count: order}
decisions:
  d: {order: [value]}
rules:
  - {id: likely, decision: d, value: models.total.s, then: {action: show}}
"""


def total() -> Model:
    """Adds up the columns of its matrix."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["m", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("m", TensorProto.FLOAT, [None, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        initializer=[numpy_helper.from_array(np.ones((5, 1), dtype=np.float32), "w")],
    )
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    head = f"name: total\nversion: 7\nkind: score\nsha256: {hashlib.sha256(onnx).hexdigest()}\ninputs:{INPUTS}"
    return from_bytes(f"{head}outputs: {{s: {{tensor: y, type: double}}}}\n".encode(), onnx)


@pytest.fixture
def modelled(open_shop: OpenShop) -> Shop:
    shop = open_shop()
    models = {"total": total()}
    outputs = {name: model.outputs for name, model in models.items()}
    inputs = {name: [(each.root, each.attribute) for each in model.inputs] for name, model in models.items()}
    ruleset, found = load_ruleset({"a.yaml": RULES.encode()}, outputs, inputs=inputs)
    assert ruleset is not None, [each.render() for each in found]
    shop.engine.activate(Snapshot(ruleset, models))
    shop.client.set_consent("ann", "scoring", ConsentState.GRANTED, source="test")
    return shop


def test_an_explanation_says_what_a_model_saw_and_answered(modelled: Shop) -> None:
    modelled.client.update_profile("ann", set={"age": 200, "plan": "pro", "salary": 1000.0})
    answer = modelled.client.decide("ann", "d", explain=ExplainLevel.ALL)
    (model,) = answer.models
    assert (model.model, model.version, model.outputs, model.detail) == ("total", 7, {"s": 1040.0}, "")
    assert model.inputs == (
        ModelInput("orders", "features.orders", 0, (0.0,)),
        ModelInput("age", "profile.age", 200, (39.0,), imputed=True),
        ModelInput("plan", "profile.plan", "pro", (0.0, 1.0)),
        ModelInput("salary", "profile.salary", withheld=True),
    )
    assert (
        'model total 7 answered s = 1040 to orders = 0, age = 200, for which 39 stands in, plan = "pro", '
        "salary is withheld" in answer.explanation_text.splitlines()
    )
    assert modelled.client.decide("ann", "d").models == ()


def test_a_missing_input_without_a_stand_in_is_said(modelled: Shop) -> None:
    modelled.client.update_profile("ann", set={"age": 30})
    answer = modelled.client.decide("ann", "d", explain=ExplainLevel.ALL)
    (model,) = answer.models
    assert (model.outputs, model.detail) == ({}, "nothing stands in for `plan`")
    assert answer.degraded == ()


def test_a_value_that_is_no_category_fails_the_model_and_no_decision(modelled: Shop) -> None:
    modelled.client.update_profile("ann", set={"age": 30, "plan": "gold"})
    answer = modelled.client.decide("ann", "d", explain=ExplainLevel.ALL)
    assert answer.degraded == ("models.total",)
    assert answer.treatments[0].value is None
    (model,) = answer.models
    assert (model.outputs, model.detail) == ({}, "it failed")
    assert modelled.counters.models["total", "7"].failures == 1


def test_what_consent_hides_is_not_imputed_and_is_named(modelled: Shop) -> None:
    modelled.client.update_profile("bob", set={"age": 30, "plan": "pro", "salary": 5.0})
    answer = modelled.client.decide("bob", "d", explain=ExplainLevel.ALL)
    (model,) = answer.models
    assert (model.outputs, answer.treatments[0].value) == ({}, None)
    assert model.denied == {"models.total": ("scoring",), "profile.salary": ("scoring",)}
    assert "profile.salary lacks consent to scoring" in answer.explanation_text.splitlines()[-1]
