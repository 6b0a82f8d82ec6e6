"""Keys: without its secret a store names nobody, with another it is not opened, and turning to a new one loses nothing.

The oracle is a store that never turns: whatever is written to both, and whenever the other turns, both say the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbiter.client import standing
from arbiter.config.files import UnusableFile
from arbiter.config.options import Profiles
from arbiter.errors import ArbiterError, StoreError
from arbiter.profiles.aliases import standing_for
from arbiter.profiles.compaction import compact, is_due
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.consuming import Partition, Span
from arbiter.profiles.environment import open_environment
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.generations import remove_superseded
from arbiter.profiles.inspecting import inspect
from arbiter.profiles.keys import Secrets, UnderPrevious
from arbiter.profiles.naming import name_of
from arbiter.profiles.store import Declarations, Store, Update
from arbiter.runtime.alone import alone
from arbiter.runtime.keyfiles import check_keys, read_secrets
from arbiter.runtime.local import open_engine
from arbiter.runtime.rekeying import rekey
from arbiter.runtime.settings import Settings
from arbiter.runtime.survey import follow, look
from arbiter.server import admin
from arbiter.telemetry import instruments
from arbiter.telemetry.counters import Counters
from arbiter.types import ConsentState, Event
from tests import forked
from tests.conftest import Clock
from tests.test_features import feature

Write = Callable[[Store], Future[Any]]
T0 = 1_790_000_000_000_000
MINUTE = 60_000_000
ONE, TWO, THREE = b"1" * 32, b"2" * 32, b"3" * 32
FEATURES = FeatureSet((feature("count"), feature("sum"), feature("distinct"), feature("since")))
OTHERS = FeatureSet((feature("sum"), feature("count", 7)))
IDS = ("ann", "bob", "cyd", "phone", "pad")
TURNS: tuple[Secrets, ...] = (
    Secrets(),
    Secrets(ONE),
    Secrets(TWO, (ONE,)),
    Secrets(THREE, (TWO, ONE)),
    Secrets(ONE, (THREE, TWO)),  # back to one that was left
)


def opened(folder: Path, secrets: Secrets | None = None, clock: Clock | None = None) -> Store:
    store = Store.open(folder, clock=clock or Clock(T0), background=False, secrets=secrets)
    store.use_features(FEATURES)
    store.use_declared(Declarations(named=True))
    return store


def left(folder: Path) -> tuple[UnderPrevious, ...]:
    environment = open_environment(folder, 1 << 30)
    try:
        return inspect(environment).previous
    finally:
        environment.handle.close()


def fill(store: Store, subject: str = "ann") -> None:
    store.update(Update(subject, {"city": "Bern"}, idempotency_key="once")).result()
    store.ingest([Event(f"e{n}", subject, "buy", T0 - n, {"amount": n}) for n in range(3)]).result()
    store.set_consent(ConsentChange(subject, "ads", ConsentState.GRANTED, "form")).result()


def seen(store: Store, subject: str, now: int) -> Any:
    """All that a store says of an id, but for names that are keys, and for which records were rewritten already."""
    page = store.export(subject)
    entries = [(name, shown) for name, shown in page.entries if name != "feature_states"]
    for name, shown in entries:
        untold = {"alias": ("pseudonym",), "name": ("sealed_id",), "profile": ("features", "changed")}
        for key in untold.get(name, ()):
            del shown[key]
    return (
        store.read(subject, now),
        store.read_member(subject, now),
        store.events(subject),
        store.history(subject, now=now, limit=9),
        store.consents(subject),
        sorted(entries, key=repr),
        page.erased,
        store.read_account(subject, now),
        store.export(account_id=subject).erased,
        kept_name(store, subject),
    )


def kept_name(store: Store, subject: str) -> str:
    with store._looking() as (environment, txn):
        return name_of(environment, txn, store.keys, standing_for(environment, txn, store.keys.subject(subject)))


NAMES = st.sampled_from(IDS)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), NAMES, st.integers(0, 3)),
        st.tuples(st.just("account"), NAMES, st.integers(0, 3)),
        st.tuples(st.just("events"), NAMES, st.integers(0, 6)),
        st.tuples(st.just("consume"), NAMES, st.integers(0, 6)),
        st.tuples(st.just("consent"), NAMES, st.integers(0, 2)),
        st.tuples(st.just("link"), NAMES, st.integers(0, 4)),
        st.tuples(st.just("erase"), NAMES, st.integers(0, 3)),
        st.tuples(st.just("rekey"), NAMES, st.just(0)),
        st.tuples(st.just("rebuild"), NAMES, st.integers(0, 4)),
        st.tuples(st.just("wait"), NAMES, st.integers(1, 9)),
        st.tuples(st.just("turn"), NAMES, st.just(0)),
    ),
    max_size=40,
)


class Pair:
    """A store that turns, and one that does not."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock(T0)
        self.folder = folder / "turning"
        self.plain = opened(folder / "plain", clock=self.clock)
        self.turned = 0
        self.turning = opened(self.folder, TURNS[0], self.clock)
        self.offset = 0

    def turn(self) -> None:
        if self.turned + 1 < len(TURNS):
            self.turned += 1
            self.turning.close()
            self.turning = opened(self.folder, TURNS[self.turned], self.clock)

    def both(self, write: Write) -> None:
        answers = []
        for store in (self.plain, self.turning):
            try:
                answers.append(write(store).result())
            except ArbiterError as error:
                answers.append((type(error), str(error)))
        assert answers[0] == answers[1]

    def step(self, what: str, name: str, number: int) -> None:
        if what == "turn":
            self.turn()
        elif what == "wait":
            self.clock.now += number
        elif what == "rekey":
            self.turning.rekey([name], [name]).result()
        elif what == "rebuild":
            for store in (self.plain, self.turning):
                store.use_features(OTHERS)
                store.rebuild_step(number)
                store.use_features(FEATURES)
                store.rebuild_step(number)
        else:
            self.both(getattr(self, what)(name, number))

    def set(self, name: str, number: int) -> Write:
        return lambda store: store.update(Update(name, increment={f"a{number}": 1}, idempotency_key=str(number)))

    def account(self, name: str, number: int) -> Write:
        return lambda store: store.update(Update(account_id=name, set={f"a{number}": number}))

    def events(self, name: str, number: int) -> Write:
        at = self.clock.now + number - 5
        many = [Event(f"e{number}", each, "buy", at, {"amount": number}) for each in (name, "bob")]
        return lambda store: store.ingest(many)

    def consume(self, name: str, number: int) -> Write:
        event, start = Event(f"e{number}", name, "buy", self.clock.now - number, {"amount": number}), self.offset
        self.offset += 1
        part = Partition("g", "t", 0)
        return lambda store: store.consume([Span(part, start, start + 1, [(start, store.prepare(event, "event"))])])

    def consent(self, name: str, number: int) -> Write:
        state = list(ConsentState)[number % len(ConsentState)]
        return lambda store: store.set_consent(ConsentChange(name, "ads", state, "form"))

    def link(self, name: str, number: int) -> Write:
        return lambda store: store.link(name, IDS[number])

    def erase(self, name: str, number: int) -> Write:
        return lambda store: store.erase(name) if number else store.erase(account_id=name)

    def compare(self) -> None:
        now = self.clock.now
        for name in IDS:
            assert seen(self.turning, name, now) == seen(self.plain, name, now), name

    def close(self) -> None:
        self.plain.close()
        self.turning.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.integers(1, 7))
