"""`arbiter events import` into a real server: bad rows, refused rows, and kills."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from arbiter.client import Client
from tests.test_cli_server import COMMAND, ENVIRONMENT, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("shop"))
    yield running
    running.stop()


def table(file: Path, rows: Sequence[str]) -> Path:
    file.write_text("id,subject_id,type,at,amount,quantity\n" + "".join(f"{row}\n" for row in rows))
    return file


def stored(target: Server, subject_id: str) -> list[str]:
    with Client(target.target) as client:
        return [event.id for event in client.list_events(subject_id, page_size=1000).events]


def moment() -> str:
    return datetime.now(UTC).isoformat()


def test_a_table_is_imported_and_its_bad_rows_are_skipped_when_asked(target: Server, tmp_path: Path) -> None:
    at = moment()
    file = table(
        tmp_path / "orders.csv",
        [f"1,gus,purchase,{at},9.5,1", f"2,gus,purchase,{at},9.5,one", "3,gus,purchase,never,9.5,1",
         f"4,gus,purchase,{at},9.5,1", f"5,gus,no name,{at},9.5,1"],
    )  # fmt: skip
    refused = target.ask("events", "import", file)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: these lines are no events, and nothing was sent:\n")
    assert f"{file}:4: `at` is 'never'" in refused.stderr
    assert stored(target, "gus") == []
    done = target.ask("events", "import", file, "--skip-bad", "--json")
    assert done.returncode == 1
    assert {"events": 4, "accepted": 2, "skipped": 3}.items() <= json.loads(done.stdout).items()
    assert "3 rows skipped:" in done.stderr
    assert f"{file}:3: properties.quantity is a string" in done.stderr
    assert f"{file}:6: `no name` is no name" in done.stderr
    assert sorted(stored(target, "gus")) == ["1", "4"]
    assert not list(tmp_path.glob("*.position*"))


def test_an_import_that_is_killed_goes_on_where_it_was(target: Server, tmp_path: Path) -> None:
    at = moment()
    rows = [f"{number},hal,purchase,{at},1.0,1" for number in range(700)]
    file = table(tmp_path / "long.csv", rows)
    note = tmp_path / "long.csv.position"
    environment = {**ENVIRONMENT, "ARBITER_TARGET": target.target}
    command = [*COMMAND, "events", "import", str(file), "--batch", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as importing:  # noqa: S603 - ours
        until = time.monotonic() + 60
        while (not note.exists() or msgspec.json.decode(note.read_bytes())["rows"] < 20) and time.monotonic() < until:
            time.sleep(0.005)
        importing.send_signal(signal.SIGKILL)
    sent = msgspec.json.decode(note.read_bytes())["rows"]
    assert 20 <= sent < 700
    done = json.loads(target.ask("events", "import", file, "--json").stdout)
    assert done["resumed"] == sent
    assert done["accepted"] + done["duplicates"] == 700 - sent
    assert done["duplicates"] <= 1  # what was sent and not noted
    assert sorted(stored(target, "hal"), key=int) == [str(number) for number in range(700)]
    assert not note.exists()


def test_a_note_of_another_file_or_server_is_not_believed(target: Server, tmp_path: Path) -> None:
    at = moment()
    file = table(tmp_path / "a.csv", [f"{number},ida,purchase,{at},1.0,1" for number in range(9)])
    for note in (
        {"target": target.target, "rows": 5, "digest": "0" * 32},
        {"target": "elsewhere:1", "rows": 5, "digest": "0" * 32},
        {"rows": "many"},
    ):
        (tmp_path / "a.csv.position").write_text(json.dumps(note))
        done = json.loads(target.ask("events", "import", file, "--batch", "2", "--json").stdout)
        assert done["resumed"] == 0
        assert done["accepted"] + done["duplicates"] == 9
    assert len(stored(target, "ida")) == 9


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--map", "when=at"], "is no FIELD=COLUMN"),
        (["--time-zone", "Mars/Base"], "`Mars/Base` is no time zone"),
        (["--format", "jsonl", "--type", "see"], "lines of JSON name their fields themselves"),
        (["--shift-to", "now"], "goes with --format cdnow"),
    ],
)
def test_flags_that_make_no_sense_are_mistakes_of_usage(
    target: Server, tmp_path: Path, flags: list[str], said: str
) -> None:
    done = target.ask("events", "import", table(tmp_path / "a.csv", []), *flags)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_a_terminal_shows_how_far_it_is_and_a_pipe_does_not(target: Server, tmp_path: Path) -> None:
    at = moment()
    file = table(tmp_path / "a.csv", [f"{number},jo,purchase,{at},1.0,1" for number in range(40)])
    assert target.ask("events", "import", file, "--batch", "1").stderr == ""
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "ARBITER_TARGET": target.target, "TERM": "xterm"}
    command = [*COMMAND, "events", "import", str(file), "--batch", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=theirs):  # noqa: S603 - ours
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65_536):
                shown += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert b"/40" in shown
    assert b"events" in shown
