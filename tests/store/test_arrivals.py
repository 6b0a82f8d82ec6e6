"""Arrivals and firings as the store keeps them: one clock that never goes back, positions that are never given twice,
and nothing for longer than it is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arbiter.errors import InvalidField
from arbiter.profiles.arrivals import arrivals_from, last_arrival
from arbiter.profiles.environment import open_environment
from arbiter.profiles.firings import FiringRecord, put_firing
from arbiter.profiles.history import Change
from arbiter.profiles.pending import put_state, states_of, subjects_due
from arbiter.profiles.records import NEVER
from arbiter.profiles.shedding import Shed
from arbiter.profiles.store import Declarations, Declared, Limits, Store, Update
from arbiter.types import Event
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arbiter.profiles.group import Group

T0 = 1_790_000_000_000_000
HOUR = 3_600_000_000


class Do:
    """What a test does in a transaction."""

    weight = 1

    def __init__(self, work: Callable[[Group], None]) -> None:
        self._work = work

    def apply(self, group: Group) -> None:
        self._work(group)
        group.wrote = True


def event(number: int, at: int = T0) -> Event:
    return Event(f"e{number}", f"s{number % 3}", "buy", at)


def arrivals(path: Path, first: int, last: int) -> list[tuple[int, int]]:
    environment = open_environment(path, 1 << 30)
    try:
        with environment.handle.begin() as txn:
            return arrivals_from(environment, txn, first, last)
    finally:
        environment.handle.close()


def test_a_commit_has_one_arrival_and_none_is_before_the_last(tmp_path: Path) -> None:
    clock = Clock(T0)
    with Store.open(tmp_path, clock=clock, background=False) as store:
        store.ingest([event(1), event(2)]).result()
        store.update(Update("s1", {"a": 1})).result()  # logs nothing, and has none
        clock.now = T0 + 5
        store.ingest([event(3)]).result()
        store.ingest([event(3)]).result()  # known already
        clock.now = T0 - HOUR
        store.ingest([event(4), event(5)]).result()
    assert arrivals(tmp_path, 1, 5) == [(1, T0), (3, T0 + 5), (4, T0 + 5)]
    assert arrivals(tmp_path, 2, 3) == [(1, T0), (3, T0 + 5)]
    assert arrivals(tmp_path, 5, 9) == [(4, T0 + 5)]
    assert arrivals(tmp_path, 5, 4) == [(4, T0 + 5)]


def test_what_was_logged_before_arrivals_were_noted_came_before_all(tmp_path: Path) -> None:
    with Store.open(tmp_path, clock=Clock(T0), background=False) as store:
        store.ingest([event(1), event(2)]).result()
        store.write(Do(lambda group: group.txn.drop(group.environment.arrival, delete=False))).result()
        store.ingest([event(3)]).result()
    assert arrivals(tmp_path, 1, 3) == [(1, NEVER), (3, T0)]


def test_arrivals_go_with_the_log_and_the_clock_stays(tmp_path: Path) -> None:
    with Store.open(tmp_path, clock=Clock(T0), background=False) as store:
        for number in range(1, 7):
            store.ingest([event(number)]).result()
        store.erase("s1").result()  # 1 and 4
        assert store.write(Shed()).result() == 1
        store.erase("s2").result()  # 2 and 5
        assert store.write(Shed()).result() == 1
        store.erase("s0").result()  # 3 and 6, the last
        assert store.write(Shed()).result() == 3
        assert store.write(Shed()).result() == 0
    environment = open_environment(tmp_path, 1 << 30)
    with environment.handle.begin() as txn:
        assert last_arrival(environment, txn) == T0
    environment.handle.close()


def test_old_firings_go_and_their_positions_are_not_given_again(tmp_path: Path) -> None:
    clock = Clock(T0)
    with Store.open(tmp_path, clock=clock, limits=Limits(keep_firings=HOUR), background=False) as store:
        keys = {name: bytes.fromhex(store.pseudonym(name)) for name in ("s1", "s2")}

        def fire(group: Group) -> None:
            for name, key in keys.items():
                firing = FiringRecord(f"{name}-{group.now}", "t", "k", key, group.now, group.now, "s", ())
                put_firing(group.environment, group.txn, firing)

        store.write(Do(fire)).result()
        clock.now = T0 + HOUR
        store.write(Do(fire)).result()
        assert [told.position for told in store.fired.after(0, 9)[0]] == [1, 2, 3, 4]
        assert [(told.position, told.firing.id) for told in store.fired.of("s2", 9)] == [
            (4, f"s2-{T0 + HOUR}"), (2, f"s2-{T0}"),
        ]  # fmt: skip
        assert store.write(Shed()).result() == 2
        assert [told.position for told in store.fired.after(0, 1)[0]] == [3]
        assert store.fired.gone() == 2
        store.erase("s2").result()
        assert [told.position for told in store.fired.after(0, 9)[0]] == [3]
        assert store.fired.of("s2", 9) == []
        assert store.fired.last() == 4
        clock.now += 9 * HOUR
        assert store.write(Shed()).result() == 1
        store.write(Do(fire)).result()
        assert [told.position for told in store.fired.after(0, 9)[0]] == [5, 6]


def test_states_of_linked_ids_lie_side_by_side_until_one_is_made_of_them(tmp_path: Path) -> None:
    with Store.open(tmp_path, clock=Clock(T0), background=False) as store:
        keys = {name: bytes.fromhex(store.pseudonym(name)) for name in ("phone", "ann")}

        def put(group: Group) -> None:
            put_state(group.environment, group.txn, keys["phone"], b"of the phone", T0 + 2)
            put_state(group.environment, group.txn, keys["ann"], b"of ann", T0 + 3)

        def check(group: Group) -> None:
            environment, txn = group.environment, group.txn
            assert states_of(environment, txn, keys["ann"]) == [b"of ann", b"of the phone"]
            assert subjects_due(environment, txn, T0 + 3, 9) == [(T0 + 2, keys["ann"]), (T0 + 3, keys["ann"])]
            assert subjects_due(environment, txn, T0 + 2, 9) == [(T0 + 2, keys["ann"])]
            put_state(environment, txn, keys["ann"], b"of both", None)
            assert states_of(environment, txn, keys["ann"]) == [b"of both"]
            assert subjects_due(environment, txn, T0 + 9, 9) == []

        store.ingest([Event("e1", "phone", "buy", T0), Event("e2", "ann", "buy", T0)]).result()
        store.write(Do(put)).result()
        store.link("phone", "ann").result()
        assert sorted(store.fired.states("phone")) == [b"of ann", b"of the phone"]
        store.write(Do(check)).result()


def test_managed_segments_are_entered_and_left_and_the_history_tells(tmp_path: Path) -> None:
    declared = Declarations(Declared(segments=("trial", "vip")))
    with Store.open(tmp_path, clock=Clock(T0), background=False) as store:
        store.use_declared(declared)
        assert store.update(Update("ann", enter_segments=("vip", "trial"), by="crm")).result() == 1
        assert store.read("ann", T0).managed == ("trial", "vip")
        store.update(Update("ann", {"a": 1}, leave_segments=("trial",), enter_segments=("vip",))).result()
        store.ingest([Event("e", "ann", "buy", T0)]).result()
        assert store.read("ann", T0 + 1).managed == ("vip",)
        changes = [version.changes for version in store.history("ann", now=T0, limit=9)]
        assert changes == [
            {"a": Change(None, 1), "segments.trial": Change(True, None)},
            {"segments.trial": Change(None, True), "segments.vip": Change(None, True)},
        ]
        store.update(Update("phone", enter_segments=("trial",))).result()
        store.link("phone", "ann").result()
        assert store.read("ann", T0 + 1).managed == ("trial", "vip")
        (shown,) = (each for name, each in store.export("ann").entries if name == "profile")
        assert shown["managed"] == ["trial", "vip"]


@pytest.mark.parametrize(
    ("update", "field", "message"),
    [
        (Update("ann", enter_segments=("vip", "gold")), "enter_segments[1]", "`gold` is no managed segment"),
        (Update("ann", leave_segments=("gold",)), "leave_segments[0]", "`gold` is no managed segment"),
        (Update("ann", enter_segments=("vip",), leave_segments=("vip",)), "leave_segments[0]", "entered and left"),
        (Update(account_id="acme", enter_segments=("vip",)), "enter_segments[0]", "`vip` is no managed segment"),
    ],
)
def test_only_declared_segments_are_entered_or_left(tmp_path: Path, update: Update, field: str, message: str) -> None:
    with Store.open(tmp_path, clock=Clock(T0), background=False) as store:
        store.use_declared(Declarations(Declared(segments=("vip",))))
        error = store.update(update).exception()
    assert isinstance(error, InvalidField)
    assert error.field == field
    assert message in str(error)
