"""Events out of files, row by row.

Law: bytes in, events out, and never a whole file in memory; a row that is no event is told with its line and its
mistake, and ends nothing. Ids are stable: a file read again, or one that only grew, gives its events the ids that they
had.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
from collections import Counter
from datetime import datetime  # noqa: TC003 - a field's type at run time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from arbiter.cli.eventcolumns import Columns
from arbiter.errors import ArbiterError
from arbiter.types import Event, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

_T = TypeVar("_T")
Format = Literal["jsonl", "csv", "tsv", "parquet"]
FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip
_ROWS = 10_000  # of a Parquet file that are in memory at once


class BadFile(ArbiterError):
    """A file that holds no events as it was said to."""


class Row(msgspec.Struct, frozen=True):
    """A row of a file, by the number of the line that it begins in: an event, or what is wrong with it."""

    line: int
    event: Event | None
    mistake: str = ""


class EventFile(msgspec.Struct, frozen=True):
    """A file that people know as `name`. `content` stands for it where it cannot be read twice: standard input."""

    name: str
    format: Format
    columns: Columns = Columns()
    content: bytes | None = None

    def rows(self) -> Iterator[Row]:
        """Read it from the start. Raises BadFile."""
        said: Counter[bytes] = Counter()
        for line, found in self._found():
            if isinstance(found, ValueError):
                yield Row(line, None, str(found))
                continue
            try:
                event = _event(found) if isinstance(found, bytes) else self.columns.event(found)
            except (msgspec.DecodeError, ValueError) as error:
                yield Row(line, None, str(error))
                continue
            yield Row(line, event if event.id else _named(event, said))

    def _found(self) -> Iterator[tuple[int, bytes | dict[str, Any] | ValueError]]:
        """The rows as they stand, each with its line."""
        if self.format == "parquet":
            yield from _parquet(self.name, self.columns)
            return
        with self._open() as file:
            if self.format == "jsonl":
                yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())
            else:
                yield from _table(self.name, file, "\t" if self.format == "tsv" else ",", self.columns)

    @contextlib.contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if self.content is not None:
            yield io.BytesIO(self.content)
            return
        with Path(self.name).open("rb") as file:
            yield file


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """One event as a line of JSON has it."""

    type: str
    subject_id: str
    at: datetime
    id: str = ""
    properties: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(_Line)


def _event(line: bytes) -> Event:
    read = _decoder.decode(line)
    if read.at.tzinfo is None:
        raise ValueError(f"`at` names no zone: write {read.at.isoformat()}Z for UTC")
    # An absent property is said by leaving it out, here as everywhere.
    properties = {name: value for name, value in read.properties.items() if value is not None}
    return Event(read.id, read.subject_id, read.type, to_micros(read.at), properties)


def _table(
    name: str, file: BinaryIO, comma: str, columns: Columns
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=comma, strict=True)
        try:
            yield from _cells(name, reader, columns)
        except csv.Error as error:
            raise BadFile(f"{name}:{reader.line_num}: {error}: is it a CSV file in quotes of its own?") from error
        except UnicodeDecodeError as error:
            line = reader.line_num + 1
            raise BadFile(
                f"{name} is no UTF-8 text ({error.reason}, at line {line} or after it): convert it"
            ) from error


def _cells(name: str, reader: Any, columns: Columns) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    heads = next(reader, None)
    if heads is None:
        raise BadFile(f"{name} is empty: its first line must name the columns")
    columns.check(heads, name)
    line = reader.line_num + 1
    for cells in reader:
        if cells and len(cells) != len(heads):
            yield line, ValueError(f"has {len(cells)} cells, and the first line names {len(heads)} columns")
        elif cells:
            yield line, dict(zip(heads, cells, strict=True))
        line = reader.line_num + 1


def _parquet(name: str, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow.lib  # noqa: PLC0415 - an extra
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise BadFile(
            "reading Parquet needs pyarrow, which is not installed: pip install 'arbiter[parquet]', or convert the "
            "file to CSV or JSON lines"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(name) as file:
            columns.check(file.schema_arrow.names, name)
            row = 0
            for batch in file.iter_batches(_ROWS):
                for found in batch.to_pylist():
                    row += 1
                    yield row, found
    except pyarrow.lib.ArrowException as error:
        raise BadFile(f"{name} cannot be read as Parquet: {error}") from error


def _named(event: Event, said: Counter[bytes]) -> Event:
    """The event with an id from what its row says and how often the same was said before."""
    content = hashlib.blake2b(msgspec.json.encode(event, order="sorted"), digest_size=12)
    said[content.digest()] += 1
    return msgspec.structs.replace(event, id=f"{content.hexdigest()}-{said[content.digest()]}")


def batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The items in lists of at most `size`, in order."""
    batch: list[_T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
