"""The estimators that a spec may name: for which kinds of model each is, and the parameters that it takes.

Law: a table; nothing is fitted here and no library is imported, since the published schema is made of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.training.spec import EstimatorName, Metric  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from arbiter.models.manifest import Kind


class Number(msgspec.Struct, frozen=True):
    """A parameter that is a number within bounds, both included."""

    least: float
    most: float
    whole: bool = False


class Word(msgspec.Struct, frozen=True):
    """A parameter that is one of some words, or a number where there is `number`."""

    words: tuple[str, ...]
    number: Number | None = None


Parameter = Number | Word


class Known(msgspec.Struct, frozen=True):
    """An estimator: the kinds of model that it makes, its parameters, and its package where it is not in scikit-learn.

    `trees`: it splits one value at a time, so that scaling and logarithms change nothing.
    """

    kinds: tuple[Kind, ...]
    parameters: dict[str, Parameter]
    package: str = ""
    trees: bool = False


_TREES: Final = Number(1, 2000, whole=True)
_DEPTH: Final = Number(1, 24, whole=True)
_RATE: Final = Number(1e-4, 1)
_SHARE: Final = Number(0.05, 1)
_LEAF: Final = Number(1, 1_000_000, whole=True)
_ROUNDS: Final = Number(1, 100_000, whole=True)
_BALANCE: Final = Word(("balanced",))
_GUESSES: tuple[Kind, ...] = ("propensity", "class", "score")

KNOWN: Final[dict[EstimatorName, Known]] = {
    "kmeans": Known(("segment",), {"n_init": Number(1, 200, whole=True), "max_iter": _ROUNDS}),
    "gaussian_mixture": Known(
        ("segment",),
        {
            "n_init": Number(1, 200, whole=True),
            "max_iter": _ROUNDS,
            "covariance_type": Word(("full", "tied", "diag", "spherical")),
            "reg_covar": Number(0, 1),
        },
    ),
    "logistic_regression": Known(
        ("propensity", "class"), {"C": Number(1e-6, 1e6), "class_weight": _BALANCE, "max_iter": _ROUNDS}
    ),
    "linear_regression": Known(("score",), {"alpha": Number(0, 1e9)}),
    "random_forest": Known(
        _GUESSES,
        {
            "n_estimators": _TREES,
            "max_depth": _DEPTH,
            "min_samples_leaf": _LEAF,
            "max_features": Word(("sqrt", "log2"), _SHARE),
        },
        trees=True,
    ),
    "gradient_boosting": Known(
        _GUESSES,
        {
            "n_estimators": _TREES,
            "learning_rate": _RATE,
            "max_depth": _DEPTH,
            "min_samples_leaf": _LEAF,
            "subsample": _SHARE,
        },
        trees=True,
    ),
    "lightgbm": Known(
        _GUESSES,
        {
            "n_estimators": _TREES,
            "learning_rate": _RATE,
            "max_depth": _DEPTH,
            "num_leaves": Number(2, 1024, whole=True),
            "min_child_samples": _LEAF,
            "reg_lambda": Number(0, 1e6),
        },
        package="lightgbm",
        trees=True,
    ),
    "xgboost": Known(
        _GUESSES,
        {
            "n_estimators": _TREES,
            "learning_rate": _RATE,
            "max_depth": _DEPTH,
            "min_child_weight": Number(0, 1e6),
            "subsample": _SHARE,
            "reg_lambda": Number(0, 1e6),
        },
        package="xgboost",
        trees=True,
    ),
}
# By kind: the metrics that the gate may compare, the usual one first.
METRICS: Final[dict[Kind, tuple[Metric, ...]]] = {
    "propensity": ("log_loss", "auc", "brier"),
    "class": ("log_loss", "accuracy"),
    "score": ("rmse", "r2"),
    "segment": ("silhouette",),
}
HIGHER_IS_BETTER: Final[frozenset[Metric]] = frozenset({"auc", "accuracy", "r2", "silhouette"})
