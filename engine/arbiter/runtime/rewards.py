"""What came of decisions, as a number for each: read from the outcomes beside a decision log.

Law: files in, and what waits to become one; numbers out. An outcome counts for the decision that it names, when it came
after it, and soon enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbiter.ruleset.terms import Taken

_COLUMNS = ["kind", "decision", "at", "decided_at", "name", "value"]


class Rewards(msgspec.Struct, frozen=True):
    """By the id of a decision what it earned, where that is not 0; and all names of outcomes that there are."""

    by_decision: dict[str, float]
    names: list[str]


def rewards_in(happened: tuple[Sequence[Path], pa.Table], name: str, within: int | None, take: Taken) -> Rewards:
    """What outcomes of `name` that came less than `within` µs after their decision, None for ever, are to it, as `take`
    says: 1 where there is any, how many, or the sum of their values. `happened` are files, and what waits.

    Raises OSError, pyarrow.ArrowException.
    """
    found: dict[str, float] = {}
    names: set[str] = set()
    files, waiting = happened
    for rows in (*(pq.read_table(file, columns=_COLUMNS) for file in files), waiting.select(_COLUMNS)):
        table = rows.filter(pc.equal(rows["kind"].cast(pa.string()), "outcome"))
        named = table["name"].cast(pa.string())
        names.update(filter(None, pc.unique(named).to_pylist()))
        table = table.filter(pc.equal(named, name))
        late = pc.subtract(table["at"].cast(pa.int64()), table["decided_at"].cast(pa.int64()))
        in_time = pc.greater_equal(late, 0)
        if within is not None:
            in_time = pc.and_(in_time, pc.less(late, within))
        table = table.filter(in_time)
        decisions = table["decision"].to_pylist()
        for decision, value in zip(decisions, table["value"].to_pylist(), strict=True):
            more = 1.0 if take == "count" else value or 0.0
            found[decision] = 1.0 if take == "any" else found.get(decision, 0.0) + more
    return Rewards(found, sorted(names))
