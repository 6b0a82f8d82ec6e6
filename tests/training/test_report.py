"""A report over stored profiles: quiet while people are as they were, loud when they are not, and one page of it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from arbiter.models import Model, from_bytes
from arbiter.training.declared import Declarations, read_declarations
from arbiter.training.examples import History, assemble
from arbiter.training.reading import read_spec
from arbiter.training.report import Report, baseline_of, page, report
from arbiter.training.run import Trained, train
from arbiter.training.table import TrainingFailed
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 24 * 3600 * 1_000_000
NOW = 20_000 * DAY
RULES = b"""
schema: {profile: {plan: {type: string, default: free}}, events: {buy: {amount: double}}}
features: {buys_30d: {count: buy, window: 30d}, spend_30d: {sum: buy.amount, window: 30d}, age: {since: buy, unit: d}}
"""
SPEC = b"""
name: again
version: 3
kind: propensity
source: {store: data}
rules: rules
rows: {at: [2024-09-24T00:00:00Z]}
label: {count: buy, window: 10d}
inputs:
  - {name: buys, from: features.buys_30d}
  - {name: spend, from: features.spend_30d}
  - {name: age, from: features.age, default: 99}
  - {name: plan, from: profile.plan, as: onehot}
estimator: logistic_regression
validation: {held_out: 0.25}
"""


def people(count: int, seed: int, at: int, *, worth: float = 20.0, pro: float = 0.3) -> Iterator[History]:
    """Histories that end at a moment (µs)."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        days = sorted(draw.uniform(0, 40, 1 + draw.poisson(3)))[::-1]
        events = [
            Event(f"e{n}", f"u{number}", "buy", at - int(day * DAY), {"amount": float(draw.exponential(worth))})
            for n, day in enumerate(days)
        ]
        plan = {"plan": "pro"} if draw.random() < pro else {}
        yield History(f"u{number}", events, lambda _, plan=plan: plan)  # type: ignore[misc]


@pytest.fixture(scope="module")
def declared() -> Declarations:
    return read_declarations({"r.yaml": RULES}, "rules")


@pytest.fixture(scope="module")
def made(declared: Declarations) -> Trained:
    spec = read_spec(SPEC, "train.yaml")
    (at,) = spec.moments.at
    histories = list(people(1500, 1, at + 10 * DAY))
    table = assemble(spec, histories, declared.features, until=at + 10 * DAY, defaults=declared.defaults)
    return train(spec, SPEC, table)


@pytest.fixture(scope="module")
def model(made: Trained) -> Model:
    return from_bytes(made.manifest, made.onnx)


def told(model: Model, declared: Declarations, histories: Iterator[History]) -> Report:
    return report(model, histories, declared, NOW, {"without consent": 4})


def test_people_who_are_as_they_were_raise_no_alarm(model: Model, declared: Declarations) -> None:
    for seed in range(2, 7):
        # The training looked at people ten days before their last ten days; so does this.
        histories = (
            History(each.subject, [event for event in each.events if event.at <= NOW], each.attributes)
            for each in people(400, seed, NOW + 10 * DAY)
        )
        found = told(model, declared, (each for each in histories if each.events))
        assert found.alarms == []
        assert found.unknown == 0
        assert found.subjects > 300


def test_people_who_spend_more_and_have_other_plans_raise_it(model: Model, declared: Declarations) -> None:
    found = told(model, declared, people(500, 8, NOW, worth=90.0, pro=0.9))
    alarmed = {re.match(r"`(\w+)`", each)[1] for each in found.alarms}  # type: ignore[index]
    assert {"spend", "plan"} <= alarmed
    assert (found.model, found.version, found.left_out) == ("again", 3, {"without consent": 4})
    written = page(found, "now")
    assert written.count("<svg") == len(found.inputs) + len(found.outputs) == 5
    assert "values have shifted: a stability index of" in written
    assert "http" not in written


def test_a_model_that_says_nothing_of_its_training_cannot_be_compared(made: Trained) -> None:
    from onnx import ModelProto  # noqa: PLC0415 - to take something out

    bare = ModelProto.FromString(made.onnx)
    del bare.metadata_props[:]
    onnx = bare.SerializeToString()
    was, now = (hashlib.sha256(each).hexdigest().encode() for each in (made.onnx, onnx))
    with pytest.raises(TrainingFailed, match=r"has no `arbiter\.baseline`"):
        baseline_of(from_bytes(made.manifest.replace(was, now), onnx))


def test_an_empty_store_and_other_rules_are_said(model: Model, declared: Declarations) -> None:
    with pytest.raises(TrainingFailed, match="no subject with an event"):
        told(model, declared, iter(()))
    with pytest.raises(TrainingFailed, match=r"reads `features\.buys_30d`, which the rules do not declare"):
        told(model, Declarations(), people(3, 1, NOW))
