"""The decision log on its disk: segments become Parquet files, which are kept for a while, and lose rows of the erased.

Law: a file is there whole or not, and says which segments it was made of, so that no row is there twice whenever the
process that makes it is killed. What became Parquet leaves the spool only then. Beside servers, never in one.

    LOG/spool/…rows    LOG/decisions-LAST-NAME.parquet, LAST being the µs of its newest row
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
from arbiter.learning.columns import SCHEMA, rows_of, table_of
from arbiter.learning.logged import Head, Row, decode_heads, decode_row, decode_rows
from arbiter.runtime.spool import check_room, frames, segments, taken

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

_log = logging.getLogger("arbiter.log")

_GROUP: Final = 20_000  # rows of a row group: what is in memory at once
_READ: Final = ["point", "snapshot", "reads", "row"]  # what rows are made of again
_SEGMENTS: Final = b"arbiter.segments"
_NAME: Final = "decisions-{last:017d}-{digest}.parquet"


class Made(msgspec.Struct, frozen=True):
    """What a pass made: rows in Parquet, and rows left out because their subjects were erased."""

    rows: int = 0
    erased: int = 0


def files(directory: Path) -> list[Path]:
    """The Parquet files of a log, the oldest first."""
    return sorted(directory.glob("decisions-*.parquet"))


def happened_in(place: Path) -> list[Path]:
    """The Parquet files of exposures and outcomes beside a log, the oldest first; none beside a single file."""
    return sorted(place.glob("outcomes-*.parquet"))


def newest_of(file: Path) -> int:
    """The µs of a file's newest row, as its name says."""
    return int(file.name.split("-")[1])


def size_of(directory: Path) -> int:
    """The bytes of a log, what waits in its spool included."""
    return sum(_size(path) for path in (*files(directory), *segments(directory)))


def finish(directory: Path) -> None:
    """Take away what a process left that was killed: drafts, segments that are in a file already. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for draft in directory.glob(".decisions-*"):
        draft.unlink(missing_ok=True)
    waiting = {path.name: path for path in segments(directory)}
    for file in files(directory) if waiting else ():
        for name in _segments_in(file):
            if name in waiting:
                waiting[name].unlink(missing_ok=True)


def convert(directory: Path, spare: int, erased: Collection[str] = ()) -> Made:
    """Make a file of the segments that nobody writes any more, without rows of the erased. Raises OSError, LogFull."""
    with contextlib.ExitStack() as stack:
        sealed = [path for path in segments(directory) if stack.enter_context(taken(path))]
        if not sealed:
            return Made()
        check_room(directory, spare)
        made = _write(directory, sealed, erased)
        for path in sealed:
            path.unlink()
        return made


def rewrite(directory: Path, spare: int, erased: Collection[str]) -> int:
    """Write anew each file that has rows of these references, without them; how many those were. Raises OSError."""
    gone = 0
    wanted = pa.array(sorted(erased), pa.string())
    for file in files(directory):
        with pq.ParquetFile(file) as source:
            found = sum(
                pc.sum(pc.is_in(batch.column(0), wanted)).as_py() or 0
                for batch in source.iter_batches(_GROUP, columns=["subject"])
            )
            if not found:
                continue
            check_room(directory, spare)
            draft = file.with_name(f".{file.name}")
            schema = SCHEMA.with_metadata(source.schema_arrow.metadata)
            with _draft(draft, schema) as writer:
                for batch in source.iter_batches(_GROUP):
                    keep = pc.invert(pc.fill_null(pc.is_in(batch.column("subject"), wanted), False))
                    writer.write_table(pa.Table.from_batches([batch.filter(keep)]).cast(SCHEMA))
        _put(draft, file)
        gone += found
    return gone


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
    yield from rows_of_all([place] if place.is_file() else files(place), SCHEMA.empty_table())
    for path in segments(place):
        for heads, packed in _rows_in(path):
            for each in packed:
                row = decode_row(each)
                if row.head in heads:
                    yield heads[row.head], row


def whole(place: Path) -> tuple[list[Path], pa.Table]:
    """The files of a log, or the one file, and as a table what waits in its spool: each row is in one of both.

    Raises OSError, pyarrow.ArrowException.
    """
    waiting: dict[str, list[pa.Table]] = {}
    for path in segments(place):
        for heads, packed in _rows_in(path):
            rows = [decode_row(each) for each in packed]
            known = [n for n, row in enumerate(rows) if row.head in heads]
            chosen = [rows[n] for n in known]
            table = table_of([packed[n] for n in known], chosen, [heads[row.head] for row in chosen])
            waiting.setdefault(path.name, []).append(table)
    found = [place] if place.is_file() else files(place)
    for file in found if waiting else ():
        for name in _segments_in(file):  # it became Parquet meanwhile
            waiting.pop(name, None)
    tables = [table for own in waiting.values() for table in own]
    return found, pa.concat_tables([SCHEMA.empty_table(), *tables], promote_options="permissive").unify_dictionaries()


def rows_of_all(found: Sequence[Path], waiting: pa.Table) -> Iterator[tuple[Head, Row]]:
    """The rows of files, and of what waits, as `whole` gives them. Raises OSError, pyarrow.ArrowException."""
    for file in found:
        with pq.ParquetFile(file) as source:
            for batch in source.iter_batches(_GROUP, columns=_READ):
                yield from rows_of(batch)
    for batch in waiting.select(_READ).to_batches():
        yield from rows_of(batch)


def _write(directory: Path, sealed: Sequence[Path], erased: Collection[str]) -> Made:
    names = [path.name for path in sealed]
    digest = blake2b("\n".join(names).encode(), digest_size=8).hexdigest()
    draft = directory / f".decisions-{digest}"
    schema = SCHEMA.with_metadata({_SEGMENTS: msgspec.json.encode(names)})
    last, written, left = 0, 0, 0
    with _draft(draft, schema) as writer:
        for heads, packed in _lots(sealed):
            rows = [decode_row(each) for each in packed]
            kept = [n for n, row in enumerate(rows) if row.head in heads and row.subject not in erased]
            left += len(rows) - len(kept)
            chosen = [rows[n] for n in kept]
            if chosen:
                writer.write_table(
                    table_of([packed[n] for n in kept], chosen, [heads[row.head] for row in chosen]).cast(schema)
                )
                written += len(chosen)
                last = max(last, *(row.at for row in chosen))
    if written:
        _put(draft, directory / _NAME.format(last=last, digest=digest))
    else:
        draft.unlink()
    return Made(written, left)


def _lots(sealed: Sequence[Path]) -> Iterator[tuple[dict[int, Head], list[msgspec.Raw]]]:
    """The packed rows of segments, so many at once that a row group is made of them."""
    for path in sealed:
        waiting: list[msgspec.Raw] = []
        known: dict[int, Head] = {}
        for heads, packed in _rows_in(path):
            known = heads
            waiting += packed
            if len(waiting) >= _GROUP:
                yield known, waiting
                waiting = []
        if waiting:
            yield known, waiting


def _rows_in(path: Path) -> Iterator[tuple[dict[int, Head], list[msgspec.Raw]]]:
    """The packed rows of a segment, frame by frame, with the heads that came before them."""
    heads: dict[int, Head] = {}
    with contextlib.suppress(FileNotFoundError):  # it became Parquet meanwhile
        for frame in frames(path):
            if frame.heads:
                heads |= {head.number: head for head in decode_heads(frame.heads)}
            else:
                yield heads, decode_rows(frame.rows)


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
