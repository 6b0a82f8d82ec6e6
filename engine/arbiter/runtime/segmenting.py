"""In which segments those were for whom a log holds decisions, by what the rows say.

Law: rows in, a table out. All rows are judged by one snapshot, so that a segment is the same one over time; what a row
does not hold all of stays unknown, and is not guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from arbiter.runtime.replaying import Again, segment_reads
from arbiter.runtime.views import segment_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.learning.logged import Head, Row
    from arbiter.snapshot import Snapshot


def memberships(rows: Iterable[tuple[Head, Row]], snapshot: Snapshot) -> pa.Table:
    """By `id` of a decision and `segment` whether it was for somebody `inside`, where that is known."""
    again = Again(snapshot)
    reads = {name: segment_reads(snapshot, name) for name in snapshot.symbols.segments}
    known: dict[tuple[tuple[str, str, str], ...], list[str]] = {}
    ids: list[str] = []
    names: list[str] = []
    found: list[bool] = []
    for head, row in rows:
        if row.values is None:
            continue
        segments = known.get(head.reads)
        if segments is None:
            there = {(root, key or name) for root, name, key in head.reads}
            segments = known[head.reads] = [name for name, own in reads.items() if own <= there]
        view = again.view(head, row) if segments else None
        for name in segments:
            assert view is not None  # noqa: S101 - made where there are segments
            inside = segment_in(view, snapshot, name)
            if inside is not None:
                ids.append(row.id)
                names.append(name)
                found.append(inside)
    segment = pa.array(names, pa.string()).dictionary_encode()
    return pa.table({"id": pa.array(ids, pa.string()), "segment": segment, "inside": pa.array(found, pa.bool_())})
