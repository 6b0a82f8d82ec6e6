"""An event made ready to be stored: checked, with its values as they are declared, and without the id of its subject,
which stands beside it, sealed, if it is kept.

Law: pure, and done before an event is queued, so that the thread that writes need not. Every refusal names its field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.profiles import records
from arbiter.profiles.declared import Declared
from arbiter.profiles.values import check_id, check_name, check_time, check_value
from arbiter.types import EMITTED, RESERVED

if TYPE_CHECKING:
    from arbiter.profiles.declared import Declarations
    from arbiter.profiles.ingesting import Entry
    from arbiter.profiles.keys import Keys
    from arbiter.profiles.values import Limits
    from arbiter.types import Event

_NOTHING = Declared()


def prepared(event: Event, field: str, keys: Keys, declared: Declarations, limits: Limits) -> Entry:
    """An event as it is stored. `field` is what errors call it. Raises InvalidField, LimitExceeded."""
    check_id(event.subject_id, f"{field}.subject_id")
    if event.id.startswith(EMITTED):
        raise InvalidField(
            f"{field}.id begins with `{EMITTED}`, as do those of events that triggers emit: give it another",
            field=f"{field}.id",
        )
    for name, text in (("id", event.id), ("type", event.type)):
        if text.startswith(RESERVED):
            raise InvalidField(
                f"{field}.{name} begins with `{RESERVED}`, as do those of exposures and outcomes: give it another, and "
                "report what became of decisions by RecordExposures and RecordOutcomes",
                field=f"{field}.{name}",
            )
    key = keys.subject(event.subject_id)
    sealed = keys.sealed(key, event.subject_id) if declared.named else b""
    event, written = encoded(event, field, declared, limits)
    return key, records.seen_key(key, event.id), event, written, sealed


def encoded(event: Event, field: str, declared: Declarations, limits: Limits) -> tuple[Event, bytes]:
    """An event with its values as they are declared, and as it is logged: whose it is, its place there says, and the
    id of the subject does not stand in it. Raises InvalidField, LimitExceeded.
    """
    check_id(event.id, f"{field}.id")
    check_name(event.type, f"{field}.type")
    check_time(event.at, f"{field}.at")
    types = declared.events.get(event.type, _NOTHING)
    properties = {}
    for name, value in event.properties.items():
        place = f"{field}.properties.{name}"
        check_name(name, place)
        check_value(value, place, limits)
        types.check(name, value, place)
        properties[name] = types.stored(name, value)
    event = msgspec.structs.replace(event, subject_id="", properties=properties)
    written = records.encode(event)
    if len(written) > limits.event_bytes:
        raise LimitExceeded(
            f"{field} has {len(written):,} bytes, and `event_bytes` allows {limits.event_bytes:,}: shorten it",
            field=field,
            reason="event_bytes",
        )
    return event, written
