"""Rows to learn from: one value per input, what became of it, whose it is and of when. Read here from CSV and Parquet.

Law: values as serving would see them, None for missing; nothing is imputed or encoded yet. Equal rows have equal
digests, whatever kind of file they came from.
"""

from __future__ import annotations

import csv
import hashlib
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import ArbiterError, did_you_mean
from arbiter.types import to_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arbiter.training.spec import InputSpec, Spec

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
# Why a row is not learnt from.
NO_LABEL = "without a label"
_BOOLS = {"true": True, "false": False, "1": True, "0": False}


class TrainingFailed(ArbiterError):
    """The data or the libraries do not allow this training; the message says what to change."""


class Table(msgspec.Struct):
    """Rows by column: `columns` by input name, None a missing value. `label` is bool for a propensity, a text for a
    class, a float for a score. `times` are µs, `subjects` whatever tells subjects apart. `left_out` counts rows that
    there could have been, by the reason why there are none.
    """

    columns: dict[str, list[Any]]
    label: list[Any] | None = None
    times: list[int] | None = None
    subjects: list[str] | None = None
    left_out: dict[str, int] = {}

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.columns.values()), []))

    def digest(self) -> str:
        """SHA-256 of all that is learnt from, in hexadecimal."""
        found = hashlib.sha256()
        for part in (list(self.columns), *self.columns.values(), self.label, self.times, self.subjects):
            found.update(_encode(part))
        return found.hexdigest()

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count rows that are not there."""
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    def kept(self, wanted: list[bool], reason: str) -> Table:
        """The rows that are wanted; the others are counted."""

        def some(column: list[Any] | None) -> Any:
            return None if column is None else [each for each, want in zip(column, wanted, strict=True) if want]

        left = Table(
            {name: some(column) for name, column in self.columns.items()},
            some(self.label),
            some(self.times),
            some(self.subjects),
            dict(self.left_out),
        )
        left.leave_out(reason, wanted.count(False))
        return left


def read_table(spec: Spec, path: Path) -> Table:
    """Read the file that `spec` names, found at `path`. Raises TrainingFailed."""
    rows = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    reader = _Reader(spec, path, next(rows)[1])
    for line, cells in rows:
        try:
            reader.row(cells)
        except ValueError as error:
            raise TrainingFailed(f"{path}:{line}: {error}") from error
    if not reader.table.rows:
        raise TrainingFailed(f"{path} has no row to learn from")
    return reader.table


class _Reader:
    """Rows of cells under `heads`, put into a table. Raises TrainingFailed where a column is not there."""

    def __init__(self, spec: Spec, path: Path, heads: list[Any]) -> None:
        label = spec.label if isinstance(spec.label, str) else ""
        for column in filter(None, (*(each.column for each in spec.inputs), label, spec.time, spec.subject)):
            if column not in heads:
                hint = did_you_mean(column, heads) or f"it has {', '.join(f'`{head}`' for head in heads)}"
                raise TrainingFailed(f"{path} has no column `{column}`: {hint}")
        place = {head: number for number, head in enumerate(heads)}
        self._inputs = [(each, place[each.column]) for each in spec.inputs]
        self._label, self._time, self._subject = place.get(label), place.get(spec.time), place.get(spec.subject)
        self._read_label = LABELS[spec.kind]
        self.table = Table(
            {each.name: [] for each in spec.inputs},
            None if self._label is None else [],
            None if self._time is None else [],
            None if self._subject is None else [],
        )

    def row(self, cells: list[Any]) -> None:
        """Take one row, whole or not at all. Raises ValueError for a cell that cannot be what it should be."""
        table = self.table
        label = None if self._label is None else self._read_label(cells[self._label])
        if self._label is not None and label is None:
            table.leave_out(NO_LABEL)
            return
        values = [value_of(each, cells[place]) for each, place in self._inputs]
        at = None if self._time is None else _moment(cells[self._time])
        for column, value in zip(table.columns.values(), values, strict=True):
            column.append(value)
        if table.label is not None:
            table.label.append(label)
        if table.times is not None:
            assert at is not None  # noqa: S101 - there is a column of times
            table.times.append(at)
        if table.subjects is not None and self._subject is not None:
            table.subjects.append(str(cells[self._subject]))


def value_of(spec: InputSpec, cell: Any) -> Any:
    """A cell as the input's value: a text where it is encoded, else a finite number or a boolean; None is missing.

    Raises ValueError for what is neither.
    """
    if cell is None or cell == "" or (isinstance(cell, float) and not math.isfinite(cell)):
        return None
    if spec.encoding is not None:
        return cell if isinstance(cell, str) else str(cell)
    if isinstance(cell, (bool, int, float)):
        return cell if isinstance(cell, bool) else float(cell)
    return _number(cell, f"`{spec.column}`")


def _number(cell: Any, what: str) -> float | bool | None:
    if isinstance(cell, Decimal):
        return float(cell)
    if not isinstance(cell, str):
        raise ValueError(f"{what} is {type(cell).__name__}, and a number must stand here")  # noqa: TRY004 - a row's
    if cell in {"true", "false"}:
        return cell == "true"
    try:
        number = float(cell)
    except ValueError:
        raise ValueError(f"{what} is `{cell}`, and a number must stand here: or add `as: index` to the input") from None
    return number if math.isfinite(number) else None


def _happened(cell: Any) -> bool | None:
    """Whether it happened. Raises ValueError."""
    if cell is None or cell == "":
        return None
    found = _BOOLS.get(str(cell).lower().removesuffix(".0"))
    if found is None:
        raise ValueError(f"the label is `{cell}`, and of a propensity it is 0 or 1, true or false")
    return found


def _class(cell: Any) -> str | None:
    return None if cell is None or cell == "" else str(cell)


def _score(cell: Any) -> float | None:
    if cell is None or cell == "":
        return None
    found = float(cell) if isinstance(cell, (bool, int, float)) else _number(cell, "the label")
    return None if found is None or not math.isfinite(found) else float(found)


# How the cell of a label is read, by kind; a segment's is only shown, as a share or a mean.
LABELS: dict[str, Callable[[Any], Any]] = {
    "propensity": _happened,
    "class": _class,
    "score": _score,
    "segment": _score,
}


def _moment(cell: Any) -> int:
    found = cell
    if isinstance(cell, str):
        try:
            found = datetime.fromisoformat(cell.strip())
        except ValueError:
            raise ValueError(f"`{cell}` is no time as ISO 8601 has it, as in 2026-11-20T18:30:00Z") from None
    if isinstance(found, date) and not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day, tzinfo=UTC)
    if not isinstance(found, datetime):
        raise ValueError(f"{found!r} is no time")  # noqa: TRY004 - a row's mistake
    return to_micros(found if found.tzinfo is not None else found.replace(tzinfo=UTC))


def _csv(path: Path) -> Iterator[tuple[int, list[Any]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            heads = next(reader, None)
            if heads is None:
                raise TrainingFailed(f"{path} is empty: its first line must name the columns")
            yield 1, heads
            for cells in reader:
                if cells and len(cells) != len(heads):
                    raise TrainingFailed(
                        f"{path}:{reader.line_num}: {len(cells)} cells, and the first line names {len(heads)} columns"
                    )
                if cells:
                    yield reader.line_num, cells
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise TrainingFailed(f"{path} cannot be read as CSV: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[int, list[Any]]]:
    try:
        import pyarrow.lib  # noqa: PLC0415 - an extra
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise TrainingFailed("reading Parquet needs pyarrow: pip install 'arbiter[parquet]'") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield 0, list(file.schema_arrow.names)
            row = 0
            for batch in file.iter_batches(10_000):
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    row += 1
                    yield row, list(cells)
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise TrainingFailed(f"{path} cannot be read as Parquet: {error}") from error
