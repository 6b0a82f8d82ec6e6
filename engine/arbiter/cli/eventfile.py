"""Events out of files.

Law: text in, events out; every mistake of a file is named with its line before anything is sent. Ids are stable: a file
read again, or one that only grew, gives its events the ids that they had.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import datetime  # noqa: TC003 - a field's type at run time
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import ArbiterError
from arbiter.types import Event, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SHOWN = 20


class BadLines(ArbiterError):
    """Lines of an event file that are no events."""


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """One event as a file has it."""

    type: str
    subject_id: str
    at: datetime
    id: str = ""
    properties: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(_Line)


def read_json_lines(path: Path) -> list[Event]:
    """Read one JSON object per line: `type`, `subject_id`, `at` (ISO 8601 with its zone), maybe `id` and `properties`.

    An event without an id gets one from what its line says and how often the same was said before. Raises BadLines.
    """
    events: list[Event] = []
    mistakes: list[str] = []
    said: Counter[str] = Counter()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                events.append(_event(line, said))
            except (msgspec.DecodeError, ValueError) as error:
                mistakes.append(f"{path}:{number}: {error}")
    if mistakes:
        raise BadLines(_listed(mistakes))
    return events


def _event(line: bytes, said: Counter[str]) -> Event:
    read = _decoder.decode(line)
    if read.at.tzinfo is None:
        raise ValueError(f"`at` names no zone: write {read.at.isoformat()}Z for UTC")
    # An absent property is said by leaving it out, here as everywhere.
    properties = {name: value for name, value in read.properties.items() if value is not None}
    event = Event(read.id, read.subject_id, read.type, to_micros(read.at), properties)
    return event if read.id else msgspec.structs.replace(event, id=_stable_id(event, said))


def _stable_id(event: Event, said: Counter[str]) -> str:
    content = hashlib.blake2b(msgspec.json.encode(event, order="sorted"), digest_size=12).hexdigest()
    said[content] += 1
    return f"{content}-{said[content]}"


def _listed(mistakes: list[str]) -> str:
    more = len(mistakes) - _SHOWN
    tail = [f"… and {more} more"] if more > 0 else []
    return "\n".join(["these lines are no events, and nothing was sent:", *mistakes[:_SHOWN], *tail])


def batches(events: Iterable[Event], size: int) -> Iterable[list[Event]]:
    """The events in lists of at most `size`, in order."""
    batch: list[Event] = []
    for event in events:
        batch.append(event)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
