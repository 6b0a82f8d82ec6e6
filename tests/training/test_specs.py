"""Every mistake in a training is shown where it stands, all of them in one pass; and nothing sound is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from arbiter.errors import AuthorError
from arbiter.training.reading import read_spec
from arbiter.training.schema import train_schema
from arbiter.training.spec import Estimator, SegmentName, Validation

GOOD = """\
name: churn
version: 2
kind: propensity
source: {table: rows.csv, time: at, subject: who}
label: left
inputs:
  - {name: orders, from: features.orders_90d, default: 0}
  - {name: plan, from: profile.plan, as: onehot, categories: [free, pro], default: free}
  - {name: age, from: profile.age, impute: median, column: years}
estimator: {type: random_forest, n_estimators: 50, max_features: 0.5}
seed: 7
validation: {latest: 0.25}
gate: {metric: auc, worse_by: 0.01}
card: {limits: None that we know of}
"""
LOGGED = """\
name: churn
version: 1
kind: segment
source: {events: log.jsonl}
rules: rules
rows: {at: [2026-06-01T00:00:00Z]}
label: {count: purchase, window: 30d}
inputs:
  - {name: orders, from: features.orders, log: true}
segments:
  many: {most: orders}
  few: rest
estimator: kmeans
"""

MISTAKES = {
    "unknown key": (
        GOOD,
        ("seed: 7", "sead: 7"),
        """\
t.yaml:11:1: unknown key `sead` in a training
   11 | sead: 7
      | ^^^^
  hint: did you mean `seed`?""",
    ),
    "a key that is missing": (
        GOOD,
        ("label: left\n", ""),
        """\
t.yaml:1:1: a training needs the key `label`
    1 | name: churn
      | ^^^^
  hint: a propensity is learnt from what is known to have happened""",
    ),
    "an estimator for another kind": (
        GOOD,
        ("{type: random_forest, n_estimators: 50, max_features: 0.5}", "kmeans"),
        """\
t.yaml:10:12: `kmeans` makes no propensity
   10 | estimator: kmeans
      |            ^^^^^^
  hint: one of `logistic_regression`, `random_forest`, `gradient_boosting`, `lightgbm`, `xgboost`""",
    ),
    "a parameter of another estimator": (
        GOOD,
        ("n_estimators: 50", "num_leaves: 50"),
        """\
t.yaml:10:34: unknown key `num_leaves` in `random_forest`
   10 | estimator: {type: random_forest, num_leaves: 50, max_features: 0.5}
      |                                  ^^^^^^^^^^
  hint: it may have `type`, `n_estimators`, `max_depth`, `min_samples_leaf`, `max_features`, \
`calibrate`""",
    ),
    "a parameter out of bounds": (
        GOOD,
        ("max_features: 0.5", "max_features: 5"),
        """\
t.yaml:10:66: `max_features` must be from 0.05 to 1
   10 | estimator: {type: random_forest, n_estimators: 50, max_features: 5}
      |                                                                  ^""",
    ),
    "a text without an encoding": (
        GOOD,
        ("as: onehot, ", ""),
        """\
t.yaml:8:38: `categories` is for texts
    8 |   - {name: plan, from: profile.plan, categories: [free, pro], default: free}
      |                                      ^^^^^^^^^^
  hint: add `as: onehot`, or `as: index`
t.yaml:8:63: this is for texts
    8 |   - {name: plan, from: profile.plan, categories: [free, pro], default: free}
      |                                                               ^^^^^^^
  hint: add `as: onehot`, or `as: index`""",
    ),
    "both a default and an imputation": (
        GOOD,
        ("impute: median", "default: 4, impute: median"),
        """\
t.yaml:9:48: `default` says what stands in, so there is nothing to compute
    9 |   - {name: age, from: profile.age, default: 4, impute: median, column: years}
      |                                                ^^^^^^""",
    ),
    "a logarithm for trees": (
        GOOD,
        ("default: 0}", "default: 0, log: true}"),
        """\
t.yaml:7:59: a logarithm changes nothing for trees
    7 |   - {name: orders, from: features.orders_90d, default: 0, log: true}
      |                                                           ^^^
  hint: remove it""",
    ),
    "an input twice": (
        GOOD,
        ("name: age", "name: plan"),
        """\
t.yaml:9:5: the input `plan` stands here twice
    9 |   - {name: plan, from: profile.age, impute: median, column: years}
      |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  hint: remove one of the two""",
    ),
    "two validations": (
        GOOD,
        ("{latest: 0.25}", "{latest: 0.25, folds: 5}"),
        """\
t.yaml:12:13: a validation is one of `held_out`, `folds`, `latest`, `after`
   12 | validation: {latest: 0.25, folds: 5}
      |             ^^^^^^^^^^^^^^^^^^^^^^^^
  hint: `{held_out: 0.25}`, say""",
    ),
    "by time without times": (
        GOOD,
        ("time: at, ", ""),
        """\
t.yaml:12:14: `latest` needs the times of the rows
   12 | validation: {latest: 0.25}
      |              ^^^^^^
  hint: add `time: COLUMN` to the source""",
    ),
    "a metric of another kind": (
        GOOD,
        ("metric: auc", "metric: rmse"),
        """\
