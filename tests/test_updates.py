"""Updates: every verb with times to live, under a clock that steps, does what a plain reading of the rules gives; the
history tells who changed what; declared values and defaults are held.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.errors import ArbiterError, InvalidField, LimitExceeded
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.history import Change, Version
from arbiter.profiles.refreshing import Refresh
from arbiter.profiles.store import Declarations, Declared, Limits, Store, Update
from arbiter.ruleset.rules import Feature
from arbiter.types import Event
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_000_000
KEPT = 3
RECENT = Feature("buys", "count", "buy", "", 20, None, 1, "buys", "int")
SUBJECTS = itertools.count()
DEFAULTS = {"d": 10, "e": ["x"]}
MAX_ITEMS = {"f": 2}


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(tmp_path, clock=clock, limits=Limits(versions=KEPT), background=False) as opened:
        opened.use_features(FeatureSet([RECENT]))
        yield opened


def refusal(future: Any) -> ArbiterError:
    error = future.exception()
    assert isinstance(error, ArbiterError), error
    return error


# Equality holds 1, 1.0 and true equal; what is on disk must not.
exact = msgspec.msgpack.Encoder(order="deterministic").encode


class Refused(Exception):
    """The oracle would not do it."""


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def alike(a: Any, b: Any) -> bool:
    """Equal as rules see it, for the flat values of this test."""
    return a == b and ((number(a) and number(b)) or type(a) is type(b))


class Oracle:
    """One subject, in the plainest way: `stored` by name is value, expiry (None: never), time of the last change."""

    def __init__(self) -> None:
        self.stored: dict[str, tuple[Any, int | None, int]] = {}
        self.history: list[tuple[int, int, str, dict[str, list[Any]]]] = []
        self.version = 0

    def read(self, now: int) -> dict[str, tuple[Any, int | None, int]]:
        return {name: entry for name, entry in self.stored.items() if entry[1] is None or now < entry[1]}

    def rewrite(self, now: int) -> None:
        """What a write of the record does on its own: the expired leave the disk, in the history too."""
        if len(self.read(now)) < len(self.stored):
            self.history = [(version, at, by, over(changes, now)) for version, at, by, changes in self.history]
        self.stored = self.read(now)

    def update(self, update: Update, now: int) -> None:
        before = self.read(now)
        after = dict(before)
        for name in update.unset:
            after.pop(name, None)
        for verb in ("set", "increment", "append", "add_to_set", "remove", "min", "max"):
            for name, argument in getattr(update, verb).items():
                start = before[name][0] if name in before else DEFAULTS.get(name)
                value = apply(verb, start, argument)
                if value is None:
                    continue
                if isinstance(value, list) and len(value) > MAX_ITEMS.get(name, 99):
                    if verb == "set":
                        raise Refused
                    value = value[-MAX_ITEMS[name] :]
                if name in update.keep:
                    value = value[-update.keep[name] :]
                changed = before[name][2] if name in before and exact(before[name][0]) == exact(value) else now
                after[name] = (value, now + update.ttl[name] if name in update.ttl else None, changed)
        self.rewrite(now)
        self.stored = after
        self.version += 1
        gone = (None, None, 0)
        changes = {}
        for name in before.keys() | after.keys():
            old, new = before.get(name, gone), after.get(name, gone)
            if exact(old[:2]) != exact(new[:2]):
                changes[name] = [old[0], new[0], new[1], old[1]]
        self.history = [*self.history, (self.version, now, update.by, changes)][-KEPT:]


def apply(verb: str, start: Any, given: Any) -> Any:
    if verb == "set":
        return given
    if verb == "increment":
        if start is not None and not number(start):
            raise Refused
        return (start or 0) + given if start is not None else given
    if verb in {"min", "max"}:
        if start is None:
            return given
        if not ((number(start) and number(given)) or (isinstance(start, str) and isinstance(given, str))):
            raise Refused
        return (min if verb == "min" else max)(start, given)
    if start is not None and not isinstance(start, list):
        raise Refused
    if verb == "remove":
        return None if start is None else [each for each in start if not alike(each, given)]
    items = list(start or [])
    if verb == "append" or not any(alike(each, given) for each in items):
        items.append(given)
    return items


def over(changes: dict[str, list[Any]], now: int) -> dict[str, list[Any]]:
    """The changes without values whose time is over."""
    return {
        name: [
            None if old_goes is not None and old_goes <= now else old,
            None if goes is not None and goes <= now else new,
            goes,
            old_goes,
        ]
        for name, (old, new, goes, old_goes) in changes.items()
    }


NAMES = "abcdefg"
FLAT = st.one_of(st.integers(-3, 3), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.sampled_from(["x", "y"]), st.booleans())
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.5]))
GIVEN = {
    "set": st.one_of(FLAT, st.lists(FLAT, max_size=3)),
    "increment": NUMBERS,
    "append": FLAT,
    "add_to_set": FLAT,
    "remove": FLAT,
    "min": st.one_of(NUMBERS, st.sampled_from(["x", "y"])),
    "max": st.one_of(NUMBERS, st.sampled_from(["x", "y"])),
    "unset": st.none(),
}


@st.composite
def updates(draw: st.DrawFn) -> Update:
    parts: dict[str, Any] = {verb: {} for verb in GIVEN} | {"ttl": {}, "keep": {}}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4)):
        verb = draw(st.sampled_from(sorted(GIVEN)))
        parts[verb][name] = draw(GIVEN[verb])
        if verb != "unset" and draw(st.booleans()):
            parts["ttl"][name] = draw(st.integers(1, 30))
        if verb in {"append", "add_to_set"} and draw(st.booleans()):
            parts["keep"][name] = draw(st.integers(1, 3))
    parts["unset"] = tuple(parts["unset"])
    return Update("ann", by=draw(st.sampled_from(["", "shop", "desk"])), **parts)


STEPS = st.lists(
    st.one_of(
        updates(),
        updates(),
        st.just("ingest"),
        st.just("refresh"),
        st.integers(-8, 25),  # the clock steps
    ),
    max_size=25,
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_verb_does_what_the_plain_reading_gives(store: Store, clock: Clock, data: st.DataObject) -> None:
    subject = f"s{next(SUBJECTS)}"  # one for each example: the store is opened once
    clock.now = NOW
    store.use_declared(Declarations(Declared(defaults=DEFAULTS, max_items=MAX_ITEMS)))
    oracle, exists = Oracle(), False
    events: list[Event] = []
    for step in data.draw(STEPS):
        if isinstance(step, int):
            clock.now += step
        elif step == "ingest":
            events.append(Event(f"e{len(events)}", subject, "buy", clock.now))
            store.ingest(events[-1:]).result()
            oracle.rewrite(clock.now)
            exists = True
        elif step == "refresh":
            if exists:
                store._writer.submit(Refresh([store._key(subject)])).result()
                oracle.rewrite(clock.now)
        else:
            assert isinstance(step, Update)
            update = msgspec.structs.replace(step, subject_id=subject)
            try:
                oracle.update(update, clock.now)
            except Refused:
                assert isinstance(refusal(store.update(update)), InvalidField)
            else:
                assert store.update(update).result() == oracle.version
                exists = True
        for now in (clock.now, clock.now + data.draw(st.integers(-5, 40))):
            profile = store.read(subject, now)
            known = oracle.read(now)
            assert exact(dict(profile.attributes)) == exact({name: value for name, (value, _, _) in known.items()})
            assert profile.expires == {name: goes for name, (_, goes, _) in known.items() if goes is not None}
            times = {name.partition(".")[2]: at for name, at in profile.changes().items() if name[0] == "p"}
            assert times == {name: at for name, (_, _, at) in known.items()}
            assert profile.features == {"buys": sum(now - 20 < event.at <= now for event in events)}
            assert profile.version == oracle.version
            until = profile.next_change_at
            assert until is None or until > now
            assert all(until is not None and until <= at for at in profile.expires.values())
        told = [
            (version, at, by, {name: list(msgspec.structs.astuple(change)) for name, change in changes.items()})
            for version, at, by, changes in map(
                msgspec.structs.astuple, store.history(subject, now=clock.now, limit=10)
            )
        ]
        expected = [(version, at, by, over(changes, clock.now)) for version, at, by, changes in oracle.history]
        assert exact(told) == exact(expected[::-1])


def test_an_attribute_goes_when_its_time_is_over_and_leaves_the_disk_with_the_next_write(
    store: Store, clock: Clock
) -> None:
    store.update(Update("ann", {"coupon": "SECRET10", "name": "Ann"}, ttl={"coupon": 60})).result()
    assert store.read("ann", NOW + 59).attributes == {"coupon": "SECRET10", "name": "Ann"}
    assert store.read("ann", NOW + 59).next_change_at == NOW + 60
    clock.now += 60
    assert store.read("ann", clock.now).attributes == {"name": "Ann"}
    assert store.history("ann", now=clock.now, limit=1)[0].changes["coupon"] == Change(None, None, NOW + 60)
    assert "SECRET10" not in repr(store.export("ann").entries)
    assert "'Ann'" in repr(store.export("ann").entries)

    def on_disk() -> bool:
        with store._environment.handle.begin() as txn:
            databases = (store._environment.profile, store._environment.history)
            return any(b"SECRET10" in value for each in databases for _, value in txn.cursor(each))

    assert on_disk()
    store.ingest([Event("e1", "ann", "buy", clock.now)]).result()
    assert not on_disk()
    assert store.read("ann", NOW).attributes == {"name": "Ann"}


def test_what_is_written_again_without_a_time_to_live_stays(store: Store, clock: Clock) -> None:
    store.update(Update("ann", {"a": 1, "b": 1, "c": 1}, ttl={"a": 10, "b": 10, "c": 10})).result()
    store.update(Update("ann", {"a": 1}, increment={"b": 1})).result()
    clock.now += 50
    assert store.read("ann", clock.now).attributes == {"a": 1, "b": 2}
    store.update(Update("ann", increment={"c": 5})).result()
    assert store.read("ann", clock.now + 1_000).attributes == {"a": 1, "b": 2, "c": 5}


@pytest.mark.parametrize(
    ("update", "field"),
    [
        (Update("ann", {"a": 1}, ttl={"b": 1}), "ttl.b"),
        (Update("ann", unset=("a",), ttl={"a": 1}), "ttl.a"),
        (Update("ann", {"a": 1}, ttl={"a": 0}), "ttl.a"),
        (Update("ann", {"a": 1}, ttl={"a": -5}), "ttl.a"),
        (Update("ann", {"a": 1}, ttl={"a": 2**62}), "ttl.a"),
        (Update("ann", {"a": [1]}, keep={"a": 1}), "keep.a"),
        (Update("ann", remove={"a": 1}, keep={"a": 1}), "keep.a"),
        (Update("ann", append={"a": 1}, keep={"a": 0}), "keep.a"),
        (Update("ann", append={"a": 1}, keep={"a": 1001}), "keep.a"),
        (Update("ann", min={"a": True}), "min.a"),
        (Update("ann", max={"a": [1]}), "max.a"),
        (Update("ann", max={"a": 1}, min={"a": 1}), "max.a"),
        (Update("ann", add_to_set={"a": float("nan")}), "add_to_set.a"),
        (Update("ann", remove={"Bad": 1}), "remove.Bad"),
        (Update("ann", add_to_set={"word": 1}), "add_to_set.word"),
        (Update("ann", remove={"word": 1}), "remove.word"),
        (Update("ann", min={"word": 1}), "min.word"),
        (Update("ann", {"device": "fridge"}), "set.device"),
        (Update("ann", max={"level": 4}), "max.level"),
        (Update("ann", increment={"level": 1}), "increment.level"),
        (Update("ann", append={"level": 1}), "append.level"),
        (Update("ann", min={"level": 1.0}), "min.level"),
    ],
)
def test_a_verb_that_cannot_be_is_named_and_nothing_is_written(store: Store, update: Update, field: str) -> None:
    declared = Declared({"device": "string", "level": "int"}, {"device": ("ios", "web"), "level": (1, 3)})
    store.use_declared(Declarations(declared))
    store.update(Update("ann", {"word": "w", "level": 3, "device": "ios"})).result()
    error = refusal(store.update(update))
    assert isinstance(error, InvalidField)
    assert error.field == field
    assert store.read("ann", NOW).version == 1


def test_declared_values_are_held_for_attributes_and_properties(store: Store) -> None:
    weight = Declared({"weight": "double"}, {"weight": (1.0, 2.5)})
    device = Declared({"device": "string"}, {"device": ("ios", "web")})
    store.use_declared(Declarations(weight, weight, {"buy": device}))
    store.update(Update("ann", {"weight": 1})).result()
    assert exact(dict(store.read("ann", NOW).attributes)) == exact({"weight": 1.0})
    said = str(refusal(store.update(Update("ann", {"weight": 2}))))
    assert said == "set.weight is none of its declared values: 1.0, 2.5"
    error = refusal(store.ingest([Event("1", "ann", "buy", NOW, {"device": "tv"})]))
    assert str(error) == 'events[0].properties.device is none of its declared values: "ios", "web"'
    store.ingest([Event("1", "ann", "buy", NOW, {"device": "web"})]).result()
    assert isinstance(refusal(store.update(Update(account_id="acme", set={"weight": 2}))), InvalidField)


def test_a_bounded_list_keeps_its_newest_items_and_never_fills(tmp_path: Path) -> None:
    with Store.open(tmp_path, limits=Limits(list_items=5), background=False) as store:
        for item in range(20):
            store.update(Update("ann", append={"seen": item}, keep={"seen": 3})).result()
        assert store.read("ann", NOW).attributes == {"seen": [17, 18, 19]}
        for item in (20, 21):
            store.update(Update("ann", append={"seen": item})).result()
        error = refusal(store.update(Update("ann", append={"seen": 22})))
        assert isinstance(error, LimitExceeded)
        assert (error.field, error.reason) == ("append.seen", "list_items")


def test_the_history_tells_who_changed_what_and_keeps_the_newest_versions(store: Store, clock: Clock) -> None:
    for number in range(1, 6):
        clock.now += 1
        store.update(Update("ann", {"n": number, "same": 1}, by="shop")).result()
    store.update(Update("bob", {"n": 0})).result()
    store.update(Update("ann", unset=("same",), by="desk", ttl={})).result()
    assert store.history("ann", now=clock.now, limit=10) == [
        Version(6, NOW + 5, "desk", {"same": Change(1, None)}),
        Version(5, NOW + 5, "shop", {"n": Change(4, 5)}),
        Version(4, NOW + 4, "shop", {"n": Change(3, 4)}),
    ]
    assert store.history("ann", now=clock.now, limit=1) == [Version(6, NOW + 5, "desk", {"same": Change(1, None)})]
    assert [each.version for each in store.history("bob", now=clock.now, limit=10)] == [1]
    store.update(Update(account_id="ann", set={"seats": 5}, by="sales")).result()
    assert [each.by for each in store.history(account_id="ann", now=clock.now, limit=10)] == ["sales"]
    assert store.history("nobody", now=clock.now, limit=10) == []


@pytest.mark.parametrize(("kept", "left"), [(0, []), (2, [7, 6]), (9, [7, 6, 5, 4])])
def test_a_changed_bound_of_the_history_holds_from_the_next_update_on(
    tmp_path: Path, kept: int, left: list[int]
) -> None:
    with Store.open(tmp_path, limits=Limits(versions=3), background=False) as store:
        for number in range(6):
            store.update(Update("ann", {"n": number})).result()
    with Store.open(tmp_path, limits=Limits(versions=kept), background=False) as store:
        store.update(Update("ann", {"n": 6})).result()
        assert [each.version for each in store.history("ann", now=NOW, limit=10)] == left


def test_idempotency_keys_are_kept_as_long_as_they_are_told(tmp_path: Path, clock: Clock) -> None:
    with Store.open(tmp_path, clock=clock, limits=Limits(idempotency=50), background=False) as store:
        update = Update("ann", increment={"n": 1}, idempotency_key="k", by="one")
        assert store.update(update).result() == 1
        clock.now += 49
        assert store.update(msgspec.structs.replace(update, by="other")).result() == 1
        clock.now += 1
        assert store.update(update).result() == 2


def test_a_declared_list_stays_within_its_bound_and_one_of_before_is_cut_by_the_next_verb(store: Store) -> None:
    store.update(Update("ann", {"seen": [1, 2, 3, 4, 5]})).result()
    store.use_declared(Declarations(Declared({"seen": "list"}, max_items={"seen": 3})))
    error = refusal(store.update(Update("ann", {"seen": [1, 2, 3, 4]})))
    assert str(error) == (
        "set.seen has 4 items, and its declaration allows 3 (`max_items`): send the newest, or append them, which "
        "drops the oldest"
    )
    assert isinstance(error, InvalidField)
    assert (error.field, error.reason) == ("set.seen", "")
    assert store.read("ann", NOW).attributes == {"seen": [1, 2, 3, 4, 5]}
    for update, then in (
        (Update("ann", remove={"seen": 1}), [3, 4, 5]),
        (Update("ann", append={"seen": 6}), [4, 5, 6]),
        (Update("ann", add_to_set={"seen": 4}), [4, 5, 6]),
        (Update("ann", add_to_set={"seen": 7}), [5, 6, 7]),
        (Update("ann", append={"seen": 8}, keep={"seen": 2}), [7, 8]),
        (Update("ann", append={"seen": 9}, keep={"seen": 10}), [7, 8, 9]),
        (Update("ann", append={"seen": 10}, keep={"seen": 10}), [8, 9, 10]),
        (Update("ann", set={"seen": [1, 2, 3]}), [1, 2, 3]),
    ):
        store.update(update).result()
        assert store.read("ann", NOW).attributes == {"seen": then}, update