def test_whenever_it_turns_it_says_what_a_store_says_that_does_not(
    steps: list[tuple[str, str, int]], every: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        pair = Pair(Path(folder))
        stack.callback(pair.close)
        for place, step in enumerate(steps):
            pair.step(*step)
            if place % every == 0:
                pair.compare()
        pair.compare()
        pair.turning.rekey(IDS, IDS).result()
        pair.compare()
        pair.turning.rebuild_step(1_000)
        pair.compare()
        pair.turning.close()
        assert left(pair.folder) == ()
        pair.turning = opened(pair.folder, Secrets(TURNS[pair.turned].current), pair.clock)  # the old ones are dropped
        assert not turns(pair.turning)
        pair.compare()


def test_without_its_key_a_store_is_not_opened(tmp_path: Path) -> None:
    with opened(tmp_path, Secrets(ONE)) as store:
        fill(store)
    for secrets in (Secrets(TWO), Secrets(), Secrets(TWO, (THREE,))):
        with pytest.raises(StoreError, match=r"another key than `profiles\.key` names"):
            opened(tmp_path, secrets)
    with opened(tmp_path, Secrets(ONE)) as store:
        assert store.read("ann", T0).attributes == {"city": "Bern"}


def test_an_earlier_key_is_asked_for_until_nobody_is_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, Secrets(ONE)) as store:
        fill(store)
        fill(store, "bob")
        store.erase("bob").result()
    with opened(tmp_path, Secrets(TWO, (ONE,))) as store:  # who only reads turns nothing
        assert store.read("ann", T0).attributes == {"city": "Bern"}
    with opened(tmp_path, Secrets(ONE)) as store:
        assert store.read("ann", T0).attributes == {"city": "Bern"}
    with opened(tmp_path, Secrets(TWO, (ONE,))) as store:
        store.update(Update("new", {"a": 1})).result()
    assert [(each.subjects, each.erased) for each in left(tmp_path)] == [(1, 1)]
    with pytest.raises(StoreError, match=r"still lie under an earlier key"):
        opened(tmp_path, Secrets(TWO))
    with opened(tmp_path, Secrets(TWO, (ONE,))) as store:
        store.update(Update("ann", {"age": 3})).result()
    assert [(each.subjects, each.erased) for each in left(tmp_path)] == [(0, 1)]
    opened(tmp_path, Secrets(TWO)).close()  # a tombstone alone holds nobody up
    with opened(tmp_path, Secrets(TWO, (ONE,))) as store:
        assert store.export("bob").erased == T0
        assert store.ingest([Event("e1", "bob", "buy", T0, {})]).result().erased == 1
        store.update(Update("new", {"a": 2})).result()
        assert turns(store)  # for those who read an older state
        monkeypatch.setattr("arbiter.profiles.keys.LASTING_S", 0.0)
        store.update(Update("new", {"a": 3})).result()
        assert not turns(store)
    assert left(tmp_path) == ()


