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
from arbiter.learning.logged import decode_row
from arbiter.profiles.records import Profile
from arbiter.profiles.store import Update
from arbiter.runtime import logfiles
from arbiter.runtime.local import open_local
from arbiter.runtime.nameless import UNNAMED, Nameless
from arbiter.runtime.pens import Pen
from arbiter.runtime.recording import open_recorder
from arbiter.telemetry.counters import Counters
from arbiter.types import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arbiter.runtime.engine import Engine, Seen

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
    short = [pen.quick("id", request, decision, seen[0]) for _ in range(2)]
    if not reference or (active.snapshot.consent is not None and "analytics" not in granted):
        assert short == [None, None]
        return
    long = decode_row(pen.row("id", profile.reference, request, decision, active, seen[0]))
    assert [decode_row(each) for each in short if each] == [long, long]


def test_nothing_peculiar_goes_the_short_way(engine: Engine) -> None:
    active = engine.current()
    profile = Profile(1, {}, {}, active.features.id, 0, None, b"", ("analytics",), reference=bytes(16))
    request = Request("somebody", ("home",), 1, {}, 1)
    seen: list[Seen] = []
    [decision] = engine.decide_on(profile, request, active, seen)
    pen = Pen(7, active.snapshot.point("home"), active.snapshot, "")
    assert pen.quick("id", request, decision, seen[0]) is None
    assert decode_row(pen.row("id", bytes(16), request, decision, active, seen[0])).slots == 1


def test_a_row_of_who_was_erased_before_it_had_a_reference_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(RULES)
    counters = Counters()
    engine, _ = open_local(tmp_path / "rules", None, tmp_path / "data", counters=counters)
    for name in ("ann", "bob"):
        engine.store.update(Update(name, {"country": "US"})).result()
    recorder = open_recorder(DecisionLog(directory=str(tmp_path / "log"), flush_seconds=60.0, spare_mib=0), engine)
    for name in ("ann", "ann", "bob"):
        request = Request(name, ("home",), engine.clock())
        seen: list[Seen] = []
        [decision] = engine.decide(request, seen=seen)
        recorder.note(f"of-{name}", request, decision, engine.current(), seen[0])
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
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(RULES)
    counters = Counters()
    engine, _ = open_local(tmp_path / "rules", None, tmp_path / "data", counters=counters)
    recorder = open_recorder(DecisionLog(directory=str(tmp_path / "log"), flush_seconds=60.0, spare_mib=0), engine)
    active = engine.current()
    request = Request("ann", ("home",), engine.clock())
    seen: list[Seen] = []
    [decision] = engine.decide(request, seen=seen)
    for number in range(40):
        late = msgspec.structs.replace(decision, valid_until=2**70 if number == 5 else None)
        recorder.note(f"d{number}", request, late, active, seen[0])
    recorder.close()
    assert counters.log_dropped == {"unwritable": 1}
    logfiles.convert(tmp_path / "log", 0)
    written = {row.id for _, row in logfiles.read_log(tmp_path / "log")}
    assert written == {f"d{number}" for number in range(40) if number != 5}
    engine.store.close()
