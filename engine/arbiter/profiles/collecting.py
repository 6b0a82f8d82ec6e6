"""Old events, ids that cannot come again, and inactive subjects, taken away piece by piece.

Law: whatever leaves, every feature stays what it was: what an all-time feature had of an event is kept in its stead, in
the transaction that deletes it. One process collects at a time, by a lease that ends by itself; a piece that another
process collected too would only find nothing left.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from arbiter.profiles import records
from arbiter.profiles.figures import Collected
from arbiter.profiles.group import BUILT
from arbiter.profiles.holdings import KEY_BYTES, erase_all, unlog
from arbiter.profiles.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.profiles.group import Group

PIECE = 500  # deletions of one transaction; more only where a subject's last ones go with it
LEASE = b"collector"
_LEASE_US = 60_000_000


class Lease(msgspec.Struct, array_like=True, frozen=True):
    """Who collects, until when (µs), and at which subject they are; `due` (µs) is when the next round begins."""

    owner: bytes
    until: int
    place: bytes = b""
    due: int = 0


class Piece(Collected):
    """What one transaction took. With `more` there is more of the subjects that were asked for."""

    more: bool = False


decode_lease = msgspec.msgpack.Decoder(Lease).decode


class Hold:
    """Take or keep the lease, and note how far the round is. Answered with the lease, None while another has it."""

    weight = 1

    def __init__(self, owner: bytes, place: bytes | None = None, due: int | None = None) -> None:
        self._owner = owner
        self._place = place
        self._due = due

    def apply(self, group: Group) -> Lease | None:
        """Write it. A clock that went back does not hold up the rest: a lease is never longer than one."""
        meta, now = group.environment.meta, group.now
        raw = group.txn.get(LEASE, None, meta)
        held = Lease(self._owner, 0) if raw is None else decode_lease(raw)
        if held.owner != self._owner and now < held.until <= now + _LEASE_US:
            return None
        taken = Lease(
            self._owner,
            now + _LEASE_US,
            held.place if self._place is None else self._place,
            held.due if self._due is None else self._due,
        )
        group.txn.put(LEASE, records.encode(taken), db=meta)
        group.wrote = True
        return taken


class Collect:
    """Take what is no longer to be kept of these subjects, at most about a piece. Answered with a `Piece`."""

    weight = PIECE

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def apply(self, group: Group) -> Piece:
        """Delete, and keep what features need of it. While records are being rewritten for other features: nothing."""
        done = Piece()
        if group.txn.get(BUILT, None, group.environment.meta) != group.features.id.encode():
            return done
        for key in self._keys:
            if done.events + done.ids >= PIECE:
                done.more = True
                break
            self._visit(group, key, done)
        group.wrote = group.wrote or bool(done.events or done.ids or done.subjects)
        return done

    def _visit(self, group: Group, key: bytes, done: Piece) -> None:
        raw = group.txn.get(key, None, group.environment.profile)
        if raw is None or len(raw) == KEY_BYTES:  # an alias
            return
        retention = Retention(group.environment, group.txn, group.features, group.limits, group.now)
        opened = group.open(key)
        if not opened.profile.touched:  # nobody knows: it counts from now
            opened.profile.touched, opened.changed = group.now, True
        inactive = retention.is_inactive(opened.profile.touched)
        room = PIECE - done.events - done.ids
        places = list(islice(retention.events(key, inactive=inactive), room))
        ids = list(islice(retention.ids(key), room - len(places)))
        if len(places) + len(ids) == room:
            done.more = True
        elif inactive:
            group.close(key)
            erased = erase_all(group.environment, group.txn, key)
            group.part(key)
            done.events += erased.get("events", 0)
            done.subjects += 1
            return
        if places or ids:
            self._take(group, key, places, ids)
            done.events += len(places)
            done.ids += len(ids)

    def _take(self, group: Group, key: bytes, places: list[bytes], ids: list[tuple[bytes, int]]) -> None:
        environment, txn = group.environment, group.txn
        opened, _ = group.open_states(key)  # counts what is missing in them, while the events are still there
        cold = group.cold(key)
        events = [records.decode_event(txn.get(place[24:], b"", environment.log)) for place in places]
        cold.gone = group.features.without(cold.gone, events)
        for place in places:
            unlog(environment, txn, place)
        for found, at in ids:
            txn.delete(found, db=environment.seen)
            cold.forgotten = max(cold.forgotten, at)
        opened.changed = True
