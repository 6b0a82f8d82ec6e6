"""The store: what is written is read, refusals leave no trace, commits are shared, and limits are told clearly."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.errors import ArbiterError, InvalidField, KeyReused, LimitExceeded, StoreError, VersionConflict
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Declarations, Declared, Ingested, Limits, Store, Update
from arbiter.ruleset.rules import Feature
from arbiter.types import Event
from tests.conftest import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENGINE = Path(__file__).parent.parent / "engine"
COUNT = Feature("buys", "count", "buy", "", None, None, 1, "buys", "int")
NOW = 1_000_000
REMEMBERED = Limits().idempotency


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(tmp_path, clock=clock, background=False) as opened:
        yield opened


def buy(number: int, subject: str = "ann", at: int = NOW, **properties: Any) -> Event:
    return Event(f"e{number}", subject, "buy", at, properties)


def refusal(future: Any) -> ArbiterError:
    error = future.exception()
    assert isinstance(error, ArbiterError), error
    return error


# Equality holds 1, 1.0 and true equal; what is on disk must not.
exact = msgspec.msgpack.Encoder(order="deterministic").encode

VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
        st.binary(max_size=20),
        st.datetimes(timezones=st.just(UTC)),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), VALUES, max_size=4))
def test_every_kind_of_value_comes_back_as_it_went(store: Store, values: dict[str, Any]) -> None:
    before = store.read("ann", NOW)
    version = store.update(Update("ann", values, unset=tuple(before.attributes.keys() - values.keys()))).result()
    profile = store.read("ann", NOW)
    assert profile.version == version == before.version + 1
    assert profile.attributes == values
    assert exact(dict(profile.attributes)) == exact(values)
    event = Event(f"e{version}", "ann", "buy", NOW, values)
    store.ingest([event]).result()
    logged = store.events("ann", newest_first=True, limit=1)
    assert logged == [event]
    assert exact(logged[0].properties) == exact(values)


def test_a_time_in_another_zone_comes_back_in_utc(store: Store) -> None:
    local = datetime(2026, 5, 1, 12, 0, 0, 123_456, tzinfo=timezone(timedelta(hours=2)))
    store.update(Update("ann", {"seen": local})).result()
    seen = store.read("ann", NOW).attributes["seen"]
    assert seen == local
    assert seen.utcoffset() == timedelta()


def test_an_unknown_subject_has_an_empty_profile(store: Store) -> None:
    store.use_features(FeatureSet([COUNT]))
    profile = store.read("nobody", NOW)
    assert (profile.version, profile.attributes, profile.features, profile.exists) == (0, {}, {"buys": 0}, False)
    assert profile.changes() == {}
    assert store.events("nobody") == []


def test_an_update_sets_unsets_increments_and_appends_in_one_step(store: Store) -> None:
    assert (
        store.update(Update("ann", {"a": 1, "b": "x", "c": [1]}, increment={"n": 2}, append={"l": "one"})).result() == 1
    )
    assert store.update(Update("ann", {"a": 2}, ("b", "absent"), {"n": 0.5}, {"c": {"k": 2}, "l": "two"})).result() == 2
    assert store.read("ann", NOW).attributes == {"a": 2, "c": [1, {"k": 2}], "n": 2.5, "l": ["one", "two"]}
    assert type(store.update(Update("bob", increment={"n": 3})).result()) is int
    assert repr(store.read("bob", NOW).attributes) == "{'n': 3}"


def test_change_times_move_only_when_the_value_changes(store: Store, clock: Clock) -> None:
    store.update(Update("ann", {"a": 1, "b": 1, "c": [1]})).result()
    clock.now += 5
    store.update(Update("ann", {"a": 1, "b": True, "c": [1.0]})).result()
    assert store.read("ann", clock.now).changes() == {"profile.a": NOW, "profile.b": NOW + 5, "profile.c": NOW + 5}


@pytest.mark.parametrize(
    ("update", "field"),
    [
        (Update(""), "subject_id"),
        (Update("x" * 257), "subject_id"),
        (Update("\ud800"), "subject_id"),
        (Update("ann", idempotency_key="k" * 257), "idempotency_key"),
        (Update("ann", {"Bad": 1}), "set.Bad"),
        (Update("ann", unset=("1a",)), "unset.1a"),
        (Update("ann", {"a": float("nan")}), "set.a"),
        (Update("ann", {"a": [1, float("inf")]}), "set.a[1]"),
        (Update("ann", {"a": 2**63}), "set.a"),
        (Update("ann", {"a": None}), "set.a"),
        (Update("ann", {"a": {"b": (1,)}}), "set.a.b"),
        (Update("ann", {"a": datetime(2026, 1, 1)}), "set.a"),  # noqa: DTZ001 - a naive time is what is refused
        (Update("ann", {"a": "\udfff"}), "set.a"),
        (Update("ann", {"a": 1}, increment={"a": 1}), "increment.a"),
        (Update("ann", unset=("a", "a")), "unset.a"),
        (Update("ann", increment={"n": True}), "increment.n"),
        (Update("ann", increment={"word": 1}), "increment.word"),
        (Update("ann", increment={"most": 1}), "increment.most"),
        (Update("ann", increment={"huge": 1.7e308}), "increment.huge"),
        (Update("ann", append={"word": 1}), "append.word"),
        (Update("ann", {"age": "old"}), "set.age"),
        (Update("ann", {"age": True}), "set.age"),
        (Update("ann", increment={"age": 0.5}), "increment.age"),
        (Update("ann", append={"age": 1}), "append.age"),
    ],
)
def test_a_bad_field_is_named_and_nothing_is_written(store: Store, update: Update, field: str) -> None:
    store.update(Update("ann", {"word": "w", "most": 2**63 - 1, "huge": 1.7e308})).result()
    store.use_declared(Declarations(Declared({"age": "int", "weight": "double"})))
    error = refusal(store.update(update))
    assert isinstance(error, InvalidField)
    assert error.field == field
    assert store.read("ann", NOW).version == 1


def test_an_int_is_stored_as_a_double_where_one_is_declared(store: Store) -> None:
    store.update(Update("ann", {"score": 2**62})).result()
    doubles = Declared({"weight": "double", "score": "double", "points": "double"})
    store.use_declared(Declarations(doubles, events={"buy": Declared({"amount": "double"})}))
    store.update(Update("ann", {"weight": 80, "other": 1}, increment={"score": 2**62, "points": 1})).result()
    expected = {"score": 2.0**63, "weight": 80.0, "other": 1, "points": 1.0}
    assert exact(dict(store.read("ann", NOW).attributes)) == exact(expected)
    store.ingest([buy(1, amount=7, other=1)]).result()
    assert exact(store.events("ann")[0].properties) == exact({"amount": 7.0, "other": 1})


def test_an_idempotency_key_knows_its_body_after_a_declaration(store: Store) -> None:
    update = Update("ann", {"weight": 80}, idempotency_key="k")
    store.update(update).result()
    store.use_declared(Declarations(Declared({"weight": "double"})))
    assert store.update(update).result() == 1


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (Update("ann", {"a": "x" * 70_000}), "record_bytes"),
        (Update("ann", {"a": [0] * 1001}), "list_items"),
        (Update("ann", {"a": [[[[[[[[[1]]]]]]]]]}), "value_depth"),
        (Update("ann", append={"full": 1}), "list_items"),
    ],
)
def test_limits_are_named(store: Store, update: Update, reason: str) -> None:
    store.update(Update("ann", {"full": [0] * 1000})).result()
    error = refusal(store.update(update))
    assert isinstance(error, LimitExceeded)
    assert error.reason == reason
    assert store.read("ann", NOW).version == 1


def test_another_version_is_a_conflict_that_names_the_stored_one(store: Store) -> None:
    assert store.update(Update("ann", {"a": 1}, expected_version=0)).result() == 1
    error = refusal(store.update(Update("ann", {"a": 2}, expected_version=0)))
    assert isinstance(error, VersionConflict)
    assert "version 1" in str(error)
    assert store.update(Update("ann", {"a": 2}, expected_version=1)).result() == 2


def test_a_version_that_no_profile_has_is_a_bad_field(store: Store) -> None:
    error = refusal(store.update(Update("ann", {"a": 1}, expected_version=-1)))
    assert isinstance(error, InvalidField)
    assert error.field == "expected_version"


def test_a_value_of_the_wrong_type_is_named_in_words(store: Store) -> None:
    store.use_declared(Declarations(Declared({"name": "string"})))
    store.update(Update("ann", {"age": 5})).result()
    said = [
        str(refusal(store.update(update)))
        for update in (
            Update("ann", {"name": 5}),
            Update("ann", {"name": True}),
            Update("ann", {"name": None}),
            Update("ann", append={"age": 1}),
            Update("ann", increment={"name": "x"}),  # type: ignore[dict-item] # what a caller may send
        )
    ]
    assert said == [
        "set.name is an int, but it is declared as string",
        "set.name is a bool, but it is declared as string",
        "set.name is a NoneType, which cannot be stored",
        "`age` is an int, not a list to append to",
        "increment.name is a string: only numbers can be added",
    ]


def test_an_idempotency_key_answers_again_without_writing(store: Store, clock: Clock) -> None:
    update = Update("ann", {"a": 1, "b": 2}, increment={"n": 1}, idempotency_key="k")
    assert store.update(update).result() == 1
    store.update(Update("ann", {"c": 1})).result()
    commits = store.commits
    assert store.update(Update("ann", {"b": 2, "a": 1}, increment={"n": 1}, idempotency_key="k")).result() == 1
    assert store.commits == commits
    assert isinstance(refusal(store.update(Update("ann", {"a": 1}, idempotency_key="k"))), KeyReused)
    assert store.update(Update("bob", {"a": 1}, idempotency_key="k")).result() == 1
    assert store.read("ann", NOW).attributes["n"] == 1
    clock.now += REMEMBERED
    assert store.update(Update("ann", {"a": 1}, idempotency_key="k")).result() == 3


def test_old_idempotency_keys_are_collected(store: Store, clock: Clock) -> None:
    for number in range(100):
        store.update(Update("ann", {"a": number}, idempotency_key=f"k{number}")).result()
    clock.now += REMEMBERED
    store.update(Update("ann", {"a": 0}, idempotency_key="k0")).result()
    store.update(Update("ann", {"a": 1})).result()
    with store._environment.handle.begin() as txn:
        assert txn.stat(store._environment.idem)["entries"] == 2
    assert store.update(Update("ann", {"a": 0}, idempotency_key="k0")).result() == 101


def test_events_are_ordered_by_time_then_arrival_and_deduplicated(store: Store) -> None:
    first = [buy(1, at=30), buy(2, at=10), buy(3, at=10, n=1), buy(1, at=99), buy(4, "bob", at=-5)]
    assert store.ingest(first).result() == Ingested(4, 1, 4)
    assert store.ingest([buy(2, at=77), buy(5, at=20), buy(1, "bob", at=30)]).result() == Ingested(2, 1, 6)
    assert [event.id for event in store.events("ann")] == ["e2", "e3", "e5", "e1"]
    assert [event.id for event in store.events("ann", newest_first=True)] == ["e1", "e5", "e3", "e2"]
    assert [event.id for event in store.events("ann", start=20, end=30)] == ["e5"]
    assert [event.id for event in store.events("ann", end=30, newest_first=True, limit=2)] == ["e5", "e3"]
    assert [event.id for event in store.events("bob")] == ["e4", "e1"]
    assert store.read("ann", NOW).version == 0
    assert store.read("ann", NOW).exists


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (Event("", "ann", "buy", 0), "events[1].id"),
        (Event("a", "", "buy", 0), "events[1].subject_id"),
        (Event("a", "ann", "Buy", 0), "events[1].type"),
        (Event("a", "ann", "buy", 2**62), "events[1].at"),
        (Event("a", "ann", "buy", 0, {"x": float("nan")}), "events[1].properties.x"),
        (Event("a", "ann", "buy", 0, {"X": 1}), "events[1].properties.X"),
        (Event("a", "ann", "buy", 0, {"amount": "much"}), "events[1].properties.amount"),
    ],
)
def test_one_bad_event_refuses_its_batch_and_is_named(store: Store, event: Event, field: str) -> None:
    store.use_declared(Declarations(events={"buy": Declared({"amount": "double"})}))
    error = refusal(store.ingest([buy(1, amount=1), event]))
    assert isinstance(error, InvalidField)
    assert error.field == field
    assert store.events("ann") == []


def test_limits_of_events_are_named(tmp_path: Path) -> None:
    with Store.open(tmp_path, limits=Limits(batch_events=2, event_bytes=100), background=False) as store:
        many = refusal(store.ingest([buy(1), buy(2), buy(3)]))
        large = refusal(store.ingest([buy(1, note="x" * 100)]))
    assert isinstance(many, LimitExceeded)
    assert many.reason == "batch_events"
    assert isinstance(large, LimitExceeded)
    assert large.reason == "event_bytes"


def hold_writer(store: Store) -> Callable[[], None]:
    """Keep the write lock, as another process would; the function gives it back."""
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with store._environment.handle.begin(write=True):
            held.set()
            free.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def release() -> None:
        free.set()
        thread.join()

    return release


def test_writes_in_flight_share_commits_and_fail_alone(store: Store) -> None:
    before = store.commits
    release = hold_writer(store)
    futures = [store.update(Update(f"s{n % 50}", increment={"n": 1})) for n in range(500)]
    wrong = store.update(Update("s1", {"a": 1}, expected_version=99))
    events = store.ingest([buy(n, f"s{n % 50}") for n in range(500)])
    assert not any(future.done() for future in futures)
    release()
    versions = [future.result() for future in futures]
    assert sorted(versions) == sorted(list(range(1, 11)) * 50)
    assert isinstance(refusal(wrong), VersionConflict)
    assert events.result().accepted == 500
    assert store.commits - before <= 3
    assert all(store.read(f"s{n}", NOW).attributes == {"n": 10} for n in range(50))


def test_a_full_queue_refuses_and_the_rest_is_written(tmp_path: Path) -> None:
    with Store.open(tmp_path, limits=Limits(write_queue=20), background=False) as store:
        release = hold_writer(store)
        first = store.update(Update("ann", increment={"n": 1}))
        while not first.running():  # from then on the writer waits for the lock, and takes nothing more
            time.sleep(0.001)
        futures = [first, *(store.update(Update("ann", increment={"n": 1})) for _ in range(99))]
        refused = [future for future in futures if future.done()]
        release()
        written = [future.result() for future in futures if future not in refused]
        assert len(written) == 1 + 20
        for future in refused:
            error = refusal(future)
            assert isinstance(error, LimitExceeded)
            assert error.reason == "write_queue"
        assert store.read("ann", NOW).attributes == {"n": len(written)}


def test_what_is_read_together_is_of_one_state(store: Store) -> None:
    store.use_features(FeatureSet([COUNT]))
    store.update(Update("ann", {"a": 1})).result()
    store.ingest([buy(1, "bob", at=NOW + 5)]).result()
    before = store.figures().reads
    with store.reading() as read:
        ann = read("ann", NOW + 9)
        store.update(Update("ann", {"a": 2})).result()
        nobody, again, bob = (read(subject, NOW + 9) for subject in ("nobody", "ann", "bob"))
    assert ann == again
    assert store.figures().reads == before + 4
    assert (ann.attributes, nobody.exists, bob.features) == ({"a": 1}, False, {"buys": 1})
    assert store.read("bob", NOW).features == {"buys": 0}


def test_a_full_quota_refuses_writes_and_reads_go_on(tmp_path: Path) -> None:
    with Store.open(tmp_path, quota=200_000, background=False) as store:
        written = 0
        for number in range(100):
            error = store.update(Update(f"s{number}", {"a": "x" * 10_000})).exception()
            if error is not None:
                break
            written += 1
        assert 5 < written < 25
        assert isinstance(error, LimitExceeded)
        assert error.reason == "store_quota"
        assert "200000 bytes" in str(error)
        assert store.read("s0", NOW).version == 1


def test_a_full_map_fails_that_write_and_reads_go_on(tmp_path: Path) -> None:
    with Store.open(tmp_path, map_size=300_000, background=False) as store:
        store.update(Update("ann", {"a": 1})).result()
        errors = [store.update(Update(f"s{n}", {"a": "x" * 30_000})).exception() for n in range(12)]
        assert isinstance(errors[-1], StoreError)
        assert "map size" in str(errors[-1])
        assert store.read("ann", NOW).attributes == {"a": 1}
        assert store.read("s0", NOW).version == 1
        assert store.update(Update("ann", {"a": 2})).result() == 2


DISK_FULL = """
import logging, resource, sys
from pathlib import Path
from arbiter.errors import LimitExceeded
from arbiter.profiles.store import Store, Update
lines = []
logging.getLogger("arbiter.profiles.writer").addFilter(lambda record: lines.append(record.getMessage()))
with Store.open(Path(sys.argv[1]), background=False) as store:
    store.update(Update("ann", {"a": 1})).result()
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    errors = [store.update(Update(f"s{n}", {"a": "x" * 30_000})).exception() for n in range(12)]
    assert errors[0] is None and errors[-2] is not None, errors
    assert isinstance(errors[-1], LimitExceeded) and errors[-1].reason == "disk_full", errors
    assert len(lines) == 1 and "the disk of the data directory is full" in lines[0], lines
    assert store.read("ann", 0).attributes == {"a": 1}
    stored = sum(error is None for error in errors)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.update(Update("ann", {"a": 2})).result()
