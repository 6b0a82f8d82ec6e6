"""Files of events: every format gives the same events, mistakes have their lines, and ids are stable."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.cli.eventcolumns import BadColumns, Columns
from arbiter.cli.eventfile import BadFile, EventFile
from arbiter.types import Event, to_micros

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbiter.cli.eventfile import Row

AT = datetime(2026, 11, 20, 18, 30, tzinfo=UTC)


def written(folder: Path, name: str, content: str) -> EventFile:
    file = folder / name
    file.write_text(content, "utf-8")
    return EventFile(str(file), name.rpartition(".")[2])  # type: ignore[arg-type]


def events(file: EventFile) -> list[Event]:
    rows = list(file.rows())
    assert not [row.mistake for row in rows if row.mistake]
    return [row.event for row in rows if row.event is not None]


def mistakes(file: EventFile) -> list[tuple[int, str]]:
    return [(row.line, row.mistake) for row in file.rows() if row.mistake]


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
VALUES = st.one_of(st.integers(-(10**17), 10**17), st.booleans(), TEXTS.map("x{}".format))
ROWS = st.lists(
    st.tuples(
        TEXTS, TEXTS.map("s{}".format), st.sampled_from(["buy", "see"]), st.integers(0, 10**9), VALUES | st.none()
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row[0],
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_lines_of_json_a_table_and_parquet_hold_the_same_events(
    tmp_path: Path, rows: Sequence[tuple[Any, ...]]
) -> None:
    expected = [
        Event(id_, subject, kind, to_micros(AT) + second * 1_000_000, {} if value is None else {"value": value})
        for id_, subject, kind, second, value in rows
    ]
    moments = [datetime.fromtimestamp(AT.timestamp() + second, UTC) for _, _, _, second, _ in rows]
    with (tmp_path / "a.jsonl").open("w", encoding="utf-8") as lines:
        for (id_, subject, kind, _, value), at in zip(rows, moments, strict=True):
            event = {
                "id": id_,
                "subject_id": subject,
                "type": kind,
                "at": at.isoformat(),
                "properties": {"value": value},
            }
            lines.write(json.dumps(event) + "\n")
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "subject_id", "type", "at", "value"])
        for (id_, subject, kind, _, value), at in zip(rows, moments, strict=True):
            cell = "" if value is None else json.dumps(value) if isinstance(value, (bool, int)) else value
            table.writerow([id_, subject, kind, at.isoformat(), cell])
    assert events(EventFile(str(tmp_path / "a.jsonl"), "jsonl")) == expected
    assert events(EventFile(str(tmp_path / "a.csv"), "csv")) == expected
    texts = [row if isinstance(row[4], str | None) else (*row[:4], None) for row in rows]
    pq.write_table(
        pa.table({
            "id": [row[0] for row in rows], "subject_id": [row[1] for row in rows], "type": [row[2] for row in rows],
            "at": pa.array(moments, pa.timestamp("us", "UTC")),
            "value": pa.array([row[4] for row in texts], pa.string()),
        }),
        tmp_path / "a.parquet",
    )  # fmt: skip
    found = events(EventFile(str(tmp_path / "a.parquet"), "parquet"))
    assert [event.id for event in found] == [event.id for event in expected]
    assert [event.at for event in found] == [event.at for event in expected]
    assert [event.properties.get("value") for event in found] == [row[4] for row in texts]


def test_columns_are_mapped_and_cells_keep_what_they_say(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(
        'customer,"Order No",when,Amount,zip,note,secret\n'
        '42,7,2026-11-20 18:30:00,9.50,01234,"two\nlines",x\n'
        "43,8,2026-06-20 18:30:00,12,007,,x\n"
    )
    columns = Columns(
        {"subject_id": "customer", "id": "Order No", "at": "when", "properties.amount": "Amount"},
        type="purchase", drop=("secret",), zone="Europe/Berlin",
    )  # fmt: skip
    first, second = EventFile(str(file), "csv", columns).rows()
    winter = to_micros(datetime(2026, 11, 20, 17, 30, tzinfo=UTC))
    summer = to_micros(datetime(2026, 6, 20, 16, 30, tzinfo=UTC))
    assert first.event == Event("7", "42", "purchase", winter, {"zip": "01234", "note": "two\nlines", "amount": 9.5})
    assert second.event == Event("8", "43", "purchase", summer, {"zip": "007", "amount": 12})
    assert (first.line, second.line) == (2, 4)


def test_times_may_be_numbers_of_a_unit(tmp_path: Path) -> None:
    rows = "subject_id,type,at\nann,see,{}\n"
    for unit, number in (("s", "1790000000.5"), ("ms", "1790000000500"), ("us", "1790000000500000")):
        file = written(tmp_path, f"{unit}.csv", rows.format(number))
        (event,) = events(EventFile(file.name, "csv", Columns(unit=unit)))
        assert event.at == 1_790_000_000_500_000
    assert "of numbers say their unit with --epoch" in mistakes(written(tmp_path, "a.csv", rows.format(1)))[0][1]


def test_values_of_parquet_become_values_of_events(tmp_path: Path) -> None:
    row = {
        "subject_id": 42, "type": "see", "at": AT, "price": Decimal("9.50"), "nan": float("nan"), "tags": ["a", None],
        "day": date(2026, 1, 2), "box": {"w": 1, "h": None}, "raw": b"x", "seen": AT, "none": None,
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (event,) = events(EventFile(str(tmp_path / "a.parquet"), "parquet"))
    assert event.subject_id == "42"
    assert event.properties == {
        "price": 9.5, "tags": ["a"], "day": "2026-01-02", "box": {"w": 1}, "raw": b"x", "seen": AT,
    }  # fmt: skip


def test_a_row_that_is_no_event_has_its_line_and_ends_nothing(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "a.csv",
        'subject_id,type,at,n\nann,see,2026-01-01T00:00:00Z,1\n,see,2026-01-01T00:00:00Z,1\n"a\nb",see,soon,1\n'
        "ann,see,2026-01-01,1\n\nann,see\nann,,2026-01-01T00:00:00Z,\n",
    )
    found = dict(mistakes(file))
    assert list(found) == [3, 4, 6, 8, 9]
    assert found[3] == "`subject_id` is empty"
    assert found[4].startswith("`at` is 'soon', no time as ISO 8601 has it")
    assert found[6] == "2026-01-01T00:00:00 names no zone: say which is meant with --time-zone"
    assert found[8] == "has 2 cells, and the first line names 4 columns"
    assert found[9] == "`type` is empty"
    assert len([row for row in file.rows() if row.event is not None]) == 1


@pytest.mark.parametrize(
    ("content", "columns", "said"),
    [
        ("", Columns(), "a.csv is empty: its first line must name the columns"),
        ("a,a\n", Columns(), "has more than one column `a`"),
        ("subject_id,at\n", Columns(), "has no column `type`: say which it is with --map type=COLUMN, or give --type"),
        (
            "subject_id,at\n",
            Columns({"subject_id": "who"}, type="see"),
            "has no column `who`: it has `subject_id`, `at`",
        ),
        ("subject_id,at,A b\n", Columns(type="see"), "give it one with --map properties.NAME='A b', or leave it out"),
        ('subject_id,at\n"a"b,c\n', Columns(type="see"), "a.csv:2: "),
    ],
)
def test_a_table_of_which_no_events_can_be_made_says_why(
    tmp_path: Path, content: str, columns: Columns, said: str
) -> None:
    file = written(tmp_path, "a.csv", content)
    with pytest.raises((BadColumns, BadFile)) as caught:
        list(EventFile(file.name, "csv", columns).rows())
    assert said in str(caught.value)


def test_what_is_no_text_and_no_parquet_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"subject_id,type,at\n\xff\n")
    with pytest.raises(BadFile, match="is no UTF-8 text"):
        list(EventFile(str(tmp_path / "a.csv"), "csv").rows())
    with pytest.raises(BadFile, match="cannot be read as Parquet"):
        list(EventFile(str(tmp_path / "a.csv"), "parquet").rows())


def test_without_pyarrow_parquet_is_refused_with_a_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.lib", None)
    with pytest.raises(BadFile, match=r"pip install 'arbiter\[parquet\]', or convert the file"):
        list(EventFile(str(tmp_path / "a.parquet"), "parquet").rows())


def test_rows_without_ids_get_the_same_ones_again_and_in_a_file_that_grew(tmp_path: Path) -> None:
    head, rows = (
        "subject_id,type,at,n\n",
        ["ann,see,2026-01-01T00:00:00Z,1\n"] * 2 + ["ann,see,2026-01-01T00:00:00Z,2\n"],
    )

    def ids(lines: Sequence[str]) -> list[str]:
        found: list[Row] = list(written(tmp_path, "a.csv", head + "".join(lines)).rows())
        return [row.event.id for row in found if row.event is not None]

    assert len(set(ids(rows))) == 3
    assert ids(rows) == ids(rows)
    assert ids([*rows, rows[0]])[:3] == ids(rows)
    assert len(set(ids([*rows, rows[0]]))) == 4
