"""Fits what a spec asks for, with scikit-learn, LightGBM or XGBoost.

Law: numbers in, something that predicts out; the same numbers and seed give the same model. Each runs in one thread,
since sums of floats depend on how they are shared out. Knows no files and no ONNX.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from arbiter.training.calibrating import FOLDS, curve_of
from arbiter.training.estimators import KNOWN
from arbiter.training.table import TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from arbiter.models.manifest import Kind
    from arbiter.training.calibrating import Curve
    from arbiter.training.spec import Estimator

    Matrix = NDArray[np.float64]

_ITERATIONS = 1000


class Scaling:
    """What is done to columns before they are weighed against each other: log(1 + x) of some, then mean 0, deviation 1.

    A logarithm takes what is below 0 for 0.
    """

    def __init__(self, x: Matrix, logs: Sequence[bool]) -> None:
        self.logs = np.array(logs, dtype=bool)
        logged = self.logged(x)
        self.mean = logged.mean(axis=0)
        deviation = logged.std(axis=0)
        self.deviation = np.where(deviation > 0, deviation, 1.0)

    def logged(self, x: Matrix) -> Matrix:
        """With the logarithms alone."""
        found: Matrix = np.where(self.logs, np.log1p(np.maximum(x, 0)), x)
        return found

    def scaled(self, x: Matrix) -> Matrix:
        """All of it."""
        found: Matrix = (self.logged(x) - self.mean) / self.deviation
        return found

    def unscaled(self, scaled: Matrix) -> Matrix:
        """Back to the inputs' own units."""
        logged = scaled * self.deviation + self.mean
        found: Matrix = np.where(self.logs, np.expm1(logged), logged)
        return found


