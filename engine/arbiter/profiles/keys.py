"""The keys under which subjects and accounts lie: hashes of their ids, keyed by a secret that is not in the store.

Law: an id goes in, its key comes out, and no id is kept but sealed, where `naming` keeps it. A store knows its secrets
by check values, which tell nothing of them. While it turns from one secret to another, the database `previous` has
every key of an earlier one under which something lies still, a profile or a tombstone, with that secret's check value;
an id's other keys are looked for only then. The hash is BLAKE2b in its keyed mode (RFC 7693), which is a MAC.

A sealed id is masked by a stream of such hashes that begins with its own key. Being a MAC of the id, that is the
synthetic initialisation vector of SIV (RFC 5297): no two ids share a stream, and what is opened proves itself.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import lmdb
import msgspec

from arbiter.errors import StoreError
from arbiter.profiles.environment import failure
from arbiter.profiles.values import ID_BYTES

if TYPE_CHECKING:
    from arbiter.profiles.environment import Environment

    Transaction = lmdb.Transaction[bytes]

# A read that sees the store as it was before the last id moved must look for it under its earlier key. None lasts so
# long.
LASTING_S = 60.0
_BYTES: Final = 16
PROOF_BYTES: Final = 17
"""With a subject's key a multiple of three: its text needs no padding."""
_CURRENT: Final = b"subject_key"  # in `meta`: the check value of the secret in use; none for the store's own salt,
_EARLIER: Final = b"earlier_keys"  # and those of all before it


class Secrets(msgspec.Struct, frozen=True):
    """What keys are made with: the `current` secret, empty for none but the store's own salt, and `previous` ones."""

    current: bytes = b""
    previous: tuple[bytes, ...] = ()


class Turning(bytes):
    """An id's key while the store turns to another secret, the `olds` under which the id may lie still, and the id
    itself, `sealed` under this key.
    """

    olds: tuple[bytes, ...]
    sealed: bytes


class UnderPrevious(msgspec.Struct, frozen=True):
    """What lies under the keys of an earlier secret: ids that have something, and erased ones. `check` names it."""

    check: str
    subjects: int
    erased: int


class _Hashes:
    """The hashes of one secret."""

    def __init__(self, secret: bytes, salt: bytes) -> None:
        # With the salt, so that two stores with one secret cannot be joined by their keys.
        key = blake2b(secret, digest_size=32, key=salt, person=b"subject keys").digest() if secret else salt
        self.subject = blake2b(digest_size=_BYTES, key=key)
        self.account = blake2b(digest_size=_BYTES, key=key, person=b"account")
        self.check = blake2b(digest_size=_BYTES, key=key, person=b"check").digest()
        self.proof = blake2b(digest_size=PROOF_BYTES, key=key, person=b"decision ids")
        self._mask = blake2b(key=key, person=b"subject names")

    def masked(self, key: bytes, text: bytes) -> bytes:
        """The text with the stream that begins with `key` over it; again, the text itself."""
        stream = b""
        while len(stream) < len(text):
            block = self._mask.copy()
            block.update(key + len(stream).to_bytes(4, "big"))
            stream += block.digest()
        size = len(text)
        return (int.from_bytes(text, "big") ^ int.from_bytes(stream[:size], "big")).to_bytes(size, "big")


