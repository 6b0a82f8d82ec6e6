"""The methods that send and list events.

Law: as `methods`, of which they are a part: each builds a `Call` and runs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.client import answers, arguments
from arbiter.client.calls import Again, Call, Method, rpc
from arbiter.types import Event
from arbiter.v1 import profile_pb2
from arbiter.wire.values import plain_values, read_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from arbiter.client.answers import Ingested

_profiles = profile_pb2.DESCRIPTOR.services_by_name["ProfileService"].methods_by_name

# Events that a server has are dropped by their ids.
INGEST_EVENTS = rpc(
    _profiles["IngestEvents"], profile_pb2.IngestEventsRequest, profile_pb2.IngestEventsResponse, Again.ALWAYS
)
LIST_EVENTS = rpc(_profiles["ListEvents"], profile_pb2.ListEventsRequest, profile_pb2.ListEventsResponse, Again.ALWAYS)


class EventPage(msgspec.Struct, frozen=True):
    """Events by time. `next` asks `list_events` for the page after it as `page_token`; it is empty at the end."""

    events: tuple[Event, ...]
    next: str


class EventMethods:
    """The part of `Methods` that is about events."""

    @Method
    def ingest_events(self, events: Iterable[Event], *, timeout: float | None = None) -> Call[Ingested]:
        """Store events; return once they are on disk. An event's `at` is µs since the epoch."""
        message = profile_pb2.IngestEventsRequest(
            events=[arguments.event(each, f"events[{place}]") for place, each in enumerate(events)]
        )
        return INGEST_EVENTS.call(message, answers.read_ingested, timeout)

    @Method
    def list_events(
        self,
        subject_id: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        types: Sequence[str] = (),
        newest_first: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> Call[EventPage]:
        """Return a page of the events that a server's log holds of a subject, with start <= at < end, by time.

        A page may be short, even empty, and not the last: the one with an empty `next` is.
        """
        message = profile_pb2.ListEventsRequest(
            subject_id=arguments.text(subject_id, "subject_id"),
            start=None if start is None else arguments.moment(start, "start"),
            end=None if end is None else arguments.moment(end, "end"),
            types=arguments.texts(types, "types"),
            newest_first=newest_first,
            page_size=arguments.number(page_size, "page_size", range(1 << 32)),
            page_token=arguments.text(page_token, "page_token"),
        )
        return LIST_EVENTS.call(message, _page, timeout)


def _page(response: profile_pb2.ListEventsResponse) -> EventPage:
    events = tuple(
        Event(each.id, each.subject_id, each.type, read_timestamp(each.at), plain_values(each.properties))
        for each in response.events
    )
    return EventPage(events, response.next_page_token)
