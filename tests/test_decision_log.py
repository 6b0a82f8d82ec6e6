"""The log of decisions: what it holds of whom, and what it survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from arbiter.config.limits import Limits
from arbiter.config.options import DecisionLog
from arbiter.learning.logged import Head, Row, Won, encode
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.store import Update
from arbiter.runtime import logfiles
from arbiter.runtime.local import open_local
from arbiter.runtime.logkeeper import Keeper
from arbiter.runtime.recording import Recorder, open_recorder
from arbiter.runtime.settings import Settings
from arbiter.runtime.spool import LogFull, Spool, segments, taken
from arbiter.server.decisions import DecisionService
from arbiter.telemetry.counters import Counters
from arbiter.types import ConsentState
from arbiter.v1 import decision_pb2
from tests.answering import answered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


RULES = """\
schema:
  profile: {country: string, name: {type: string, personal: true}, diary: string}
  context: {device: string, session: string}
actions: {show: {params: {text: string}}}
decisions:
  home: {slots: 2, order: [priority], default: {action: show, params: {text: none}}}
  side: {slots: 1, order: [priority], default: {action: show, params: {text: side}}}
rules:
  - {id: us, decision: home, priority: 9, when: 'profile.country == "US"',
     then: {action: show, params: {text: "Hi ${profile.name}"}}}
  - {id: ios, decision: home, priority: 5, when: 'context.device == "ios"', then: {action: show, params: {text: app}}}
  - {id: all, decision: home, priority: 1, when: "true", then: {action: show, params: {text: all}}}