print(stored)
"""


OPENED_WHILE_FULL = """
import resource, sys
from pathlib import Path
from arbiter.profiles.store import Store, Update
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
with Store.open(Path(sys.argv[1]), background=False) as store:
    print(store.read("ann", 0).attributes["a"], store.update(Update("ann", {"a": 2})).exception().reason)
"""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script, *map(str, arguments)],
        env={"PYTHONPATH": str(ENGINE)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_a_full_disk_fails_that_write_and_later_ones_succeed(tmp_path: Path) -> None:
    stored = int(run(DISK_FULL, tmp_path).stdout)
    with Store.open(tmp_path, background=False) as store:
        assert store.read("ann", NOW).attributes == {"a": 2}
        assert [store.read(f"s{n}", NOW).version for n in range(12)] == [1] * stored + [0] * (12 - stored)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_a_store_opens_on_a_full_disk(tmp_path: Path) -> None:
    with Store.open(tmp_path, background=False) as store:
        store.update(Update("ann", {"a": 1})).result()
    assert run(OPENED_WHILE_FULL, tmp_path).stdout == "1 disk_full\n"


PEER = """
import sys
from pathlib import Path
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.rules import Feature
from arbiter.types import Event
me = sys.argv[2]
with Store.open(Path(sys.argv[1])) as store:
    store.use_features(FeatureSet([Feature("buys", "count", "buy", "", None, None, 1, "buys", "int")]))
    print("open", flush=True)
    for line in sys.stdin:
        word, number = line.split()
        if word == "write":
            futures = [store.update(Update("shared", increment={"n": 1})) for _ in range(int(number))]
            futures += [store.ingest([Event(f"{me}{n}", "shared", "buy", 5)]) for n in range(int(number))]
            [future.result() for future in futures]
            print("written", flush=True)
        else:
            profile = store.read("shared", 10)
            print(profile.attributes.get("n", 0), profile.features["buys"], flush=True)
