"""Counting every subject's features anew from its log, and comparing that with what is stored of them.

Law: reads only, a few subjects in each transaction, so that servers go on and no state of the store is held for long.
What differs is told and never mended. What stands in for events that left the log counts as the log does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import lmdb
import msgspec

from arbiter.errors import StoreError
from arbiter.profiles import records, totals
from arbiter.profiles.aliases import ALIAS_BYTES
from arbiter.profiles.copies import open_existing
from arbiter.profiles.environment import failure
from arbiter.profiles.subjects import Subject, is_right
from arbiter.ruleset.reads import reads_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arbiter.profiles.environment import Environment
    from arbiter.profiles.features import FeatureSet
    from arbiter.profiles.windows import State

_SLICE: Final = 256
_MOST: Final = 100
# Each number counts in a decaying total with an error below 2^-40, by how its bucket was joined; here are two totals.
_ROUNDED: Final = 2.0**-39


class Difference(msgspec.Struct, frozen=True):
    """A feature that is not what the log says, of the subject with this hexadecimal `key`. `stored` and `counted` are
    what a decision would read, None for no value.

    `where` has it: the hot record of decisions (``profile``), or the state behind it (``window``). With `thinned`
    events of this subject have left the log.
    """

    where: str
    key: str
    feature: str
    stored: Any
    counted: Any
    thinned: bool


class Recounted(msgspec.Struct, frozen=True):
    """What was counted. `differences` are the first hundred of `count`. Of `subjects`, so many as `waiting` have a hot
    record that is out of date or of other features: decisions compute theirs, from the state that was compared.
    """

    path: str
    subjects: int
    waiting: int
    count: int
    differences: tuple[Difference, ...]


def recount(path: Path, features: FeatureSet, clock: Callable[[], int]) -> Recounted:
    """Recount `features` of everybody in the store in a folder, as of the µs that `clock` gives. Raises StoreError."""
    environment = open_existing(path)
    found: list[Difference] = []
    subjects = waiting = count = 0
    place = b""
    try:
        while True:
            with environment.handle.begin() as txn:
                now = clock()
                keys, following = _next(environment, txn, place)
                for key in keys:
                    subjects += 1
                    ready, differences = _compared(environment, txn, key, features, now)
                    waiting += not ready
                    count += len(differences)
                    found += differences[: _MOST - len(found)]
            if not following:
                return Recounted(str(path), subjects, waiting, count, tuple(found))
            place = following
    except lmdb.Error as error:
        raise failure(error, path, "read") from error
    except msgspec.MsgspecError as error:
        raise StoreError(
            f"a record of the store in {path} cannot be read: say `arbiter store check` without --features, which "
            f"tells of each. ({error})"
        ) from error
    finally:
        environment.handle.close()


def _next(environment: Environment, txn: lmdb.Transaction[bytes], place: bytes) -> tuple[list[bytes], bytes]:
    """The keys of the next subjects from `place` on, and where to go on, empty at the end."""
    keys: list[bytes] = []
    with txn.cursor(environment.profile) as cursor:
        there = cursor.set_range(place) if place else cursor.first()
        for _ in range(_SLICE):
            if not there:
                return keys, b""
            if len(cursor.value()) != ALIAS_BYTES:
                keys.append(cursor.key())
            there = cursor.next()
        return keys, cursor.key() if there else b""


def _compared(
    environment: Environment, txn: lmdb.Transaction[bytes], key: bytes, features: FeatureSet, now: int
) -> tuple[bool, list[Difference]]:
    """Whether the subject's hot record is what decisions read, and what of both records is not as counted."""
    subject = Subject(environment, txn, key)
    hot = records.decode_profile(txn.get(key, b"", environment.profile))
    raw = txn.get(key, None, environment.window)
    cold = records.Cold({}) if raw is None else records.decode_cold(raw)
    thinned = bool(cold.gone) or cold.forgotten != records.NEVER
    states = features.complete({}, now, subject.events, cold.gone)
    counted = features.read(states, now, subject.events, cold.gone).values
    kept = features.complete(cold.states, now, subject.events, cold.gone)
    stored = {"window": features.read(kept, now, subject.events, cold.gone).values}
    ready = is_right(hot, features, now)
    if ready:
        stored["profile"] = dict(hot.features)
    differing = []
    for each, read in reads_of(features.by_key.values()).items():
        feature = features.by_key[each]
        if feature.aggregate == "ratio":  # it follows its features
            continue
        expected = read.value(counted.get(each), now)
        for where, values in stored.items():
            found = read.value(values.get(each), now)
            if not _same(found, expected, _slack(states[each]) if feature.half_life else 0.0):
                differing.append(Difference(where, key.hex(), feature.name, found, expected, thinned))
    return ready, differing


def _same(one: Any, other: Any, slack: float) -> bool:
    """Whether two readings are equal, doubles within `slack`."""
    if type(one) is float and type(other) is float:
        return one == other or abs(one - other) <= slack
    return type(one) is type(other) and bool(one == other)


def _slack(state: State) -> float:
    """By how much two readings of a decaying total may differ: numbers only lose weight, so it is never too little."""
    parts = [bucket.data for bucket in state.buckets]
    return _ROUNDED * math.fsum(abs(number) for part in parts for number in totals.doubles(part[2]))
