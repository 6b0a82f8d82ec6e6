"""The decision log on its disk: segments become Parquet files, which are kept for a while, and lose rows of the erased.

There are two sheets of it, decisions, and what became of them.

Law: a file is there whole or not, and says which segments it was made of, so that no row is there twice whenever the
process that makes it is killed. What became Parquet leaves the spool only then. Beside servers, never in one.

    LOG/spool/…rows    LOG/decisions-LAST-NAME.parquet, LAST being the µs of its newest row
    LOG/spool/…told    LOG/outcomes-LAST-NAME.parquet, of exposures and outcomes
"""

from __future__ import annotations

import contextlib
import logging
import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from arbiter.durable import sync_folder
from arbiter.learning.columns import HAPPENED, SCHEMA, happened_table, rows_of, table_of
from arbiter.learning.happened import Happened, decode_happened
from arbiter.learning.logged import Head, Row, decode_heads, decode_row, decode_rows
from arbiter.runtime.spool import DECIDED, TOLD, check_room, frames, segments, taken

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from arbiter.runtime.spool import Frame

_log = logging.getLogger("arbiter.log")

_GROUP: Final = 20_000  # rows of a row group: what is in memory at once
_READ: Final = ["point", "snapshot", "reads", "row"]  # what rows are made of again
_SEGMENTS: Final = b"arbiter.segments"
_LAST: Final = "[0-9]" * 17


class Sheet(msgspec.Struct, frozen=True):
    """One kind of rows: what its files are called by, how its segments end, its columns, the one that says how old a
    row is, and what makes tables of a segment.
    """

    name: str
    suffix: str
    schema: pa.Schema
    dated: str
    tables: Callable[[Path], Iterator[pa.Table]]


class Made(msgspec.Struct, frozen=True):
    """What a pass made: rows in Parquet, and rows left out because their subjects were erased."""

    rows: int = 0
    erased: int = 0


def files(directory: Path, *sheets: Sheet) -> list[Path]:
    """The Parquet files that a server made for a log, of these sheets or of all, the oldest first."""
    found = (path for each in sheets or SHEETS for path in directory.glob(f"{each.name}-{_LAST}-*.parquet"))
    return sorted(found, key=newest_of)


def newest_of(file: Path) -> int:
    """The µs of a file's newest row, as its name says."""
    return int(file.name.split("-")[1])


def size_of(directory: Path) -> int:
    """The bytes of a log, what waits in its spool included."""
    return sum(_size(path) for path in (*files(directory), *segments(directory)))


