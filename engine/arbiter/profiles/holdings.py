"""What the store holds of a subject: the one list, and how the entries of one subject are shown, moved and erased.

Law: whatever lies under a subject's key stands in `HOLDINGS`, so that export, erasure and linking reach it. Works
inside a transaction that others begin and end; knows single entries and nothing of what follows from them. Who erases
or moves a subject that a `Group` has open lets go of it first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.profiles import firings, history, pending, records
from arbiter.profiles.consenting import decode_entries, in_order
from arbiter.profiles.keys import release
from arbiter.profiles.totals import INT64
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import lmdb

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.windows import State
    from arbiter.types import ConsentEntry

    Transaction = lmdb.Transaction[bytes]
    # From what follows the subject's key in an entry's key, and its value, to plain values for whoever asks what is
    # held of them.
    Shown = Callable[[bytes, bytes], dict[str, Any]]
    # From an entry's value to what is left of it at a time (µs).
    Live = Callable[[bytes, int], bytes]

KEY_BYTES: Final = 16
_POSITION: Final = b"position"  # in `meta`: the last one given, when its event was erased


class Holding:
    """The entries of a database whose keys are `lead`, the subject's key, and a rest of their own.

    `name` is what they are called where they are shown, if that is another name than the database's. `live` leaves out
    of a value what has had its time.
    """

    def __init__(
        self, database: str, shown: Shown, *, name: str = "", lead: bytes = b"", live: Live | None = None
    ) -> None:
        self.database: Final = database
        self.name: Final = name or database
        self._shown = shown
        self._live = live
        self._lead = lead

    def entries(self, environment: Environment, txn: Transaction, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """What follows the subject's key in the key of each entry, and its value, in order.

        Nothing may be written to the database meanwhile.
        """
        start = self._lead + key
        with txn.cursor(self._database(environment)) as cursor:
            if not cursor.set_range(start):
                return
            for found, value in cursor:
                if not found.startswith(start):
                    return
                yield found[len(start) :], value

    def export(
        self, environment: Environment, txn: Transaction, key: bytes, now: int, after: bytes | None = None
    ) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Every entry with a rest beyond `after` as of `now` (µs), as plain values: names to bool, int, float, str,
        bytes, datetime and lists and dicts of these. The rests come with them, to go on from.
        """
        for rest, value in self.entries(environment, txn, key):
            if after is None or rest > after:
                yield rest, self._shown(rest, value if self._live is None else self._live(value, now))

    def move(self, environment: Environment, txn: Transaction, key: bytes, to: bytes) -> int:
        """Give the entries to another subject; how many. Where that has one with the same rest, it keeps its own."""
        database = self._database(environment)
        moved = list(self.entries(environment, txn, key))
        for rest, value in moved:
            txn.put(self._lead + to + rest, value, overwrite=False, db=database)
            txn.delete(self._lead + key + rest, db=database)
        return len(moved)

    def erase(self, environment: Environment, txn: Transaction, key: bytes) -> int:
        """Erase the entries; how many there were."""
        start, number = self._lead + key, 0
        with txn.cursor(self._database(environment)) as cursor:
            there = cursor.set_range(start)
            while there and cursor.key().startswith(start):
                there = cursor.delete()
                number += 1
        return number

    def _database(self, environment: Environment) -> lmdb._Database:
        database: lmdb._Database = getattr(environment, self.database)
        return database


