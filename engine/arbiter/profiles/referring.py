"""What the log of decisions calls a subject: a random reference, which its record alone leads to.

Law: made when something of the subject is logged for the first time, and never for a subject of whom nothing is stored.
Erasing the subject destroys it, and lists it until its rows are gone from the log.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.profiles import records

if TYPE_CHECKING:
    from collections.abc import Iterable

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.group import Group

REFERENCE_BYTES: Final = 16


class ReferTo:
    """Gives the subject with this key a reference. Answered with it, also where there is one; empty for nobody."""

    weight = 1

    def __init__(self, key: bytes) -> None:
        self._key = key

    def apply(self, group: Group) -> bytes:
        """Make one, unless there is one, or nothing is stored of the subject."""
        key = group.resolve(self._key)
        opened = group.open(key)
        if not opened.changed and group.txn.get(key, None, group.environment.profile) is None:
            return b""
        if opened.profile.reference:
            return opened.profile.reference
        group.check_quota()
        reference = secrets.token_bytes(REFERENCE_BYTES)
        group.txn.put(key + reference, records.moment(group.now), db=group.environment.reference)
        opened.profile = msgspec.structs.replace(opened.profile, reference=reference)
        opened.changed = True
        return reference


class Forget:
    """Takes references off the list of those whose subjects were erased: their rows are gone."""

    def __init__(self, references: Iterable[bytes]) -> None:
        self._references = tuple(references)
        self.weight = len(self._references)

    def apply(self, group: Group) -> None:
        """Take them off."""
        for reference in self._references:
            group.wrote |= group.txn.delete(reference, db=group.environment.unlinked)


def unlinked_in(environment: Environment, txn: lmdb.Transaction[bytes]) -> list[bytes]:
    """The references of subjects that were erased, as long as they may stand in the log."""
    with txn.cursor(environment.unlinked) as cursor:
        return list(cursor.iternext(keys=True, values=False))
