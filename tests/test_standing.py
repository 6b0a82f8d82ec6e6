"""What operators ordered, on disk: read back by a start, bounded by its time, and never silently lost."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from arbiter.errors import NotFound, StoreError
from arbiter.runtime.admin import Live, Rollback, SetCanary, SetOverride
from arbiter.runtime.archive import Archive
from arbiter.runtime.desk import Desk
from arbiter.runtime.loader import Loader
from arbiter.runtime.messages import refusal
from arbiter.runtime.standing import FILE, Standing, StandingFile
from arbiter.runtime.versions import Versions
from arbiter.serving import Override

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_780_272_000_000_000
RULES = """\
decisions: {home: {}}
rules: [{id: only, decision: home, then: {action: show, params: {text: TEXT}}}]
"""


class Process:
    """What a supervisor has of versions, without its workers: each one made is a start."""

    def __init__(self, folder: Path) -> None:
        self.file = StandingFile(folder)
        self.archive = Archive(folder / "snapshots")
        self.loader = Loader(folder / "rules", None, self.archive)
        self.desk = Desk(self.archive, file=self.file)
        self.desk.stand(self.file.read())
        self.versions = Versions(self.desk, self.loader, self.archive)
        attempt = self.loader.load()
        self.versions.held(attempt)
        self.desk.record(attempt)
        self.versions.take_up(NOW)

    def carry_out(self, command: Rollback | SetCanary | SetOverride) -> None:
        self.versions.apply(command, self.versions.prepare(command), NOW)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory beside rules, in which two versions were live: the second is what the files give."""
    (tmp_path / "rules").mkdir()
    for text in ("one", "two"):
        (tmp_path / "rules" / "a.yaml").write_text(RULES.replace("TEXT", text))
        Process(tmp_path)
    return tmp_path


def digests(folder: Path) -> tuple[str, str]:
    first, second = (each.digest for each in Archive(folder / "snapshots").history())
    return first, second


def test_an_override_that_ran_out_while_nothing_ran_is_gone(folder: Path) -> None:
    Process(folder).carry_out(SetOverride(kind="rule", name="only", until=NOW + 1))
    assert [each.name for each in Process(folder).desk.standing.overrides] == ["only"]
    over = Override(kind="rule", name="only", since=NOW - 2, until=NOW)
    StandingFile(folder).write(Standing(overrides=(over,)))
    assert Process(folder).desk.standing == Standing()
    assert StandingFile(folder).read() == Standing()


def test_an_override_of_a_rule_that_went_stands_and_may_be_prolonged(folder: Path) -> None:
    process = Process(folder)
    process.carry_out(SetOverride(kind="rule", name="only", until=NOW + 1))
    (folder / "rules" / "a.yaml").write_text(RULES.replace("id: only", "id: other"))
    process.desk.record(process.loader.load())
    process.carry_out(SetOverride(kind="rule", name="only", until=NOW + 2))
    assert [each.until for each in process.desk.standing.overrides] == [NOW + 2]
    process.carry_out(SetOverride(kind="rule", name="only", until=0))
    with pytest.raises(NotFound, match="no rule `only`"):
        process.carry_out(SetOverride(kind="rule", name="only", until=NOW + 1))


@pytest.mark.parametrize("content", [b"{", b'{"staged": ["\xff"]}', b""])
def test_a_file_that_cannot_be_read_stops_a_start(folder: Path, content: bytes) -> None:
    (folder / FILE).write_bytes(content)
    with pytest.raises(StoreError, match=f"{FILE}, which holds rollback, canary and overrides"):
        Process(folder)


def test_what_cannot_be_written_is_refused_and_changes_nothing(folder: Path) -> None:
    first, second = digests(folder)
    process = Process(folder)
    (folder / f".{FILE}").mkdir()
    for command in (
        Rollback(digest=first),
        SetCanary(digest=first, percent=5),
        SetOverride(kind="rule", name="only", until=NOW + 1),
    ):
        with pytest.raises(StoreError, match="cannot write"):
            process.carry_out(command)
    assert (process.desk.digest, process.desk.standing, process.desk.beside) == (second, Standing(), None)
    assert process.archive.latest() == second


def test_what_went_from_disk_ends_at_a_start_that_cannot_write_either(folder: Path) -> None:
    first, second = digests(folder)
    Process(folder).carry_out(Rollback(digest=first))
    shutil.rmtree(folder / "snapshots" / first)
    (folder / f".{FILE}").mkdir()
    assert Process(folder).desk.live == Live(digest=second)


def test_an_order_that_a_full_disk_refuses_is_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    process = Process(folder)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        process.carry_out(SetOverride(kind="rule", name="only", until=NOW + 1))
    answer = refusal(7, caught.value)
    assert (answer.problem, answer.reason) == ("LimitExceeded", "disk_full")
    assert FILE in answer.message
    assert "No space left" in answer.message
    monkeypatch.undo()
    assert StandingFile(folder).read() == Standing()


def test_what_is_held_and_what_is_a_canary_is_never_pruned(folder: Path) -> None:
    first, second = digests(folder)
    process = Process(folder)
    process.carry_out(SetCanary(digest=first, percent=5))
    small = Archive(folder / "snapshots", kept=1)
    small.spared = process.archive.spared
    small.adopt(second, NOW)
    assert [each.digest for each in small.history()] == [second]
    assert Process(folder).desk.beside is not None


def test_a_version_that_went_from_disk_ends_what_needs_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = digests(folder)
    Process(folder).carry_out(Rollback(digest=first))
    shutil.rmtree(folder / "snapshots" / first)
    with caplog.at_level(logging.ERROR):
        process = Process(folder)
    assert (process.desk.digest, process.desk.standing.hold) == (second, None)
    assert f"the hold of {first[:12]} ends: snapshot {first[:12]}" in caplog.text

    (folder / "rules" / "a.yaml").write_text(RULES.replace("TEXT", "three"))
    process = Process(folder)
    process.carry_out(SetCanary(digest=second, percent=5))
    shutil.rmtree(folder / "snapshots" / second)
    with caplog.at_level(logging.ERROR):
        assert Process(folder).desk.standing.canary is None
    assert f"the canary {second[:12]} ends: snapshot {second[:12]}" in caplog.text
