"""The log of decisions as Parquet: rows made into columns for whoever asks them questions, and read again.

Law: rows in, tables out, and back; no disk of its own but what pyarrow is given. Columns are what analyses ask for, in
JSON where that nests as authors please; `row` is the packed row beside them, from which the very same decision is made
again. It is the one module that imports pyarrow, so that nothing that serves loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow as pa

from arbiter.learning.logged import Head, Row, decode_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arbiter.learning.happened import Happened

_TIME: Final = pa.timestamp("us", tz="UTC")
_NAME: Final = pa.dictionary(pa.int32(), pa.string())
_WON: Final = pa.struct([
    ("rule", pa.string()), ("action", pa.string()), ("params", pa.string()), ("priority", pa.int64()),
    ("value", pa.float64()), ("propensity", pa.float64()),
])  # fmt: skip
_LACKING: Final = pa.struct([("model", pa.string()), ("cause", pa.string())])
_LOST: Final = pa.struct([("rule", pa.string()), ("stage", pa.string()), ("lost_to", pa.string())])
_ASSIGNED: Final = pa.struct([("experiment", pa.string()), ("variant", pa.string()), ("exposed", pa.bool_())])
SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("at", _TIME),
        ("subject", pa.string()),
        ("point", _NAME),
        ("snapshot", _NAME),
        ("inputs", pa.string()),
        ("won", pa.list_(_WON)),
        ("defaulted", pa.bool_()),
        ("valid_until", _TIME),
        ("lacking", pa.list_(_LACKING)),
        ("page", pa.string()),
        ("place", pa.int32()),
        ("canary", pa.bool_()),
        ("losers", pa.list_(_LOST)),
        ("experiments", pa.list_(_ASSIGNED)),
        ("reads", _NAME),
        ("row", pa.binary()),
    ]
)
HAPPENED: Final = pa.schema(
    [
        ("kind", _NAME),
        ("id", pa.string()),
        ("decision", pa.string()),
        ("at", _TIME),
        ("decided_at", _TIME),
        ("recorded", _TIME),
        ("subject", pa.string()),
        ("point", _NAME),
        ("snapshot", _NAME),
        ("rule", _NAME),
        ("name", _NAME),
        ("value", pa.float64()),
    ]
)
_json = msgspec.json.Encoder(order="deterministic").encode
_read_names: Final = msgspec.json.Decoder(tuple[tuple[str, str, str], ...]).decode


def inputs_of(row: Row, head: Head) -> dict[str, dict[str, Any]] | None:
    """What the decision could read and was there, by root and name; None where the row says nothing of a subject."""
    if row.values is None:
        return None
    found: dict[str, dict[str, Any]] = {}
    for (root, name, _), value in zip(head.reads, row.values, strict=True):
        if value is not None:
            found.setdefault(root, {})[name] = value
    return found


def table_of(packed: Sequence[msgspec.Raw], rows: Sequence[Row], heads: Sequence[Head]) -> pa.Table:
    """A table of rows, each beside its packed form and its head."""
    reads = {head.number: _json(head.reads).decode() for head in {id(head): head for head in heads}.values()}
    inputs = [inputs_of(row, head) for row, head in zip(rows, heads, strict=True)]
    columns: dict[str, Any] = {
        "id": [row.id for row in rows],
        "at": [row.at for row in rows],
        "subject": [row.subject or None for row in rows],
        "point": _named([head.point for head in heads]),
        "snapshot": _named([head.snapshot for head in heads]),
        "inputs": [None if each is None else _json(each).decode() for each in inputs],
        "won": _listed(
            [
                [(w.rule, w.action, _json(w.params).decode(), w.priority, w.value, w.propensity) for w in row.won]
                for row in rows
            ],
            _WON,
        ),
        "defaulted": [row.defaulted for row in rows],
        "valid_until": [row.valid_until for row in rows],
        "lacking": _listed([row.lacking for row in rows], _LACKING),
        "page": [row.page or None for row in rows],
        "place": [row.place for row in rows],
        "canary": [row.canary for row in rows],
        "losers": _listed(
            [None if row.losers is None else [(r.rule, r.stage, r.lost_to) for r in row.losers] for row in rows], _LOST
        ),
        "experiments": _listed(
            [[(name, variant, name in row.exposed) for name, variant in row.variants.items()] for row in rows],
            _ASSIGNED,
        ),
        "reads": _named([reads[head.number] for head in heads]),
        "row": [bytes(each) for each in packed],
    }
    arrays = [
        column if isinstance(column := columns[field.name], pa.Array) else pa.array(column, field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def happened_table(rows: Sequence[Happened]) -> pa.Table:
    """A table of exposures and outcomes."""
    columns = [[getattr(row, field.name) for row in rows] for field in HAPPENED]
    arrays = [
        _named(column) if field.type == _NAME else pa.array(column, field.type)
        for field, column in zip(HAPPENED, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=HAPPENED)


def rows_of(batch: pa.RecordBatch) -> Iterator[tuple[Head, Row]]:
    """The rows of a part of a table, each with what it shares with others."""
    heads: dict[tuple[str, str, str], Head] = {}
    names = [batch.column(name).to_pylist() for name in ("point", "snapshot", "reads")]
    for point, snapshot, reads, packed in zip(*names, batch.column("row"), strict=True):
        key = (point, snapshot, reads)
        head = heads.get(key)
        if head is None:
            head = heads[key] = Head(len(heads), point, snapshot, _read_names(reads))
        yield head, decode_row(packed.as_py())


def _named(values: list[Any]) -> pa.Array:
    """Values of which there are few different ones, or None."""
    numbers: dict[str, int] = {}
    places = [None if value is None else numbers.setdefault(value, len(numbers)) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(list(numbers), pa.string()))


def _listed(lists: Sequence[Sequence[tuple[Any, ...]] | None], kind: pa.StructType) -> pa.Array:
    """Lists of structs, of which each is a tuple: far quicker than by pyarrow's own way from dicts."""
    offsets: list[int | None] = []
    flat: list[tuple[Any, ...]] = []
    for each in lists:
        offsets.append(None if each is None else len(flat))
        flat += each or ()
    fields = zip(*flat, strict=True) if flat else ((),) * kind.num_fields
    arrays = [pa.array(values, kind.field(n).type) for n, values in enumerate(fields)]
    structs = pa.StructArray.from_arrays(arrays, fields=list(kind))
    return pa.ListArray.from_arrays(pa.array([*offsets, len(flat)], pa.int32()), structs)
