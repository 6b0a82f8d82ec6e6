"""Linking: an anonymous id becomes a known one, once and for good, and all that was stored of the two is one then."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.errors import AlreadyLinked, InvalidField, LimitExceeded, VersionConflict
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Declarations, Declared, Limits, Store, Update
from arbiter.types import ConsentState
from tests.test_features import buy, feature, recount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.ruleset.rules import Merge
    from arbiter.types import Event

T0 = 1_790_000_000_000_000
ALL = [feature(each, window) for each in ("count", "sum", "first", "last", "distinct", "min") for window in (None, 40)]
FEATURES = FeatureSet(ALL)
MERGES: dict[str, Merge] = {"newest": "newest", "visits": "sum", "seen": "union", "best": "max", "theirs": "take"}
DECLARED = Declarations(profile=Declared(merges=MERGES))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", clock=lambda: T0, background=False) as opened:
        opened.use_features(FEATURES)
        opened.use_declared(DECLARED)
        yield opened


def test_two_profiles_become_one_under_both_ids(store: Store) -> None:
    store.update(Update("phone", set={"cart": ["a"], "country": "CA"}, increment={"visits": 3})).result()
    store.ingest([buy(1, T0 - 5, "phone", amount=2), buy(2, T0 - 3, "phone", amount=4)]).result()
    store.update(Update("ann", set={"country": "US", "name": "Ann"}, increment={"visits": 2})).result()
    store.ingest([buy(3, T0 - 4, "ann", amount=1)]).result()
    linked = store.link("phone", "ann").result()
    assert (linked.linked, linked.version, linked.events, linked.duplicates) == (True, 2, 2, 0)
    ann = store.read("ann", T0)
    assert ann == store.read("phone", T0)
    assert ann.attributes == {"country": "US", "name": "Ann", "visits": 5, "cart": ["a"]}
    log = store.events("phone")
    assert [event.id for event in log] == ["1", "3", "2"]
    assert [(event.id, event.subject_id) for event in store.events("ann")] == [
        (each, "ann") for each in ("1", "3", "2")
    ]
    for each in ALL:
        assert ann.features.get(each.key) == recount(each, log, T0), each.key


def test_what_is_sent_to_the_anonymous_id_later_lands_on_the_known_one(store: Store) -> None:
    store.link("phone", "ann").result()
    assert store.update(Update("phone", set={"a": 1}, expected_version=0)).result() == 1
    store.ingest([buy(1, T0 - 1, "phone", amount=1), buy(1, T0 - 1, "ann", amount=1)]).result()
    assert store.read("ann", T0).attributes == {"a": 1}
    assert [event.id for event in store.events("ann")] == ["1"]
    with store.reading() as read:
        assert read("phone", T0) == read("ann", T0) == store.read("ann", T0)


def test_linking_again_changes_nothing(store: Store) -> None:
    store.update(Update("phone", increment={"visits": 1})).result()
    first = store.link("phone", "ann").result()
    again = [store.link("phone", "ann").result(), store.link("ann", "phone").result()]
    assert [(each.linked, each.version, each.events) for each in again] == [(False, first.version, 0)] * 2
    assert store.read("ann", T0).attributes == {"visits": 1}


def test_chains_end_at_once(store: Store) -> None:
    for place, subject in enumerate(("tab", "phone", "mail", "ann")):
        store.update(Update(subject, increment={"visits": 1})).result()
        store.ingest([buy(place, T0 - place, subject, amount=1)]).result()
    store.link("tab", "phone").result()
    store.link("phone", "mail").result()
    store.link("mail", "ann").result()
    for subject in ("tab", "phone", "mail", "ann"):
        assert store.read(subject, T0).attributes == {"visits": 4}
        assert len(store.events(subject)) == 4
    for subject in ("tab", "phone", "mail", "ann"):
        store.update(Update(subject, increment={"visits": 1})).result()
    assert store.read("ann", T0).attributes == {"visits": 8}
    with store._environment.handle.begin() as txn:
        environment = store._environment
        ends = {raw for _, raw in txn.cursor(environment.profile) if len(raw) == 16}
        assert ends == {store._key("ann")}
        assert txn.stat(environment.profile)["entries"] == 4
        assert txn.stat(environment.window)["entries"] == 1


def test_a_circle_is_no_circle(store: Store) -> None:
    store.link("a", "b").result()
    store.link("b", "c").result()
    assert store.link("c", "a").result().linked is False
    store.update(Update("a", set={"x": 1})).result()
    assert store.read("c", T0).attributes == {"x": 1}


def test_an_id_has_one_owner(store: Store) -> None:
    store.link("phone", "ann").result()
    store.update(Update("ben", set={"x": 1})).result()
    with pytest.raises(AlreadyLinked, match="somebody else already"):
        store.link("phone", "ben").result()
    assert store.read("phone", T0).attributes == {}
    with pytest.raises(InvalidField, match="the same id"):
        store.link("ann", "ann").result()
    # But two known ones may turn out to be one person.
    assert store.link("ann", "ben").result().linked
    assert store.link("phone", "ben").result().linked is False


def test_an_event_that_both_have_is_kept_once(store: Store) -> None:
    twice = buy(7, T0 - 5, "phone", amount=2)
    store.ingest([twice, buy(8, T0 - 1, "phone", amount=3)]).result()
    store.ingest([buy(7, T0 - 4, "ann", amount=10)]).result()
    store.ingest([buy(9, T0 - 2, "phone", amount=3), buy(8, T0 - 1, "ann", amount=3)]).result()
    linked = store.link("phone", "ann").result()
    assert (linked.events, linked.duplicates) == (1, 2)
    assert [(event.id, event.at) for event in store.events("ann")] == [("7", T0 - 4), ("9", T0 - 2), ("8", T0 - 1)]
    assert store.ingest([twice, buy(8, T0, "ann"), buy(9, T0, "phone")]).result().accepted == 0


def test_a_position_is_never_given_twice(store: Store) -> None:
    store.ingest([buy(1, T0, "ann")]).result()
    last = store.ingest([buy(1, T0, "phone")]).result().position
    assert store.link("phone", "ann").result().duplicates == 1
    assert store.ingest([buy(2, T0, "ann")]).result().position > last


def test_an_update_that_was_answered_before_the_link_is_not_done_again(store: Store) -> None:
    once = Update("phone", increment={"visits": 1}, idempotency_key="k")
    assert store.update(once).result() == 1
    store.update(Update("ann", increment={"visits": 1}, idempotency_key="k")).result()
    store.update(Update("tab", increment={"visits": 1}, idempotency_key="other")).result()
    store.link("tab", "ann").result()
    assert store.update(Update("tab", increment={"visits": 1}, idempotency_key="other")).result() == 1
    store.link("phone", "mail").result()
    assert store.update(once).result() == 1
    assert (store.read("ann", T0).attributes, store.read("mail", T0).attributes) == ({"visits": 2}, {"visits": 1})


def test_a_version_that_was_read_of_either_is_stale(store: Store) -> None:
    for _ in range(3):
        store.update(Update("phone", set={"a": 1})).result()
    store.update(Update("ann", set={"a": 1})).result()
    assert store.link("phone", "ann").result().version == 4
    for subject, version in (("phone", 3), ("ann", 1)):
        with pytest.raises(VersionConflict):
            store.update(Update(subject, set={"b": 1}, expected_version=version)).result()


def test_links_updates_and_events_share_a_transaction(store: Store) -> None:
    futures: list[Any] = []
    for turn in range(20):
        futures.append(store.update(Update("phone", increment={"visits": 1})))
        futures.append(store.ingest([buy(turn, T0 - turn, "phone", amount=1), buy(turn + 99, T0 - turn, "ann")]))
        if turn == 9:
            futures.append(store.link("phone", "ann"))
            futures.append(store.link("tab", "phone"))
        futures.append(store.update(Update("tab" if turn > 9 else "ann", increment={"visits": 1})))
    for future in futures:
        future.result()
    assert store.read("ann", T0).attributes == {"visits": 40}
    assert len(store.events("tab")) == 40
    assert store.read("tab", T0).features[ALL[0].key] == 40


def test_a_refused_link_leaves_both_as_they_were(tmp_path: Path) -> None:
    limits = Limits(list_items=4, record_bytes=60, link_events=2, aliases=2)
    with Store.open(tmp_path / "store", clock=lambda: T0, limits=limits, background=False) as store:
        store.use_declared(DECLARED)
        store.update(Update("ann", set={"seen": [1, 2], "visits": 2**63 - 1})).result()
        store.update(Update("list", set={"seen": [3, 4, 5]})).result()
        store.update(Update("sum", set={"visits": 1})).result()
        store.update(Update("size", set={"a": "x" * 50})).result()
        store.ingest([buy(each, T0, "log") for each in range(3)]).result()
        for subject, refusal, reason in [
            ("list", LimitExceeded, "list_items"),
            ("sum", InvalidField, "stored_value"),
            ("size", LimitExceeded, "record_bytes"),
            ("log", LimitExceeded, "link_events"),
        ]:
            before = store.read(subject, T0), store.read("ann", T0), store.events(subject)
            with pytest.raises(refusal) as refused:
                store.link(subject, "ann").result()
            assert refused.value.reason == reason
            assert (store.read(subject, T0), store.read("ann", T0), store.events(subject)) == before
        store.link("one", "ann").result()
        store.link("two", "ann").result()
        with pytest.raises(LimitExceeded, match="aliases"):
            store.link("three", "ann").result()


# Whatever is sent in whatever order, to whichever id of a person: what a model in plain Python says is there.

IDS = ("a", "b", "c", "d", "e")
steps = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(IDS), st.sampled_from(("plain", *MERGES)), st.integers(-2, 5)),
    st.tuples(st.just("list"), st.sampled_from(IDS), st.just("seen"), st.lists(st.integers(0, 4), max_size=3)),
    st.tuples(st.just("event"), st.sampled_from(IDS), st.integers(0, 6), st.integers(0, 60)),
    st.tuples(st.just("link"), st.sampled_from(IDS), st.sampled_from(IDS), st.none()),
)


class Person:
    """What the model knows of somebody: attributes with the time of their change, and the log."""

    def __init__(self) -> None:
        self.attributes: dict[str, tuple[Any, int]] = {}
        self.log: list[tuple[int, int, Event]] = []
        self.version = 0


def union(ours: Any, theirs: Any) -> Any:
    return [*ours, *(each for each in theirs if each not in ours)] if type(ours) is type(theirs) is list else ours


def chosen(name: str, ours: tuple[Any, int], theirs: tuple[Any, int]) -> tuple[Any, int]:
    numbers = type(ours[0]) is type(theirs[0]) is int
    match MERGES.get(name):
        case "newest":
            return max(ours, theirs, key=lambda held: held[1])
        case "take":
            return theirs
        case "sum" if numbers:
            return ours[0] + theirs[0], max(ours[1], theirs[1])
        case "max" if numbers:
            return max(ours, theirs, key=lambda held: held[0])
        case "union" if type(ours[0]) is type(theirs[0]) is list:
            return union(ours[0], theirs[0]), max(ours[1], theirs[1])
    return ours


class Model:
    """All persons, by each of their ids."""

    def __init__(self) -> None:
        self.of = {each: Person() for each in IDS}
        self.linked: set[str] = set()
        self.position = 0

    def set(self, subject: str, name: str, value: Any, now: int) -> None:
        person = self.of[subject]
        known = person.attributes.get(name)
        same = known is not None and type(known[0]) is type(value) and known[0] == value
        person.attributes[name] = (value, known[1] if same and known else now)
        person.version += 1

    def event(self, event: Event) -> None:
        person = self.of[event.subject_id]
        if all(each.id != event.id for *_, each in person.log):
            self.position += 1
            person.log.append((event.at, self.position, event))

    def link(self, anonymous: str, known: str) -> bool:
        """Whether it may be done."""
        theirs, ours = self.of[anonymous], self.of[known]
        if theirs is ours:
            return anonymous != known
        if anonymous in self.linked:
            return False
        for name, held in theirs.attributes.items():
            mine = ours.attributes.get(name)
            ours.attributes[name] = held if mine is None else chosen(name, mine, held)
        ids = {event.id for *_, event in ours.log}
        ours.log += [each for each in theirs.log if each[2].id not in ids]
        if theirs.version:
            ours.version = max(ours.version, theirs.version) + 1
        self.of |= {each: ours for each, person in self.of.items() if person is theirs}
        self.linked.add(anonymous)
        return True


@settings(max_examples=120, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, max_size=25))
def test_random_histories_are_what_a_plain_model_says(history: list[tuple[Any, ...]]) -> None:
    model, clock = Model(), [T0]
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder), clock=lambda: clock[0], background=False) as store,
    ):
        store.use_features(FEATURES)
        store.use_declared(DECLARED)
        for kind, subject, name, value in history:
            clock[0] += 1
            if kind in {"set", "list"}:
                model.set(subject, name, value, clock[0])
                version = store.update(Update(subject, set={name: value})).result()
                assert version == model.of[subject].version
            elif kind == "event":
                event = buy(name, T0 + value, subject, amount=name)
                model.event(event)
                store.ingest([event]).result()
            else:
                check_link(model, store, subject, name)
        now = T0 + 45
        for subject in IDS:
            person, found = model.of[subject], store.read(subject, now)
            assert found.attributes == {name: held[0] for name, held in person.attributes.items()}
            assert found.attribute_times() == {name: held[1] for name, held in person.attributes.items()}
            log = [event for *_, event in sorted(person.log, key=lambda each: each[:2])]
            assert [(each.id, each.at) for each in store.events(subject)] == [(each.id, each.at) for each in log]
            if found.exists:
                for each in ALL:
                    assert found.features.get(each.key) == recount(each, log, now), each.key


def check_link(model: Model, store: Store, anonymous: str, known: str) -> None:
    done = model.link(anonymous, known)
    try:
        linked = store.link(anonymous, known).result()
    except (AlreadyLinked, InvalidField):
        assert not done
    else:
        assert done
        if linked.linked:
            assert linked.version == model.of[known].version


def link_all(path: Path, order: int, done: Any) -> None:
    """In a process of its own: link ten ids to one, and send to each meanwhile."""
    with Store.open(path, clock=lambda: T0, background=False) as store:
        store.use_features(FEATURES)
        store.use_declared(DECLARED)
        for number in range(10)[::order]:
            store.update(Update(f"id{number}", increment={"visits": 1})).result()
            store.ingest([buy(number * 2 + (order > 0), T0 - number, f"id{number}", amount=1)]).result()
            store.link(f"id{number}", "ann").result()
            store.update(Update(f"id{number}", increment={"visits": 1})).result()
    done.put(order)


def test_two_processes_link_the_same_ids_at_the_same_time(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    done = spawn.Queue()
    processes = [spawn.Process(target=link_all, args=(tmp_path, order, done)) for order in (1, -1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sorted(done.get(timeout=5) for _ in processes) == [-1, 1]
    with Store.open(tmp_path, clock=lambda: T0, background=False) as store:
        store.use_features(FEATURES)
        ann = store.read("ann", T0)
        assert ann.attributes == {"visits": 40}
        assert len(store.events("ann")) == ann.features[ALL[0].key] == 20
        assert all(store.read(f"id{number}", T0) == ann for number in range(10))


@pytest.mark.parametrize(("phone", "ann"), [(6, 3), (3, 6), (4, 4), (0, 5)])
def test_what_left_either_log_stays_in_the_features(tmp_path: Path, phone: int, ann: int) -> None:
    hour, now = 3_600_000_000, [T0]
    limits = Limits(keep_events=2)
    with Store.open(tmp_path / "store", clock=lambda: now[0], limits=limits, background=False) as store:
        store.use_features(FEATURES)
        log = [buy(each, T0 - 7 * each, "phone", amount=each) for each in range(phone)]
        log += [buy(100 + each, T0 - 7 * each - 1, "ann", amount=50 - each) for each in range(ann)]
        store.ingest(log).result()
        while store.rebuild_step(10):
            pass
        now[0] += 3 * hour
        while store.collect_step():
            pass
        assert len(store.events("phone")) == min(2, phone)
        store.link("phone", "ann").result()
        store.ingest([buy(999, T0 + hour, "phone", amount=7)]).result()
        log.append(buy(999, T0 + hour, "ann", amount=7))
        for clock in (now[0], now[0] + hour):
            found = store.read("ann", clock)
            for each in ALL:
                assert found.features.get(each.key) == recount(each, log, clock), each.key


def test_the_history_tells_what_a_link_brought(store: Store) -> None:
    store.update(Update("phone", set={"visits": 2, "cart": ["a"]}, by="web")).result()
    store.update(Update("ann", set={"visits": 1}, by="crm")).result()
    store.link("phone", "ann", by="login").result()
    newest, first = store.history("phone", now=T0, limit=9)
    assert [(each.version, each.by) for each in (newest, first)] == [(2, "login"), (1, "crm")]
    assert {name: (each.before, each.after) for name, each in newest.changes.items()} == {
        "visits": (1, 3),
        "cart": (None, ["a"]),
    }


def test_an_attribute_that_goes_takes_its_time_with_it(tmp_path: Path) -> None:
    now = [T0]
    with Store.open(tmp_path / "store", clock=lambda: now[0], background=False) as store:
        store.use_declared(DECLARED)
        store.update(
            Update("phone", set={"cart": 1, "visits": 1, "seen": [1]}, ttl={"cart": 50, "visits": 10})
        ).result()
        store.update(Update("ann", set={"visits": 2, "seen": [2]}, ttl={"visits": 90, "seen": 90})).result()
        now[0] += 20
        store.link("phone", "ann").result()
        assert store.read("ann", now[0]).attributes == {"visits": 2, "seen": [2, 1], "cart": 1}
        assert store.read("ann", T0 + 51).attributes == {"visits": 2, "seen": [2, 1]}
        assert store.read("phone", T0 + 91).attributes == {"seen": [2, 1]}


@pytest.mark.parametrize("named", ["phone", "ann"])
def test_who_is_erased_is_erased_under_every_id(store: Store, named: str) -> None:
    old = buy(1, T0 - 5, "phone", amount=1)
    store.ingest([old]).result()
    store.update(Update("ann", set={"a": 1})).result()
    store.link("phone", "ann").result()
    held = {name for name, _ in store.export("phone").entries}
    assert {"profile", "events", "alias"} <= held
    assert store.export("phone") == store.export("ann")
    store.erase(named).result()
    for subject in ("phone", "ann"):
        assert not store.read(subject, T0).exists
        assert store.export(subject).entries == []
    assert store.ingest([old]).result().accepted == 0
    assert store.link("phone", "ben").result().linked


G, D, R = ConsentState.GRANTED, ConsentState.DENIED, ConsentState.REVOKED


@pytest.mark.parametrize(
    ("phone", "ann", "granted"),
    [
        (None, (G, 1), True), ((G, 1), None, True), ((D, 1), None, False), ((G, 1), (G, 2), True),
        ((D, 1), (G, 2), True), ((D, 2), (G, 1), False), ((G, 2), (D, 1), False), ((G, 1), (D, 2), False),
        ((R, 2), (G, 1), False), ((G, 2), (R, 1), False), ((D, 1), (D, 2), False), ((D, 2), (G, 2), False),
    ],
)  # fmt: skip
def test_a_no_of_either_holds_unless_the_known_one_granted_later(
    store: Store, phone: tuple[ConsentState, int] | None, ann: tuple[ConsentState, int] | None, *, granted: bool
) -> None:
    for subject, said in (("phone", phone), ("ann", ann)):
        if said is not None:
            store.set_consent(ConsentChange(subject, "ads", said[0], "form", T0 - 100 + said[1])).result()
    store.link("phone", "ann").result()
    assert store.read("phone", T0).granted == (("ads",) if granted else ())
    said_of_ads = store.consents("phone")["ads"]
    assert (said_of_ads[0].state is G) is granted
    assert len([each for each in said_of_ads if each.source == "form"]) == (phone is not None) + (ann is not None)
    store.set_consent(ConsentChange("phone", "ads", G, "later", T0 + 5)).result()
    assert store.read("ann", T0 + 6).granted == ("ads",)


def test_a_union_stays_within_the_declared_bound_with_the_newest(store: Store) -> None:
    store.use_declared(Declarations(profile=Declared(merges=MERGES, max_items={"seen": 3})))
    store.update(Update("phone", {"seen": ["x", "b", "y"]})).result()
    store.update(Update("ann", {"seen": ["a", "b"]})).result()
    store.link("phone", "ann").result()
    assert store.read("ann", T0).attributes == {"seen": ["b", "x", "y"]}