def finish(directory: Path) -> None:
    """Take away what a process left that was killed: drafts, segments that are in a file already. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for draft in (draft for sheet in SHEETS for draft in directory.glob(f".{sheet.name}-*")):
        draft.unlink(missing_ok=True)
    waiting = {path.name: path for path in segments(directory)}
    for file in files(directory) if waiting else ():
        for name in _segments_in(file):
            if name in waiting:
                waiting[name].unlink(missing_ok=True)


def convert(directory: Path, spare: int, erased: Collection[str] = ()) -> Made:
    """Make a file, of each sheet, of the segments that nobody writes any more, without rows of the erased.

    Raises OSError, LogFull.
    """
    made = [_convert(directory, sheet, spare, erased) for sheet in SHEETS]
    return Made(sum(each.rows for each in made), sum(each.erased for each in made))


def _convert(directory: Path, sheet: Sheet, spare: int, erased: Collection[str]) -> Made:
    with contextlib.ExitStack() as stack:
        sealed = [path for path in segments(directory, sheet.suffix) if stack.enter_context(taken(path))]
        if not sealed:
            return Made()
        check_room(directory, spare)
        made = _write(directory, sheet, sealed, erased)
        for path in sealed:
            path.unlink()
        return made


def rewrite(directory: Path, spare: int, erased: Collection[str]) -> int:
    """Write anew each file that has rows of these references, without them; how many those were. Raises OSError."""
    return sum(_rewrite(file, sheet, spare, erased) for sheet in SHEETS for file in files(directory, sheet))


def _rewrite(file: Path, sheet: Sheet, spare: int, erased: Collection[str]) -> int:
    with pq.ParquetFile(file) as source:
        found: int = sum(
            pc.sum(pc.invert(_kept(batch, erased))).as_py() or 0
            for batch in source.iter_batches(_GROUP, columns=["subject"])
        )
        if not found:
            return 0
        check_room(file.parent, spare)
        draft = file.with_name(f".{file.name}")
        with _draft(draft, sheet.schema.with_metadata(source.schema_arrow.metadata)) as writer:
            for batch in source.iter_batches(_GROUP):
                kept = batch.filter(_kept(batch, erased))
                writer.write_table(pa.Table.from_batches([kept]).cast(sheet.schema))
    _put(draft, file)
    return found


def _kept(rows: pa.Table | pa.RecordBatch, erased: Collection[str]) -> pa.Array:
    """Which rows are not of these references."""
    wanted = pa.array(sorted(erased), pa.string())
    return pc.invert(pc.fill_null(pc.is_in(rows.column("subject"), wanted), False))


def retain(directory: Path, *, oldest: int | None, most: int) -> int:
    """Remove files whose rows are all older than `oldest` (µs), then the oldest until `most` bytes are left; how many.

    Raises OSError.
    """
    found = files(directory)
    gone = [file for file in found if oldest is not None and newest_of(file) < oldest]
    total = size_of(directory) - sum(map(_size, gone))
    for file in found:
        if total <= most:
            break
        if file not in gone:
            gone.append(file)
            total -= _size(file)
    for file in gone:
        file.unlink()
    return len(gone)


def read_log(place: Path) -> Iterator[tuple[Head, Row]]:
    """The rows of a log, those that wait in its spool too, or of one file. Raises OSError, pyarrow.ArrowException."""
    yield from rows_of_all(_read_of(place, DECISIONS), SCHEMA.empty_table())
    for path in segments(place, DECISIONS.suffix):
        for heads, packed in _rows_in(path):
            for each in packed:
                row = decode_row(each)
                if row.head in heads:
                    yield heads[row.head], row


def whole(place: Path) -> tuple[list[Path], pa.Table]:
    """The files of a log, or the one file, and as a table what waits in its spool: each row is in one of both.

    Raises OSError, pyarrow.ArrowException.
    """
    return _whole(place, DECISIONS)


def happened_in(place: Path) -> tuple[list[Path], pa.Table]:
    """The same of exposures and outcomes; there are none beside a single file."""
    return _whole(place, OUTCOMES)


def _read_of(place: Path, sheet: Sheet) -> list[Path]:
    """The files to read, whoever put them there: only the ones that a server made are kept by one."""
    if place.is_file():
        return [place] if sheet is DECISIONS else []
    return sorted(place.glob(f"{sheet.name}-*.parquet"))


def _whole(place: Path, sheet: Sheet) -> tuple[list[Path], pa.Table]:
    waiting = {path.name: list(sheet.tables(path)) for path in segments(place, sheet.suffix)}
    found = _read_of(place, sheet)
    for file in found if waiting else ():
        for name in _segments_in(file):  # it became Parquet meanwhile
            waiting.pop(name, None)
    tables = [sheet.schema.empty_table(), *(table for own in waiting.values() for table in own)]
    return found, pa.concat_tables(tables, promote_options="permissive").unify_dictionaries()


def rows_of_all(found: Sequence[Path], waiting: pa.Table) -> Iterator[tuple[Head, Row]]:
    """The rows of files, and of what waits, as `whole` gives them. Raises OSError, pyarrow.ArrowException."""
    for file in found:
        with pq.ParquetFile(file) as source:
            for batch in source.iter_batches(_GROUP, columns=_READ):
                yield from rows_of(batch)
    for batch in waiting.select(_READ).to_batches():
        yield from rows_of(batch)


def _write(directory: Path, sheet: Sheet, sealed: Sequence[Path], erased: Collection[str]) -> Made:
    names = [path.name for path in sealed]
    digest = blake2b("\n".join(names).encode(), digest_size=8).hexdigest()
    draft = directory / f".{sheet.name}-{digest}"
    schema = sheet.schema.with_metadata({_SEGMENTS: msgspec.json.encode(names)})
    last, written, left = 0, 0, 0
    with _draft(draft, schema) as writer:
        for table in (table for path in sealed for table in sheet.tables(path)):
            kept = table.filter(_kept(table, erased)) if erased else table
            left += table.num_rows - kept.num_rows
            if kept.num_rows:
                writer.write_table(kept.cast(schema))
                written += kept.num_rows
                last = max(last, pc.max(kept.column(sheet.dated)).cast(pa.int64()).as_py())
    if written:
        _put(draft, directory / f"{sheet.name}-{last:017d}-{digest}.parquet")
    else:
        draft.unlink()
    return Made(written, left)


def _decided(path: Path) -> Iterator[pa.Table]:
    """The decisions of a segment, so many at once that a row group is made of them."""
    heads: dict[int, Head] = {}
    waiting: list[msgspec.Raw] = []
    for known, packed in _rows_in(path):
        heads = known
        waiting += packed
        if len(waiting) >= _GROUP:
            yield _table(heads, waiting)
            waiting = []
    if waiting:
        yield _table(heads, waiting)


def _table(heads: dict[int, Head], packed: list[msgspec.Raw]) -> pa.Table:
    rows = [decode_row(each) for each in packed]
    known = [n for n, row in enumerate(rows) if row.head in heads]
    chosen = [rows[n] for n in known]
    return table_of([packed[n] for n in known], chosen, [heads[row.head] for row in chosen])


def _told(path: Path) -> Iterator[pa.Table]:
    """The exposures and outcomes of a segment, in the same way."""
    waiting: list[Happened] = []
    for frame in _frames(path):
        waiting += decode_happened(frame.rows)
        if len(waiting) >= _GROUP:
            yield happened_table(waiting)
            waiting = []
    if waiting:
        yield happened_table(waiting)


def _rows_in(path: Path) -> Iterator[tuple[dict[int, Head], list[msgspec.Raw]]]:
    """The packed rows of a segment, frame by frame, with the heads that came before them."""
    heads: dict[int, Head] = {}
    for frame in _frames(path):
        if frame.heads:
            heads |= {head.number: head for head in decode_heads(frame.heads)}
        else:
            yield heads, decode_rows(frame.rows)


def _frames(path: Path) -> Iterator[Frame]:
    with contextlib.suppress(FileNotFoundError):  # it became Parquet meanwhile
        yield from frames(path)


@contextlib.contextmanager
def _draft(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A file that is for its owner's eyes only, gone again when the block fails."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _put(draft: Path, target: Path) -> None:
    draft.rename(target)
    sync_folder(target.parent)


def _segments_in(file: Path) -> list[str]:
    metadata = pq.read_schema(file).metadata or {}
    found: list[str] = msgspec.json.decode(metadata.get(_SEGMENTS, b"[]"), type=list[str])
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


DECISIONS: Final = Sheet("decisions", DECIDED, SCHEMA, "at", _decided)
OUTCOMES: Final = Sheet("outcomes", TOLD, HAPPENED, "recorded", _told)
SHEETS: Final = (DECISIONS, OUTCOMES)
