"""Profiles and accounts as one state of the store has them: what is read inside one transaction.

Law: reads within a transaction that the store begins and ends; writes nothing. An account is kept as a subject is,
under keys of its own, so that the same id may name one of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.profiles.aliases import ALIAS_BYTES, standing_for
from arbiter.profiles.keys import Turning
from arbiter.profiles.records import Member, decode_hot
from arbiter.profiles.subjects import Subject, is_right, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.features import FeatureSet
    from arbiter.profiles.keys import Keys
    from arbiter.profiles.records import Profile

ACCOUNT = "account_id"
"""The attribute of a profile that names its account."""


class Reading:
    """Reads inside `txn` of `environment`, all for `features`. `notice` is told the key of each record that was out of
    date.

    `keys` gives those under which ids are stored. Times are µs. `reads` counts the records that were looked for.
    """

    def __init__(
        self,
        environment: Environment,
        txn: lmdb.Transaction[bytes],
        features: FeatureSet,
        keys: Keys,
        notice: Callable[[bytes], None],
    ) -> None:
        self.environment = environment
        self.txn = txn
        self.features = features
        self.keys = keys
        self._notice = notice
        self.reads = 0

    def __call__(self, subject_id: str, now: int) -> Profile:
        """A subject's profile as of `now`."""
        return self._at(self.keys.subject(subject_id), now)

    def account(self, account_id: str, now: int) -> Profile:
        """An account as of `now`."""
        return self._at(self.keys.account(account_id), now)

    def member(self, subject_id: str, now: int) -> Member:
        """A subject's profile beside its account, an empty one where it has none."""
        return self.beside(self(subject_id, now), now)

    def beside(self, profile: Profile, now: int) -> Member:
        """A profile that was read, beside its account."""
        named = profile.attributes.get(ACCOUNT)
        return member_of(profile, self.account(named, now) if named.__class__ is str else unknown(self.features))

    def _at(self, key: bytes, now: int) -> Profile:
        self.reads += 1
        raw = self.txn.get(key, None, self.environment.profile)
        if raw is None and isinstance(key, Turning):
            key = standing_for(self.environment, self.txn, key)
            raw = self.txn.get(key, None, self.environment.profile)
        if raw is not None and len(raw) == ALIAS_BYTES:
            key, raw = raw, self.txn.get(raw, None, self.environment.profile)
        if raw is None:
            return unknown(self.features)
        return self.opened(key, raw, now)

    def opened(self, key: bytes, raw: bytes, now: int) -> Profile:
        """The profile of a record that was found under `key`, as of `now`."""
        profile = decode_hot(raw)
        if is_right(profile, self.features, now):
            return profile
        self._notice(key)
        return Subject(self.environment, self.txn, key).as_of(profile, self.features, now)


def member_of(profile: Profile, account: Profile) -> Member:
    """A profile beside an account. What is known of both holds until either changes."""
    until, other = profile.next_change_at, account.next_change_at
    if other is not None and (until is None or other < until):
        until = other
    fields = msgspec.structs.asdict(profile) | {"next_change_at": until}
    return Member(**fields, account=account)
