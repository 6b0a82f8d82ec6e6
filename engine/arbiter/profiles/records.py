"""The records of the store and what callers hand in and get back, with their codecs.

Law: data and its MessagePack form; no disk, no clock. A *hot* record is read by every decision, so it is small and
flat; a *cold* record holds what only writers and stale reads need.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.shaped import Shaped, shaped
from arbiter.profiles.windows import State  # noqa: TC001 - msgspec reads the annotations
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Mapping

    Values = Mapping[str, Any]
else:
    Values = Shaped | dict[str, Any]  # what it is when it is read

NEVER = -(1 << 63)
_POSITION = struct.Struct(">16sQQ")
LAST = (1 << 63) - 1
LAST_POSITION = (1 << 64) - 1
_BIAS = 1 << 63


class Profile(msgspec.Struct, array_like=True, gc=False):
    """What is known of a subject, as of one clock; also the hot record itself.

    `version` counts the updates of attributes. `features` are values by `Feature.key`; that of ``since`` is the µs time
    of the latest event; a missing value is an absent key. All of it holds for `valid_from` <= now < `next_change_at`
    (µs; None: for good), which is never later than the first of `expires`. `feature_set` is the id of the set they were
    computed for, empty for a subject of whom nothing is stored. `tail` packs the times for `changes`. `granted` are the
    purposes that the subject agreed to, sorted; `expires` are the µs times at which attributes go, by name, for those
    that do. `touched` is the µs time at which attributes were last updated or an event last stored; 0 for a record of
    before that was kept. `managed` are the managed segments that the subject is in, sorted. `reference` names the
    subject in the log of decisions, empty before anything of it was logged.

    Attributes and features are stored, and read by decisions, as `Shaped`: names and values apart. Records of before
    that have dictionaries there, and so has what is made or changed.
    """

    version: int
    attributes: Values
    features: Values
    feature_set: str
    valid_from: int
    next_change_at: int | None
    tail: bytes
    granted: tuple[str, ...] = ()
    expires: dict[str, int] = {}
    touched: int = 0
    managed: tuple[str, ...] = ()
    reference: bytes = b""

    @property
    def exists(self) -> bool:
        """Whether anything was ever stored of the subject."""
        return bool(self.feature_set)

    def changes(self) -> dict[str, int]:
        """The µs time of the last change by ``profile.NAME`` and ``features.KEY``.

        An attribute changes when it gets another value; a feature at the time of the newest event that counts for it.
        """
        times = struct.unpack(f"<{len(self.tail) // 8}q", self.tail)
        names = [*(f"profile.{name}" for name in self.attributes), *(f"features.{key}" for key in self.features)]
        return {name: at for name, at in zip(names, times, strict=True) if at != NEVER}

    def attribute_times(self) -> dict[str, int]:
        """The µs time of the last change of every attribute."""
        return dict(zip(self.attributes, struct.unpack_from(f"<{len(self.attributes)}q", self.tail), strict=True))

    def live(self, now: int) -> Profile:
        """The profile without the attributes whose time is over at `now` (µs); the features as they are."""
        gone = {name for name, at in self.expires.items() if at <= now}
        if not gone:
            return self
        attributes = {name: value for name, value in self.attributes.items() if name not in gone}
        tail = pack_times(attributes, self.attribute_times()) + self.feature_tail()
        expires = {name: at for name, at in self.expires.items() if name not in gone}
        return msgspec.structs.replace(self, attributes=attributes, tail=tail, expires=expires)

    def feature_tail(self) -> bytes:
        """The part of `tail` that belongs to the features."""
        return self.tail[8 * len(self.attributes) :]


class Member(Profile, kw_only=True, array_like=True, gc=False):
    """A profile beside the record of the account that it names: `changes` tells of both."""

    account: Profile

    def changes(self) -> dict[str, int]:
        """As a profile's, and the µs time of the last change of the account's attributes by ``account.NAME``."""
        own = super().changes()
        return own | {f"account.{name}": at for name, at in self.account.attribute_times().items()}


def pack_times(values: Mapping[str, Any], times: Mapping[str, int]) -> bytes:
    """A tail for `values`, in their order."""
    return struct.pack(f"<{len(values)}q", *(times.get(name, NEVER) for name in values))


def first_of(until: int | None, expires: Mapping[str, int]) -> int | None:
    """The first of a moment, None for never, and those at which attributes go (µs)."""
    return min(until, *expires.values()) if until is not None and expires else min(expires.values(), default=until)


class Cold(msgspec.Struct, array_like=True):
    """The states behind a subject's features, by `Feature.key`, and what `gone` holds of events that left the log.

    `forgotten` is the µs time up to which ids of events are no longer remembered, `NEVER` while all are.
    """

    states: dict[str, State]
    gone: dict[str, State] = {}
    forgotten: int = NEVER


class Update(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of one subject's attributes, all of it or nothing. An attribute stands in one of the verbs at most.

    `increment` adds numbers (absent is 0). `append` adds one item to the end of a list (absent is empty), `add_to_set`
    only where no equal one is in it, `remove` takes out those that are equal; `keep` bounds the lists that the first
    two make, by name, to the newest so many. `min` and `max` leave the smaller or larger of two numbers, strings or
    timestamps. `ttl` are the µs after which attributes that are written go; without one an attribute stays.
    `expected_version` is the version that the profile must have. The same `idempotency_key` with the same content
    changes nothing again. It is an account's where `account_id` names one in place of a subject. `by` is who writes,
    for the history. The subject enters and leaves managed segments; entering again and leaving what it is not in change
    nothing.
    """

    subject_id: str = ""
    set: dict[str, Any] = {}
    unset: tuple[str, ...] = ()
    increment: dict[str, int | float] = {}
    append: dict[str, Any] = {}
    add_to_set: dict[str, Any] = {}
    remove: dict[str, Any] = {}
    min: dict[str, Any] = {}
    max: dict[str, Any] = {}
    keep: dict[str, int] = {}
    ttl: dict[str, int] = {}
    expected_version: int | None = None
    idempotency_key: str = ""
    account_id: str = ""
    by: str = ""
    enter_segments: tuple[str, ...] = ()
    leave_segments: tuple[str, ...] = ()


