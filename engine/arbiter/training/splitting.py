"""Which rows are trained on, and which are held out.

Law: one subject is on one side, unless time parts them; the same seed parts alike. Row numbers in, row numbers out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, train_test_split

from arbiter.training.table import TrainingFailed
from arbiter.types import from_micros

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from arbiter.training.spec import Validation
    from arbiter.training.table import Table

    Rows = NDArray[np.int64]


class Split(msgspec.Struct, frozen=True):
    """Pairs of rows to train on and rows to measure on; `said` is how they came about, in words."""

    parts: list[tuple[Any, Any]]
    said: str


def split(way: Validation, table: Table, y: NDArray[Any] | None, seed: int, *, stratify: bool, ahead: int = 0) -> Split:
    """Part the rows. With `stratify` the labels `y` are shared out evenly where that can be. `ahead` is how far (µs)
    labels look forward: by time, no label of a row that is trained on reaches into what is held out.

    Raises TrainingFailed.
    """
    rows = np.arange(table.rows)
    if not way.holds_out:
        return Split([(rows, rows)], "none are: nothing is guessed")
    if way.latest or way.after is not None:
        return _by_time(way, table, rows, ahead)
    groups, first = _groups(table)
    labels = y if stratify and y is not None else None
    if way.folds:
        made = (
            StratifiedGroupKFold(way.folds, shuffle=True, random_state=seed)
            if labels is not None
            else GroupKFold(way.folds, shuffle=True, random_state=seed)
        )
        try:
            parts = list(made.split(rows, labels, groups))
        except ValueError as error:
            raise TrainingFailed(f"the rows cannot be parted into {way.folds} folds: {error}") from error
        return Split(parts, f"{way.folds} folds in turn, each subject in one of them")
    whose = np.arange(len(first))
    by = labels[first] if labels is not None else None
    try:
        train, held = train_test_split(whose, test_size=way.held_out, random_state=seed, stratify=by)
    except ValueError as error:
        raise TrainingFailed(f"{way.held_out:g} of the rows cannot be held out: {error}") from error
    if len(first) == table.rows:
        # Each subject has one row, and rows are in the order that was drawn.
        return Split([(first[train], first[held])], f"a share of {way.held_out:g}, drawn")
    inside = np.isin(groups, held)
    return Split([(rows[~inside], rows[inside])], f"a share of {way.held_out:g} of the subjects, drawn")


def _groups(table: Table) -> tuple[Rows, Rows]:
    """By row the number of its subject, and by subject its first row; subjects in the order in which they come."""
    if table.subjects is None:
        return np.arange(table.rows), np.arange(table.rows)
    numbers: dict[str, int] = {}
    first = []
    groups = []
    for row, subject in enumerate(table.subjects):
        if subject not in numbers:
            numbers[subject] = len(numbers)
            first.append(row)
        groups.append(numbers[subject])
    return np.array(groups), np.array(first)


def _by_time(way: Validation, table: Table, rows: Rows, ahead: int) -> Split:
    if table.times is None:
        raise TrainingFailed("the rows have no times: add `time: COLUMN` to the source")
    times = np.array(table.times)
    cut = way.after if way.after is not None else int(np.quantile(times, 1 - way.latest, method="inverted_cdf"))
    if way.after is None and cut == times.max() and cut > times.min():
        cut = int(times[times < cut].max())  # the last moment has more than that share: it is held out whole
    train, held = rows[times + ahead <= cut], rows[times > cut]
    if not len(train) or not len(held):
        raise TrainingFailed(
            "no rows are left on one side of the time that parts them (the labels of those before must be known by "
            "then): choose another share or moment, or a shorter window for the label"
        )
    said = f"the latest rows, after {from_micros(cut).isoformat()}"
    dropped = int((times <= cut).sum()) - len(train)
    return Split(
        [(train, held)], said + (f"; {dropped:,} before it whose labels reach over it are in neither" * bool(dropped))
    )