class Fitted:
    """A model as its library has it. `scaling` is None for trees; `classes` are the words of a class or a segment, in
    the order of their numbers; `curve` calibrates a propensity.
    """

    def __init__(self, kind: Kind, estimator: Estimator, scaling: Scaling | None, model: Any) -> None:
        self.kind = kind
        self.estimator = estimator
        self.scaling = scaling
        self.model = model
        self.curve: Curve | None = None
        self.classes: tuple[str, ...] = ()

    def ready(self, x: Matrix) -> Matrix:
        """The matrix as the library's model takes it."""
        return x if self.scaling is None else self.scaling.scaled(x)

    def predict(self, x: Matrix) -> Matrix:
        """What the model says of each row: the probability of a propensity, the probabilities of classes or of the
        segments of a mixture, the distances to the centres of K-Means, a score.
        """
        ready = self.ready(x)
        with threadpool_limits(1):
            if self.estimator.name == "kmeans":
                # As they are by definition: scikit-learn's own way loses digits where a row is near its centre.
                centres = self.model.cluster_centers_
                found = np.sqrt(((ready[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2))
            elif not hasattr(self.model, "predict_proba"):
                found = self.model.predict(ready)
            else:
                found = self.model.predict_proba(ready)
                found = found[:, 1] if self.kind == "propensity" else found
        answer: Matrix = np.asarray(found, dtype=np.float64)
        return answer if self.curve is None else self.curve.of(answer)

    @property
    def centres(self) -> Matrix:
        """The centres of segments, in the inputs' own units."""
        assert self.scaling is not None  # noqa: S101 - what clusters is scaled
        found = self.model.cluster_centers_ if self.estimator.name == "kmeans" else self.model.means_
        return self.scaling.unscaled(found)


def fit(
    kind: Kind,
    estimator: Estimator,
    seed: int,
    x: Matrix,
    y: NDArray[Any] | None,
    logs: Sequence[bool],
    clusters: int,
    whose: NDArray[np.int64] | None = None,
) -> Fitted:
    """Fit to the rows of `x`. `y` holds 0 and 1, the numbers of classes, or scores; `logs` says of each column whether
    its logarithm counts, and `whose` of each row the number of its subject: one is on one side where a curve is learnt.
    Raises TrainingFailed.
    """
    known = KNOWN[estimator.name]
    if y is not None and kind in {"propensity", "class"} and len(np.unique(y)) < 2:  # noqa: PLR2004 - nothing to tell apart
        raise TrainingFailed("all rows that are trained on have the same label: there is nothing to learn")
    scaling = None if known.trees else Scaling(x, logs)
    fitted = Fitted(kind, estimator, scaling, None)
    fitted.model = _MAKERS[estimator.name](kind, estimator.parameters, seed, clusters)
    with threadpool_limits(1):
        ready = fitted.ready(x)
        fitted.model.fit(ready) if kind == "segment" else fitted.model.fit(ready, y)
    if estimator.calibrate is not None and y is not None:
        plain = msgspec.structs.replace(estimator, calibrate=None)
        said = np.empty(len(y))
        for train, held in _folds(y, whose, seed):
            said[held] = fit(kind, plain, seed, x[train], y[train], logs, clusters).predict(x[held])
        fitted.curve = curve_of(estimator.calibrate, said, y)
    return fitted


def _folds(y: NDArray[Any], whose: NDArray[np.int64] | None, seed: int) -> Iterator[tuple[Any, Any]]:
    groups = np.arange(len(y)) if whose is None else whose
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a fold without one of the labels
            yield from StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(y, y, groups)
    except (ValueError, UserWarning) as error:
        raise TrainingFailed(f"too few rows to calibrate with, in {FOLDS} folds: {error}") from error


def _kmeans(_kind: Kind, parameters: dict[str, Any], seed: int, clusters: int) -> Any:
    return KMeans(n_clusters=clusters, random_state=seed, **({"n_init": 20} | parameters))


def _mixture(_kind: Kind, parameters: dict[str, Any], seed: int, clusters: int) -> Any:
    return GaussianMixture(n_components=clusters, random_state=seed, **({"n_init": 5, "max_iter": 500} | parameters))


def _logistic(_kind: Kind, parameters: dict[str, Any], seed: int, _clusters: int) -> Any:
    return LogisticRegression(random_state=seed, **({"max_iter": _ITERATIONS} | parameters))


def _linear(_kind: Kind, parameters: dict[str, Any], seed: int, _clusters: int) -> Any:
    return Ridge(random_state=seed, **parameters)


def _forest(kind: Kind, parameters: dict[str, Any], seed: int, _clusters: int) -> Any:
    # Of two classes, squared error on 0 and 1 splits as Gini impurity does and a leaf's mean is the share of 1. So a
    # propensity's forest is the classifier's, in the form that ONNX runs as one operator with one column.
    made = RandomForestClassifier if kind == "class" else RandomForestRegressor
    return made(random_state=seed, n_jobs=1, **({"n_estimators": 100, "max_features": "sqrt"} | parameters))


def _boosting(kind: Kind, parameters: dict[str, Any], seed: int, _clusters: int) -> Any:
    made = GradientBoostingRegressor if kind == "score" else GradientBoostingClassifier
    return made(random_state=seed, **parameters)


def _lightgbm(kind: Kind, parameters: dict[str, Any], seed: int, _clusters: int) -> Any:
    library = _library("lightgbm")
    made = library.LGBMRegressor if kind == "score" else library.LGBMClassifier
    more = {"n_jobs": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}
    return made(random_state=seed, **(more | parameters))


def _xgboost(kind: Kind, parameters: dict[str, Any], seed: int, _clusters: int) -> Any:
    library = _library("xgboost")
    made = library.XGBRegressor if kind == "score" else library.XGBClassifier
    return made(random_state=seed, n_jobs=1, tree_method="hist", **parameters)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise TrainingFailed(f"`{name}` is not installed: pip install 'arbiter[{name}]'") from None


_MAKERS = {
    "kmeans": _kmeans,
    "gaussian_mixture": _mixture,
    "logistic_regression": _logistic,
    "linear_regression": _linear,
    "random_forest": _forest,
    "gradient_boosting": _boosting,
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
}
