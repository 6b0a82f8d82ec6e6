"""The id of a decision, which says what was decided and proves that this store's servers said so.

Law: pure; the shell gives the proof's key and the time. An id is the number of the decision's row in the log of
decisions, what was delivered, and the key of the subject with a proof over all of it, with a "." between each. The
proof is BLAKE2b in its keyed mode (RFC 7693), which is a MAC. No id of a subject stands in it, but sealed.

What was delivered is the same for many decisions, so that it is written once (`stated`) and kept; what is left to do
for each decision is one hash.
"""

from __future__ import annotations

import hmac
import zlib
from binascii import Error, a2b_base64, b2a_base64
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.errors import InvalidField

if TYPE_CHECKING:
    from hashlib import blake2b

_URL: Final = bytes.maketrans(b"+/", b"-_")
_BACK: Final = bytes.maketrans(b"-_", b"+/")
_KEY_BYTES: Final = 16
_LEVEL: Final = 9  # of zlib: it is done once for many decisions


class Delivered(msgspec.Struct, frozen=True, array_like=True):
    """A treatment that a decision gave: `rule` is empty for the default, `group` for a rule of none."""

    rule: str
    action: str
    group: str = ""


class _Statement(msgspec.Struct, frozen=True, array_like=True):
    """What decisions share that gave the same."""

    point: str
    snapshot: bytes
    delivered: tuple[Delivered, ...]
    variants: dict[str, str]


class Claim(msgspec.Struct, frozen=True):
    """What the id of a decision says: the `number` of its row in the log, when it was made (µs since the epoch), the
    key of the subject (or more, see `profiles.keys.Keys.asked`), the decision point, the digest of the snapshot, what
    was delivered, and the variants of the experiments that mattered.
    """

    number: str
    at: int
    subject: bytes
    point: str
    snapshot: str
    delivered: tuple[Delivered, ...]
    variants: dict[str, str]


_encode: Final = msgspec.msgpack.Encoder(order="sorted").encode
_decode: Final = msgspec.msgpack.Decoder(_Statement).decode


def stated(point: str, snapshot: str, delivered: tuple[Delivered, ...], variants: dict[str, str]) -> bytes:
    """What decisions say of themselves that gave the same treatments by the same snapshot: the middle of their ids."""
    packed = _encode(_Statement(point, bytes.fromhex(snapshot), delivered, variants))
    return b".%b." % _text(zlib.compress(packed, _LEVEL))


def sealed(proof: blake2b, number: str, statement: bytes, subject: bytes) -> bytes:
    """The id of a decision: `proof` is the keyed hash, `number` begins with the decision's time in hexadecimal."""
    said = number.encode() + statement
    mac = proof.copy()
    mac.update(said + subject)
    return said + b2a_base64(mac.digest() + subject, newline=False).translate(_URL)


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
    mac.update(b"%b.%b." % (number, statement) + subject)
    if not hmac.compare_digest(mac.digest(), given) or _text(raw) != tail:
        raise InvalidField(
            f"{field} was not given by this store's servers, or not so: it was altered or cut, is of another store, or "
            "older than the present `profiles.key`; send `decision_id` as it was answered",
            field=field,
        )
    # It is ours: what stands in it needs no more looking at.
    found = _decode(zlib.decompress(a2b_base64(statement.translate(_BACK))))
    return Claim(
        number=number.decode(),
        at=int(number.partition(b"-")[0], 16),
        subject=subject,
        point=found.point,
        snapshot=found.snapshot.hex(),
        delivered=found.delivered,
        variants=found.variants,
    )


def _text(raw: bytes) -> bytes:
    return b2a_base64(raw, newline=False).translate(_URL)


def _no_id(field: str, text: str) -> InvalidField:
    what = "is empty" if not text else "is no id of a decision"
    return InvalidField(
        f"{field} {what}: send `decision_id` as a decision was answered with, whole; a dry run has none", field=field
    )
