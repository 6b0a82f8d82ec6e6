"""ProfileService: attributes and events into the store, a profile out of it.

Law: turns messages into the store's values and back; what may be stored is the store's to judge. A write is answered
when the store says that it is on disk; the transport knows how to wait for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.profiles.attributes import check_owner
from arbiter.profiles.store import Update
from arbiter.runtime.views import filled
from arbiter.server.calls import Later, parse, parsed
from arbiter.server.consents import ConsentKeeper, write_consents
from arbiter.server.explanations import write_denials
from arbiter.server.listing import EventLister
from arbiter.server.reading import ValueReader
from arbiter.server.streams import StreamWork
from arbiter.v1 import profile_pb2
from arbiter.wire.values import write_timestamp, write_value, write_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from arbiter.config.limits import Limits
    from arbiter.profiles.store import Ingested, Linked, Version
    from arbiter.runtime.engine import Engine
    from arbiter.server.calls import Call, Work
    from arbiter.telemetry.counters import Counters

_NANOS = 1_000_000_000
SERVICE = profile_pb2.DESCRIPTOR.services_by_name["ProfileService"].full_name


class ProfileService:
    """Attributes and events, in and out, and the links of ids, over an engine and its store."""

    def __init__(self, engine: Engine, limits: Limits, counters: Counters) -> None:
        self._engine = engine
        self._limits = limits
        self._counters = counters
        self._values = ValueReader(limits)

    def works(self) -> dict[str, Work]:
        """Return the work of each RPC by name."""
        return {
            "UpdateProfile": self._update,
            "IngestEvents": self._ingest,
            "ListEvents": EventLister(self._engine, self._limits).list,
            "SetConsent": ConsentKeeper(self._engine, self._counters).set,
            "LinkIdentity": self._link,
            "GetProfile": parsed(profile_pb2.GetProfileRequest, self._get),
        }

    def _update(self, content: bytes, call: Call) -> Later:
        request = parse(profile_pb2.UpdateProfileRequest, content)
        update = Update(
            subject_id=request.subject_id,
            set=self._values.entries(request.set, "set"),
            unset=tuple(request.unset),
            increment=self._values.entries(request.increment, "increment"),
            append=self._values.entries(request.append, "append"),
            add_to_set=self._values.entries(request.add_to_set, "add_to_set"),
            remove=self._values.entries(request.remove, "remove"),
            min=self._values.entries(request.min, "min"),
            max=self._values.entries(request.max, "max"),
            keep=dict(request.keep),
            ttl={name: _micros(each, f"ttl.{name}") for name, each in request.ttl.items()},
            expected_version=request.expected_version if request.HasField("expected_version") else None,
            idempotency_key=request.idempotency_key,
            account_id=request.account_id,
            enter_segments=tuple(request.enter_segments),
            leave_segments=tuple(request.leave_segments),
            by="" if call.caller is None else call.caller.name,
        )
        return Later(self._engine.store.update(update), self._updated)

    def _updated(self, version: int) -> bytes:
        self._counters.store_writes += 1
        return profile_pb2.UpdateProfileResponse(version=version).SerializeToString()

    def stream(self) -> StreamWork:
        """Return the work of IngestStream."""
        return StreamWork(self._taken, self._stored)

    def _taken(self, content: bytes, _call: Call) -> Future[Ingested]:
        return self._ingestion(parse(profile_pb2.IngestStreamRequest, content).events)

    def _stored(self, requests: int, done: list[Ingested]) -> bytes:
        self._counters.store_writes += len(done)
        return profile_pb2.IngestStreamResponse(
            requests=requests,
            accepted=sum(each.accepted for each in done),
            duplicates=sum(each.duplicates for each in done),
            position=done[-1].position,
            erased=sum(each.erased for each in done),
        ).SerializeToString()

    def _ingest(self, content: bytes, _call: Call) -> Later:
        request = parse(profile_pb2.IngestEventsRequest, content)
        return Later(self._ingestion(request.events), self._ingested)

    def _ingestion(self, sent: Sequence[profile_pb2.Event]) -> Future[Ingested]:
        count, allowed = len(sent), self._limits.batch_events
        if count > allowed:
            raise LimitExceeded(
                f"events holds {count:,}, and `batch_events` allows {allowed:,}: split the batch",
                field="events",
                reason="batch_events",
            )
        now = self._engine.clock()
        return self._engine.store.ingest(
            [self._values.event(event, f"events[{place}]", now) for place, event in enumerate(sent)]
        )

    def _ingested(self, done: Ingested) -> bytes:
        self._counters.store_writes += 1
        return profile_pb2.IngestEventsResponse(
            accepted=done.accepted, duplicates=done.duplicates, position=done.position, erased=done.erased
        ).SerializeToString()

    def _link(self, content: bytes, call: Call) -> Later:
        request = parse(profile_pb2.LinkIdentityRequest, content)
        by = "" if call.caller is None else call.caller.name
        return Later(self._engine.store.link(request.anonymous_id, request.known_id, by), self._linked)

    def _linked(self, done: Linked) -> bytes:
        self._counters.store_writes += 1
        return profile_pb2.LinkIdentityResponse(
            version=done.version, linked=done.linked, events=done.events, duplicates=done.duplicates
        ).SerializeToString()

    def _get(self, request: profile_pb2.GetProfileRequest, _call: Call) -> profile_pb2.GetProfileResponse:
        subject_id, account_id = request.subject_id, request.account_id
        check_owner(subject_id, account_id)
        now = self._engine.clock()
        active = self._engine.current().of(subject_id)
        if account_id:
            stored = self._engine.store.read_account(account_id, now)
            return profile_pb2.GetProfileResponse(
                account_id=account_id,
                exists=stored.exists,
                attributes=write_values(filled(stored.attributes, active.account_defaults)),
                version=stored.version,
                snapshot=active.snapshot.digest,
                at=write_timestamp(now),
                expires=_moments(stored.expires),
                history=self._history(request, now, stored.version),
            )
        found = self._engine.describe(subject_id, now, active)
        said = self._engine.store.consents(subject_id)
        return profile_pb2.GetProfileResponse(
            subject_id=subject_id,
            exists=found.exists,
            attributes=write_values(found.attributes),
            features=write_values({name: value for name, value in found.features.items() if value is not None}),
            segments={name: value for name, value in found.segments.items() if value is not None},
            unknown_segments=sorted(name for name, value in found.segments.items() if value is None),
            version=found.version,
            snapshot=active.snapshot.digest,
            at=write_timestamp(now),
            expires=_moments(found.expires),
            history=self._history(request, now, found.version),
            rebuilding=found.rebuilding,
            consents=write_consents(said, history=request.consent_history),
            denied=write_denials(found.denied),
            managed_segments=found.managed,
        )

    def _history(
        self, request: profile_pb2.GetProfileRequest, now: int, version: int
    ) -> list[profile_pb2.ProfileVersion]:
        """The versions that are asked for, up to the one that was read a moment before."""
        if not request.history:
            return []
        found = self._engine.store.history(
            request.subject_id, account_id=request.account_id, now=now, limit=request.history
        )
        return [_version(each) for each in found if each.version <= version]


def _moments(times: Mapping[str, int]) -> dict[str, Timestamp]:
    return {name: write_timestamp(at) for name, at in times.items()}


def _micros(duration: Duration, field: str) -> int:
    """The µs of a duration."""
    if not (duration.seconds >= 0 and 0 <= duration.nanos < _NANOS):
        raise InvalidField(
            f"{field} is no time to live: neither `seconds` nor `nanos` may be below 0, and a second has a billion "
            "nanos",
            field=field,
        )
    return duration.seconds * 1_000_000 + duration.nanos // 1000


def _version(version: Version) -> profile_pb2.ProfileVersion:
    return profile_pb2.ProfileVersion(
        version=version.version,
        at=write_timestamp(version.at),
        by=version.by,
        changes={
            name: profile_pb2.AttributeChange(
                before=None if change.before is None else write_value(change.before),
                after=None if change.after is None else write_value(change.after),
                expires_at=None if change.expires is None else write_timestamp(change.expires),
            )
            for name, change in version.changes.items()
        },
    )