class Ingested(msgspec.Struct, frozen=True):
    """What became of a batch of events. `position` is the last durable position of the log.

    `erased` were dropped because their subject was erased after they happened.
    """

    accepted: int
    duplicates: int
    position: int
    erased: int = 0


class Erased(msgspec.Struct, frozen=True):
    """What erasing a subject at `at` (µs) erased: how many entries of each holding that had any."""

    at: int
    entries: dict[str, int]


class Linked(msgspec.Struct, frozen=True):
    """What became of a link: the version of the profile that both ids have now. Of `events` of the anonymous one that
    moved and `duplicates` that were dropped there are none where the two were one before, and `linked` is false.
    """

    version: int
    linked: bool = False
    events: int = 0
    duplicates: int = 0


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """What an idempotency key was answered with, for which request, and until when (µs) that is remembered.

    In `idem` it lies under `IDEMPOTENT`, the subject's key and the key's hash, with a second entry to find by `until`.
    """

    until: int
    digest: bytes
    version: int


IDEMPOTENT = b"k"


def term(answer: bytes, token: bytes) -> bytes:
    """The second key of an encoded answer under ``IDEMPOTENT + token``."""
    return b"t" + decode_answer(answer).until.to_bytes(8, "big") + token


def place(key: bytes, at: int, position: int) -> bytes:
    """The key in `by_subject` of the subject's event at `at` (µs) with log position `position`: sorts in that order."""
    return _POSITION.pack(key, at + _BIAS, position)


def displace(place_: bytes) -> tuple[bytes, int, int]:
    """Subject key, time (µs) and log position of a key of `by_subject`."""
    key, at, position = _POSITION.unpack(place_)
    return key, at - _BIAS, position


def seen_key(key: bytes, event_id: str) -> bytes:
    """The key in `seen` of an event's id; its value is the event's time, as `moment` packs it."""
    return key + blake2b(event_id.encode(), digest_size=16).digest()


def moment(at: int) -> bytes:
    """A time (µs) in eight bytes that sort as times do."""
    return (at + _BIAS).to_bytes(8, "big")


def at_moment(packed: bytes) -> int:
    """The time (µs) that `moment` packed."""
    return int.from_bytes(packed, "big") - _BIAS


def decode_profile(raw: bytes) -> Profile:
    """A hot record with dictionaries, for who changes them. Raises msgspec.MsgspecError, StoreError."""
    profile = decode_hot(raw)
    attributes, features = profile.attributes, profile.features
    if isinstance(attributes, Shaped):
        profile.attributes = attributes.plain()
    if isinstance(features, Shaped):
        profile.features = features.plain()
    return profile


def encode_profile(profile: Profile) -> bytes:
    """The hot record of a profile."""
    attributes, features = shaped(profile.attributes), shaped(profile.features)
    return encode(msgspec.structs.replace(profile, attributes=attributes, features=features))


encode = msgspec.msgpack.Encoder().encode
encode_sorted = msgspec.msgpack.Encoder(order="deterministic").encode
decode_hot = msgspec.msgpack.Decoder(Profile).decode
decode_cold = msgspec.msgpack.Decoder(Cold).decode
decode_event = msgspec.msgpack.Decoder(Event).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
