"""From rows with holes and texts to the matrix of numbers that learns, and that the served model sees.

Law: what stands in for missing values and which categories there are is taken from the training rows alone, so that
rows held out stay unseen. The same is written into the manifest: serving does what is done here.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from arbiter.training.spec import InputSpec, Scalar  # noqa: TC001 - msgspec reads the annotations
from arbiter.training.table import Table, TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

MISSING = "an input without a default is missing"
_MOST_CATEGORIES = 200
_BINS = 10
# Digits of a number that stands in: more would be noise in a file that people read.
_DIGITS = 6


class Prepared(msgspec.Struct, frozen=True):
    """An input as the training rows have it: what stands in for a missing value (None: nothing), the categories of a
    text, and how its values were spread.
    """

    spec: InputSpec
    default: Scalar | None
    categories: tuple[str, ...]
    baseline: dict[str, Any]

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self.spec.name

    @property
    def width(self) -> int:
        """How many columns of the matrix it takes."""
        return len(self.categories) if self.spec.encoding == "onehot" else 1

    @property
    def columns(self) -> list[str]:
        """What its columns are called."""
        if self.spec.encoding == "onehot":
            return [f"{self.name}={category}" for category in self.categories]
        return [self.name]

    def filled(self, values: Sequence[Any]) -> list[Any]:
        """The values, with what stands in for those that are missing."""
        return [self.default if value is None else value for value in values]

    def encoded(self, values: Sequence[Any]) -> Matrix:
        """Values, none missing, as columns."""
        if self.spec.encoding is None:
            return np.array([float(value) for value in values], dtype=np.float64).reshape(-1, 1)
        place = {category: number for number, category in enumerate(self.categories)}
        codes = np.array([place.get(value, len(place)) for value in values], dtype=np.int64)
        if self.spec.encoding == "index":
            return codes.astype(np.float64).reshape(-1, 1)
        return np.eye(len(place) + 1, dtype=np.float64)[codes, :-1]


def answerable(specs: Sequence[InputSpec], table: Table) -> Table:
    """The rows that serving would answer: those in which no input is missing that nothing stands in for."""
    needed = [table.columns[each.name] for each in specs if each.default is None and each.impute is None]
    if not needed:
        return table
    left = table.kept([None not in row for row in zip(*needed, strict=True)], MISSING)
    if not left.rows:
        raise TrainingFailed("in every row an input is missing that nothing stands in for: give inputs a `default`")
    return left


def prepare(specs: Sequence[InputSpec], table: Table, rows: Sequence[int]) -> list[Prepared]:
    """Look at the training rows, by number. Raises TrainingFailed for an input that says nothing."""
    return [_prepare(each, [table.columns[each.name][row] for row in rows]) for each in specs]


def _prepare(spec: InputSpec, values: list[Any]) -> Prepared:
    known = [value for value in values if value is not None]
    if not known:
        raise TrainingFailed(f"the input `{spec.name}` is missing in every row that is trained on: leave it out")
    default = spec.default
    if spec.encoding is not None:
        counts = Counter(known)
        categories = spec.categories or tuple(sorted(each for each, n in counts.items() if n >= spec.least))
        if spec.impute:
            default = min(counts, key=lambda each: (-counts[each], each))
        if not 2 <= len(categories) <= _MOST_CATEGORIES:  # noqa: PLR2004 - one says nothing
            raise TrainingFailed(
                f"the input `{spec.name}` has {len(categories):,} categories with {spec.least:,} rows or more, and "
                f"there must be from 2 to {_MOST_CATEGORIES}: say which with `categories`, or change `least`"
            )
        if default is not None and default not in categories:
            raise TrainingFailed(f"`{default}`, the default of the input `{spec.name}`, is none of its categories")
        shares = {each: counts[each] / len(known) for each in categories}
        return Prepared(spec, default, categories, {"missing": 1 - len(known) / len(values), "shares": shares})
    numbers = np.array(known, dtype=np.float64)
    if spec.impute is not None:
        default = float(f"{np.mean(numbers) if spec.impute == 'mean' else np.median(numbers):.{_DIGITS}g}")
    return Prepared(spec, default, (), {"missing": 1 - len(known) / len(values)} | spread(numbers))


def spread(numbers: Matrix) -> dict[str, Any]:
    """How numbers are spread: bins of about equally many, and the usual figures. Bin i: edge[i-1] < x <= edge[i]."""
    edges = np.unique(np.quantile(numbers, np.arange(1, _BINS) / _BINS, method="inverted_cdf"))
    counts = np.bincount(np.searchsorted(edges, numbers, side="left"), minlength=len(edges) + 1)
    return {
        "low": float(numbers.min()),
        "high": float(numbers.max()),
        "mean": float(numbers.mean()),
        "median": float(np.median(numbers)),
        "deviation": float(numbers.std()),
        "edges": [float(edge) for edge in edges],
        "shares": [float(share) for share in counts / len(numbers)],
    }


def raw_rows(prepared: Sequence[Prepared], table: Table, rows: Sequence[int]) -> list[list[Any]]:
    """Rows as they are handed to a served model: one value an input, none missing, texts as texts, numbers as float32
    has them.
    """
    columns = []
    for each in prepared:
        values = each.filled([table.columns[each.name][row] for row in rows])
        columns.append(values if each.spec.encoding else [float(np.float32(value)) for value in values])
    return [list(row) for row in zip(*columns, strict=True)]


def matrix(prepared: Sequence[Prepared], table: Table) -> Matrix:
    """All rows as numbers, in float32 steps: what a served model sees."""
    parts = [each.encoded(each.filled(table.columns[each.name])) for each in prepared]
    with np.errstate(over="ignore"):
        found = np.hstack(parts).astype(np.float32).astype(np.float64)
    if not np.isfinite(found).all():
        raise TrainingFailed("a number is too great for float32, in which models are served: scale it down")
    return found
