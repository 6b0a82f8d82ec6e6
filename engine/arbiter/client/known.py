"""What a server answers of a subject, as plain values.

Law: data and its translation from messages; no calls. Times are aware UTC datetimes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.client.consents import Consent, read_consent, read_denials
from arbiter.types import from_micros
from arbiter.wire.values import plain_value, plain_values, read_timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

    from arbiter.v1 import profile_pb2


class AttributeChange(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an attribute. None is absent, or a value whose time to live is over; `expires_at` is when the new
    value goes, or went, if it has one.
    """

    before: Any
    after: Any
    expires_at: datetime | None = None


class ProfileVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a profile: made at `at` by the caller `by`, empty where the server does not ask who calls."""

    version: int
    at: datetime
    by: str
    changes: dict[str, AttributeChange]


class ProfileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a subject at `at`. A segment is None when it is unknown; a feature without a value is absent.

    `expires` is when attributes go, for those with a time to live; `history` is newest first, as much of it as was
    asked for. An account, which `account_id` names then, has neither features nor segments. `rebuilding` are changed
    features for which profiles are rewritten in the background; what they are here is right already. `consents` are
    sorted by purpose, the newest first; `denied` has what decisions do not see for lack of consent, with the purposes
    that it lacks. `managed_segments` are those that the subject was put into.
    """

    subject_id: str
    exists: bool
    attributes: dict[str, Any]
    features: dict[str, Any]
    segments: dict[str, bool | None]
    version: int
    snapshot: str
    at: datetime
    account_id: str = ""
    expires: dict[str, datetime] = {}
    history: tuple[ProfileVersion, ...] = ()
    rebuilding: tuple[str, ...] = ()
    consents: tuple[Consent, ...] = ()
    denied: dict[str, tuple[str, ...]] = {}
    managed_segments: tuple[str, ...] = ()


def read_profile(response: profile_pb2.GetProfileResponse) -> ProfileAnswer:
    """Return what is known of a subject."""
    known: dict[str, bool | None] = dict(response.segments)
    return ProfileAnswer(
        subject_id=response.subject_id,
        exists=response.exists,
        attributes=plain_values(response.attributes),
        features=plain_values(response.features),
        segments=known | dict.fromkeys(response.unknown_segments),
        version=response.version,
        snapshot=response.snapshot,
        at=_moment(response.at),
        account_id=response.account_id,
        expires={name: _moment(at) for name, at in response.expires.items()},
        history=tuple(map(_version, response.history)),
        rebuilding=tuple(response.rebuilding),
        consents=tuple(map(read_consent, response.consents)),
        denied=read_denials(response.denied),
        managed_segments=tuple(response.managed_segments),
    )


def _version(message: profile_pb2.ProfileVersion) -> ProfileVersion:
    return ProfileVersion(
        version=message.version,
        at=_moment(message.at),
        by=message.by,
        changes={name: _change(change) for name, change in message.changes.items()},
    )


def _change(message: profile_pb2.AttributeChange) -> AttributeChange:
    return AttributeChange(
        before=plain_value(message.before) if message.HasField("before") else None,
        after=plain_value(message.after) if message.HasField("after") else None,
        expires_at=_moment(message.expires_at) if message.HasField("expires_at") else None,
    )


def _moment(stamp: Timestamp) -> datetime:
    return from_micros(read_timestamp(stamp))
