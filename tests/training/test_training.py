"""Every estimator of every kind becomes a model that answers as it does, alike every time, and is measured on rows that
it has not seen.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pyarrow.csv
import pyarrow.parquet
import pytest
from sklearn import metrics as theirs

from arbiter.learning import measures
from arbiter.models import from_bytes
from arbiter.training.estimators import KNOWN
from arbiter.training.matrix import MISSING
from arbiter.training.reading import read_spec
from arbiter.training.run import train
from arbiter.training.splitting import split
from arbiter.training.table import Table, TrainingFailed, read_table
from tests.training.conftest import LABELS, NUMBERS, text_of, trained

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {
    "random_forest": "{type: random_forest, n_estimators: 20, max_depth: 4}",
    "gradient_boosting": "{type: gradient_boosting, n_estimators: 20}",
    "lightgbm": "{type: lightgbm, n_estimators: 15}",
    "xgboost": "{type: xgboost, n_estimators: 15, max_depth: 3}",
    "kmeans": "{type: kmeans, n_init: 3}",
    "gaussian_mixture": "{type: gaussian_mixture, n_init: 1}",
}
EVERY = [(kind, name) for name, known in KNOWN.items() for kind in known.kinds]


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=lambda value: value)
def test_every_estimator_of_every_kind_becomes_a_model_that_answers_as_it_does(
    kind: str, name: str, table: Path
) -> None:
    if KNOWN[name].package:  # type: ignore[index]
        pytest.importorskip(KNOWN[name].package)  # type: ignore[index]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = trained(table, kind, SMALL.get(name, name))
        again = trained(table, kind, SMALL.get(name, name))
    assert (made.onnx, made.manifest) == (again.onnx, again.manifest)
    assert msgspec.json.encode(made.metrics) == msgspec.json.encode(again.metrics)
    assert made.parity.difference < 1e-5
    model = from_bytes(made.manifest, made.onnx)
    assert model.kind == kind
    assert len(made.parity.file.rows) >= 10
    held = made.metrics["held_out"]
    if kind == "propensity":
        assert held["auc"]["value"] > 0.75
        assert held["log_loss"]["value"] < made.metrics["base"]["log_loss"]
    elif kind == "class":
        assert held["accuracy"]["value"] > made.metrics["base"]["accuracy"] + 0.1
    elif kind == "score":
        assert held["r2"]["value"] > 0.5
    else:
        assert {each["name"] for each in made.metrics["segments"]} == {"keen", "rich", "others"}
        assert sum(each["rows"] for each in made.metrics["segments"]) == 400
        assert all(0 <= each["outcome"] <= 1 for each in made.metrics["segments"])


@pytest.mark.parametrize(
    ("kind", "estimator"),
    [("propensity", "logistic_regression"), ("score", "linear_regression"), ("segment", "kmeans")],
)
def test_a_row_answers_alone_as_it_does_in_a_batch_of_any_size(kind: str, estimator: str, table: Path) -> None:
    logs = "[" + ", ".join(each.replace("}", ", log: true}") for each in NUMBERS[1:]) + f", {NUMBERS[0]}]"
    made = trained(table, kind, SMALL.get(estimator, estimator), inputs=logs)
    model = from_bytes(made.manifest, made.onnx)
    draw = np.random.default_rng(3)
    rows = [[float(np.float32(each)) for each in draw.exponential(30, 3)] for _ in range(257)]
    alone = [model.run_one(row) for row in rows]
    assert model.run(rows) == alone
    assert model.run(rows[:7]) == alone[:7]


def test_the_file_says_what_it_is(table: Path) -> None:
    made = trained(table, "class", SMALL["random_forest"])
    said = {each.key: each.value for each in onnx.load_from_string(made.onnx).metadata_props}
    assert json.loads(said["arbiter.schema"])["inputs"] == {
        "visits": "features.visits", "age": "profile.age", "spend": "features.spend",
    }  # fmt: skip
    assert json.loads(said["arbiter.classes"]) == ["jazz", "pop", "rock"]
    baseline = json.loads(said["arbiter.baseline"])
    age = baseline["inputs"]["age"]
    assert 0.05 < age["missing"] < 0.2
    assert sum(age["shares"]) == pytest.approx(1)
    assert len(age["shares"]) == len(age["edges"]) + 1
    assert set(baseline["outputs"]) == {"label", "probability"}
    assert len(said["arbiter.data_sha256"]) == len(said["arbiter.spec_sha256"]) == 64
    other = trained(table, "class", SMALL["random_forest"], seed=6)
    again = {each.key: each.value for each in onnx.load_from_string(other.onnx).metadata_props}
    assert again["arbiter.data_sha256"] == said["arbiter.data_sha256"]
    assert again["arbiter.spec_sha256"] != said["arbiter.spec_sha256"]


def test_a_table_is_the_same_as_csv_and_as_parquet(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(table), other)
    spec = read_spec(text_of("propensity", "logistic_regression").encode(), "t")
    first, second = read_table(spec, table), read_table(spec, other)
    assert first.digest() == second.digest()
    changed = Table(
        first.columns | {"age": [*first.columns["age"][:-1], 99.0]}, first.label, first.times, first.subjects
    )
    assert changed.digest() != first.digest()


def test_what_stands_in_for_missing_values_comes_from_the_rows_trained_on(table: Path) -> None:
    after = "{after: 2026-03-01T00:00:00Z}"
    made = trained(table, "propensity", "logistic_regression", validation=after)
    spec = read_spec(text_of("propensity", "logistic_regression", validation=after).encode(), "t")
    rows = read_table(spec, table)
    assert rows.times is not None
    known = [age for age, at in zip(rows.columns["age"], rows.times, strict=True) if at <= 1772323200000000 and age]
    model = from_bytes(made.manifest, made.onnx)
    assert model.inputs[1].default == pytest.approx(float(np.median(known)), rel=1e-5)


@pytest.mark.parametrize(("estimator", "form"), [("logistic_regression", "onehot"), ("random_forest", "index")])
def test_texts_are_encoded_as_serving_encodes_them(estimator: str, form: str, table: Path) -> None:
    plan = f"{{name: plan, from: profile.plan, as: {form}, impute: most_frequent, least: 50}}"
    made = trained(table, "propensity", SMALL.get(estimator, estimator), inputs="[" + ", ".join([*NUMBERS, plan]) + "]")
    model = from_bytes(made.manifest, made.onnx)
    assert model.inputs[-1].categories == ("free", "pro", "trial")
    assert model.inputs[-1].default == "free"

    def ask(plan: str | None) -> float:
        columns = model.encode([10, 40.0, 5.0, plan])
        assert columns is not None
        (answer,) = model.run_one(columns)
        assert isinstance(answer, float)
        return answer

    assert ask("pro") > ask("free") + 0.1
    assert ask(None) == ask("free")
    assert 0 <= ask("a plan of tomorrow") <= 1
    alone = trained(table, "propensity", SMALL.get(estimator, estimator))
    assert made.metrics["held_out"]["log_loss"]["value"] < alone.metrics["held_out"]["log_loss"]["value"]


def test_a_default_that_is_no_category_is_refused(table: Path) -> None:
    plan = "[{name: plan, from: profile.plan, as: index, default: none, categories: [free, pro]}]"
    with pytest.raises(TrainingFailed, match="`none`, the default of the input `plan`, is none of its categories"):
        trained(table, "propensity", "logistic_regression", inputs=plan)


def test_rows_that_serving_would_not_answer_are_left_out(table: Path) -> None:
    strict = [NUMBERS[0], "{name: age, from: profile.age}"]
    made = trained(table, "propensity", "logistic_regression", inputs="[" + ", ".join(strict) + "]")
    (count,) = made.metrics["rows"]["left_out"].values()
    assert made.metrics["rows"]["left_out"] == {MISSING: count}
    assert count > 20
    assert made.metrics["rows"]["trained_on"] + made.metrics["rows"]["held_out"] + count == 400


class TestSplits:
    """Which rows are on which side."""

    def parts(self, table: Path, validation: str, ahead: int = 0) -> tuple[Table, list[tuple[set[int], set[int]]]]:
        spec = read_spec(text_of("propensity", "logistic_regression", validation=validation).encode(), "t")
        rows = read_table(spec, table)
        y = np.array(rows.label, dtype=np.int64)
        found = split(spec.validation, rows, y, 3, stratify=True, ahead=ahead)
        return rows, [({int(row) for row in train}, {int(row) for row in held}) for train, held in found.parts]

    @pytest.mark.parametrize("validation", ["{held_out: 0.3}", "{folds: 4}"])
    def test_a_subject_is_on_one_side(self, table: Path, validation: str) -> None:
        rows, parts = self.parts(table, validation)
        assert rows.subjects is not None
        for train_, held in parts:
            assert {rows.subjects[row] for row in train_}.isdisjoint({rows.subjects[row] for row in held})
            assert len(train_) + len(held) == 400
        assert len(parts) == 1 or set().union(*(held for _, held in parts)) == set(range(400))

    @pytest.mark.parametrize("validation", ["{latest: 0.3}", "{after: 2026-03-10T00:00:00Z}"])
    def test_by_time_whatever_is_held_out_is_later_than_all_that_was_known(self, table: Path, validation: str) -> None:
        day = 24 * 3600 * 1_000_000
        rows, ((train_, held),) = self.parts(table, validation, ahead=3 * day)
        assert rows.times is not None
        assert max(rows.times[row] for row in train_) + 3 * day < min(rows.times[row] for row in held)

    def test_the_model_of_folds_is_of_all_rows_and_its_figures_of_each_fold_unseen(self, table: Path) -> None:
        made = trained(table, "propensity", SMALL["random_forest"], validation="{folds: 4}")
        assert made.metrics["rows"]["trained_on"] == made.metrics["rows"]["held_out"] == 400
        assert made.metrics["held_out"]["auc"]["value"] < 0.97


REFUSED = {
    "one class": ({"label": "one"}, "all rows that are trained on have the same label"),
    "no column": ({"label": "bougt"}, "has no column `bougt`: did you mean `bought`"),
    "words as numbers": (
        {"inputs": "[{name: plan, from: profile.plan}]"},
        r"rows.csv:2: `plan` is `\w+`, and a number",
    ),
    "words as a label": ({"label": "plan"}, r"rows.csv:2: the label is `\w+`"),
    "all on one side": ({"validation": "{after: 2027-01-01T00:00:00Z}"}, "no rows are left on one side"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_that_do_not_allow_it_are_said_to(case: str, table: Path, tmp_path: Path) -> None:
    more, why = REFUSED[case]
    copy = tmp_path / "rows.csv"
    head, *lines = table.read_text("utf-8").splitlines()
    copy.write_text("\n".join([f"{head},one", *(f"{line},1" for line in lines)]), "utf-8")
    with pytest.raises(TrainingFailed, match=why):
        trained(copy, "propensity", "logistic_regression", **more)


def test_a_converted_form_that_is_another_model_is_refused(table: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"the ONNX form is not the model: over 400 rows it differs by up to"):
        trained(table, "score", SMALL["gradient_boosting"], gate="{tolerance: 0}")


def test_a_model_in_place_is_measured_on_the_same_rows(table: Path) -> None:
    old = trained(table, "propensity", "logistic_regression", inputs="[" + NUMBERS[2] + "]")
    content = text_of("propensity", SMALL["random_forest"]).encode()
    spec = read_spec(content, "t")
    current = from_bytes(old.manifest, old.onnx)
    found = train(spec, content, read_table(spec, table), current).metrics["compared"]
    assert found["digest"] == current.digest
    auc = found["metrics"]["auc"]
    assert auc["better_by"] == pytest.approx(auc["new"] - auc["old"])
    assert auc["better_by"] > auc["low"] > 0.1
    loss = found["metrics"]["log_loss"]
    assert loss["better_by"] == pytest.approx(loss["old"] - loss["new"])


def test_every_label_has_its_kind() -> None:
    assert LABELS.keys() == {"propensity", "class", "score", "segment"}


class TestMeasures:
    """The figures are those that scikit-learn has, which has more ways to be right than we have."""

    draw = np.random.default_rng(2)
    y = draw.integers(0, 2, 300)
    # With ties, and some 0 and 1.
    p = np.asarray(np.round(np.clip(y * 0.3 + draw.random(300) * 0.7, 0, 1), 2), dtype=np.float64)

    def test_of_probabilities(self) -> None:
        assert measures.auc(self.y, self.p) == pytest.approx(theirs.roc_auc_score(self.y, self.p))
        assert measures.log_loss(self.y, self.p) == pytest.approx(theirs.log_loss(self.y, self.p))
        assert measures.brier(self.y, self.p) == pytest.approx(theirs.brier_score_loss(self.y, self.p))

    def test_of_classes_and_scores(self) -> None:
        numbers, p = self.draw.integers(0, 3, 300), self.draw.dirichlet([1, 1, 1], 300)
        assert measures.class_log_loss(numbers, p) == pytest.approx(theirs.log_loss(numbers, p))
        assert measures.accuracy(numbers, p) == pytest.approx(theirs.accuracy_score(numbers, p.argmax(axis=1)))
        score = self.p * 3
        assert measures.rmse(self.y, score) == pytest.approx(theirs.root_mean_squared_error(self.y, score))
        assert measures.mae(self.y, score) == pytest.approx(theirs.mean_absolute_error(self.y, score))
        assert measures.r2(self.y, score) == pytest.approx(theirs.r2_score(self.y, score))

    def test_bins_hold_every_row_once_and_a_sure_prophet_is_calibrated(self) -> None:
        bins = measures.calibration(self.y, self.p)
        assert sum(each.count for each in bins) == 300
        assert sum(each.count * each.happened for each in bins) == pytest.approx(self.y.sum())
        assert measures.calibration_error(measures.calibration(self.y, self.y.astype(float))) == 0
        first, *_, last = measures.lift(bins)
        assert first > 1.5
        assert last < 0.5

    def test_without_both_outcomes_there_is_no_auc(self) -> None:
        assert np.isnan(measures.auc(np.ones(3), np.arange(3.0)))

    def test_an_interval_holds_what_it_is_of(self) -> None:
        low, high = measures.interval(lambda rows: measures.auc(self.y[rows], self.p[rows]), 300, seed=1)
        assert low < measures.auc(self.y, self.p) < high
        assert 0.02 < high - low < 0.2
