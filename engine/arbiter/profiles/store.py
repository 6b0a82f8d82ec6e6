"""The store: what the rest of Arbiter sees of profiles and events.

Law: checks what callers hand in, reads in short transactions, queues writes. Processes may share a store, each opens it
once. A read that begins after an acknowledged write sees it, in any process; no read transaction outlives its call.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Self

import msgspec

from arbiter.errors import ArbiterError, LimitExceeded
from arbiter.profiles import exporting
from arbiter.profiles.aliases import ALIAS_BYTES, standing_for
from arbiter.profiles.arms import Learned
from arbiter.profiles.attributes import check_update
from arbiter.profiles.consenting import RecordConsent, check_change, consents_in
from arbiter.profiles.consuming import ConsumeEvents, read_offsets
from arbiter.profiles.current import Current
from arbiter.profiles.declared import Declarations, Declared
from arbiter.profiles.environment import UNREADABLE, unreadable
from arbiter.profiles.erasing import EraseSubject
from arbiter.profiles.fired import Fired
from arbiter.profiles.history import Version, versions
from arbiter.profiles.ingesting import IngestEvents
from arbiter.profiles.keys import Secrets, keys_of
from arbiter.profiles.linking import LinkIdentity, check_link
from arbiter.profiles.listing import page
from arbiter.profiles.preparing import prepared
from arbiter.profiles.quota import DEFAULT
from arbiter.profiles.reading import Reading
from arbiter.profiles.records import Ingested, Linked, Member, Profile, Update, decode_hot
from arbiter.profiles.referring import Forget, ReferTo, unlinked_in
from arbiter.profiles.rekeying import Rekey
from arbiter.profiles.subjects import Subject, unknown
from arbiter.profiles.updating import UpdateAttributes
from arbiter.profiles.upkeep import Upkeep, figures_of
from arbiter.profiles.values import Limits
from arbiter.profiles.writer import Writer, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    import lmdb

    from arbiter.profiles.consenting import ConsentChange, ConsentRecorded
    from arbiter.profiles.consuming import Partition, Span
    from arbiter.profiles.environment import Environment
    from arbiter.profiles.exporting import Exported
    from arbiter.profiles.features import FeatureSet
    from arbiter.profiles.figures import Figures, Rebuilding
    from arbiter.profiles.ingesting import Entry
    from arbiter.profiles.keys import Keys
    from arbiter.profiles.listing import EventPage, Listing
    from arbiter.profiles.records import Erased
    from arbiter.types import ConsentEntry, Event

__all__ = [
    "Declarations", "Declared", "Ingested", "Limits", "Linked", "Member", "Profile", "Store", "Update", "Version",
]  # fmt: skip


def _wall_clock() -> int:
    return time.time_ns() // 1000


class Store:
    """Profiles, events and features in one LMDB environment, by `keys`. For any thread; not across a fork."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        map_size: int = 1 << 40,
        quota: int = DEFAULT,
        limits: Limits | None = None,
        clock: Callable[[], int] = _wall_clock,
        background: bool = True,
        secrets: Secrets | None = None,
    ) -> Self:
        """Open the store in the folder `path`, or make it. Raises StoreError.

        `map_size` is the address range to reserve, in bytes: it costs nothing. `quota` bounds the bytes of data, beyond
        which writes are refused (one group of writes may pass it). `clock` gives µs since the epoch to writes. Without
        `background` records are rewritten by `rebuild_step` only. `secrets` are what subjects are hashed with; the
        first write turns a store to a new one.
        """
        current = Current(path, map_size)
        keys = keys_of(current.environment, secrets or Secrets())
        return cls(current, keys, quota, limits or Limits(), clock, background=background)

    def __init__(
        self, current: Current, keys: Keys, quota: int, limits: Limits, clock: Callable[[], int], *, background: bool
    ) -> None:
        self._current = current
        self.keys = keys
        self._key = keys.subject
        self._limits = limits
        self._hash = keys.subject_hash
        self._quota = quota
        self._writer = Writer(current, keys, clock, limits, quota)
        self.write = self._writer.submit  # for operations of other packages
        self._upkeep = Upkeep(current, self._writer, limits, background=background)
        self._features: FeatureSet = self._writer.settings.features
        self._reads, self._used = 0, False
        self.fired, self.learned = Fired(current, keys), Learned(current)

    def close(self) -> None:
        """Write what is queued, then close. Reads and writes afterwards raise StoreError."""
        self._upkeep.close()
        self._writer.close()
        self._current.environment.handle.close()

    def __enter__(self) -> Self:
        """Nothing more: it is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @property
    def _environment(self) -> Environment:
        """What to work in from now on: ask once for each thing that is done. Raises StoreError."""
        return self._current.latest()

    def pseudonym(self, subject_id: str = "", *, account_id: str = "") -> str:
        """A name in logs: 32 hexadecimal characters, which only this store's secret connects to the id."""
        return self._owner(subject_id, account_id).hex()

    @property
    def commits(self) -> int:
        """How many transactions this process has committed."""
        return self._writer.written.commits

    def figures(self) -> Figures:
        """What this process did with the store, and how full that is. Raises StoreError."""
        with self._looking() as (environment, txn):
            return figures_of(environment, txn, self._quota, self._reads, self._writer, self._upkeep)

    @property
    def rebuilding(self) -> Rebuilding | None:
        """What remains of rewriting records for changed features; reads are right meanwhile, only slower."""
        return self._upkeep.rebuilding

    def use_features(self, features: FeatureSet) -> None:
        """What writes maintain and reads give from now on. Records that lack it are rewritten in the background."""
        known, before = (self._features.id, self._features.by_key) if self._used else ("", {})
        self._used = True
        self._writer.settings = msgspec.structs.replace(self._writer.settings, features=features)
        self._features = features
        if features.id != known:
            self._upkeep.rebuild(features, before)

    def use_declared(self, declared: Declarations) -> None:
        """What attributes and properties must be from now on."""
        self._writer.settings = msgspec.structs.replace(self._writer.settings, declared=declared)

    def use_clock(self, clock: Callable[[], int]) -> None:
        """What gives µs since the epoch to writes from now on."""
        self._writer.clock = clock

    def when_broken(self, call: Callable[[], None]) -> None:
        """Have this called, from another thread, when nothing can be read or written until the store is opened anew."""
        self._writer.broken = call

    def rebuild_step(self, limit: int) -> int:
        """Rewrite at most `limit` records for the current features; about how many remain. Raises StoreError."""
        return self._upkeep.step(limit)

    def collect_step(self) -> bool:
        """Take what the limits no longer keep of the next few subjects; whether this round goes on.

        A round begins an hour after the last one, in one process at a time. Raises StoreError, LimitExceeded.
        """
        return self._upkeep.sweep.step()

    def read(self, subject_id: str, now: int, features: FeatureSet | None = None) -> Profile:
        """The profile as of `now` (µs). A subject of whom nothing is stored has an empty one. Raises StoreError.

        The profile is the caller's own. `features` are those wanted; without it, those that writes maintain.
        """
        self._reads += 1
        features = features or self._features
        hashed = self._hash.copy()
        hashed.update(subject_id.encode())
        self.keys.last = subject_id, (key := hashed.digest())
        environment = self._current.environment
        if environment.superseded[0]:
            environment = self._current.latest()
        try:
            txn = environment.begin(environment.profile)
            try:
                raw = txn.get(key)
                if raw is None:
                    if not self.keys.turning:
                        return unknown(features)
                    return Reading(environment, txn, features, self.keys, self._upkeep.notice)(subject_id, now)
                if len(raw) == ALIAS_BYTES:
                    key, raw = raw, txn.get(raw)
                    if raw is None:
                        return unknown(features)
                profile = decode_hot(raw)
                # This is `is_right`, written out: a call costs a tenth of the read.
                if profile.feature_set == features.id and profile.valid_from <= now:
                    until = profile.next_change_at
                    if until is None or now < until:
                        return profile
                self._upkeep.notice(key)
                return Subject(environment, txn, key).as_of(profile, features, now)
            finally:
                txn.abort()
        except UNREADABLE as error:
            raise unreadable(error, self._current.path) from error

    def read_member(self, subject_id: str, now: int, features: FeatureSet | None = None) -> Member:
        """As `read`, and beside the profile the account that its attribute `account_id` names, from the same state of
        the store. A subject that names none, or one of which nothing is stored, has an empty one.
        """
        with self.reading(features) as read:
            return read.member(subject_id, now)

    def read_account(self, account_id: str, now: int) -> Profile:
        """The account as of `now` (µs). One of which nothing is stored is empty. Raises StoreError."""
        with self.reading() as read:
            return read.account(account_id, now)

    @contextmanager
    def reading(self, features: FeatureSet | None = None) -> Iterator[Reading]:
        """While the block runs, what it gets reads profiles from one state of the store. `features` as for `read`.

        Raises StoreError, for what is read in the block too.
        """
        with self._looking() as (environment, txn):
            reading = Reading(environment, txn, features or self._features, self.keys, self._upkeep.notice)
            try:
                yield reading
            finally:
                self._reads += reading.reads

    @contextmanager
    def _looking(self) -> Iterator[tuple[Environment, lmdb.Transaction[bytes]]]:
        try:
            environment = self._environment
            with environment.handle.begin() as txn:
                yield environment, txn
        except UNREADABLE as error:
            raise unreadable(error, self._current.path) from error

    def events(
        self,
        subject_id: str,
        *,
        start: int | None = None,
        end: int | None = None,
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Event]:
        """At most `limit` of the events with start <= at < end (µs), by time, then position. Raises StoreError."""
        with self._looking() as (environment, txn):
            subject = Subject(environment, txn, standing_for(environment, txn, self._key(subject_id)))
            last = None if end is None else end - 1
            events = subject.newest_events(last) if newest_first else subject.events(start, last)
            return _of(subject_id, [event for event in islice(events, limit) if start is None or event.at >= start])

    def list_events(self, subject_id: str, listing: Listing) -> EventPage:
        """A page of a subject's log. Raises StoreError."""
        with self._looking() as (environment, txn):
            found = page(environment, txn, standing_for(environment, txn, self._key(subject_id)), listing)
            return msgspec.structs.replace(found, events=_of(subject_id, found.events))

    def history(self, subject_id: str = "", *, account_id: str = "", now: int, limit: int) -> list[Version]:
        """At most `limit` of the versions of the attributes of a subject, or of an account, that are kept, newest
        first, without values whose time is over at `now` (µs). Raises StoreError.
        """
        with self._looking() as (environment, txn):
            key = standing_for(environment, txn, self._owner(subject_id, account_id))
            return versions(txn, environment.history, key, limit, now)

    def update(self, update: Update) -> Future[int]:
        """Change attributes. The new version, once it is on disk.

        The future raises InvalidField (reason ``stored_value`` when it is due to what is stored), VersionConflict,
        KeyReused, LimitExceeded, StoreError.
        """
        try:
            check_update(update, self._writer.settings.declared.of(update), self._limits)
        except ArbiterError as error:
            return refused(error)
        return self._writer.submit(UpdateAttributes(self._owner(update.subject_id, update.account_id), update))

    def ingest(self, events: Sequence[Event]) -> Future[Ingested]:
        """Log a batch of events and count them in the features, all or nothing; known ids are dropped and counted.

        The future raises InvalidField, LimitExceeded, StoreError.
        """
        try:
            count, allowed = len(events), self._limits.batch_events
            if count > allowed:
                raise LimitExceeded(
                    f"events holds {count:,}, and `batch_events` allows {allowed:,}: split the batch",
                    reason="batch_events",
                )
            entries = [self.prepare(event, f"events[{index}]") for index, event in enumerate(events)]
        except ArbiterError as error:
            return refused(error)
        return self._writer.submit(IngestEvents(entries))

    def link(self, anonymous_id: str, known_id: str, by: str = "") -> Future[Linked]:
        """Let an anonymous id stand for a known one from now on; what is stored of both becomes one, once.

        `by` is who links, for the history. The future raises InvalidField (reason ``stored_value`` for attributes that
        cannot be merged), AlreadyLinked, LimitExceeded, StoreError.
        """
        try:
            check_link(anonymous_id, known_id)
        except ArbiterError as error:
            return refused(error)
        known = self._key(known_id)
        sealed = self.keys.sealed(known, known_id) if self._writer.settings.declared.named else b""
        return self._writer.submit(LinkIdentity(self._key(anonymous_id), known, by, sealed))

    def set_consent(self, change: ConsentChange) -> Future[ConsentRecorded]:
        """Record what a subject says of a purpose. What holds then, once it is on disk, or InvalidField, LimitExceeded,
        StoreError.
        """
        try:
            check_change(change)
        except ArbiterError as error:
            return refused(error)
        return self._writer.submit(RecordConsent(self._key(change.subject_id), change))

    def consents(self, subject_id: str) -> dict[str, tuple[ConsentEntry, ...]]:
        """What the subject said of each purpose, the newest first. Raises StoreError."""
        with self._looking() as (environment, txn):
            return consents_in(txn, environment, standing_for(environment, txn, self._key(subject_id)))

    def consume(self, spans: Sequence[Span]) -> Future[Ingested]:
        """Log events that were read elsewhere and how far they were read, all or nothing; what is stored is skipped.

        The future raises OffsetGap, EventsRefused, LimitExceeded, StoreError.
        """
        return self._writer.submit(ConsumeEvents(spans))

    def offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Where to read on in each of these partitions; without those of which nothing is stored. Raises StoreError."""
        with self._looking() as (environment, txn):
            return read_offsets(environment, txn, partitions)

    def export(self, subject_id: str = "", *, account_id: str = "", token: bytes = b"", limit: int = 1000) -> Exported:
        """A page of everything held on a subject or an account: the first, or that of a `token` from an earlier page.

        Raises InvalidField for another token, StoreError.
        """
        with self._looking() as (environment, txn):
            key = standing_for(environment, txn, self._owner(subject_id, account_id))
            return exporting.export(environment, txn, key, self._writer.clock(), token, limit)

    def erase(self, subject_id: str = "", *, account_id: str = "") -> Future[Erased]:
        """Erase everything held on a subject or an account, and keep its events of up to now away, or StoreError."""
        return self._writer.submit(EraseSubject(self._owner(subject_id, account_id)))

    def prepare(self, event: Event, field: str) -> Entry:
        """An event as it is stored: what `consume` takes. `field` is what errors call it.

        Raises InvalidField, LimitExceeded.
        """
        return prepared(event, field, self.keys, self._writer.settings.declared, self._limits)

    def rekey(self, subject_ids: Iterable[str] = (), account_ids: Iterable[str] = ()) -> Future[int]:
        """Move ids from keys of an earlier secret to that of the current one; how many were, or StoreError."""
        return self._writer.submit(Rekey([*map(self._key, subject_ids), *map(self.keys.account, account_ids)]))

    def refer(self, subject_id: str) -> Future[bytes]:
        """What the log of decisions calls the subject, made on first use; empty for one of whom nothing is stored."""
        return self._writer.submit(ReferTo(self._key(subject_id)))

    def unlinked(self) -> list[bytes]:
        """The references of erased subjects whose rows may still stand in the log of decisions. Raises StoreError."""
        with self._looking() as (environment, txn):
            return unlinked_in(environment, txn)

    def forget(self, references: Sequence[bytes]) -> Future[None]:
        """Know no more of these references: no row has them."""
        return self._writer.submit(Forget(references))

    def _owner(self, subject_id: str, account_id: str) -> bytes:
        return self.keys.account(account_id) if account_id else self._key(subject_id)


def _of(subject_id: str, events: Iterable[Event]) -> list[Event]:
    """Events with the id that was asked for, which the log does not hold."""
    return [msgspec.structs.replace(event, subject_id=subject_id) for event in events]
