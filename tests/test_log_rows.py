"""Rows of the log by the short way and by the long one, and rows that wait for the reference of their subject."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.config.options import DecisionLog
from arbiter.expr.shaped import shaped
from arbiter.learning.logged import decode_row, decode_rows, encode, encode_rows
from arbiter.profiles.records import Profile
from arbiter.profiles.store import Update
from arbiter.runtime import logfiles
from arbiter.runtime.chosen import Chosen
from arbiter.runtime.local import open_local
from arbiter.runtime.nameless import UNNAMED, Nameless
from arbiter.runtime.pens import Pen
from arbiter.runtime.recording import open_recorder
from arbiter.telemetry.counters import Counters
from arbiter.types import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arbiter.runtime.engine import Engine, Noted, Seen
    from arbiter.runtime.pens import Rows
    from arbiter.runtime.recording import Recorder

RULES = """\
schema:
  profile: {country: string, name: string, age: int, score: double, tags: list, since: timestamp}
  context: {device: string, seats: int}
  events: {visit: {}, buy: {amount: double}}
features:
  visits: {count: visit, window: 30d}
  spent: {sum: buy.amount}
actions: {show: {params: {text: string}}}
decisions:
  home: {slots: 2, order: [priority], default: {action: show, params: {text: none}}}
  lone: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
  bare: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
rules:
  - {id: us, decision: home, priority: 9, when: 'profile.country == "US" && profile.age > 5',
     then: {action: show, params: {text: "Hi ${profile.name}"}}}
  - {id: ios, decision: home, priority: 5, when: 'context.device == "ios" || context.seats > 3',
     then: {action: show, params: {text: app}}}
  - {id: tag, decision: home, priority: 3, when: '"a" in profile.tags || profile.score > 0.5',
     then: {action: show, params: {text: app}}}
  - {id: often, decision: home, priority: 2, when: 'features.visits > 2 && features.spent > 1.0',
     then: {action: show, params: {text: app}}}
  - {id: one, decision: lone, when: 'profile.country == "US"', then: {action: show, params: {text: one}}}
  - {id: always, decision: bare, when: 'true', then: {action: show, params: {text: one}}}
"""
CONSENT = "consent: {purposes: [analytics, marketing]}\n"
ROLLOUT = """\
  - {id: some, decision: home, priority: 8, rollout: {percent: 40}, when: "true",
     then: {action: show, params: {text: some}}}
