"""What a training is told: the typed form of a `train.yaml`.

Law: plain frozen data; `reading` turns text into it. Times are µs since the epoch.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from arbiter.expr.tree import Expression  # noqa: TC001 - msgspec reads the annotations, here and below
from arbiter.models.manifest import Kind, Root  # noqa: TC001
from arbiter.ruleset.rules import Feature  # noqa: TC001

Scalar = float | int | bool | str
EstimatorName = Literal[
    "kmeans",
    "gaussian_mixture",
    "logistic_regression",
    "linear_regression",
    "random_forest",
    "gradient_boosting",
    "lightgbm",
    "xgboost",
]
Impute = Literal["mean", "median", "most_frequent"]
Encoding = Literal["index", "onehot"]
Calibration = Literal["sigmoid", "isotonic"]
Metric = Literal["auc", "log_loss", "brier", "accuracy", "rmse", "r2", "silhouette"]


class Source(msgspec.Struct, frozen=True):
    """Where rows come from: a `table` (CSV or Parquet), a file of `events` or a data set by its name, or the log of a
    `store`; the others are empty. The log is whole from `since` on, None for ever, up to `until`, None for the newest
    event that it holds.
    """

    table: str = ""
    events: str = ""
    store: str = ""
    since: int | None = None
    until: int | None = None

    @property
    def logged(self) -> bool:
        """Whether rows are made of events."""
        return not self.table


class Moments(msgspec.Struct, frozen=True):
    """When subjects are looked at: all of them `at` these times, or the last `times` multiples of `every` (µs) by
    which their labels are known, or one each time that an event of type `each` happened to it, of those for which
    `where` is true.
    """

    at: tuple[int, ...] = ()
    every: int = 0
    times: int = 0
    each: str = ""
    where: Expression | None = None

    def instants(self, newest: int) -> tuple[int, ...]:
        """The times at which all are looked at, rising, where the label is known of those up to `newest`. They are
        multiples since the epoch, so that they stay the same until there is another.
        """
        if not self.every:
            return self.at
        last = newest // self.every
        return tuple((last - back) * self.every for back in reversed(range(self.times)))


class InputSpec(msgspec.Struct, frozen=True):
    """An input of the model: the value of `root`.`attribute`, in `column` of a table.

    A missing value is replaced by `default`, or by what `impute` computes from the training rows; with neither the row
    is left out, as serving will not answer it. `log` means log(1 + value), within the model. A text has an `encoding`
    and `categories`; empty ones are taken from the training rows, those that at least `least` rows have.
    """

    name: str
    root: Root
    attribute: str
    column: str
    default: Scalar | None = None
    impute: Impute | None = None
    log: bool = False
    encoding: Encoding | None = None
    categories: tuple[str, ...] = ()
    least: int = 1


class SegmentName(msgspec.Struct, frozen=True):
    """The name of the segment whose centre has the `most`, or the least, of an input among those that have no name
    yet.
    """

    name: str
    input: str = ""
    most: bool = False


class Estimator(msgspec.Struct, frozen=True):
    """What learns, and its parameters by the names that its library has for them; `calibrate` is the form of the curve
    from what it says to how often that happens, None for none.
    """

    name: EstimatorName
    parameters: dict[str, Scalar] = {}
    calibrate: Calibration | None = None


class Validation(msgspec.Struct, frozen=True):
    """Which rows are held out: a drawn share of the subjects, each of several `folds` in turn, the `latest` share of
    the rows by time, or all `after` a time (µs). Exactly one says so; of segments none may, as nothing is guessed.
    """

    held_out: float = 0.0
    folds: int = 0
    latest: float = 0.0
    after: int | None = None

    @property
    def holds_out(self) -> bool:
        """Whether there are rows that are not trained on."""
        return self != Validation()


class Gate(msgspec.Struct, frozen=True):
    """What the model must keep to: `tolerance` bounds how far its ONNX form may be from the original, and `worse_by`
    how much worse than the model in place its `metric` may be.
    """

    tolerance: float = 1e-5
    metric: Metric | None = None
    worse_by: float = 0.0


class Words(msgspec.Struct, frozen=True):
    """What the card says beyond figures, in Markdown: on the data, on how the model was chosen, on its limits."""

    data: str = ""
    training: str = ""
    limits: str = ""


class Spec(msgspec.Struct, frozen=True):
    """A whole training. `label` is a column of the table, or a feature that looks forward: over the window that begins
    at the row's moment. `rules` is the folder that declares features, as the file has it.
    """

    name: str
    version: int
    kind: Kind
    source: Source
    inputs: tuple[InputSpec, ...]
    estimator: Estimator
    validation: Validation
    label: str | Feature | None = None
    description: str = ""
    purposes: tuple[str, ...] = ()
    rules: str = ""
    time: str = ""
    subject: str = ""
    moments: Moments = Moments()
    segments: tuple[SegmentName, ...] = ()
    seed: int = 0
    gate: Gate = Gate()
    card: Words = Words()