"""


class Peer:
    """Another process on the same store."""

    def __init__(self, folder: Path, name: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-c", PEER, str(folder), name],
            env={"PYTHONPATH": str(ENGINE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> int:
        self._process.communicate(timeout=30)
        return self._process.returncode


def test_two_processes_write_at_once_and_see_each_other(tmp_path: Path) -> None:
    peers = [Peer(tmp_path, name) for name in "ab"]
    assert [peer.hear() for peer in peers] == ["open", "open"]
    for done in (200, 400, 600):
        for peer in peers:
            peer.tell("write 100")
        assert [peer.hear() for peer in peers] == ["written", "written"]
        for peer in peers:
            peer.tell("read 0")
        # Later rounds repeat the events of the first: they are known.
        assert [peer.hear() for peer in peers] == [f"{done} 200"] * 2
    peers[0].tell("write 1")
    assert peers[0].hear() == "written"
    peers[1].tell("read 0")
    assert peers[1].hear() == "601 200"
    assert [peer.end() for peer in peers] == [0, 0]


def test_a_closed_store_writes_what_was_queued_and_refuses_more(tmp_path: Path) -> None:
    store = Store.open(tmp_path, background=False)
    futures = [store.update(Update("ann", increment={"n": 1})) for _ in range(100)]
    store.close()
    assert [future.result() for future in futures] == list(range(1, 101))
    assert isinstance(refusal(store.update(Update("ann", {"a": 1}))), StoreError)
    with pytest.raises(StoreError, match="closed"):
        store.read("ann", NOW)


def test_every_commit_is_synced_to_the_disk(store: Store) -> None:
    flags = store._environment.handle.flags()
    assert (flags["sync"], flags["metasync"], flags["map_async"], flags["writemap"]) == (True, True, False, False)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path, background=False).close()
    with lmdb.open(str(tmp_path / "1"), max_dbs=16) as handle, handle.begin(handle.open_db(b"meta"), write=True) as txn:
        txn.put(b"schema", b"\0\x04")
    with pytest.raises(StoreError, match=r"schema 4, we know up to 3: run the Arbiter that wrote it"):
        Store.open(tmp_path)


@pytest.mark.parametrize("harm", ["garbage", "short"])
def test_a_damaged_file_is_refused_with_a_way_back(tmp_path: Path, harm: str) -> None:
    with Store.open(tmp_path, background=False) as store:
        for number in range(100):
            store.update(Update(f"s{number}", {"a": "x" * 1000})).result()
    data = tmp_path / "1" / "data.mdb"
    content = data.read_bytes()
    data.write_bytes(b"\xff" * len(content) if harm == "garbage" else content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"damaged.*Restore a backup by `arbiter store restore"):
        Store.open(tmp_path)
    data.write_bytes(content)
    with Store.open(tmp_path, background=False) as store:
        assert store.read("s99", NOW).version == 1


@pytest.mark.parametrize("harm", ["removed", "emptied"])
def test_a_store_that_lost_its_data_is_no_new_store(tmp_path: Path, harm: str) -> None:
    place = tmp_path / "store"
    with Store.open(place, background=False) as store:
        store.update(Update("ann", {"a": 1})).result()
    data = place / "1" / "data.mdb"
    content = data.read_bytes()
    data.unlink() if harm == "removed" else data.write_bytes(b"")
    with pytest.raises(StoreError, match=r"has lost its data.*Restore a backup by `arbiter store restore"):
        Store.open(place)
    place.rename(tmp_path / "away")
    with Store.open(place, background=False) as store:
        assert not store.read("ann", NOW).exists
    data.write_bytes(content)
    with Store.open(place, background=False) as store:
        assert store.read("ann", NOW).attributes == {"a": 1}


@pytest.mark.parametrize("harm", ["removed", "replaced"])
def test_nothing_is_acknowledged_into_a_file_that_is_gone(tmp_path: Path, harm: str) -> None:
    with Store.open(tmp_path, background=False) as store:
        store.update(Update("ann", {"a": 1})).result()
        data, away = tmp_path / "1" / "data.mdb", tmp_path / "away.mdb"
        data.rename(away)
        if harm == "replaced":
            data.write_bytes(away.read_bytes())
        error = refusal(store.update(Update("ann", {"a": 2})))
        assert isinstance(error, StoreError)
        assert "moved away or replaced" in str(error)
        assert store.read("ann", NOW).attributes == {"a": 1}
        away.rename(data)
        assert store.update(Update("ann", {"a": 3})).result() == 2


def test_a_place_that_cannot_hold_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("taken")
    with pytest.raises(StoreError, match="cannot open the store in"):
        Store.open(tmp_path / "file")


def test_subjects_are_kept_under_a_key_that_differs_between_stores(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a", background=False) as one, Store.open(tmp_path / "b", background=False) as other:
        assert one._key("ann") != other._key("ann")
