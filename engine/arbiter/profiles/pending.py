"""What triggers keep of subjects between events: how far along each is, and when a deadline of it comes.

Law: what a state holds is the triggers' matter: here it is bytes, with the moment at which its next deadline comes in
front. It lies in `waiting` under its subject's key and a number, mostly 0: so the states of ids that became one lie
side by side, until whoever reads them next makes one of them. `due` finds them by moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.profiles.records import LAST, at_moment, moment

if TYPE_CHECKING:
    import lmdb

    from arbiter.profiles.environment import Environment

    Transaction = lmdb.Transaction[bytes]

_SUBJECT: Final = 16
_MOMENT: Final = 8
_OWN: Final = b"\0\0"


def states_of(environment: Environment, txn: Transaction, key: bytes) -> list[bytes]:
    """The states of the subject with this key: one, or none, or those of ids that were linked since."""
    found: list[bytes] = []
    with txn.cursor(environment.waiting) as cursor:
        there = cursor.set_range(key)
        while there and cursor.key()[:_SUBJECT] == key:
            found.append(state_in(cursor.value()))
            there = cursor.next()
    return found


def put_state(environment: Environment, txn: Transaction, key: bytes, state: bytes, due: int | None) -> None:
    """Have this, with its next deadline at `due` (µs, None for none), be all of the subject's state; empty for none."""
    with txn.cursor(environment.waiting) as cursor:
        there = cursor.set_range(key)
        while there and (place := cursor.key())[:_SUBJECT] == key:
            forget_due(environment, txn, place, cursor.value())
            there = cursor.delete()
    if state:
        txn.put(key + _OWN, moment(LAST if due is None else due) + state, db=environment.waiting)
        if due is not None:
            txn.put(moment(due) + key + _OWN, b"", db=environment.due)


def subjects_due(environment: Environment, txn: Transaction, until: int, limit: int) -> list[tuple[int, bytes]]:
    """Moment (µs) and key of at most `limit` of the subjects whose next deadline is no later than `until`, in order."""
    found: list[tuple[int, bytes]] = []
    with txn.cursor(environment.due) as cursor:
        for place in cursor.iternext(values=False):
            at = at_moment(place[:_MOMENT])
            if at > until or len(found) == limit:
                break
            found.append((at, place[_MOMENT : _MOMENT + _SUBJECT]))
    return found


def add_state(environment: Environment, txn: Transaction, key: bytes, value: bytes) -> None:
    """Put what was another's entry in `waiting` beside the states of the subject with this key."""
    number = 0
    while txn.get(key + number.to_bytes(len(_OWN), "big"), None, environment.waiting) is not None:
        number += 1
    place = key + number.to_bytes(len(_OWN), "big")
    txn.put(place, value, db=environment.waiting)
    if value[:_MOMENT] != moment(LAST):
        txn.put(value[:_MOMENT] + place, b"", db=environment.due)


def forget_due(environment: Environment, txn: Transaction, place: bytes, value: bytes) -> None:
    """Erase the entry by moment of the entry at a place in `waiting` with this value."""
    if value[:_MOMENT] != moment(LAST):
        txn.delete(value[:_MOMENT] + place, db=environment.due)


def state_in(value: bytes) -> bytes:
    """The state in the value of an entry of `waiting`."""
    return value[_MOMENT:]
