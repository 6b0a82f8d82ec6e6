"""Which column of a table is what of an event.

Law: names, cells and values; no files. A cell of a text file is taken for a number or for true and false only where
nothing of it is lost: `007` stays a text.
"""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import msgspec

from arbiter.errors import ArbiterError
from arbiter.types import Event, to_micros

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELDS: Final = ("id", "subject_id", "type", "at")
_PROPERTY = "properties."
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][+-]?[0-9]{1,3})?")
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000}


class BadColumns(ArbiterError):
    """Columns from which no events can be made."""


class Columns(msgspec.Struct, frozen=True):
    """What is where: `of` has the columns of fields and of ``properties.NAME`` that do not bear that name.

    All events are of `type`, if it is given. Columns in `text` are texts whatever stands in them, those in `drop` are
    left out. `zone` is meant where a time names none; numbers are times in `unit` since the epoch.
    """

    of: dict[str, str] = {}
    type: str = ""
    text: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    zone: str = ""
    unit: str = ""

    def check(self, heads: Sequence[str], name: str) -> None:
        """Raise BadColumns unless events can be made of columns with these heads."""
        twice = sorted({head for head in heads if heads.count(head) > 1})
        if twice:
            raise BadColumns(f"{name} has more than one column `{twice[0]}`: name each differently")
        for wanted in (*self.of.values(), *self.text, *self.drop):
            if wanted not in heads:
                raise BadColumns(f"{name} has no column `{wanted}`: it has {_listed(heads)}")
        for field in FIELDS[1:]:
            if self.of.get(field, field) not in heads and not (field == "type" and self.type):
                more = ", or give --type" if field == "type" else ""
                raise BadColumns(
                    f"{name} has no column `{field}`: say which it is with --map {field}=COLUMN{more}; "
                    f"it has {_listed(heads)}"
                )
        for head in heads:
            if head in self._plain(heads) and not _NAME.fullmatch(head):
                raise BadColumns(
                    f"the column `{head}` of {name} cannot be a property by that name: give it one with "
                    f"--map {_PROPERTY}NAME='{head}', or leave it out with --drop '{head}'"
                )

    def event(self, row: dict[str, Any]) -> Event:
        """The event that a row is; without an id where it has none. Raises ValueError for one that is none."""
        of = self.of
        properties = {head: self._value(head, row[head]) for head in self._plain(row)}
        for field, head in of.items():
            if field.startswith(_PROPERTY):
                properties[field.removeprefix(_PROPERTY)] = self._value(head, row[head])
        return Event(
            _text(row.get(of.get("id", "id"))),
            _needed(row.get(of.get("subject_id", "subject_id")), "subject_id"),
            self.type or _needed(row.get(of.get("type", "type")), "type"),
            self._moment(row.get(of.get("at", "at"))),
            {name: value for name, value in properties.items() if value is not None},
        )

    def _plain(self, heads: Any) -> list[str]:
        """The columns that are properties by their own names."""
        taken = {*self.of.values(), *self.drop, *(field for field in FIELDS if field not in self.of)}
        return [head for head in heads if head not in taken]

    def _value(self, head: str, cell: Any) -> Any:
        if isinstance(cell, str):
            return (cell or None) if head in self.text else _read(cell)
        if head in self.text and cell is not None:
            return str(cell)
        return self._plain_value(cell)

    def _plain_value(self, cell: Any) -> Any:
        """A value of a typed table as events have it."""
        match cell:
            case float() if not math.isfinite(cell):
                return None
            case Decimal():
                return float(cell)
            case datetime() if cell.tzinfo is None:
                return self._zoned(cell)
            case datetime():
                return cell
            case date():
                return cell.isoformat()
            case list():
                return [self._plain_value(each) for each in cell if each is not None]
            case dict():
                return {key: self._plain_value(each) for key, each in cell.items() if each is not None}
            case _:
                return cell

    def _moment(self, cell: Any) -> int:
        if cell is None or cell == "":
            raise ValueError("`at` is empty: every event has its time")
        if self.unit:
            try:
                return round(Decimal(str(cell)) * (1_000_000 // _PER_SECOND[self.unit]))
            except ArithmeticError:
                raise ValueError(f"`at` is {cell!r}, no number of {self.unit}") from None
        if isinstance(cell, str):
            try:
                cell = datetime.fromisoformat(cell.strip())
            except ValueError:
                raise ValueError(
                    f"`at` is {cell!r}, no time as ISO 8601 has it, as in 2026-11-20T18:30:00Z; of numbers say their "
                    "unit with --epoch"
                ) from None
        if isinstance(cell, date) and not isinstance(cell, datetime):
            cell = datetime.combine(cell, time())
        if not isinstance(cell, datetime):
            raise ValueError(f"`at` is {cell!r}, no time: of numbers say their unit with --epoch")  # noqa: TRY004 - a row's mistake
        return to_micros(cell if cell.tzinfo is not None else self._zoned(cell))

    def _zoned(self, moment: datetime) -> datetime:
        if not self.zone:
            raise ValueError(f"{moment.isoformat()} names no zone: say which is meant with --time-zone")
        return moment.replace(tzinfo=ZoneInfo(self.zone))


def is_field(text: str) -> bool:
    """Whether it is what a column can be of an event."""
    return text in FIELDS or (text.startswith(_PROPERTY) and bool(_NAME.fullmatch(text.removeprefix(_PROPERTY))))


def _read(cell: str) -> Any:
    """A text cell as a value; an empty one is absent."""
    if not cell:
        return None
    if _WHOLE.fullmatch(cell):
        return int(cell)
    if _FRACTION.fullmatch(cell):
        return float(cell)
    return {"true": True, "false": False}.get(cell, cell)


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _needed(cell: Any, field: str) -> str:
    text = _text(cell)
    if not text:
        raise ValueError(f"`{field}` is empty")
    return text


def _listed(heads: Sequence[str]) -> str:
    return ", ".join(f"`{head}`" for head in heads)
