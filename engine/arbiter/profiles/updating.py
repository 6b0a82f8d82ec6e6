"""The change of one subject's attributes, as it is applied inside the transaction that it shares with others.

Law: checked in full before it puts anything. What an update makes of the attributes is `attributes`' matter.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import KeyReused, LimitExceeded, VersionConflict
from arbiter.profiles import history, records
from arbiter.profiles.attributes import changed_attributes, expiries, managed_segments, same
from arbiter.profiles.records import Answer, pack_times

if TYPE_CHECKING:
    from arbiter.profiles.group import Group
    from arbiter.profiles.records import Profile, Update


class UpdateAttributes:
    """An update that `check_update` has passed. Answered with the new version."""

    weight = 1

    def __init__(self, key: bytes, update: Update) -> None:
        self._key = key
        self._update = update
        self._token = self._digest = b""
        if update.idempotency_key:
            self._token = blake2b(update.idempotency_key.encode(), digest_size=16).digest()
            # Without the id: what is stored must not tell a good guess of it from a bad one.
            body = msgspec.structs.replace(
                update, subject_id="", account_id="", unset=tuple(sorted(update.unset)), idempotency_key="", by=""
            )
            self._digest = blake2b(records.encode_sorted(body), digest_size=16).digest()

    def apply(self, group: Group) -> int:
        """Change the attributes, or answer as before for a repeated key."""
        key = group.resolve(self._key)
        if self._token:
            raw = group.txn.get(b"k" + key + self._token, None, group.environment.idem)
            answer = None if raw is None else records.decode_answer(raw)
            if answer is not None and answer.until > group.now:
                if answer.digest == self._digest:
                    return answer.version
                raise KeyReused(
                    f"the key `{self._update.idempotency_key}` was used for another update: use a new one",
                    field="idempotency_key",
                )
        group.check_quota()
        opened = group.open(key)
        before, profile = opened.profile, self._changed(opened.profile, group)
        opened.profile, opened.changed = profile, True
        history.record(group, key, before, profile, self._update.by)
        if self._token:
            self._remember(group, key + self._token, profile.version)
        return profile.version

    def _changed(self, profile: Profile, group: Group) -> Profile:
        expected = self._update.expected_version
        if expected is not None and expected != profile.version:
            raise VersionConflict(
                f"the profile has version {profile.version}, not {expected}: read it again and retry",
                field="expected_version",
            )
        stored, times, limit = profile.attributes, profile.attribute_times(), group.limits.record_bytes
        changed = changed_attributes(stored, self._update, group.declared.of(self._update), group.limits)
        # By name, so that who has the same attributes has them in the same order: they share what `Shaped` shares.
        attributes = dict(sorted(changed.items()))
        size = len(records.encode(attributes))
        if size > limit:
            raise LimitExceeded(
                f"the profile would have {size:,} bytes, and `record_bytes` allows {limit:,}: store less",
                reason="record_bytes",
            )
        for name, value in attributes.items():
            if name not in stored or not same(stored[name], value):
                times[name] = group.now
        expires = expiries(profile.expires, self._update, attributes, group.now)
        return msgspec.structs.replace(
            profile,
            version=profile.version + 1,
            attributes=attributes,
            tail=pack_times(attributes, times) + profile.feature_tail(),
            expires=expires,
            touched=group.now,
            managed=managed_segments(profile.managed, self._update),
            # An expiry that is put off leaves it too early, which costs one read its way to the cold record.
            next_change_at=records.first_of(profile.next_change_at, expires),
        )

    def _remember(self, group: Group, token: bytes, version: int) -> None:
        until, idem = group.now + group.limits.idempotency, group.environment.idem
        group.txn.put(b"k" + token, records.encode(Answer(until, self._digest, version)), db=idem)
        group.txn.put(b"t" + until.to_bytes(8, "big") + token, b"", db=idem)
