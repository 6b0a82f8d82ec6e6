"""What a store offers of consent: recording it, and all that was recorded.

Law: the part of `Store` that is about consent; what holds is `consenting`'s to say.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

import lmdb
import msgspec

from arbiter.errors import ArbiterError, StoreError
from arbiter.profiles.aliases import standing_for
from arbiter.profiles.consenting import ConsentChange, ConsentRecorded, RecordConsent, check_change, consents_in

if TYPE_CHECKING:
    from arbiter.profiles.environment import Environment
    from arbiter.profiles.writer import Writer
    from arbiter.types import ConsentEntry

__all__ = ["ConsentChange", "ConsentRecorded", "ConsentStore"]


class ConsentStore:
    """The part of a store that is about consent."""

    _writer: Writer

    def set_consent(self, change: ConsentChange) -> Future[ConsentRecorded]:
        """Record what a subject says of a purpose. What holds then, once it is on disk.

        The future raises InvalidField, LimitExceeded, StoreError.
        """
        try:
            check_change(change)
        except ArbiterError as error:
            refused: Future[ConsentRecorded] = Future()
            refused.set_exception(error)
            return refused
        return self._writer.submit(RecordConsent(self._key(change.subject_id), change))

    def consents(self, subject_id: str) -> dict[str, tuple[ConsentEntry, ...]]:
        """What the subject said of each purpose, the newest first. Raises StoreError."""
        try:
            environment = self._environment
            with environment.handle.begin() as txn:
                return consents_in(txn, environment, standing_for(environment, txn, self._key(subject_id)))
        except (lmdb.Error, msgspec.MsgspecError) as error:
            raise self._unreadable(error) from error

    @property
    def _environment(self) -> Environment:
        raise NotImplementedError

    def _key(self, subject_id: str) -> bytes:
        raise NotImplementedError

    def _unreadable(self, error: Exception) -> StoreError:
        raise NotImplementedError
