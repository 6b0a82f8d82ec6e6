"""Events out of files.

Law: text in, events out; every mistake of a file is named with its line before anything is sent. Ids are stable: a file
read again, or one that only grew, gives its events the ids that they had.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from datetime import datetime  # noqa: TC003 - a field's type at run time
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import ArbiterError
from arbiter.types import Event, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = 20
_FIELD = re.compile(r"events\[(\d+)\]\.?")


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


class EventLines(msgspec.Struct, frozen=True):
    """The events of what people know as `name`, each with the number of its line."""

    name: str
    events: list[Event]
    lines: list[int]


def read_json_lines(written: Iterable[bytes], name: str) -> EventLines:
    """Read one JSON object per line: `type`, `subject_id`, `at` (ISO 8601 with its zone), maybe `id` and `properties`.

    An event without an id gets one from what its line says and how often the same was said before. Raises BadLines.
    """
    events: list[Event] = []
    lines: list[int] = []
    mistakes: list[str] = []
    said: Counter[str] = Counter()
    for number, line in enumerate(written, start=1):
        if not line.strip():
            continue
        try:
            events.append(_event(line, said))
            lines.append(number)
        except (msgspec.DecodeError, ValueError) as error:
            mistakes.append(f"{name}:{number}: {error}")
    if mistakes:
        raise BadLines(_listed(mistakes))
    return EventLines(name, events, lines)


def refused(read: EventLines, first: int, field: str, message: str) -> BadLines | None:
    """What a server said of an event, told of its line; None when `field` names no event.

    The events before `first` are stored; `field` and `message` count from there, as in ``events[4].type``.
    """
    found = _FIELD.match(field)
    if found is None or first + int(found[1]) >= len(read.lines):
        return None
    line, begun = read.lines[first + int(found[1])], read.lines[first]
    stored = f"the events of the lines before {begun} are stored, no other" if first else "nothing was stored"
    return BadLines(f"{read.name}:{line}: {message.replace(found[0], '', 1)}; {stored}: mend it and import again")


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
