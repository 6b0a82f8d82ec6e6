"""What became of decisions, beside the log of them: rows of what was recorded, once, of whom it may be said."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from arbiter.config.limits import Limits
from arbiter.learning.happened import Happened, encode_happened, impersonal
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.listing import Listing
from arbiter.runtime import logfiles
from arbiter.runtime.logkeeper import Keeper
from arbiter.runtime.rewards import rewards_in
from arbiter.runtime.spool import TOLD, Spool, segments
from arbiter.server.calls import Call, Later
from arbiter.server.outcomes import OutcomeService
from arbiter.types import ConsentState
from arbiter.v1 import outcome_pb2
from tests.test_decision_log import PURPOSES, RULES, Place, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

MINUTE = 60_000_000
ACCEPTED, DUPLICATE = outcome_pb2.REPORT_RESULT_ACCEPTED, outcome_pb2.REPORT_RESULT_DUPLICATE


class Reporting(Place):
    """A place that is told what became of its decisions."""

    def __init__(self, folder: Path, rules: str, **options: Any) -> None:
        super().__init__(folder, rules, **options)
        self._works = OutcomeService(self.engine, Limits(), self.counters, self.recorder).works()

    def shown(self, *exposures: outcome_pb2.Exposure) -> Sequence[int]:
        return outcome_pb2.RecordExposuresResponse.FromString(
            self._answer("RecordExposures", outcome_pb2.RecordExposuresRequest(exposures=exposures))
        ).results

    def became(self, *outcomes: outcome_pb2.Outcome) -> Sequence[int]:
        return outcome_pb2.RecordOutcomesResponse.FromString(
            self._answer("RecordOutcomes", outcome_pb2.RecordOutcomesRequest(outcomes=outcomes))
        ).results

    def _answer(self, name: str, asked: Any) -> bytes:
        later = self._works[name](asked.SerializeToString(), Call())
        assert isinstance(later, Later)
        return later.finish(later.future.result())

    def told(self) -> list[dict[str, Any]]:
        """End the recorder, make Parquet, and read it."""
        self.recorder.close()
        logfiles.convert(self.log, 0)
        return told_in(self.log)

    def reference(self, subject: str) -> str:
        return self.engine.store.refer(subject).result().hex()


def told_in(log: Path) -> list[dict[str, Any]]:
    files, waiting = logfiles.happened_in(log)
    tables = [waiting, *(pq.read_table(file) for file in files)]
    rows: list[dict[str, Any]] = pa.concat_tables([each.unify_dictionaries() for each in tables]).to_pylist()
    return rows


def micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Callable[..., Reporting]]:
    made: list[Reporting] = []

    def make(rules: str = RULES, **options: Any) -> Reporting:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Reporting(folder, rules, **options))
        return made[-1]

    yield make
    for place in made:
        place.recorder.close()
        place.engine.store.close()


def test_a_row_says_what_was_reported_of_which_decision(places: Callable[..., Reporting]) -> None:
    place = places()
    place.know("ann", country="US", name="Ann")
    answer = place.decide("ann", "home", device="ios")
    given, number = answer.decision_id, answer.decision_id.partition(".")[0]
    decided = int(number.partition("-")[0], 16)
    at = Timestamp()
    at.FromMicroseconds(decided + 1_500_000)
    place.shown(outcome_pb2.Exposure(decision_id=given))
    place.became(outcome_pb2.Outcome(decision_id=given, name="purchase", value=31.5, rule_id="us", at=at))
    place.became(outcome_pb2.Outcome(decision_id=given, name="visit"))
    rows = place.told()
    reference = place.reference("ann")
    for row in rows:
        assert (row["decision"], micros(row["decided_at"])) == (number, decided)
        assert (row["subject"], row["point"], row["snapshot"]) == (reference, "home", answer.snapshot)
        assert micros(row["recorded"]) >= decided
    assert sorted((row["kind"], row["rule"], row["name"] or "", row["value"]) for row in rows) == [
        ("exposure", "ios", "", None), ("exposure", "us", "", None),
        ("outcome", "", "visit", None), ("outcome", "us", "purchase", 31.5),
    ]  # fmt: skip
    [bought] = [row for row in rows if row["name"] == "purchase"]
    assert micros(bought["at"]) == decided + 1_500_000
    ids = {each.id for each in place.engine.store.list_events("ann", Listing()).events}
    assert {row["id"] for row in rows} == ids
    assert {path.stat().st_mode & 0o077 for path in place.log.rglob("*.parquet")} == {0}


def test_what_was_recorded_before_makes_no_second_row(places: Callable[..., Reporting]) -> None:
    place = places()
    given = place.decide("nobody", "home", device="ios").decision_id
    bought = outcome_pb2.Outcome(decision_id=given, name="purchase")
    assert place.became(bought, bought) == [ACCEPTED, DUPLICATE]
    assert place.became(bought) == [DUPLICATE]
    assert place.shown(*[outcome_pb2.Exposure(decision_id=given)] * 2) == [ACCEPTED, DUPLICATE]
    [decided] = [row for _, row in place.rows()]
    rows = place.told()
    assert sorted(row["kind"] for row in rows) == ["exposure", "exposure", "outcome"]
    # Nothing was stored of who was decided for: the report made somebody of nobody.
    assert decided.subject == ""
    assert {row["subject"] for row in rows} == {place.reference("nobody")}


def test_without_consent_a_row_says_which_rule_and_of_nobody(places: Callable[..., Reporting]) -> None:
    place = places(PURPOSES + RULES)
    store = place.engine.store
    given = {}
    for name in ("ann", "bob"):
        place.know(name, country="US", name=name)
        given[name] = place.decide(name, "home").decision_id
    store.set_consent(ConsentChange("ann", "analytics", ConsentState.GRANTED, "form")).result()
    store.set_consent(ConsentChange("bob", "marketing", ConsentState.GRANTED, "form")).result()
    for each in given.values():
        assert place.became(outcome_pb2.Outcome(decision_id=each, name="purchase", rule_id="us", value=7.25)) == [1]
    rows = {row["subject"] is not None: row for row in place.told()}
    assert rows[True]["subject"] == place.reference("ann")
    assert rows[True]["value"] == 7.25
    bare = rows[False]
    assert [bare[name] for name in ("id", "decision", "decided_at", "subject", "value")] == [None] * 5
    assert (bare["kind"], bare["rule"], bare["name"], bare["point"]) == ("outcome", "us", "purchase", "home")
    assert (micros(bare["at"]) % MINUTE, micros(bare["recorded"]) % MINUTE) == (0, 0)
    assert store.read("bob", place.engine.clock()).reference == b""


def test_who_revokes_stands_in_no_row_from_then_on(places: Callable[..., Reporting]) -> None:
    place = places(PURPOSES + RULES)
    place.know("ann", country="US", name="Ann")
    for state, name in ((ConsentState.GRANTED, "visit"), (ConsentState.REVOKED, "purchase")):
        place.engine.store.set_consent(ConsentChange("ann", "analytics", state, "form")).result()
        given = place.decide("ann", "home").decision_id
        assert place.became(outcome_pb2.Outcome(decision_id=given, name=name)) == [ACCEPTED]
    assert {row["name"]: row["subject"] is None for row in place.told()} == {"visit": False, "purchase": True}


def test_another_purpose_may_cover_the_rows_or_none(places: Callable[..., Reporting]) -> None:
    for place, known in ((places(PURPOSES + RULES, purpose="marketing"), ["bob"]),
                         (places(PURPOSES + RULES, purpose=""), ["bob", "cid"])):  # fmt: skip
        for name in ("bob", "cid"):
            place.know(name, country="US", name=name)
        place.engine.store.set_consent(ConsentChange("bob", "marketing", ConsentState.GRANTED, "form")).result()
        for name in ("bob", "cid"):
            place.became(outcome_pb2.Outcome(decision_id=place.decide(name, "home").decision_id, name="purchase"))
        assert {row["subject"] for row in place.told()} - {None} == {place.reference(name) for name in known}


def test_erasure_reaches_the_files_and_what_still_waits(places: Callable[..., Reporting]) -> None:
    place = places(rotate_seconds=1)
    given = {}
    for name in ("ann", "bob"):
        place.know(name, country="US", name=name)
        given[name] = place.decide(name, "home").decision_id
        place.became(outcome_pb2.Outcome(decision_id=given[name], name="purchase"))
    keeper = Keeper(place.settings, lambda: place.engine.store)
    wait_for(lambda: keeper.round().rows == 4)
    reference = place.reference("ann")
    place.became(outcome_pb2.Outcome(decision_id=given["ann"], name="visit"))
    place.engine.store.erase("ann").result()
    keeper._erase_at = 0.0
    assert keeper.round().erased == 2
    assert [row["subject"] for row in told_in(place.log) if row["name"] != "visit"] == [place.reference("bob")]
    place.recorder.close()
    assert keeper.round().erased == 3
    content = b"".join(path.read_bytes() for path in place.log.rglob("*") if path.is_file())
    assert reference.encode() not in content
    assert len(told_in(place.log)) == 1


def test_without_a_log_nothing_is_asked_of_the_subject(tmp_path: Path) -> None:
    place = Reporting(tmp_path, RULES)
    service = OutcomeService(place.engine, Limits(), place.counters)
    given = place.decide("nobody", "home", device="ios").decision_id
    asked = outcome_pb2.RecordOutcomesRequest(outcomes=[outcome_pb2.Outcome(decision_id=given, name="purchase")])
    later = service.works()["RecordOutcomes"](asked.SerializeToString(), Call())
    assert isinstance(later, Later)
    later.future.result()
    assert place.engine.store.read("nobody", place.engine.clock()).reference == b""
    assert place.told() == []
    place.engine.store.close()


def test_a_full_disk_stops_the_rows_and_no_report(places: Callable[..., Reporting]) -> None:
    place = places(spare_mib=2**31 - 1)
    given = place.decide("nobody", "home", device="ios").decision_id
    bought = outcome_pb2.Outcome(decision_id=given, name="purchase")
    assert place.became(bought) == [ACCEPTED]
    wait_for(lambda: place.counters.log_error)
    assert "spare_mib" in place.counters.log_error
    assert place.became(bought) == [DUPLICATE]
    for waiting in (place.recorder._decided, place.recorder._told):
        waiting.spool._spare = 0
    wait_for(lambda: place.counters.log_rows == 2 and not place.counters.log_error)
    assert [row["name"] for row in place.told()] == ["purchase"]


def row(number: int, recorded: int) -> Happened:
    return Happened("outcome", f"o{number}", f"d{number}", 5, 4, recorded, "", "home", "s", "", "purchase", 1.0)


def spool_in(folder: Path) -> Spool:
    return Spool(folder, seconds=60, most=1 << 20, spare=0, suffix=TOLD)


def test_rows_are_there_once_wherever_the_process_was_killed(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.write([encode_happened(row(1, 9))], [])
    assert logfiles.convert(tmp_path, 0) == logfiles.Made()  # it is being written
    assert [each["id"] for each in told_in(tmp_path)] == ["o1"]
    spool.seal()
    [path] = segments(tmp_path)
    content = path.read_bytes()
    assert logfiles.convert(tmp_path, 0) == logfiles.Made(rows=1)
    path.write_bytes(content)  # as though it had been killed before it took the segment away
    (tmp_path / ".outcomes-half").write_bytes(b"PAR1")
    assert [each["id"] for each in told_in(tmp_path)] == ["o1"]
    logfiles.finish(tmp_path)
    assert segments(tmp_path) == []
    assert not (tmp_path / ".outcomes-half").exists()
    assert [each["id"] for each in told_in(tmp_path)] == ["o1"]
    assert list(logfiles.read_log(tmp_path)) == []


def test_files_go_by_when_their_rows_were_recorded_and_strange_ones_stay(tmp_path: Path) -> None:
    for number in range(3):
        spool = spool_in(tmp_path)
        spool.write([encode_happened(row(number, 1_000 * number))], [])
        spool.seal()
        logfiles.convert(tmp_path, 0)
    pq.write_table(pq.read_table(logfiles.files(tmp_path)[0]), tmp_path / "outcomes-of-mine.parquet")
    assert logfiles.retain(tmp_path, oldest=1_000, most=1 << 30) == 1
    assert logfiles.retain(tmp_path, oldest=None, most=0) == 2
    assert [path.name for path in tmp_path.glob("*.parquet")] == ["outcomes-of-mine.parquet"]
    assert [each["id"] for each in told_in(tmp_path)] == ["o0"]


def test_what_waits_earns_as_what_is_in_a_file(tmp_path: Path) -> None:
    for number in range(2):
        spool = spool_in(tmp_path)
        spool.write([encode_happened(row(number, 9)), encode_happened(impersonal(row(7, 9)))], [])
        spool.seal()
        if not number:
            logfiles.convert(tmp_path, 0)
    found = rewards_in(logfiles.happened_in(tmp_path), "purchase", 2, "sum")
    assert (found.by_decision, found.names) == ({"d0": 1.0, "d1": 1.0}, ["purchase"])


def test_a_frame_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    for number in range(2):
        spool.write([encode_happened(row(number, time.time_ns() // 1000))], [])
    spool.seal()
    [path] = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert [each["id"] for each in told_in(tmp_path)] == ["o0"]
