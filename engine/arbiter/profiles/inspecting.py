"""How a store stands on its disk: sizes, free pages, readers.

Law: reads only; figures, no judgement. A page that is free can be used again, unless a reader holds a state from before
it was freed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

from arbiter.profiles import generations
from arbiter.profiles.compaction import is_due
from arbiter.profiles.environment import failure
from arbiter.profiles.keys import UnderPrevious, left
from arbiter.profiles.migrations import schema_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbiter.profiles.environment import Environment


class DatabaseSize(msgspec.Struct, frozen=True):
    """One database: entries, pages, and bytes of these pages."""

    entries: int
    pages: int
    size_bytes: int


class Reader(msgspec.Struct, frozen=True):
    """A place for a reader, held by a process. `behind` counts the transactions since the state that it holds; None
    when it holds none.
    """

    pid: int
    behind: int | None


class Inspected(msgspec.Struct, frozen=True):
    """A store as it stands. Sizes in bytes, `map_bytes` is the address range that is reserved.

    `free_pages` are those of the file that hold nothing; `erased` says whether something was erased whose traces may
    be in the file until it is compacted; `previous` is what lies under earlier keys;
    `others` are folders beside the generation, such as a restore keeps.
    """

    path: str
    generation: int
    schema: int
    transaction: int
    file_bytes: int
    map_bytes: int
    page_bytes: int
    pages: int
    free_pages: int
    erased: bool
    previous: tuple[UnderPrevious, ...]
    databases: dict[str, DatabaseSize]
    readers: tuple[Reader, ...]
    others: tuple[str, ...]


def inspect(environment: Environment) -> Inspected:
    """The store that is open here. Raises StoreError."""
    handle, page = environment.handle, environment.page_bytes
    try:
        handle.reader_check()
        databases: dict[str, DatabaseSize] = {}
        with handle.begin() as txn:
            with txn.cursor() as cursor:
                names = [bytes(name) for name in cursor.iternext(keys=True, values=False)]
            for name in names:
                stat = txn.stat(handle.open_db(name, txn, create=False))
                databases[name.decode()] = _size(stat, page)
            used = sum(each.pages for each in databases.values()) + _pages(handle.stat())
            transaction, schema = txn.id(), schema_of(txn, environment.meta)
            previous = left(environment, txn)
            info, readers = handle.info(), handle.readers()
        pages = info["last_pgno"] + 1
        return Inspected(
            path=str(environment.path),
            generation=environment.generation,
            schema=schema,
            transaction=transaction,
            file_bytes=(environment.place / generations.DATA).stat().st_size,
            map_bytes=info["map_size"],
            page_bytes=page,
            pages=pages,
            free_pages=max(0, pages - 2 - used),
            erased=is_due(environment),
            previous=previous,
            databases=databases,
            readers=tuple(_readers(readers, info["last_txnid"])),
            others=tuple(sorted(each.name for each in environment.path.iterdir() if _is_other(each.name, environment))),
        )
    except lmdb.Error as error:
        raise failure(error, environment.path, "read") from error


def _is_other(name: str, environment: Environment) -> bool:
    return (environment.path / name).is_dir() and name != str(environment.generation)


def _pages(stat: Mapping[str, Any]) -> int:
    pages: int = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return pages


def _size(stat: Mapping[str, Any], page_bytes: int) -> DatabaseSize:
    return DatabaseSize(stat["entries"], _pages(stat), _pages(stat) * page_bytes)


def readers_in(table: str) -> list[tuple[int, str, int | None]]:
    """The rows of LMDB's table of readers: process, thread, and the transaction whose state is held, None for none."""
    rows = [line.split() for line in table.splitlines()[1:]]
    found = [row for row in rows if len(row) > 2 and row[0].isdecimal()]  # noqa: PLR2004 - columns
    return [(int(pid), thread, None if held == "-" else int(held)) for pid, thread, held, *_ in found]


def _readers(table: str, last: int) -> list[Reader]:
    return [Reader(pid, None if held is None else last - held) for pid, _, held in readers_in(table)]