t.yaml:13:16: `metric` cannot be `rmse`
   13 | gate: {metric: rmse, worse_by: 0.01}
      |                ^^^^
  hint: one of `log_loss`, `auc`, `brier`""",
    ),
    "a column of a log": (
        LOGGED,
        ("from: features.orders,", "from: features.orders, column: x,"),
        """\
t.yaml:9:43: `column` is for tables
    9 |   - {name: orders, from: features.orders, column: x, log: true}
      |                                           ^^^^^^
  hint: remove it""",
    ),
    "a label that looks back for ever": (
        LOGGED,
        ("{count: purchase, window: 30d}", "{count: purchase}"),
        """\
t.yaml:7:8: a label needs a window
    7 | label: {count: purchase}
      |        ^^^^^^^^^^^^^^^^^
  hint: add `window: 30d`, say: it looks forward from the row's moment""",
    ),
    "a segment by what is no input": (
        LOGGED,
        ("most: orders", "most: order"),
        """\
t.yaml:11:16: there is no input `order` that is a number
   11 |   many: {most: order}
      |                ^^^^^
  hint: did you mean `orders`?""",
    ),
    "what is left before the last": (
        LOGGED,
        ("many: {most: orders}", "many: rest"),
        """\
t.yaml:11:9: a segment says by what its centre is known
   11 |   many: rest
      |         ^^^^
  hint: `{most: INPUT}` or `{least: INPUT}`""",
    ),
    "rows that are not said": (
        LOGGED,
        ("rows: {at: [2026-06-01T00:00:00Z]}\n", ""),
        """\
t.yaml:1:1: a training needs the key `rows`
    1 | name: churn
      | ^^^^
  hint: events become rows at moments: write `rows: {at: [2026-06-01T00:00:00Z]}`, `{every: 30d, times: 6}`, or \
`{each: EVENT}`""",
    ),
    "attributes of a file of events": (
        LOGGED,
        ("features.orders", "profile.orders"),
        """\
t.yaml:9:26: a file of events has no attributes
    9 |   - {name: orders, from: profile.orders, log: true}
      |                          ^^^^^^^^^^^^^^
  hint: train on a table or a store""",
    ),
}


def said(text: str) -> str:
    with pytest.raises(AuthorError) as raised:
        read_spec(text.encode(), "t.yaml")
    return "\n".join(each.render() for each in raised.value.diagnostics)


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_shown_where_it_stands(case: str) -> None:
    good, (old, new), expected = MISTAKES[case]
    assert good.count(old) == 1
    assert said(good.replace(old, new)) == expected


def test_all_mistakes_are_told_in_one_pass() -> None:
    wrong = (
        GOOD.replace("name: churn", "name: Churn!").replace("version: 2", "version: 0").replace("seed: 7", "seed: x")
    )
    assert said(wrong).count("\nt.yaml:") == 2


def test_a_training_is_read_whole() -> None:
    spec = read_spec(GOOD.encode(), "t.yaml")
    assert (spec.name, spec.version, spec.kind, spec.seed) == ("churn", 2, "propensity", 7)
    assert spec.estimator == Estimator("random_forest", {"n_estimators": 50, "max_features": 0.5})
    assert spec.validation == Validation(latest=0.25)
    assert [(each.name, each.column, each.encoding) for each in spec.inputs] == [
        ("orders", "orders", None),
        ("plan", "plan", "onehot"),
        ("age", "years", None),
    ]
    logged = read_spec(LOGGED.encode(), "t.yaml")
    assert logged.segments == (SegmentName("many", "orders", most=True), SegmentName("few"))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b"- a\n- b", b"[" * 5000, b"a: &x [*x]", b"name: {}\nkind: []"]
)
def test_what_is_no_training_is_a_mistake_and_nothing_else(content: bytes) -> None:
    with pytest.raises(AuthorError):
        read_spec(content, "t.yaml")


@pytest.mark.parametrize("text", [GOOD, LOGGED], ids=["table", "log"])
def test_the_schema_takes_what_is_sound_and_refuses_every_key_that_is_spelt_wrong(text: str) -> None:
    validator = Draft7Validator(train_schema())
    document = json.loads(json.dumps(yaml.safe_load(text), default=lambda at: at.isoformat().replace("+00:00", "Z")))
    assert list(validator.iter_errors(document)) == []
    count = 0
    for path in paths(document):
        changed = copy.deepcopy(document)
        inner = changed
        for step in path[:-1]:
            inner = inner[step]
        inner[f"{path[-1]}_"] = inner.pop(path[-1])
        if path[0] == "segments" and len(path) == 2:  # any name is one
            continue
        assert list(validator.iter_errors(changed)), path
        said(yaml.safe_dump(changed))
        count += 1
    assert count > 12


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where each key of each mapping stands."""
    found = []
    if isinstance(value, dict):
        for key, each in value.items():
            found += [(*here, key), *paths(each, (*here, key))]
    elif isinstance(value, list):
        for number, each in enumerate(value):
            found += paths(each, (*here, number))
    return found