"""


@pytest.fixture(scope="module", params=[RULES, CONSENT + RULES, RULES + ROLLOUT], ids=["plain", "consent", "rollout"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "rules").mkdir()
    (folder / "rules" / "r.yaml").write_text(request.param)
    engine, _ = open_local(folder / "rules", None, folder / "data")
    yield engine
    engine.store.close()


texts = st.text(max_size=4) | st.sampled_from(["US", "ios", "a"])
ATTRIBUTES = {
    "country": texts,
    "name": texts,
    "age": st.integers(-(2**63), 2**63 - 1),
    "score": st.floats(allow_nan=False),
    "tags": st.lists(texts, max_size=3),
}
whoever = st.fixed_dictionaries({}, optional=ATTRIBUTES)
FEATURES = st.fixed_dictionaries({}, optional={"visits": st.integers(0, 9), "spent": st.floats(0, 9)})


@settings(max_examples=60, deadline=None)
@given(
    point=st.sampled_from(["home", "lone", "bare"]),
    attributes=whoever,
    values=FEATURES,
    context=st.fixed_dictionaries({}, optional={"device": texts, "seats": st.integers(0, 9)}),
    how=st.sampled_from([dict, shaped]),
    granted=st.sets(st.sampled_from(["analytics", "marketing"])),
    reference=st.sampled_from([b"", bytes(range(16))]),
    until=st.none() | st.integers(2, 2**60),
    page=st.sampled_from([("", 0), ("first", 0), ("first", 2)]),
)
def test_the_short_way_writes_what_the_long_one_does(
    engine: Engine,
    point: str,
    attributes: dict[str, Any],
    values: dict[str, Any],
    context: dict[str, Any],
    how: Callable[[dict[str, Any]], Any],
    granted: set[str],
    reference: bytes,
    until: int | None,
    page: tuple[str, int],
) -> None:
    active = engine.current()
    keys = {name: feature.key for name, feature in active.snapshot.point("home").symbols.features.items()}
    features = {keys[name]: value for name, value in values.items()}
    profile = Profile(
        version=1,
        attributes=how(attributes),
        features=how(features),
        feature_set=active.features.id,
        valid_from=0,
        next_change_at=until,
        tail=b"",
        granted=tuple(sorted(granted)),
        reference=reference,
    )
    request = Request("somebody", (point,), 1, context)
    seen: list[Seen] = []
    [decision] = engine.decide_on(profile, request, active, seen)
    pen = Pen(7, active.snapshot.point(point), active.snapshot, "analytics")
    noted: Noted = ("id", request, decision, active, seen[0], *page)
    made: Rows = [None, None]
    left = pen.quick([noted, noted], range(2), active, made)
    if not reference or (active.snapshot.consent is not None and "analytics" not in granted):
        assert (left, made) == ([0, 1], [None, None])
        return
    long = decode_row(encode(pen.row(noted, profile.reference)))
    assert not left
    assert [decode_row(each) for each in _apart(encode_rows([row for row in made if row]), 2)] == [long, long]


def test_nothing_peculiar_goes_the_short_way(engine: Engine) -> None:
    active = engine.current()
    profile = Profile(1, {}, {}, active.features.id, 0, None, b"", ("analytics",), reference=bytes(16))
    request = Request("somebody", ("home",), 1, {}, 1)
    seen: list[Seen] = []
    [decision] = engine.decide_on(profile, request, active, seen)
    pen = Pen(7, active.snapshot.point("home"), active.snapshot, "")
    made: Rows = [None]
    noted: Noted = ("id", request, decision, active, seen[0], "", 0)
    assert pen.quick([noted], [0], active, made) == [0]
    assert made == [None]
    assert decode_row(encode(pen.row(noted, bytes(16)))).slots == 1


def _recording(folder: Path, losers: float = DecisionLog().losers) -> tuple[Engine, Recorder, Counters]:
    (folder / "rules").mkdir()
    (folder / "rules" / "r.yaml").write_text(RULES)
    counters = Counters()
    engine, _ = open_local(folder / "rules", None, folder / "data", counters=counters)
    options = DecisionLog(directory=str(folder / "log"), flush_seconds=60.0, spare_mib=0, losers=losers)
    return engine, open_recorder(options, engine), counters


def _note(recorder: Recorder, decided: Noted) -> None:
    recorder.noted.append(decided)
    if len(recorder.noted) >= recorder.together:
        recorder.take()


def _apart(rows: bytes, count: int) -> list[msgspec.Raw]:
    return decode_rows(b"\xdd" + count.to_bytes(4, "big") + rows)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_rows_that_are_packed_together_are_those_that_are_packed_one_by_one(count: int) -> None:
    rows = [(number, "x") for number in range(count)]
    assert [bytes(each) for each in _apart(encode_rows(rows), count)] == [encode(row) for row in rows]


@settings(max_examples=20, deadline=None)
@given(share=st.sampled_from([0.0, 0.004, 0.1, 0.5, 0.97, 1.0]), together=st.sampled_from([1, 7, 32, 1000]))
def test_who_is_chosen_is_chosen_with_its_chance_and_by_itself(share: float, together: int) -> None:
    chosen, count = Chosen(share), 20_000 // together
    places = [number * together + each for number in range(count) for each in chosen.among(together)]
    assert places == sorted(set(places))
    assert all(0 <= each < count * together for each in places)
    known = set(places)
    pairs = [each for each in places if each + 1 in known]
    for wanted, found in ((share, places), (share * share, pairs)):
        # Pairs share their members, so they spread up to thrice as far; there is one less of them.
        spread = 18 * (wanted * (1 - wanted) / (count * together)) ** 0.5
        assert abs(len(found) / (count * together) - wanted) <= spread + 1 / (count * together)


def test_a_row_of_who_was_erased_before_it_had_a_reference_is_dropped(tmp_path: Path) -> None:
    engine, recorder, counters = _recording(tmp_path)
    for name in ("ann", "bob"):
        engine.store.update(Update(name, {"country": "US"})).result()
    for name in ("ann", "ann", "bob"):
        request = Request(name, ("home",), engine.clock())
        seen: list[Seen] = []
        [decision] = engine.decide(request, seen=seen)
        _note(recorder, (f"of-{name}", request, decision, engine.current(), seen[0], "", 0))
    engine.store.erase("ann").result()
    recorder.close()
    assert counters.log_dropped == {"unreferenced": 2}
    logfiles.convert(tmp_path / "log", 0)
    [(_, row)] = logfiles.read_log(tmp_path / "log")
    assert (row.id, row.subject) == ("of-bob", engine.store.refer("bob").result().hex())
    engine.store.close()


def _row(text: str) -> bytes:
    return text.encode() + UNNAMED.hex().encode()


def test_many_are_asked_for_at_once_and_each_once() -> None:
    asked: list[str] = []
    hurried = threading.Event()

    def refer(subject: str) -> Future[bytes]:
        asked.append(subject)
        future: Future[bytes] = Future()
        future.set_result(subject.encode().ljust(16))
        return future

    nameless = Nameless(refer, Counters(), hurried.set)
    for number in range(2_500):
        assert hurried.is_set() == (number > 2 * 999)
        nameless.put(f"s{number // 2}", _row(f"{number} "))
    rows = list(nameless.named(0.0))
    assert sorted(asked) == sorted(f"s{number}" for number in range(1_250))
    assert sorted(rows) == sorted(
        f"{number} {f's{number // 2}'.encode().ljust(16).hex()}".encode() for number in range(2_500)
    )
    assert list(nameless.named(0.0)) == []


@pytest.mark.parametrize("answer", [lambda future: future.set_exception(OSError("no")), lambda future: future.cancel()])
def test_who_gets_none_is_counted_and_who_waits_is_asked_for_once(answer: Callable[[Future[bytes]], Any]) -> None:
    futures: list[Future[bytes]] = []
    counters = Counters()

    def refer(_subject: str) -> Future[bytes]:
        futures.append(Future())
        return futures[-1]

    nameless = Nameless(refer, counters, lambda: None)
    nameless.put("ann", _row("a"))
    assert list(nameless.named(0.0)) == []
    nameless.put("bob", _row("b"))
    answer(futures[0])
    assert list(nameless.named(0.0)) == []
    assert counters.log_dropped == {"unreferenced": 1}
    futures[1].set_result(b"r" * 16)
    assert list(nameless.named(0.0)) == [b"b" + (b"r" * 16).hex().encode()]
    for number in range(10_001):
        nameless.put(f"s{number}", _row("c"))
    assert counters.log_dropped == {"unreferenced": 2}


def test_a_decision_that_cannot_be_written_down_costs_its_row_and_no_other(tmp_path: Path) -> None:
    engine, recorder, counters = _recording(tmp_path)
    active = engine.current()
    request = Request("ann", ("home",), engine.clock())
    seen: list[Seen] = []
    [decision] = engine.decide(request, seen=seen)
    for number in range(40):
        late = msgspec.structs.replace(decision, valid_until=2**70 if number == 5 else None)
        _note(recorder, (f"d{number}", request, late, active, seen[0], "", 0))
    recorder.close()
    assert counters.log_dropped == {"unwritable": 1}
    logfiles.convert(tmp_path / "log", 0)
    written = {row.id for _, row in logfiles.read_log(tmp_path / "log")}
    assert written == {f"d{number}" for number in range(40) if number != 5}
    engine.store.close()


def test_decisions_of_several_points_and_peculiar_ones_are_all_written(tmp_path: Path) -> None:
    engine, recorder, counters = _recording(tmp_path, losers=0.2)
    active = engine.current()
    for number in range(100):
        point, slots = ("home", "lone", "bare")[number % 3], number % 2
        request = Request("ann", (point,), engine.clock(), {}, slots)
        seen: list[Seen] = []
        [decision] = engine.decide(request, seen=seen)
        page = "p" if number % 5 == 0 else ""
        _note(recorder, (f"d{number}", request, decision, active, seen[0], page, 0))
    recorder.close()
    assert not counters.log_dropped
    assert counters.log_rows == 100
    logfiles.convert(tmp_path / "log", 0)
    written = [(row.id, head.point, row.slots, row.page) for head, row in logfiles.read_log(tmp_path / "log")]
    expected = [(f"d{n}", ("home", "lone", "bare")[n % 3], n % 2, "p" if n % 5 == 0 else "") for n in range(100)]
    assert sorted(written) == sorted(expected)
    # Those that were chosen to be looked into come behind; all others in their order.
    looked = {row.id for _, row in logfiles.read_log(tmp_path / "log") if row.losers is not None}
    assert [each for each in written if each[0] not in looked] == [each for each in expected if each[0] not in looked]
    engine.store.close()
