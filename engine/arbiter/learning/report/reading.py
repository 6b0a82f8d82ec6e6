"""A log of decisions opened for questions: DuckDB over its Parquet files, and what waits to become such.

Law: the one module that imports DuckDB. Reads what it is given, in memory and without a network; writes nothing.

Four tables come of it. `decisions` are those of the log; `won` has one row for each treatment of them, with an empty
`rule` for the default; `happened` are exposures and outcomes; `belongs` says of decisions in which segments they were
for, where that is given. Times are µs.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import duckdb

from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

_DECISIONS = """
    SELECT CAST(id AS VARCHAR) AS id, epoch_us("at") AS moment, CAST(subject AS VARCHAR) AS subject,
        CAST(point AS VARCHAR) AS point, CAST(snapshot AS VARCHAR) AS snapshot, inputs,
        list_transform(won, lambda w: w.rule) AS won, defaulted, losers, experiments
    FROM {source}
"""
_HAPPENED = """
    SELECT CAST(kind AS VARCHAR) AS kind, decision, epoch_us("at") AS moment, epoch_us(decided_at) AS decided_at,
        CAST(point AS VARCHAR) AS point, CAST(rule AS VARCHAR) AS rule, CAST(name AS VARCHAR) AS name, value
    FROM {source}
"""


class UnreadableLog(ArbiterError):
    """The files are no log, or changed while they were read."""


class Records:
    """The log, ready for questions in SQL."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a question gives, with `values` in place of its ``?``."""
        return self._connection.execute(sql, values or None).fetchall()

    def row(self, sql: str, *values: Any) -> tuple[Any, ...]:
        """The one row of a question that always gives one."""
        return self.rows(sql, *values)[0]

    def belongs(self, table: pa.Table) -> None:
        """Know of decisions whether they were for somebody in a segment: by `id`, `segment`, `inside`."""
        self._connection.register("memberships", table)
        self.make("INSERT INTO belongs SELECT id, segment, inside FROM memberships")
        self._connection.unregister("memberships")

    def make(self, sql: str, *values: Any) -> None:
        """Do what makes a table."""
        self._connection.execute(sql, values or None)


Found = tuple["Sequence[Path]", "pa.Table"]
"""Files, and what waits to become one, in the same columns."""


@contextlib.contextmanager
def opened(decisions: Sequence[Path], waiting: pa.Table, happened: Found) -> Iterator[Records]:
    """The records of files of decisions, of those that `waiting` holds in the same columns, and of exposures and
    outcomes, files and what waits. Raises UnreadableLog, within the block too.
    """
    files, told = happened
    try:
        with duckdb.connect(config={"autoinstall_known_extensions": False, "enable_external_access": True}) as db:
            db.execute("SET TimeZone = 'UTC'")
            db.register("waiting", waiting)
            db.register("told", told)
            _make(db, "decisions", _DECISIONS, "waiting", decisions)
            _make(db, "happened", _HAPPENED, "told", files)
            db.execute("""
                CREATE TABLE won AS SELECT DISTINCT id, moment, subject, point, unnest(won) AS rule
                FROM decisions WHERE id <> ''
            """)
            db.execute("CREATE TABLE belongs (id VARCHAR, segment VARCHAR, inside BOOLEAN)")
            yield Records(db)
    except duckdb.Error as error:
        raise UnreadableLog(
            f"the log cannot be read: {error}; where a server writes it, files come and go: ask again"
        ) from error


@contextlib.contextmanager
def scanned(decisions: Sequence[Path], happened: Sequence[Path], memory: int, spill: Path) -> Iterator[Records]:
    """The records of files alone, read anew for each question with so many MiB of memory on one processor; what does
    not fit goes below `spill` meanwhile. There are `decisions` and `happened`. Raises UnreadableLog, within the block
    too.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False, "threads": 1, "memory_limit": f"{memory}MiB",
        "temp_directory": str(spill), "preserve_insertion_order": False,
    }  # fmt: skip
    try:
        with duckdb.connect(config=config) as db:
            db.execute("SET TimeZone = 'UTC'")
            for table, select, files in (("decisions", _DECISIONS, decisions), ("happened", _HAPPENED, happened)):
                source = f"read_parquet({_listed(files)}, union_by_name = true)"
                db.execute(f"CREATE VIEW {table} AS {select.format(source=source)}")
            yield Records(db)
    except duckdb.Error as error:
        raise UnreadableLog(f"the log cannot be read: {error}") from error


def _make(db: duckdb.DuckDBPyConnection, table: str, select: str, waiting: str, files: Sequence[Path]) -> None:
    parts = [select.format(source=waiting)]
    if files:
        parts.append(select.format(source=f"read_parquet({_listed(files)}, union_by_name = true)"))
    db.execute(f"CREATE TABLE {table} AS {' UNION ALL '.join(parts)}")


def _listed(files: Sequence[Path]) -> str:
    return "[" + ", ".join("'" + str(file).replace("'", "''") + "'" for file in files) + "]"
