"""The short soak, which runs what `make soak` runs; and that its checks would see what they are there for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from arbiter.v1 import decision_pb2
from arbiter.wire.values import write_entries
from benchmarks.soak.board import Board, Version
from benchmarks.soak.checks import Checks
from benchmarks.soak.ledger import Change, Happened, Subject
from benchmarks.soak.oracle import Seen
from benchmarks.soak.watch import Flatness, History, Sample
from benchmarks.soak.weather import ROUND
from benchmarks.soak.world import MINUTE, SECOND, world

HERE = Path(__file__).parent.parent
NOW = 1_800_000_000_000_000
MINUTES = 0.25


def test_a_short_soak_finds_no_fault(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.soak",
        "--minutes",
        str(MINUTES),
        "--seed",
        "20261128",
        "--rate",
        "150",
    ]
    ran = subprocess.run(  # noqa: S603 - our own program
        [*command, "--out", str(tmp_path), "--keep", str(tmp_path / "kept")],
        cwd=HERE, env={**os.environ, "PYTHONPATH": str(HERE / "engine")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads((tmp_path / "soak.json").read_text("utf-8"))
    assert result["first_faults"] == []
    assert set(result["disturbances"]) == set(ROUND)
    assert min(result["disturbances"].values()) >= 1
    for what in ("decisions checked", "profiles checked", "writes acknowledged", "certain versions"):
        assert result["done"][what] > 20, what
    assert result["done"]["writes refused, disk full"] > 0
    assert result["audited_subjects"] == 360
    assert (tmp_path / "soak.png").stat().st_size > 1000


class Known:
    """A registry of one digest."""

    def version(self, digest: str) -> Version | None:
        return Version(0, 0) if digest == "d" else None


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board.make(tmp_path / "board", 100, NOW, Version(0, 0))


@pytest.fixture
def subject() -> Subject:
    made = Subject("someone")
    made.changed(Change(set={"points": 60, "tier": "gold"}))
    made.happened(Happened(NOW - SECOND, "e1", "buy", {"amount": 7, "item": "i1"}))
    made.happened(Happened(NOW + MINUTE, "e2", "buy", {"amount": 9, "item": "i2"}))
    return made


def answered(subject: Subject, now: int) -> tuple[decision_pb2.DecideRequest, decision_pb2.DecideResponse]:
    """What a server that does as the oracle would answer."""
    request = decision_pb2.DecideRequest(subject_id=subject.id, decision="list")
    verdict = Seen(world(Version(0, 0)), subject, {}, now).decide("list")
    answer = decision_pb2.DecideResponse(snapshot="d", decision="list", defaulted=verdict.defaulted)
    for given in verdict.given:
        treatment = answer.treatments.add(rule_id=given.rule, priority=given.priority, value=given.value)
        write_entries(treatment.params, dict(given.params))
    return request, answer


def test_features_are_those_of_the_clock(subject: Subject) -> None:
    features = [subject.features(world(Version(0, 0)), NOW + later * MINUTE) for later in (-2, 0, 1, 10, 100)]
    assert [each["orders_all"] for each in features] == [0, 1, 2, 2, 2]
    assert [each["orders_recent"] for each in features] == [0, 1, 1, 0, 0]
    assert [each["spend_hour"] for each in features] == [0, 7, 16, 16, 0]
    assert [each.get("items_now") for each in features] == [None, 1, 1, None, None]
    assert [each.get("minutes_since_buy") for each in features] == [None, 1 / 60, 0, 9, 99]


def test_a_right_answer_passes_at_any_moment_that_the_call_may_have_seen(board: Board, subject: Subject) -> None:
    before = board.mark()
    board.show(NOW + 90 * MINUTE)
    request, answer = answered(subject, NOW)
    checks = Checks(board, Known())
    checks.decision(before, board.mark(), subject, request, {}, answer)
    assert checks.counts["decisions checked"] == 1


def test_an_answer_of_another_moment_is_wrong(board: Board, subject: Subject) -> None:
    board.show(NOW + 90 * MINUTE)
    request, answer = answered(subject, NOW)
    with pytest.raises(AssertionError, match="list must give"):
        Checks(board, Known()).decision(board.mark(), board.mark(), subject, request, {}, answer)


def test_an_answer_without_the_last_write_is_wrong(board: Board, subject: Subject) -> None:
    request, answer = answered(subject, NOW)
    subject.changed(Change(append={"tags": "vip"}))
    with pytest.raises(AssertionError, match="l-vip"):
        Checks(board, Known()).decision(board.mark(), board.mark(), subject, request, {}, answer)


def test_an_answer_by_an_unknown_snapshot_or_one_that_went_is_wrong(board: Board, subject: Subject) -> None:
    request, answer = answered(subject, NOW)
    checks = Checks(board, Known())
    board.begin()
    before = board.mark()
    checks.decision(before, board.mark(), subject, request, {}, answer)
    board.settle(Version(1, 0))
    with pytest.raises(AssertionError, match="all must serve"):
        checks.decision(board.mark(), board.mark(), subject, request, {}, answer)
    answer.snapshot = "e"
    with pytest.raises(AssertionError, match="never published"):
        checks.decision(before, board.mark(), subject, request, {}, answer)


@pytest.mark.parametrize(
    ("leak", "files", "wrong"),
    [(0.0, 0, []), (0.02, 0, ["memory grows by 72.0 MiB an hour"]), (0.0, 1, ["open files grew by 225"])],
)
def test_what_grows_is_not_flat(leak: float, files: int, wrong: list[str]) -> None:
    samples = [
        Sample(float(at), 100 + at * leak + at % 3, 200.0, 50 + files * (at // 2), 30) for at in range(0, 780, 2)
    ]
    found = Flatness().judge(History("worker", 1, samples))
    assert found is not None
    assert found["wrong"] == wrong


def test_a_process_that_lived_too_short_is_not_judged() -> None:
    samples = [Sample(float(at), 100.0 + at, 200.0, 50, 30) for at in range(0, 300, 2)]
    assert Flatness().judge(History("worker", 1, samples)) is None
