"""When commits of the log arrived: the one clock by which what happens over time is judged, written with the events.

Law: `arrival` has the first position of every commit that logged events, with the µs time of its transaction. Times
never decrease from position to position, whatever clocks of machines do. An entry goes when the log holds nothing of
its commit or of any before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.profiles.records import NEVER, at_moment, moment

if TYPE_CHECKING:
    import lmdb

    from arbiter.profiles.environment import Environment

    Transaction = lmdb.Transaction[bytes]


def note_arrival(environment: Environment, txn: Transaction, position: int, now: int) -> None:
    """Write down that the commit whose first event gets this position arrives at `now` (µs), or no earlier than the
    last.
    """
    with txn.cursor(environment.arrival) as cursor:
        at = max(now, at_moment(cursor.value())) if cursor.last() else now
        cursor.put(position.to_bytes(8, "big"), moment(at), append=True)


def last_arrival(environment: Environment, txn: Transaction) -> int:
    """The µs time of the last commit, `NEVER` for none."""
    with txn.cursor(environment.arrival) as cursor:
        return at_moment(cursor.value()) if cursor.last() else NEVER


def arrivals_from(environment: Environment, txn: Transaction, first: int, last: int) -> list[tuple[int, int]]:
    """First position and µs time of each commit that logged any of the positions `first` to `last`, in order; what was
    logged before arrivals were noted came with none, at `NEVER`.
    """
    found: list[tuple[int, int]] = []
    with txn.cursor(environment.arrival) as cursor:
        there = cursor.set_range(first.to_bytes(8, "big"))
        if not there or int.from_bytes(cursor.key(), "big") > first:  # the commit began earlier
            before = cursor.prev() if there else cursor.last()
            if not before:
                found.append((first, NEVER))
                there = cursor.first()
            else:
                there = True
        while there and (position := int.from_bytes(cursor.key(), "big")) <= last:
            found.append((position, at_moment(cursor.value())))
            there = cursor.next()
    return found


def passed_arrivals(environment: Environment, txn: Transaction, limit: int) -> list[bytes]:
    """The keys of at most `limit` entries whose commits, and all before them, have left the log altogether."""
    with txn.cursor(environment.log) as log:
        oldest = log.key() if log.first() else None
    found: list[bytes] = []
    with txn.cursor(environment.arrival) as cursor:
        there = cursor.first()
        while there and len(found) < limit:
            key = cursor.key()
            there = cursor.next()  # the newest stays: no time is earlier than it
            if there and (oldest is None or cursor.key() <= oldest):
                found.append(key)
            else:
                break
    return found