"""
PURPOSES = "consent: {purposes: [analytics, marketing]}\n"


class Place:
    """An engine with a log, without a server; `decide` answers as one would."""

    def __init__(self, folder: Path, rules: str, **options: Any) -> None:
        (folder / "rules").mkdir()
        (folder / "rules" / "r.yaml").write_text(rules)
        self.log = folder / "log"
        self.counters = Counters()
        self.engine, _ = open_local(folder / "rules", None, folder / "data", counters=self.counters)
        chosen = DecisionLog(
            **{"directory": str(self.log), "losers": 0.0, "flush_seconds": 0.05, "spare_mib": 0, **options}
        )
        self.settings = Settings(
            rules=str(folder / "rules"), data=str(folder / "data"), listen="", decision_log=chosen
        )  # fmt: skip
        self.recorder = open_recorder(chosen, self.engine)
        self._service = DecisionService(self.engine, Limits(), self.counters, self.recorder)

    def know(self, subject: str, **attributes: Any) -> None:
        self.engine.store.update(Update(subject, attributes)).result()

    def decide(self, subject: str, *points: str, dry_run: bool = False, **context: str) -> decision_pb2.DecideResponse:
        asked = decision_pb2.DecideRequest(
            subject_id=subject, context_json=msgspec.json.encode(context), dry_run=dry_run
        )
        if len(points) == 1:
            asked.decision = points[0]
        else:
            asked.decisions.extend(points)
        return decision_pb2.DecideResponse.FromString(answered(self._service, asked.SerializeToString()))

    def rows(self) -> list[tuple[Head, Row]]:
        """End the recorder, make Parquet, and read it."""
        self.recorder.close()
        logfiles.convert(self.log, 0)
        return list(logfiles.read_log(self.log))


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(rules: str = RULES, **options: Any) -> Place:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Place(folder, rules, **options))
        return made[-1]

    yield make
    for place in made:
        place.recorder.close()
        place.engine.store.close()


def read_of(head: Head, row: Row) -> dict[str, Any]:
    return {f"{root}.{name}": value for (root, name, _), value in zip(head.reads, row.values or (), strict=True)}


def number_of(answer: decision_pb2.DecideResponse | decision_pb2.Decision) -> str:
    """The id of the row of a decision."""
    return answer.decision_id.partition(".")[0]


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_row_holds_what_the_decision_could_read_and_no_more(places: Callable[..., Place]) -> None:
    place = places()
    place.know("ann", country="US", name="Ann", diary="tell nobody")
    answer = place.decide("ann", "home", device="ios", session="s-1")
    [(head, row)] = place.rows()
    assert (head.point, head.snapshot, row.id) == ("home", answer.snapshot, number_of(answer))
    assert read_of(head, row) == {"profile.country": "US", "profile.name": "Ann", "context.device": "ios"}
    assert [(won.rule, won.params) for won in row.won] == [("us", {"text": "Hi Ann"}), ("ios", {"text": "app"})]
    content = b"".join(path.read_bytes() for path in place.log.rglob("*.parquet"))
    assert b"ann" not in content.replace(b"channel", b"")
    assert b"tell nobody" not in content


def test_a_subject_has_one_random_reference_and_who_is_unknown_has_none(places: Callable[..., Place]) -> None:
    place = places()
    place.know("ann", country="US")
    place.know("bob", country="US")
    for subject in ("ann", "ann", "bob", "nobody"):
        place.decide(subject, "home")
    rows = [row for _, row in place.rows()]
    of = {name: place.engine.store.refer(name).result().hex() for name in ("ann", "bob")}
    assert sorted(row.subject for row in rows) == sorted([of["ann"], of["ann"], of["bob"], ""])
    assert len({*of.values()}) == 2
    assert place.engine.store.refer("nobody").result() == b""
    assert not place.engine.store.read("nobody", place.engine.clock()).exists


def test_a_page_is_logged_in_its_order_and_a_dry_run_not_at_all(places: Callable[..., Place]) -> None:
    place = places()
    answer = place.decide("nobody", "home", "side")
    place.decide("nobody", "home", dry_run=True)
    rows = place.rows()
    assert [(head.point, row.page, row.place) for head, row in rows] == [
        ("home", number_of(answer.decisions[0]), 0), ("side", number_of(answer.decisions[0]), 1),
    ]  # fmt: skip


def test_without_consent_no_personal_row(places: Callable[..., Place]) -> None:
    place = places(PURPOSES + RULES)
    for name in ("ann", "bob"):
        place.know(name, country="US", name=name)
    change = ConsentChange("ann", "analytics", ConsentState.GRANTED, "form")
    place.engine.store.set_consent(change).result()
    place.engine.store.set_consent(ConsentChange("bob", "marketing", ConsentState.GRANTED, "form")).result()
    place.decide("ann", "home")
    place.decide("bob", "home", device="ios")
    rows = {bool(row.values): row for _, row in place.rows()}
    assert rows[True].subject == place.engine.store.refer("ann").result().hex()
    assert rows[True].granted == ("analytics",)
    bare = rows[False]
    assert (bare.id, bare.subject, bare.values, bare.at % 60_000_000) == ("", "", None, 0)
    assert [(won.rule, won.params) for won in bare.won] == [("us", {}), ("ios", {})]
    assert place.engine.store.read("bob", place.engine.clock()).reference == b""


def test_another_purpose_may_cover_the_log_or_none(places: Callable[..., Place]) -> None:
    named, free = places(PURPOSES + RULES, purpose="marketing"), places(PURPOSES + RULES, purpose="")
    for place in (named, free):
        place.know("bob", country="US", name="Bob")
        place.engine.store.set_consent(ConsentChange("bob", "marketing", ConsentState.GRANTED, "form")).result()
        place.know("cid", country="US", name="Cid")
        place.decide("bob", "home")
        place.decide("cid", "home")
    assert sorted(bool(row.values) for _, row in named.rows()) == [False, True]
    assert [bool(row.values) for _, row in free.rows()] == [True, True]


def test_who_lost_is_written_where_it_is_looked_at(places: Callable[..., Place]) -> None:
    place = places(losers=1.0)
    place.know("ann", country="US", name="Ann")
    place.engine.store.refer("ann").result()
    place.decide("ann", "home", device="ios")
    [(_, row)] = place.rows()
    assert row.losers is not None
    assert [(lost.rule, lost.stage) for lost in row.losers] == [("all", "lost_slot")]


def test_erasure_unlinks_at_once_and_reaches_the_files(places: Callable[..., Place]) -> None:
    place = places(rotate_seconds=1)
    for name in ("ann", "bob"):
        place.know(name, country="US", name=f"name-of-{name}")
        place.decide(name, "home")
    wait_for(lambda: place.counters.log_rows == 2)
    store = place.engine.store
    reference = store.refer("ann").result()
    [(_, shown)] = [each for each in store.export("ann").entries if each[0] == "decision_log"]
    assert shown["reference"] == reference.hex()
    keeper = Keeper(place.settings, lambda: place.engine.store)
    wait_for(lambda: keeper.round().rows == 2)
    assert store.erase("ann").result().entries["decision_log"] == 1
    assert store.unlinked() == [reference]
    assert [each for each in store.export("ann").entries if each[0] == "decision_log"] == []
    place.know("ann", country="US", name="again")
    assert store.refer("ann").result() not in {b"", reference}

    keeper._erase_at = 0.0
    assert keeper.round().erased == 1
    content = b"".join(path.read_bytes() for path in place.log.rglob("*") if path.is_file())
    assert reference.hex().encode() not in content
    assert len([row for _, row in logfiles.read_log(place.log) if row.subject]) == 1


def test_a_reference_is_known_as_erased_until_no_row_can_come_any_more(places: Callable[..., Place]) -> None:
    place = places(rotate_seconds=1)
    place.know("ann", country="US")
    place.decide("ann", "home")
    reference = place.engine.store.refer("ann").result()
    place.engine.store.erase("ann").result()
    keeper = Keeper(place.settings, lambda: place.engine.store)
    keeper._erase_at = 0.0
    keeper.round()
    assert place.engine.store.unlinked() == [reference]
    # The row that waited is left out when it comes.
    place.recorder.close()
    keeper.round()
    assert list(logfiles.read_log(place.log)) == []
    keeper._settling, keeper._erase_at = 0.0, 0.0
    keeper.round()
    assert place.engine.store.unlinked() == []


def test_a_linked_subject_keeps_both_references(places: Callable[..., Place]) -> None:
    place = places()
    place.know("anon", country="US")
    place.know("ann", country="US")
    store = place.engine.store
    both = {store.refer("anon").result(), store.refer("ann").result()}
    store.link("anon", "ann").result()
    assert {
        bytes.fromhex(shown["reference"]) for name, shown in store.export("ann").entries if name == "decision_log"
    } == both
    store.erase("anon").result()
    assert set(store.unlinked()) == both


def test_a_full_disk_stops_the_log_and_no_decision_and_it_begins_again(places: Callable[..., Place]) -> None:
    place = places(spare_mib=2**31 - 1)
    place.decide("nobody", "home")
    wait_for(lambda: place.counters.log_error)
    assert "spare_mib" in place.counters.log_error
    assert place.decide("nobody", "home").treatments
    assert place.counters.log_rows == 0
    place.recorder._decided.spool._spare = 0
    wait_for(lambda: place.counters.log_rows == 2 and not place.counters.log_error)


def test_what_waits_is_bounded_and_what_is_lost_is_counted(tmp_path: Path, places: Callable[..., Place]) -> None:
    place = places()
    spool = Spool(tmp_path / "full", seconds=60, most=1 << 20, spare=1 << 62)
    recorder = Recorder(spool, spool, place.engine.store.refer, place.engine.scorer, place.counters, seconds=60, most=3)
    service = DecisionService(place.engine, Limits(), place.counters, recorder)
    asked = decision_pb2.DecideRequest(subject_id="nobody", decision="home").SerializeToString()
    for _ in range(40):
        answered(service, asked)
    assert place.counters.log_dropped == {"full": 29}  # of 32 that rows were made for together
    recorder.close()
    assert place.counters.log_dropped == {"full": 37}
    assert segments(tmp_path / "full") == []


def test_a_frame_that_was_cut_off_is_left_out_and_what_was_before_is_read(tmp_path: Path) -> None:
    head = Head(1, "home", "d", (("profile", "country", ""),))
    spool = Spool(tmp_path, seconds=60, most=1 << 20, spare=0)
    spool.write([encode(Row(1, "a", 1, "", ("US",), (Won("r", "show", {}),)))], [encode(head)])
    spool.write([encode(Row(1, "b", 2, "", ("US",), ()))], [encode(head)])
    spool.seal()
    [path] = segments(tmp_path)
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) - 20):
        path.write_bytes(whole[:length])
        assert [row.id for _, row in logfiles.read_log(tmp_path)] == ["a"]
    path.write_bytes(whole[:-3] + b"xyz")
    assert logfiles.convert(tmp_path, 0) == logfiles.Made(rows=1)
    assert [row.id for _, row in logfiles.read_log(tmp_path)] == ["a"]


def test_a_segment_is_taken_only_when_nobody_writes_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, seconds=60, most=1 << 20, spare=0)
    head = encode(Head(1, "home", "d", ()))
    spool.write([encode(Row(1, "a", 1, "", (), ()))], [head])
    assert logfiles.convert(tmp_path, 0) == logfiles.Made()
    [path] = segments(tmp_path)
    with taken(path) as ours:
        assert not ours
    spool.seal()
    assert logfiles.convert(tmp_path, 0) == logfiles.Made(rows=1)


def test_what_a_killed_process_wrote_is_kept(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from arbiter.runtime.spool import Spool\n"
        "from arbiter.learning.logged import Head, Row, encode\n"
        "spool = Spool(Path(sys.argv[1]), seconds=60, most=1 << 20, spare=0)\n"
        "spool.write([encode(Row(1, 'a', 1, '', (), ()))], [encode(Head(1, 'home', 'd', ()))])\n"
        "print('written', flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        assert logfiles.convert(tmp_path, 0) == logfiles.Made()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert logfiles.convert(tmp_path, 0) == logfiles.Made(rows=1)


def test_rows_are_there_once_wherever_the_process_was_killed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, seconds=60, most=1 << 20, spare=0)
    spool.write([encode(Row(1, "a", 1, "", (), ()))], [encode(Head(1, "home", "d", ()))])
    spool.seal()
    [path] = segments(tmp_path)
    content = path.read_bytes()
    logfiles.convert(tmp_path, 0)
    path.write_bytes(content)  # as though it had been killed before it took the segment away
    (tmp_path / ".decisions-half").write_bytes(b"PAR1")
    logfiles.finish(tmp_path)
    assert segments(tmp_path) == []
    assert not (tmp_path / ".decisions-half").exists()
    assert len(list(logfiles.read_log(tmp_path))) == 1


def test_files_go_by_age_and_by_what_they_take_together(tmp_path: Path) -> None:
    for number in range(4):
        spool = Spool(tmp_path, seconds=60, most=1 << 20, spare=0)
        row = encode(Row(1, f"{number}", 1_000 * number, "", (), ()))
        spool.write([row], [encode(Head(1, "home", "d", ()))])
        spool.seal()
        logfiles.convert(tmp_path, 0)
    sizes = [path.stat().st_size for path in logfiles.files(tmp_path)]
    assert logfiles.retain(tmp_path, oldest=1_000, most=1 << 30) == 1
    assert logfiles.retain(tmp_path, oldest=None, most=sum(sizes[2:])) == 1
    assert [row.id for _, row in logfiles.read_log(tmp_path)] == ["2", "3"]


def test_no_room_for_parquet_leaves_the_segments_and_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path, seconds=60, most=1 << 20, spare=0)
    spool.write([encode(Row(1, "a", 1, "", (), ()))], [encode(Head(1, "home", "d", ()))])
    spool.seal()
    with pytest.raises(LogFull, match="spare_mib"):
        logfiles.convert(tmp_path, 1 << 62)
    assert len(segments(tmp_path)) == 1
    assert logfiles.files(tmp_path) == []


def test_files_are_for_their_owner_alone(places: Callable[..., Place]) -> None:
    place = places()
    place.decide("nobody", "home")
    place.rows()
    assert {path.stat().st_mode & 0o077 for path in (place.log, *place.log.rglob("*"))} == {0}
