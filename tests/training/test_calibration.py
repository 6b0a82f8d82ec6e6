"""A calibrated model says how often things happen, and its exported form says the same, alone and in a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.errors import AuthorError
from arbiter.learning.measures import calibration, calibration_error, log_loss
from arbiter.models import from_bytes
from arbiter.training.calibrating import Sigmoid, Steps, curve_of
from arbiter.training.fitting import fit
from arbiter.training.reading import read_spec
from arbiter.training.spec import Estimator
from arbiter.training.table import TrainingFailed
from tests.training.conftest import text_of, trained

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.training.spec import Calibration

ESTIMATORS = {
    "logistic_regression": "type: logistic_regression",
    "random_forest": "type: random_forest, n_estimators: 20, max_depth: 4",
    "gradient_boosting": "type: gradient_boosting, n_estimators: 20",
    "lightgbm": "type: lightgbm, n_estimators: 15",
    "xgboost": "type: xgboost, n_estimators: 15, max_depth: 3",
}
WAYS: tuple[Calibration, ...] = ("sigmoid", "isotonic")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("ignore")
def test_the_exported_form_answers_as_the_calibrated_original(name: str, way: str, table: Path) -> None:
    if name in {"lightgbm", "xgboost"}:
        pytest.importorskip(name)
    made = trained(table, "propensity", f"{{{ESTIMATORS[name]}, calibrate: {way}}}")
    assert made.parity.kept
    assert made.parity.difference < 1e-5
    model = from_bytes(made.manifest, made.onnx)
    assert model.told[0].tensor == "probability"
    rows = [row for row in map(model.encode, made.parity.file.rows) if row is not None]
    assert [model.run_one(row) for row in rows] == model.run(rows)
    if name == "random_forest":
        again = trained(table, "propensity", f"{{{ESTIMATORS[name]}, calibrate: {way}}}")
        assert (again.onnx, again.manifest) == (made.onnx, made.manifest)


@pytest.mark.parametrize("way", WAYS)
def test_a_forest_that_is_too_sure_of_itself_becomes_as_sure_as_it_may_be(way: Calibration) -> None:
    """Leaves of one row say 0 or 1 of what happens to six in ten."""
    draw = np.random.default_rng(2)
    x = draw.normal(size=(6000, 4))
    y = (draw.random(6000) < 1 / (1 + np.exp(-x[:, 0]))).astype(np.int64)
    train, held = slice(0, 3000), slice(3000, 6000)
    parameters: dict[str, Any] = {"n_estimators": 12, "min_samples_leaf": 1}
    logs = [False] * 4
    plain, better = (
        fit("propensity", Estimator("random_forest", parameters, each), 1, x[train], y[train], logs, 0).predict(x[held])
        for each in (None, way)
    )
    assert log_loss(y[held], better) < log_loss(y[held], plain) - 0.1
    errors = [calibration_error(calibration(y[held], said)) for said in (plain, better)]
    assert errors[1] < errors[0] / 3
    # It only bends what was said: who was ahead stays ahead, or level.
    order = np.argsort(plain, kind="stable")
    assert (np.diff(better[order]) >= -1e-12).all() or way == "isotonic"


def test_one_subject_is_on_one_side_where_the_curve_is_learnt() -> None:
    """Rows of a subject are alike to the last digit: a forest that has seen one knows what becomes of the others."""
    draw = np.random.default_rng(5)
    whose = np.repeat(np.arange(300), 4)
    x, y = np.repeat(draw.normal(size=(300, 3)), 4, axis=0), np.repeat(draw.integers(0, 2, 300), 4)
    estimator = Estimator("random_forest", {"n_estimators": 10}, "sigmoid")
    logs = [False] * 3
    split, known = (fit("propensity", estimator, 1, x, y, logs, 0, groups).curve for groups in (None, whose))
    assert isinstance(split, Sigmoid)
    assert isinstance(known, Sigmoid)
    assert abs(known.slope) < 1 < split.slope


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(200, 600), st.sampled_from(WAYS), st.floats(-3, 3))
def test_a_curve_rises_and_stays_a_probability(seed: int, rows: int, way: Calibration, shift: float) -> None:
    draw = np.random.default_rng(seed)
    said = draw.random(rows)
    happened = (draw.random(rows) < 1 / (1 + np.exp(-(6 * said - 3 + shift)))).astype(np.int64)
    if len(np.unique(happened)) < 2:
        return
    curve = curve_of(way, said, happened)
    found = curve.of(np.linspace(-0.5, 1.5, 500))
    assert found.min() >= 0
    assert found.max() <= 1
    if isinstance(curve, Steps):
        assert list(curve.x) == sorted(curve.x)
        assert (np.diff(found) >= -1e-12).all()
        assert abs(curve.of(said).mean() - happened.mean()) < 0.1


def test_what_cannot_be_calibrated_is_said() -> None:
    with pytest.raises(AuthorError) as caught:
        read_spec(text_of("class", "{type: random_forest, calibrate: sigmoid}").encode(), "t.yaml")
    assert caught.value.diagnostics[0].message == "`calibrate` is for probabilities of a propensity, this is a class"
    with pytest.raises(AuthorError) as caught:
        read_spec(text_of("propensity", "{type: random_forest, calibrate: platt}").encode(), "t.yaml")
    assert (caught.value.diagnostics[0].message, caught.value.diagnostics[0].hint) == (
        "`calibrate` cannot be `platt`", "one of `sigmoid`, `isotonic`",
    )  # fmt: skip
    with pytest.raises(TrainingFailed, match="too much alike"):
        curve_of("isotonic", np.full(50, 0.5), np.arange(50) % 2)
    few = np.zeros((6, 1)), np.array([0, 1, 0, 0, 0, 0])
    estimator = Estimator("logistic_regression", {}, "sigmoid")
    with pytest.raises(TrainingFailed, match="too few rows to calibrate with"):
        fit("propensity", estimator, 1, *few, [False], 0)
