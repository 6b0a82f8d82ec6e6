"""ListEvents: a subject's log, page by page.

Law: turns messages into a `Listing` and back. A page token says where the page before ended and which question it was
an answer to, and nothing that is secret.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import TYPE_CHECKING

from arbiter.errors import InvalidField
from arbiter.profiles.listing import Listing
from arbiter.server.calls import Slow, parse
from arbiter.server.requests import RequestReader
from arbiter.v1 import profile_pb2
from arbiter.wire.values import read_timestamp, write_timestamp, write_values

if TYPE_CHECKING:
    from arbiter.config.limits import Limits
    from arbiter.profiles.listing import EventPage
    from arbiter.runtime.engine import Engine
    from arbiter.server.calls import Call

_PAGE = 100
_TOKEN = struct.Struct(">qQ8s")


class EventLister:
    """Lists events of the store of an engine. Raises InvalidField, StoreError."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._requests = RequestReader(limits)

    def list(self, content: bytes, _call: Call) -> Slow:
        """Answer a ListEventsRequest."""
        request = parse(profile_pb2.ListEventsRequest, content)
        self._requests.check_id(request.subject_id, "subject_id")
        listing = self._listing(request)
        return Slow(lambda: self._answer(request, listing))

    def _answer(self, request: profile_pb2.ListEventsRequest, listing: Listing) -> bytes:
        page = self._engine.store.list_events(request.subject_id, listing)
        return _written(request, page).SerializeToString()

    def _listing(self, request: profile_pb2.ListEventsRequest) -> Listing:
        size, allowed = request.page_size, self._limits.page_events
        if size > allowed:
            raise InvalidField(
                f"page_size is {size:,}, and `page_events` allows {allowed:,}: ask for fewer, and for more pages",
                field="page_size",
                reason="page_events",
            )
        for number, name in enumerate(request.types):
            self._requests.check_id(name, f"types[{number}]")
        return Listing(
            start=_moment(request, "start"),
            end=_moment(request, "end"),
            types=frozenset(request.types),
            newest_first=request.newest_first,
            limit=size or min(_PAGE, allowed),
            after=_after(request),
        )


def _moment(request: profile_pb2.ListEventsRequest, field: str) -> int | None:
    if not request.HasField(field):  # type: ignore[arg-type] # one of its own
        return None
    try:
        return read_timestamp(getattr(request, field))
    except ValueError as error:
        raise InvalidField(f"{field} {error}", field=field) from None


def _question(request: profile_pb2.ListEventsRequest) -> bytes:
    """What must be the same for every page."""
    asked = profile_pb2.ListEventsRequest()
    asked.CopyFrom(request)
    asked.ClearField("page_token")
    asked.ClearField("page_size")
    return blake2b(asked.SerializeToString(deterministic=True), digest_size=8).digest()


def _after(request: profile_pb2.ListEventsRequest) -> tuple[int, int] | None:
    if not request.page_token:
        return None
    try:
        at, position, question = _TOKEN.unpack(urlsafe_b64decode(request.page_token))
    except (ValueError, struct.error):
        raise InvalidField(
            "page_token is none of ours: send `next_page_token` of the page before as it was, or none for the first",
            field="page_token",
        ) from None
    if question != _question(request):
        raise InvalidField(
            "page_token belongs to another question: only `page_size` may differ between the pages of one list",
            field="page_token",
        )
    return at, position


def _written(request: profile_pb2.ListEventsRequest, page: EventPage) -> profile_pb2.ListEventsResponse:
    answer = profile_pb2.ListEventsResponse(
        events=[
            profile_pb2.Event(
                id=event.id,
                subject_id=event.subject_id,
                type=event.type,
                at=write_timestamp(event.at),
                properties=write_values(event.properties),
            )
            for event in page.events
        ]
    )
    if page.after is not None:
        answer.next_page_token = urlsafe_b64encode(_TOKEN.pack(*page.after, _question(request))).decode()
    return answer