class _Log(Holding):
    """The events, which lie under their positions and are found through `by_subject`; `whose` leads back."""

    def __init__(self) -> None:
        super().__init__("by_subject", _event_shown, name="events")

    def entries(self, environment: Environment, txn: Transaction, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Time and position of each event, and the event."""
        for rest, _ in super().entries(environment, txn, key):
            yield rest, txn.get(rest[8:], b"", environment.log)

    def move(self, environment: Environment, txn: Transaction, key: bytes, to: bytes) -> int:
        """Give the events to another subject; they keep their positions."""
        moved = list(super().entries(environment, txn, key))
        for rest, type_ in moved:
            txn.put(to + rest, type_, db=environment.by_subject)
            own(environment, txn, rest[8:], to)
            txn.delete(key + rest, db=environment.by_subject)
        return len(moved)

    def erase(self, environment: Environment, txn: Transaction, key: bytes) -> int:
        """Erase the events; how many there were. The last position is not given again."""
        last, number = last_position(environment, txn).to_bytes(8, "big"), 0
        with txn.cursor(environment.by_subject) as cursor:
            there = cursor.set_range(key)
            while there and (place := cursor.key()).startswith(key):
                txn.delete(position := place[KEY_BYTES + 8 :], db=environment.log)
                txn.delete(position, db=environment.whose)
                if position == last:
                    txn.put(_POSITION, position, db=environment.meta)
                there = cursor.delete()
                number += 1
        return number


class _Idempotency(Holding):
    """What idempotency keys were answered with, each with an entry by the time at which that is forgotten."""

    def __init__(self) -> None:
        super().__init__("idem", _answer_shown, name="idempotency_keys", lead=records.IDEMPOTENT)

    def move(self, environment: Environment, txn: Transaction, key: bytes, to: bytes) -> int:
        """Give the answers to another subject, as they are; how many."""
        for rest, value in list(self.entries(environment, txn, key)):
            txn.delete(records.term(value, key + rest), db=environment.idem)
            txn.put(records.term(value, to + rest), b"", db=environment.idem)
        return super().move(environment, txn, key, to)

    def erase(self, environment: Environment, txn: Transaction, key: bytes) -> int:
        """Erase the answers; how many there were."""
        for rest, value in list(self.entries(environment, txn, key)):
            txn.delete(records.term(value, key + rest), db=environment.idem)
        return super().erase(environment, txn, key)


class _Consent(Holding):
    """What was said of purposes, which is joined where both subjects said something of the same one."""

    def __init__(self) -> None:
        super().__init__("consent", _consent_shown, name="consents")

    def move(self, environment: Environment, txn: Transaction, key: bytes, to: bytes) -> int:
        """Give the entries to another subject, whose newest ones then hold of both; how many purposes."""
        for rest, value in list(self.entries(environment, txn, key)):
            known = txn.get(to + rest, None, environment.consent)
            if known is not None:
                joined = in_order({*decode_entries(known), *decode_entries(value)})
                txn.put(to + rest, records.encode(joined), db=environment.consent)
        return super().move(environment, txn, key, to)


class _Waiting(Holding):
    """What triggers keep of how far along a subject is, with an entry by the moment of the next deadline."""

    def __init__(self) -> None:
        super().__init__("waiting", _waiting_shown, name="triggers_in_progress")

    def move(self, environment: Environment, txn: Transaction, key: bytes, to: bytes) -> int:
        """Give the states to another subject, beside its own; how many."""
        moved = list(self.entries(environment, txn, key))
        self.erase(environment, txn, key)
        for _, value in moved:
            pending.add_state(environment, txn, to, value)
        return len(moved)

    def erase(self, environment: Environment, txn: Transaction, key: bytes) -> int:
        """Erase the states; how many there were."""
        for rest, value in list(self.entries(environment, txn, key)):
            pending.forget_due(environment, txn, key + rest, value)
        return super().erase(environment, txn, key)


class _Firings(Holding):
    """What triggers fired, which lies under its positions and is found through `by_firing`."""

    def __init__(self) -> None:
        super().__init__("by_firing", firings.shown, name="firings")

    def entries(self, environment: Environment, txn: Transaction, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Position of each firing, and the firing."""
        for rest, _ in super().entries(environment, txn, key):
            yield rest, txn.get(rest, b"", environment.firing)

    def move(self, environment: Environment, txn: Transaction, key: bytes, to: bytes) -> int:
        """Let the firings be another subject's; they keep their positions."""
        moved = list(super().entries(environment, txn, key))
        for rest, _ in moved:
            firings.give_firing(environment, txn, rest, to)
        return len(moved)

    def erase(self, environment: Environment, txn: Transaction, key: bytes) -> int:
        """Erase the firings; how many there were."""
        for rest, _ in list(super().entries(environment, txn, key)):
            txn.delete(rest, db=environment.firing)
        return super().erase(environment, txn, key)


class _Aliases(Holding):
    """The ids that stand for a subject, each with a record of its own, which says so."""

    def __init__(self) -> None:
        super().__init__("alias", _alias_shown)

    def move(self, environment: Environment, txn: Transaction, key: bytes, to: bytes) -> int:
        """Let them stand for another subject."""
        for rest, _ in list(self.entries(environment, txn, key)):
            txn.put(rest, to, db=environment.profile)
        return super().move(environment, txn, key, to)

    def erase(self, environment: Environment, txn: Transaction, key: bytes) -> int:
        """Let them stand for nobody."""
        for rest, _ in list(self.entries(environment, txn, key)):
            txn.delete(rest, db=environment.profile)
            release(environment, txn, rest)
        return super().erase(environment, txn, key)


def _name_shown(_rest: bytes, value: bytes) -> dict[str, Any]:
    return {"sealed_id": value}


class _References(Holding):
    """What the log of decisions calls the subject. One that is erased is listed, so that its rows are taken out."""

    def __init__(self) -> None:
        super().__init__("reference", _reference_shown, name="decision_log")

    def erase(self, environment: Environment, txn: Transaction, key: bytes) -> int:
        """Let nothing lead from the log to the subject any more."""
        for rest, _ in list(self.entries(environment, txn, key)):
            txn.put(rest, b"", db=environment.unlinked)
        return super().erase(environment, txn, key)


def _reference_shown(rest: bytes, value: bytes) -> dict[str, Any]:
    return {"reference": rest.hex(), "since": from_micros(records.at_moment(value))}


def _alias_shown(rest: bytes, value: bytes) -> dict[str, Any]:
    return {"pseudonym": rest.hex(), "linked": from_micros(records.at_moment(value))}


def _profile_shown(_rest: bytes, value: bytes) -> dict[str, Any]:
    profile = records.decode_profile(value)
    return {
        "version": profile.version,
        "attributes": profile.attributes,
        "features": {name: _plain(each) for name, each in profile.features.items()},
        "changed": {name: from_micros(at) for name, at in profile.changes().items()},
        "granted": list(profile.granted),
        "managed": list(profile.managed),
        "expires": {name: from_micros(at) for name, at in profile.expires.items()},
    }


def _profile_live(value: bytes, now: int) -> bytes:
    return records.encode_profile(records.decode_profile(value).live(now))


def _window_shown(_rest: bytes, value: bytes) -> dict[str, Any]:
    cold = records.decode_cold(value)
    shown: dict[str, Any] = {"states": {key: _state_shown(state) for key, state in cold.states.items()}}
    if cold.gone:
        shown["gone"] = {key: _state_shown(state) for key, state in cold.gone.items()}
    return shown


def _state_shown(state: State) -> dict[str, Any]:
    shown: dict[str, Any] = {} if state.floor is None else {"floor": state.floor}
    shown["buckets"] = [_plain(msgspec.structs.astuple(bucket)) for bucket in state.buckets]
    shown["latest"] = _plain(state.latest)
    return shown


def _waiting_shown(_rest: bytes, value: bytes) -> dict[str, Any]:
    return {"state": _plain(msgspec.msgpack.decode(pending.state_in(value)))}


def _event_shown(rest: bytes, value: bytes) -> dict[str, Any]:
    event = records.decode_event(value)
    position = int.from_bytes(rest[8:], "big")
    return {
        "id": event.id,
        "type": event.type,
        "at": from_micros(event.at),
        "properties": event.properties,
        "position": position,
    }


def _seen_shown(rest: bytes, value: bytes) -> dict[str, Any]:
    shown: dict[str, Any] = {"event_id_hash": rest}
    return shown | {"at": from_micros(records.at_moment(value))} if value else shown


def _answer_shown(rest: bytes, value: bytes) -> dict[str, Any]:
    answer = records.decode_answer(value)
    return {"key_hash": rest, "until": from_micros(answer.until), "version": answer.version}


def _consent_shown(rest: bytes, value: bytes) -> dict[str, Any]:
    return {"purpose": rest.decode(), "entries": [_said_shown(entry) for entry in decode_entries(value)]}


def _said_shown(entry: ConsentEntry) -> dict[str, Any]:
    return {
        "at": from_micros(entry.at),
        "state": entry.state.value,
        "source": entry.source,
        "recorded_at": from_micros(entry.recorded),
        "recorded_by": entry.by,
    }


def _plain(value: Any) -> Any:
    """A value as messages hold it: keys are texts, too long an integer a double, nothing an empty list."""
    if isinstance(value, dict):
        return {key.hex() if isinstance(key, bytes) else str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if type(value) is int and value not in INT64:
        return float(value)
    return [] if value is None else value


# In the order in which they are shown. A database of what is held of subjects is registered here.
HOLDINGS: Final[tuple[Holding, ...]] = (
    Holding("profile", _profile_shown, live=_profile_live),
    Holding("window", _window_shown, name="feature_states"),
    _Log(),
    Holding("seen", _seen_shown, name="event_ids"),
    _Idempotency(),
    Holding("history", history.shown, live=history.live),
    _Consent(),
    _Aliases(),
    Holding("name", _name_shown),
    _Waiting(),
    _Firings(),
    _References(),
)


def last_position(environment: Environment, txn: Transaction) -> int:
    """The last position of the log that was ever given."""
    with txn.cursor(environment.log) as cursor:
        last = cursor.key() if cursor.last() else b""
    return max(int.from_bytes(last, "big"), int.from_bytes(txn.get(_POSITION, b"", environment.meta), "big"))


def unlog(environment: Environment, txn: Transaction, place: bytes) -> None:
    """Erase the event at a place in `by_subject`. Its position is not given again, also if it is the last."""
    position = place[KEY_BYTES + 8 :]
    if int.from_bytes(position, "big") == last_position(environment, txn):
        txn.put(_POSITION, position, db=environment.meta)
    txn.delete(position, db=environment.log)
    txn.delete(position, db=environment.whose)
    txn.delete(place, db=environment.by_subject)


def own(environment: Environment, txn: Transaction, position: bytes, key: bytes) -> None:
    """Say whose the event at a position is, where that is said at all: not of those of before it was."""
    if txn.get(position, None, environment.whose) is not None:
        txn.put(position, key, db=environment.whose)


def erase_all(environment: Environment, txn: Transaction, key: bytes) -> dict[str, int]:
    """Erase all that is held under a subject's key; how many entries of each holding that had any."""
    erased = {holding.name: holding.erase(environment, txn, key) for holding in HOLDINGS}
    release(environment, txn, key)
    return {name: number for name, number in erased.items() if number}


def move_all(environment: Environment, txn: Transaction, key: bytes, to: bytes) -> int:
    """Give all that is held under a subject's key to another, which keeps its own where both have one; how many
    entries.
    """
    return sum(holding.move(environment, txn, key, to) for holding in HOLDINGS)