class Keys:
    """The keys of one store. `subject_hash` is what the id of a subject is fed to for the current one, `proof` what the
    ids of decisions are fed to, to prove that this store's servers gave them. `last` is the id that was read last, with
    its key: the next one to ask is often who read it.

    `begun` says whether the store has taken the current secret, as it does before the first write with it; `turning`,
    whether ids may lie under earlier keys. Raises StoreError when the store cannot be read with these
    secrets.
    """

    def __init__(self, environment: Environment, secrets: Secrets) -> None:
        salt, path = environment.salt, environment.path
        own, current = _Hashes(b"", salt), _Hashes(secrets.current, salt)
        known = {each.check: each for each in (own, *(_Hashes(each, salt) for each in secrets.previous))}
        known.pop(current.check, None)
        self._own, self._current = own.check, current
        self._ended = 0.0  # when it was first seen that nothing is left under earlier keys, by the monotonic clock
        self.subject_hash = current.subject
        self.proof = current.proof
        self.last = ("", b"")
        try:
            with environment.handle.begin() as txn:
                stored = txn.get(_CURRENT, own.check, environment.meta)
                earlier = _earlier(environment, txn) | {stored}
                missing = earlier - known.keys() - {current.check}
                if stored in missing:
                    raise StoreError(
                        f"the store in {path} was written with another key than `profiles.key` names"
                        f"{'' if secrets.current else ', and it names none'}: name the file of that key, or, to change "
                        f"it, put the old file into the folder of `profiles.previous_keys`"
                    )
                if missing and any(each.subjects for each in left(environment, txn) if each.check in _hex(missing)):
                    raise StoreError(
                        f"subjects of the store in {path} still lie under an earlier key that is not given: put its "
                        f"file back into the folder of `profiles.previous_keys` until `arbiter store stat` says that "
                        f"none is left"
                    )
                self._olds = tuple(known[check] for check in sorted(earlier & known.keys()))
                self.begun = stored == current.check
                waiting = not self.begun or txn.stat(environment.previous)["entries"] > 0
                self.turning = bool(self._olds) and waiting
        except lmdb.Error as error:
            raise failure(error, path, "read") from error

    def subject(self, subject_id: str) -> bytes:
        """The key of a subject's id."""
        return self._of(subject_id.encode(), account=False)

    def asked(self, subject_id: str) -> bytes:
        """The key of a subject's id as it stands in the id of a decision; while the store turns to another secret, with
        the sealed id, by which the subject is found where it lies still.
        """
        if self.turning:
            key = self.subject(subject_id)
            return key + key.sealed if isinstance(key, Turning) else key
        last, key = self.last
        return key if last is subject_id else self.subject(subject_id)

    def of_asked(self, asked: bytes) -> bytes:
        """The key that `asked` gave."""
        key, sealed = asked[:_BYTES], asked[_BYTES:]
        return self._of(self._current.masked(key, sealed), account=False) if sealed else key

    @property
    def asked_bytes(self) -> int:
        """How many bytes `asked` gives at most, from now on."""
        return _BYTES + ID_BYTES if self.turning else _BYTES

    def sealed(self, key: bytes, subject_id: str) -> bytes:
        """A subject's id, as it may be kept under `key`, its own."""
        return self._current.masked(key, subject_id.encode())

    def opened(self, key: bytes, sealed: bytes) -> str:
        """The id that was sealed under `key`; empty for what was not, or with a secret that is not given."""
        for hashes in (self._current, *self._olds):
            name = hashes.masked(key, sealed)
            if _digest(hashes, name, account=False) == key:
                return name.decode()
        return ""

    def account(self, account_id: str) -> bytes:
        """The key of an account's id: another one than that of a subject of the same name."""
        return self._of(account_id.encode(), account=True)

    def hold(self, environment: Environment, txn: Transaction) -> bool:
        """Let the current secret be that of the store before anything is written; whether this changed anything.

        Raises StoreError when another process turned it to a secret that is not ours.
        """
        stored, ours = txn.get(_CURRENT, self._own, environment.meta), self._current.check
        if stored == ours:
            if self.turning and not txn.stat(environment.previous)["entries"]:
                now = time.monotonic()
                self._ended = self._ended or now
                self.turning = now - self._ended < LASTING_S
            return False
        if all(each.check != stored for each in self._olds):
            raise StoreError(
                f"the store in {environment.path} was turned to another key while it was open here, and nothing was "
                f"written: start again with the `profiles.key` of whoever did"
            )
        _begin(environment, txn, stored, ours)
        self.begun = True
        return True

    def _of(self, name: bytes, *, account: bool) -> bytes:
        if not self.turning:
            return _digest(self._current, name, account=account)
        key = Turning(_digest(self._current, name, account=account))
        key.olds = tuple(_digest(each, name, account=account) for each in self._olds)
        key.sealed = self._current.masked(key, name)
        return key


def keys_of(environment: Environment, secrets: Secrets) -> Keys:
    """The keys of a store that was opened, which is closed when these secrets are not its own. Raises StoreError."""
    try:
        return Keys(environment, secrets)
    except StoreError:
        environment.handle.close()
        raise


def release(environment: Environment, txn: Transaction, key: bytes) -> None:
    """Forget that this key is of an earlier secret, if nothing lies under it any more."""
    if not any(txn.get(key, None, database) for database in (environment.profile, environment.tombstone)):
        txn.delete(key, db=environment.previous)


def left(environment: Environment, txn: Transaction) -> tuple[UnderPrevious, ...]:
    """What lies under keys of earlier secrets still, by secret. Reads all of it."""
    subjects: dict[bytes, int] = {}
    erased: dict[bytes, int] = {}
    with txn.cursor(environment.previous) as cursor:
        for key, check in cursor:
            counts = erased if txn.get(key, None, environment.profile) is None else subjects
            counts[check] = counts.get(check, 0) + 1
    checks = sorted(subjects.keys() | erased.keys())
    return tuple(UnderPrevious(check.hex(), subjects.get(check, 0), erased.get(check, 0)) for check in checks)


def _digest(hashes: _Hashes, name: bytes, *, account: bool) -> bytes:
    hashed = (hashes.account if account else hashes.subject).copy()
    hashed.update(name)
    return hashed.digest()


def _earlier(environment: Environment, txn: Transaction) -> set[bytes]:
    raw = txn.get(_EARLIER, b"", environment.meta)
    return {raw[start : start + _BYTES] for start in range(0, len(raw), _BYTES)}


def _hex(checks: set[bytes]) -> set[str]:
    return {each.hex() for each in checks}


def _begin(environment: Environment, txn: Transaction, stored: bytes, ours: bytes) -> None:
    """Write down every key of the secret `stored`: from here on the store's is the one with the check value `ours`."""
    previous = environment.previous
    for database in (environment.profile, environment.tombstone):
        with txn.cursor(database) as cursor, txn.cursor(previous) as into:
            entries = ((key, stored) for key in cursor.iternext(values=False))
            # Into an empty database keys that are in order can be appended, which is faster.
            into.putmulti(entries, overwrite=False, append=not into.first())
    with txn.cursor(previous) as cursor:
        back = [key for key, check in cursor if check == ours]  # of a secret that was left, and is used again
    for key in back:
        txn.delete(key, db=previous)
    earlier = (_earlier(environment, txn) | {stored}) - {ours}
    txn.put(_EARLIER, b"".join(sorted(earlier)), db=environment.meta)
    txn.put(_CURRENT, ours, db=environment.meta)
