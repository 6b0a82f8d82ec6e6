"""The id of a decision, which says what was decided and proves that this store's servers said so.

Law: pure; the shell gives the proof's key and the time. An id is the number of the decision's row in the log of
decisions, what was delivered, and the key of the subject with a proof over all of it, with a "." between each. The
proof is BLAKE2b in its keyed mode (RFC 7693), which is a MAC. No id of a subject stands in it, but sealed. It never
has more than `LIMIT` characters: where the names of all that was delivered do not fit, a Bloom filter of the rules
stands in their place. The variants that sticky experiments keep are always there: rule sets have bounds for them.

What was delivered is the same for many decisions, so that it is written and hashed once (`stated`) and kept; what is
left to do for each decision is the rest of one hash.
"""

from __future__ import annotations

import hmac
import zlib
from binascii import Error, a2b_base64, b2a_base64
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.errors import InvalidField
from arbiter.learning.bloom import bloomed, holds

if TYPE_CHECKING:
    from hashlib import blake2b

LIMIT: Final = 1024
"""Characters of an id at most."""
_URL: Final = bytes.maketrans(b"+/", b"-_")
_BACK: Final = bytes.maketrans(b"-_", b"+/")
_KEY_BYTES: Final = 16
_NUMBER: Final = 48  # characters of a number at most
_HOPELESS: Final = 1 << 13  # bytes that no compression makes short enough
_AROUND: Final = 48  # bytes at most that a statement with a filter has beside that and the point's name
_BITS: Final = 32  # of a filter for each rule, where there is room


class Delivered(msgspec.Struct, frozen=True, array_like=True):
    """A treatment that a decision gave: `rule` is empty for the default, `group` for a rule of none."""

    rule: str
    action: str
    group: str = ""


class _Statement(msgspec.Struct, frozen=True, array_like=True):
    """What decisions share that gave the same. `unnamed` treatments are in no list, but their rules in a filter."""

    point: str
    snapshot: bytes
    delivered: tuple[Delivered, ...] = ()
    unnamed: int = 0
    filter: bytes = b""
    kept: tuple[tuple[str, str], ...] = ()


class Stated(msgspec.Struct, frozen=True):
    """A statement as it stands in ids, and the hash that has read it."""

    text: bytes
    proof: blake2b


class Claim(msgspec.Struct, frozen=True):
    """What the id of a decision says: the `number` of its row in the log, when it was made (µs since the epoch), the
    key of the subject (or more, see `profiles.keys.Keys.asked`), the decision point, the digest of the snapshot, and
    what was `delivered`. Where that would have been too long, it is empty, `unnamed` says how many treatments there
    were, and `may_have_given` whether one was of a rule. `kept` are the variants of sticky experiments that mattered.
    """

    number: str
    at: int
    subject: bytes
    point: str
    snapshot: str
    delivered: tuple[Delivered, ...]
    unnamed: int = 0
    filter: bytes = b""
    kept: tuple[tuple[str, str], ...] = ()

    def may_have_given(self, rule: str) -> bool:
        """Whether a treatment that is not named was of this rule: sure when not, and else with what a filter errs."""
        return self.unnamed > 0 and holds(self.filter, self.unnamed, rule)


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Statement).decode


def room(subject_bytes: int, proof: blake2b) -> int:
    """Characters that a statement may have, in the ids of subjects whose keys have at most so many bytes."""
    return LIMIT - _NUMBER - _length(proof.digest_size + subject_bytes)


def stated(
    proof: blake2b,
    point: str,
    snapshot: str,
    delivered: tuple[Delivered, ...],
    most: int,
    kept: tuple[tuple[str, str], ...] = (),
) -> Stated:
    """What decisions say of themselves that gave the same treatments by the same snapshot, in `most` characters: the
    middle of their ids. `proof` is the keyed hash, `kept` the variants of sticky experiments.
    """
    digest, text = bytes.fromhex(snapshot), b""
    packed = _encode(_Statement(point, digest, delivered, kept=kept))
    if len(packed) < _HOPELESS:
        text = _framed(packed)
    if not text or len(text) > most:
        rules = [each.rule for each in delivered]
        beside = _AROUND + len(point) + len(_encode(kept))
        size = min(_BITS * len(rules) // 8, (most - 2) // 4 * 3 - beside)
        text = _framed(_encode(_Statement(point, digest, (), len(rules), bloomed(rules, size), kept)))
    read = proof.copy()
    read.update(text)
    return Stated(text, read)


def sealed(statement: Stated, number: str, subject: bytes) -> bytes:
    """The id of a decision: `number` begins with the decision's time in hexadecimal."""
    said = number.encode()
    mac = statement.proof.copy()
    # A number has no "." in it, so that no two ids are read alike.
    mac.update(subject + b"." + said)
    return said + statement.text + b2a_base64(mac.digest() + subject, newline=False).translate(_URL)


def opened(proof: blake2b, text: str, field: str) -> Claim:
    """What an id says. Raises InvalidField for one that these servers never gave, which it calls `field`."""
    try:
        content = text.encode("ascii")
        number, statement, tail = content.split(b".")
        raw = a2b_base64(tail.translate(_BACK), strict_mode=True)
    except (ValueError, Error):
        raise _no_id(field, text) from None
    given, subject = raw[: proof.digest_size], raw[proof.digest_size :]
    if len(subject) < _KEY_BYTES:
        raise _no_id(field, text)
    mac = proof.copy()
    mac.update(b".%b.%b.%b" % (statement, subject, number))
    if not hmac.compare_digest(mac.digest(), given) or _text(raw) != tail:
        raise InvalidField(
            f"{field} was not given by this store's servers, or not so: it was altered or cut, is of another store, or "
            "older than the present `profiles.key`; send `decision_id` as it was answered",
            field=field,
        )
    # It is ours: what stands in it needs no more looking at.
    found = _decode(zlib.decompress(a2b_base64(statement.translate(_BACK) + b"==")))
    return Claim(
        number=number.decode(),
        at=int(number.partition(b"-")[0], 16),
        subject=subject,
        point=found.point,
        snapshot=found.snapshot.hex(),
        delivered=found.delivered,
        unnamed=found.unnamed,
        filter=found.filter,
        kept=found.kept,
    )


def _framed(packed: bytes) -> bytes:
    return b".%b." % _text(zlib.compress(packed)).rstrip(b"=")


def _length(size: int) -> int:
    """Characters of the text of so many bytes."""
    return -(-size // 3) * 4


def _text(raw: bytes) -> bytes:
    return b2a_base64(raw, newline=False).translate(_URL)


def _no_id(field: str, text: str) -> InvalidField:
    what = "is empty" if not text else "is no id of a decision"
    return InvalidField(
        f"{field} {what}: send `decision_id` as a decision was answered with, whole; a dry run has none", field=field
    )