def test_a_write_moves_its_subject_whole_and_its_other_ids_still_find_it(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        fill(store)
        store.update(Update("phone", {"n": 1})).result()
        store.link("phone", "ann").result()
        before = store.read("ann", T0)
    with opened(tmp_path, Secrets(ONE)) as store:
        assert store.read("phone", T0) == store.read("ann", T0) == before
        store.update(Update("ann", {"city": "Basel"})).result()
        assert [(each.subjects, each.erased) for each in left_in(store)] == [(1, 0)]
        assert store.read("phone", T0).attributes["city"] == "Basel"
        # The alias moves when it is named, and the erasure of a whole person reaches both wherever they lie.
        erased = store.erase("phone").result().entries
        assert {"profile", "events", "alias", "consents", "history"} <= set(erased)
        assert left_in(store) == ()
        for name in ("ann", "phone"):
            assert store.export(name).erased == T0
            assert not store.read(name, T0).exists


def test_an_alias_may_be_named_before_what_it_stands_for_moves(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.update(Update("phone", {"n": 1})).result()
        fill(store)
        store.link("phone", "ann").result()
    with opened(tmp_path, Secrets(ONE)) as store:
        new = [Event("e8", "phone", "buy", T0, {"amount": 8}), Event("e9", "ann", "buy", T0, {"amount": 9})]
        assert store.ingest(new).result().accepted == 2
        assert {event.id for event in store.events("ann")} == {"e0", "e1", "e2", "e8", "e9"}
        assert store.read("phone", T0).features[feature("sum").key] == 0 + 1 + 2 + 8 + 9
        assert left_in(store) == ()
        assert store.ingest(new).result().duplicates == 2
    with opened(tmp_path, Secrets(TWO, (ONE,))) as store:
        assert not store.link("phone", "ann").result().linked
        assert left_in(store) == ()


def test_how_many_ids_are_left_is_told(tmp_path: Path) -> None:
    counters = Counters()
    with opened(tmp_path, Secrets(ONE)) as store:
        for name in ("ann", "bob", "cyd"):
            fill(store, name)
    with opened(tmp_path, Secrets(TWO, (ONE,))) as store:
        follow(store, counters)
        store.update(Update("ann", {"a": 1})).result()
        told = look(counters)[1]
        assert told is not None
        assert told.previous_ids == 2
        message = admin._store(told)
        assert message is not None
        assert standing._store(message) == told
        assert store.rekey(["bob", "cyd"]).result() == 2
        assert instruments.read(counters, "worker")["arbiter.store.previous_ids"] == [((), 0)]


def turns(store: Store) -> bool:
    return store.keys.turning


def left_in(store: Store) -> tuple[UnderPrevious, ...]:
    return inspect(store._environment).previous


OTHER = """
import sys
from pathlib import Path
from arbiter.profiles.keys import Secrets
from arbiter.profiles.store import Store, Update
with Store.open(Path(sys.argv[1]), background=False, secrets=Secrets(b"2" * 32, (b"1" * 32,))) as store:
    for line in sys.stdin:
        print(store.update(Update(line.strip(), {"by": "other"})).result(), flush=True)
"""


def test_processes_that_turn_together_share_what_moved_and_one_with_the_old_key_writes_no_more(tmp_path: Path) -> None:
    with opened(tmp_path, Secrets(ONE)) as store:
        for name in ("ann", "bob", "cyd"):
            fill(store, name)
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,  # noqa: S603
        ExitStack() as stack,
    ):
        assert other.stdin is not None
        assert other.stdout is not None

        def ask(name: str) -> str:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write(f"{name}\n")
            other.stdin.flush()
            return other.stdout.readline().strip()

        stale = stack.enter_context(opened(tmp_path, Secrets(ONE)))
        assert stale.update(Update("ann", {"a": 1})).result() == 2
        assert ask("ann") == "3"
        with pytest.raises(StoreError, match="turned to another key"):
            stale.update(Update("bob", {"a": 1})).result()
        stale.close()
        with opened(tmp_path, Secrets(TWO, (ONE,))) as store:
            assert store.read("ann", T0).attributes == {"city": "Bern", "a": 1, "by": "other"}
            assert store.read("bob", T0).attributes == {"city": "Bern"}
            assert ask("bob") == "2"
            assert store.read("bob", T0).attributes == {"city": "Bern", "by": "other"}
            assert store.update(Update("bob", {"by": "us"})).result() == 3
            assert ask("cyd") == "2"
            assert store.update(Update("cyd", {"by": "us"})).result() == 3
        other.stdin.close()
        assert other.wait(60) == 0
    assert left(tmp_path) == ()


def test_the_files_alone_name_nobody(tmp_path: Path) -> None:
    """A salted hash that stands in the files, or can be made from them, would let a guess of an id be tried."""
    names = [f"subject-{n}" for n in range(50)]
    with opened(tmp_path) as store:
        for name in names:
            fill(store, name)
        salt = store._environment.salt
    guesses = [blake2b(name.encode(), digest_size=16, key=salt).digest() for name in names]
    assert all(guess in _everything_in(tmp_path) for guess in guesses)
    with opened(tmp_path, Secrets(ONE)) as store:
        assert store.rekey(names).result() == 50
        derived = blake2b(ONE, digest_size=32, key=salt, person=b"subject keys").digest()
        keys = [blake2b(name.encode(), digest_size=16, key=derived).digest() for name in names]
        assert [bytes.fromhex(store.pseudonym(name)) for name in names] == keys
    environment = open_environment(tmp_path, 1 << 30)
    assert is_due(environment)  # the last one that moved asks for it
    compact(environment, 1 << 30)
    environment.handle.close()
    remove_superseded(tmp_path)
    after = _everything_in(tmp_path)
    assert all(key in after for key in keys)
    assert [secret for secret in (*guesses, ONE, derived, *(name.encode() for name in names)) if secret in after] == []


def _everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_server_is_not_started_with_keys_that_do_not_fit(tmp_path: Path) -> None:
    with opened(tmp_path / "data" / "store", Secrets(ONE)) as store:
        fill(store)
    short, other, open_to_all = (tmp_path / name for name in ("short", "other", "open"))
    for file, content, mode in ((short, b"x" * 31, 0o600), (other, TWO, 0o600), (open_to_all, ONE, 0o644)):
        file.write_bytes(content + b"\n")
        file.chmod(mode)
    settings = Settings(rules="rules", data=str(tmp_path / "data"), listen="127.0.0.1:0")

    def check(key: Path | str, previous: Path | str = "") -> None:
        check_keys(msgspec.structs.replace(settings, profiles=Profiles(key=str(key), previous_keys=str(previous))))

    with pytest.raises(UnusableFile, match="holds 31 bytes, and a key has at least 32"):
        check(short)
    with pytest.raises(UnusableFile, match="every user of this machine may read"):
        check(open_to_all)
    for key in ("", other):
        with pytest.raises(StoreError, match="another key"):
            check(key)
    open_to_all.chmod(0o600)
    check(open_to_all)
    folder = tmp_path / "previous"
    with pytest.raises(UnusableFile, match="cannot read"):
        check(other, folder)
    folder.mkdir()
    (folder / "..data").mkdir()  # as Kubernetes has it
    open_to_all.rename(folder / "first")
    check(other, folder)


def test_a_key_may_stand_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, previous = tmp_path / "first", tmp_path / "previous"
    file.write_bytes(ONE)
    file.chmod(0o600)
    named = read_secrets(Profiles(key=str(file)))
    monkeypatch.setenv("ARBITER_PROFILES_SECRET", ONE.decode("latin-1") + "\n")
    assert read_secrets(Profiles()) == named
    with pytest.raises(UnusableFile, match="leave out one of them"):
        read_secrets(Profiles(key=str(file)))
    previous.mkdir()
    file.rename(previous / "first")
    monkeypatch.setenv("ARBITER_PROFILES_SECRET", "x" * 40)
    assert read_secrets(Profiles(previous_keys=str(previous))) == Secrets(b"x" * 40, (ONE,))
    monkeypatch.setenv("ARBITER_PROFILES_SECRET", "x" * 31)
    with pytest.raises(UnusableFile, match="ARBITER_PROFILES_SECRET holds 31 bytes") as caught:
        read_secrets(Profiles())
    assert "xxx" not in str(caught.value)
    monkeypatch.setenv("ARBITER_PROFILES_SECRET", "")
    assert read_secrets(Profiles()) == Secrets()
    with pytest.raises(UnusableFile, match="there is no present key"):
        read_secrets(Profiles(previous_keys=str(previous)))


def test_ids_in_a_file_are_moved_beside_a_server_only_once_that_has_the_key(tmp_path: Path) -> None:
    with opened(tmp_path / "data" / "store") as store:
        fill(store)
        store.update(Update(account_id="acme", set={"plan": "team"})).result()
    (tmp_path / "key").write_bytes(ONE)
    (tmp_path / "key").chmod(0o600)
    settings = Settings(
        rules="rules", data=str(tmp_path / "data"), listen="", profiles=Profiles(key=str(tmp_path / "key"))
    )
    with alone(tmp_path / "data", "data directory"), pytest.raises(StoreError, match="start it again with it first"):
        rekey(settings, ["ann"], accounts=False)
    done = rekey(settings, ["ann", "acme", "nobody"], accounts=False)
    assert (done.ids, done.moved, [each.subjects for each in done.previous]) == (3, 1, [1])
    with alone(tmp_path / "data", "data directory"):
        done = rekey(settings, ["acme"], accounts=True)
    assert (done.ids, done.moved, done.previous) == (1, 1, ())
    with opened(tmp_path / "data" / "store", Secrets(ONE)) as store:
        assert store.read_account("acme", T0).attributes == {"plan": "team"}
    with pytest.raises(StoreError, match="there is no store"):
        rekey(msgspec.structs.replace(settings, data=str(tmp_path / "none")), [], accounts=False)


def test_an_engine_in_this_process_takes_the_keys_of_its_store(tmp_path: Path) -> None:
    rules, key = tmp_path / "rules", tmp_path / "key"
    rules.mkdir()
    (rules / "a.yaml").write_text("decisions: {home: }\n")
    key.write_bytes(ONE)
    key.chmod(0o600)
    secrets = read_secrets(Profiles(key=str(key)))
    with Store.open(tmp_path / "data" / "store", background=False, secrets=secrets) as store:
        store.update(Update("ann", {"country": "CA"})).result()
    with pytest.raises(StoreError, match="written with another key"):
        open_engine(rules, None, tmp_path / "data")
    engine = open_engine(rules, None, tmp_path / "data", secrets=secrets)
    assert engine.store.read("ann", engine.clock()).attributes == {"country": "CA"}
    engine.store.close()


RULES = """
actions: {show: {}}
decisions: {home: }
rules: [{id: canada, decision: home, priority: 1, when: 'profile.country == "CA"', then: {action: show}}]
"""


def test_commands_without_a_server_take_keys_from_where_a_server_has_them(tmp_path: Path) -> None:
    rules, key, config = tmp_path / "rules", tmp_path / "key", tmp_path / "shop.yaml"
    rules.mkdir()
    (rules / "a.yaml").write_text(RULES)
    key.write_bytes(ONE)
    key.chmod(0o600)
    config.write_text("profiles: {key: key}\n")
    with Store.open(tmp_path / "data" / "store", background=False, secrets=Secrets(ONE)) as store:
        store.update(Update("ann", {"country": "CA"})).result()

    def decide(*more: object, **variables: str) -> tuple[int, str]:
        asked = ("decide", "ann", "home", "--rules", rules, "--data", tmp_path / "data", "--json", *more)
        done = forked.arbiter(*asked, environment={**os.environ, **variables})
        return done.returncode, done.stdout + done.stderr

    code, said = decide()
    assert code == 1
    assert "written with another key" in said
    for code, said in (
        decide("--config", config),
        decide("--profiles-key", key),
        decide(ARBITER_PROFILES_KEY=str(key)),
        decide(ARBITER_CONFIG=str(config)),
    ):
        assert code == 0, said
        assert '"canada"' in said
