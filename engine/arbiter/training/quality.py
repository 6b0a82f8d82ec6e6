"""What is measured on rows that were held out.

Law: predictions and labels in, plain figures out, as `metrics.json` keeps them. Every figure of a guess has the
interval within which another sample of as many rows would have put it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from sklearn.metrics import silhouette_score

from arbiter.learning import measures
from arbiter.training.estimators import HIGHER_IS_BETTER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from arbiter.models.manifest import Kind
    from arbiter.training.fitting import Fitted
    from arbiter.training.matrix import Prepared

    Matrix = NDArray[np.float64]
    Measure = Callable[[NDArray[Any], Matrix], float]

MEASURES: dict[Kind, dict[str, Measure]] = {
    "propensity": {"auc": measures.auc, "log_loss": measures.log_loss, "brier": measures.brier},
    "class": {"log_loss": measures.class_log_loss, "accuracy": measures.accuracy},
    "score": {"rmse": measures.rmse, "mae": measures.mae, "r2": measures.r2},
}
_REPEATS = 5
_MOST_COMPARED = 5_000  # rows: a silhouette compares each with each


def guesses(kind: Kind, y: NDArray[Any], p: Matrix, seed: int) -> dict[str, Any]:
    """Every figure of a kind, each with its 95 % interval."""
    found = {}
    for name, measure in MEASURES[kind].items():
        low, high = measures.interval(lambda rows, m=measure: m(y[rows], p[rows]), len(y), seed=seed)  # type: ignore[misc]
        found[name] = {"value": measure(y, p), "low": low, "high": high}
    return found


def base(kind: Kind, trained: NDArray[Any], y: NDArray[Any]) -> dict[str, float]:
    """The same figures for who says of every row what was usual among those that were trained on."""
    if kind == "class":
        counts = np.bincount(trained, minlength=int(max(trained.max(), y.max())) + 1) / len(trained)
        p = np.tile(counts, (len(y), 1))
    else:
        p = np.full(len(y), float(trained.mean()))
    return {name: measure(y, p) for name, measure in MEASURES[kind].items()}


def curves(kind: Kind, y: NDArray[Any], p: Matrix) -> dict[str, Any]:
    """How predictions and what happened went together, in ten bins; and how much the best bins had."""
    if kind == "class":
        return {}
    bins = measures.calibration(y, p)
    found: dict[str, Any] = {"bins": [msgspec.to_builtins(each) for each in bins], "lift": measures.lift(bins)}
    if kind == "propensity":
        found["calibration_error"] = measures.calibration_error(bins)
    return found


def difference(
    kind: Kind, y: NDArray[Any], new: Matrix, old: Matrix, seed: int, names: Sequence[str]
) -> dict[str, Any]:
    """How much better the new predictions are than the old ones on the same rows: above 0 is better, with the interval
    of the paired bootstrap.
    """
    found = {}
    for name in names:
        measure = MEASURES[kind][name]
        sign = 1.0 if name in HIGHER_IS_BETTER else -1.0

        def gain(rows: NDArray[Any], measure: Measure = measure, sign: float = sign) -> float:
            return sign * (measure(y[rows], new[rows]) - measure(y[rows], old[rows]))

        low, high = measures.interval(gain, len(y), seed=seed)
        found[name] = {
            "new": measure(y, new),
            "old": measure(y, old),
            "better_by": gain(np.arange(len(y))),
            "low": low,
            "high": high,
        }
    return found


def importance(
    fitted: Fitted, prepared: Sequence[Prepared], x: Matrix, y: NDArray[Any] | None, seed: int
) -> dict[str, float]:
    """By input, how much worse the model is when that input's values are dealt out anew among the rows (Breiman,
    Machine Learning 45, 2001): log loss, squared error, or of segments the share of rows that change theirs. The
    columns of one input are dealt together.
    """
    draw = np.random.default_rng(seed)
    whole = fitted.predict(x)

    def worse(p: Matrix) -> float:
        if fitted.kind == "propensity":
            return measures.log_loss(y, p) - measures.log_loss(y, whole)  # type: ignore[arg-type]
        if fitted.kind == "class":
            return measures.class_log_loss(y, p) - measures.class_log_loss(y, whole)  # type: ignore[arg-type]
        if fitted.kind == "score":
            return measures.rmse(y, p) ** 2 - measures.rmse(y, whole) ** 2  # type: ignore[arg-type]
        return float(np.mean(numbers_of(fitted, p) != numbers_of(fitted, whole)))

    found, start = {}, 0
    for each in prepared:
        columns = slice(start, start + each.width)
        total = 0.0
        for _ in range(_REPEATS):
            dealt = x.copy()
            dealt[:, columns] = x[draw.permutation(len(x)), columns]
            total += worse(fitted.predict(dealt))
        found[each.name] = total / _REPEATS
        start += each.width
    return found


def numbers_of(fitted: Fitted, predicted: Matrix) -> NDArray[np.int64]:
    """Which class or segment each row has."""
    best = predicted.argmin(axis=1) if fitted.estimator.name == "kmeans" else predicted.argmax(axis=1)
    return np.asarray(best, dtype=np.int64)


def silhouette(fitted: Fitted, x: Matrix, seed: int) -> float:
    """How much nearer rows are to their own segment than to the next one, from -1 to 1 (Rousseeuw, Journal of
    Computational and Applied Mathematics 20, 1987), over 5,000 rows at most.
    """
    numbers = numbers_of(fitted, fitted.predict(x))
    if len(x) > _MOST_COMPARED:
        chosen = np.random.default_rng(seed).choice(len(x), _MOST_COMPARED, replace=False)
        x, numbers = x[chosen], numbers[chosen]
    if not 1 < len(np.unique(numbers)) < len(x):
        return float("nan")
    return float(silhouette_score(fitted.ready(x), numbers))


def segments(
    fitted: Fitted, prepared: Sequence[Prepared], x: Matrix, outcome: Sequence[float | None] | None
) -> list[dict[str, Any]]:
    """Each segment: its name, rows, share, centre by column, and the mean of what happened to its rows afterwards."""
    numbers = numbers_of(fitted, fitted.predict(x))
    columns = [column for each in prepared for column in each.columns]
    found = []
    for number, name in enumerate(fitted.classes):
        mine = numbers == number
        centre = dict(zip(columns, map(float, fitted.centres[number]), strict=True))
        row = {"name": name, "rows": int(mine.sum()), "share": float(mine.mean()), "centre": centre}
        if outcome is not None:
            known = [value for value, own in zip(outcome, mine, strict=True) if own and value is not None]
            row["outcome"] = float(np.mean(known)) if known else None
        found.append(row)
    return found
