"""Names: the ids of subjects of whom triggers may have to tell, sealed.

Law: an id is kept only while the rules that run have triggers, under the subject's key in the database `name`, and
never in the clear: `Keys` seals and opens it. Works inside a transaction that others begin and end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.keys import Keys


def name_of(environment: Environment, txn: lmdb.Transaction[bytes], keys: Keys, key: bytes) -> str:
    """The id of the subject that lies under `key`; empty where it was never kept."""
    sealed = txn.get(key, None, environment.name)
    return "" if sealed is None else keys.opened(key, sealed)


def keep_name(environment: Environment, txn: lmdb.Transaction[bytes], key: bytes, sealed: bytes) -> None:
    """Keep the sealed id of the subject that lies under `key`, unless it is there."""
    txn.put(key, sealed, overwrite=False, db=environment.name)
