"""What bandits have learned: how often each rule of a group won and lost at a decision point, as it is stored.

Law: no personal data. An *arm* is a rule at a decision point; it is written in the transaction that records what became
of a decision, once for each decision and rule, whatever order reports come in. A trial counts with the time of its
decision, and so does what it came to: what was a loss until now is taken back with the very weight that it has. What
decays is stored at a time, so that nothing need be rewritten because time passes.

An arm that is written is kept as it was before, once an hour, and before it is set back: so one can go back to it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import lmdb
import msgspec

from arbiter.errors import NotFound
from arbiter.profiles.environment import UNREADABLE, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.profiles.current import Current
    from arbiter.profiles.environment import Environment
    from arbiter.profiles.group import Group

    Transaction = lmdb.Transaction[bytes]

HOUR: Final = 3_600_000_000
DAY: Final = 24 * HOUR
LATE: Final = 7 * DAY
"""Reports teach nothing that come later than so many µs after all that counts may have happened."""
KEPT: Final = 90 * DAY
"""How long one can go back."""
_ARM: Final = b"a"  # begins the keys of arms,
_EARLIER: Final = b"v"  # of arms as they were, with the µs until when,
_TRIAL: Final = b"t"  # and of trials, with the µs of their decision
_KEY_BYTES: Final = 16
_TRIED: Final = 1 + 8  # bytes before the hash in the key of a trial
_AT_ONCE: Final = 64  # old entries that a write takes away


class Arm(msgspec.Struct, frozen=True, array_like=True):
    """What was learned of a rule: `wins` and `losses`, weighed as of the µs time `at`, the prior not among them; when
    it was `written`. Trials that were counted after `void_from` and no later than `void_until` were set back: what
    becomes of them teaches nothing.
    """

    point: str
    group: str
    rule: str
    wins: float = 0.0
    losses: float = 0.0
    at: int = 0
    written: int = 0
    void_from: int = 0
    void_until: int = -1

    def weighed(self, now: int, half_life: int) -> tuple[float, float]:
        """Wins and losses as they count at `now` (µs); a half-life of 0 is endless."""
        weight = _weight(now - self.at, half_life) if now > self.at else 1.0
        return self.wins * weight, self.losses * weight


class Lesson(msgspec.Struct, frozen=True):
    """What a report says of a rule that a decision delivered: that it was shown, or that it `won`.

    `number` is the decision's, `decided` its time, `within` how long after it a win may happen; all times are µs.
    """

    point: str
    group: str
    rule: str
    number: str
    decided: int
    within: int
    half_life: int
    won: bool


class _Trial(msgspec.Struct, frozen=True, array_like=True):
    """That a decision was counted: when, until when that is remembered, and whether it was won."""

    counted: int
    until: int
    won: bool


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Arm).decode
_decode_trial: Final = msgspec.msgpack.Decoder(_Trial).decode


def learn(group: Group, lesson: Lesson) -> None:
    """Count what a report says, unless its decision was counted so already, or is too long ago."""
    now, txn, database = group.now, group.txn, group.environment.arms
    until = lesson.decided + lesson.within + LATE
    if now >= until:
        return
    key = _trial_key(group.environment, lesson)
    raw = txn.get(key, None, database)
    trial = None if raw is None else _decode_trial(raw)
    if trial is not None and (trial.won or not lesson.won):
        return
    txn.put(key, _encode(_Trial(now if trial is None else trial.counted, until, lesson.won)), db=database)
    group.wrote = True
    _forget(txn, group.environment, now)
    arm = _found(txn, group.environment, lesson.point, lesson.group, lesson.rule)
    if trial is not None and arm.void_from < trial.counted <= arm.void_until:
        return
    weight = 1.0
    if lesson.decided > arm.at:
        wins, losses = arm.weighed(lesson.decided, lesson.half_life)
        arm = msgspec.structs.replace(arm, wins=wins, losses=losses, at=lesson.decided)
    else:
        weight = _weight(arm.at - lesson.decided, lesson.half_life)
    wins, losses = (weight, -weight if trial is not None else 0.0) if lesson.won else (0.0, weight)
    _put(txn, group.environment, msgspec.structs.replace(
        arm, wins=arm.wins + wins, losses=max(0.0, arm.losses + losses)
    ), now)  # fmt: skip


class SetBack:
    """Set the arms of a group back to what they were at `to` (µs), or, where that is None, to nothing learned: at one
    decision point, or, where none is named, at all. Answered with the arms as they are then.
    """

    weight = 1

    def __init__(self, group: str, point: str = "", to: int | None = None) -> None:
        self._group = group
        self._point = point
        self._to = to

    def apply(self, group: Group) -> list[Arm]:
        """Set them back. Raises NotFound when there is none."""
        environment, txn, now = group.environment, group.txn, group.now
        own = [arm for arm in arms_in(environment, txn) if arm.group == self._group and self._point in {"", arm.point}]
        if not own:
            where = f" at `{self._point}`" if self._point else ""
            raise NotFound(f"the group `{self._group}` has learned nothing{where}", field="group")
        found = []
        for arm in own:
            before = Arm(arm.point, arm.group, arm.rule)
            if self._to is not None:
                before = _as_of(environment, txn, arm, self._to) or before
            voided = min(0 if self._to is None else self._to, arm.void_from if arm.void_until >= 0 else now)
            made = msgspec.structs.replace(before, void_from=voided, void_until=now)
            _put(txn, environment, made, now, keep=True)
            found.append(msgspec.structs.replace(made, written=now))
            group.wrote = True
        return found


class Learned:
    """What the bandits of a store have learned. Each call raises StoreError when the store cannot be read."""

    def __init__(self, current: Current) -> None:
        self._current = current

    def arms(self) -> list[Arm]:
        """All arms, as they are stored."""
        try:
            environment = self._current.latest()
            with environment.handle.begin() as txn:
                return list(arms_in(environment, txn))
        except UNREADABLE as error:
            raise unreadable(error, self._current.path) from error

    def state(self) -> tuple[int, int]:
        """What is another one when anything may have been written since."""
        environment = self._current.latest()
        try:
            return environment.generation, environment.handle.info()["last_txnid"]
        except lmdb.Error as error:
            raise unreadable(error, self._current.path) from error


def arms_in(environment: Environment, txn: Transaction) -> Iterator[Arm]:
    """All arms, by no order that means anything."""
    with txn.cursor(environment.arms) as cursor:
        more = cursor.set_range(_ARM)
        while more and cursor.key().startswith(_ARM):
            yield _decode(cursor.value())
            more = cursor.next()


def _weight(passed: int, half_life: int) -> float:
    return 0.5 ** (passed / half_life) if half_life else 1.0


def _key(point: str, group: str, rule: str) -> bytes:
    return blake2b(f"{point}\0{group}\0{rule}".encode(), digest_size=_KEY_BYTES).digest()


def _trial_key(environment: Environment, lesson: Lesson) -> bytes:
    told = blake2b(f"{lesson.number}\0{lesson.rule}".encode(), digest_size=_KEY_BYTES, key=environment.salt).digest()
    return _TRIAL + lesson.decided.to_bytes(8, "big") + told


def _found(txn: Transaction, environment: Environment, point: str, group: str, rule: str) -> Arm:
    raw = txn.get(_ARM + _key(point, group, rule), None, environment.arms)
    return Arm(point, group, rule) if raw is None else _decode(raw)


def _put(txn: Transaction, environment: Environment, arm: Arm, now: int, *, keep: bool = False) -> None:
    """Store an arm, and what it was before where that is to be kept."""
    own = _key(arm.point, arm.group, arm.rule)
    raw = txn.get(_ARM + own, None, environment.arms)
    if raw is not None and (keep or _decode(raw).written // HOUR != now // HOUR):
        txn.put(_EARLIER + own + now.to_bytes(8, "big"), raw, db=environment.arms)
        _drop(txn, environment, _EARLIER + own, now - KEPT)
    txn.put(_ARM + own, _encode(msgspec.structs.replace(arm, written=now)), db=environment.arms)


def _as_of(environment: Environment, txn: Transaction, arm: Arm, at: int) -> Arm | None:
    """What was learned of an arm at a time: exactly, if it is known; else what is known of the last hour before that.
    None for nothing.
    """
    before: Arm | None = None
    prefix = _EARLIER + _key(arm.point, arm.group, arm.rule)
    with txn.cursor(environment.arms) as cursor:
        more = cursor.set_range(prefix)
        while more and cursor.key().startswith(prefix):
            earlier = _decode(cursor.value())
            if int.from_bytes(cursor.key()[len(prefix) :], "big") > at:
                return earlier if earlier.written <= at else before
            before = earlier
            more = cursor.next()
    return arm if arm.written <= at else before


def _forget(txn: Transaction, environment: Environment, now: int) -> None:
    """Drop a few of the trials whose time is over."""
    with txn.cursor(environment.arms) as cursor:
        more = cursor.set_range(_TRIAL)
        for _ in range(_AT_ONCE):
            if not more or not cursor.key().startswith(_TRIAL) or _decode_trial(cursor.value()).until > now:
                return
            more = cursor.delete()


def _drop(txn: Transaction, environment: Environment, prefix: bytes, until: int) -> None:
    """Drop a few of what was kept of an arm until before a time."""
    with txn.cursor(environment.arms) as cursor:
        more = cursor.set_range(prefix)
        for _ in range(_AT_ONCE):
            if not more or not cursor.key().startswith(prefix):
                return
            if int.from_bytes(cursor.key()[len(prefix) :], "big") >= until:
                return
            more = cursor.delete()
