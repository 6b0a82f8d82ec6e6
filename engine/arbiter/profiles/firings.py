"""What triggers fired: the record of one firing, and how firings are written and read.

Law: data with its MessagePack form, and single entries inside a transaction that others begin and end. `firing` has
them by position, one order for everyone, which is never given twice; `by_firing` finds those of a subject. What a
firing tells of its subject is as personal as the events that caused it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb

    from arbiter.profiles.environment import Environment

    Transaction = lmdb.Transaction[bytes]

_SUBJECT: Final = 16
_POSITION: Final = b"firing"  # in `meta`: the last position that was given,
_GONE: Final = b"firing_gone"  # and the last of those that went for their age


class Cause(msgspec.Struct, array_like=True, frozen=True):
    """An event that made a trigger fire: its label in the pattern, the event's id, type and µs time, and where it
    stands in the log.
    """

    label: str
    event_id: str
    type: str
    at: int
    position: int


class FiringRecord(msgspec.Struct, array_like=True, frozen=True):
    """One firing of a trigger, the one with this `id` ever; `pattern` is the digest of the pattern that it had.

    `subject` is the key of whom it is. `at` is the µs time of the firing, by events and deadlines, `recorded` that of
    its transaction. `snapshot` is the digest of the rules it came of. `acts` are what was done, by the keys of `then`,
    in plain values; `emitted` is the id of the event that was, `decision` the answer to the decision that was asked,
    encoded, both empty for none. `depth` counts the firings that it follows from, one through the other. `dropped` says
    why some of the acts were not done, empty for all were.
    """

    id: str
    trigger: str
    pattern: str
    subject: bytes
    at: int
    recorded: int
    snapshot: str
    causes: tuple[Cause, ...]
    acts: dict[str, Any] = {}
    emitted: str = ""
    decision: bytes = b""
    depth: int = 0
    dropped: str = ""


_encode = msgspec.msgpack.Encoder().encode
decode_firing = msgspec.msgpack.Decoder(FiringRecord).decode


def last_firing(environment: Environment, txn: Transaction) -> int:
    """The last position of the firings that was ever given; 0 for none."""
    return int.from_bytes(txn.get(_POSITION, b"", environment.meta), "big")


def gone_firing(environment: Environment, txn: Transaction) -> int:
    """The last position of those that are no longer kept, since they were too old; 0 for none."""
    return int.from_bytes(txn.get(_GONE, b"", environment.meta), "big")


def put_firing(environment: Environment, txn: Transaction, firing: FiringRecord) -> int:
    """Give a firing the next position and write it; the position."""
    position = last_firing(environment, txn) + 1
    packed = position.to_bytes(8, "big")
    txn.put(_POSITION, packed, db=environment.meta)
    txn.put(packed, _encode(firing), append=True, db=environment.firing)
    txn.put(firing.subject + packed, b"", db=environment.by_firing)
    return position


def firings_after(environment: Environment, txn: Transaction, position: int) -> Iterator[tuple[int, FiringRecord]]:
    """Every firing after a position, with its own, in order."""
    with txn.cursor(environment.firing) as cursor:
        if cursor.set_range((position + 1).to_bytes(8, "big")):
            for key, value in cursor:
                yield int.from_bytes(key, "big"), decode_firing(value)


def firings_of(environment: Environment, txn: Transaction, key: bytes) -> Iterator[tuple[int, FiringRecord]]:
    """Every firing of the subject with this key, with its position, the newest first."""
    with txn.cursor(environment.by_firing) as cursor:
        found = cursor.prev() if cursor.set_range(_after(key)) else cursor.last()
        while found and cursor.key()[:_SUBJECT] == key:
            packed = cursor.key()[_SUBJECT:]
            yield int.from_bytes(packed, "big"), decode_firing(txn.get(packed, b"", environment.firing))
            found = cursor.prev()


def passed_firings(environment: Environment, txn: Transaction, until: int, limit: int) -> list[tuple[bytes, bytes]]:
    """Position and subject of at most `limit` of the oldest firings that were recorded up to `until` (µs)."""
    found: list[tuple[bytes, bytes]] = []
    with txn.cursor(environment.firing) as cursor:
        for packed, value in cursor:
            firing = decode_firing(value)
            if firing.recorded > until or len(found) == limit:
                break
            found.append((packed, firing.subject))
    return found


def forget_firings(environment: Environment, txn: Transaction, passed: list[tuple[bytes, bytes]]) -> None:
    """Erase these, of which `passed_firings` told."""
    for packed, subject in passed:
        txn.delete(packed, db=environment.firing)
        txn.delete(subject + packed, db=environment.by_firing)
        txn.put(_GONE, packed, db=environment.meta)


def give_firing(environment: Environment, txn: Transaction, packed: bytes, to: bytes) -> None:
    """Let the firing at a position be another subject's."""
    firing = decode_firing(txn.get(packed, b"", environment.firing))
    txn.put(packed, _encode(msgspec.structs.replace(firing, subject=to)), db=environment.firing)
    txn.put(to + packed, b"", db=environment.by_firing)
    txn.delete(firing.subject + packed, db=environment.by_firing)


def shown(rest: bytes, value: bytes) -> dict[str, Any]:
    """A firing as plain values, for whoever asks what is held of them."""
    firing = decode_firing(value)
    return {
        "position": int.from_bytes(rest, "big"),
        "id": firing.id,
        "trigger": firing.trigger,
        "at": from_micros(firing.at),
        "recorded": from_micros(firing.recorded),
        "snapshot": firing.snapshot,
        "causes": [
            {"label": cause.label, "event_id": cause.event_id, "type": cause.type, "at": from_micros(cause.at)}
            for cause in firing.causes
        ],
        "acts": firing.acts,
        "emitted": firing.emitted,
        "decision": firing.decision,
        "dropped": firing.dropped,
    }


def _after(key: bytes) -> bytes:
    """The first key beyond all of a subject's; past any position that is given."""
    return key + b"\xff" * 8
