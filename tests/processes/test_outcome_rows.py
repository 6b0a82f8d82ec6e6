"""A running server that is told what became of decisions: a report shows it, and a crash takes little of the log."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from arbiter.cli.app import app
from arbiter.client import Exposure, Outcome, ReportResult, Unavailable
from arbiter.runtime import logfiles
from arbiter.runtime.spool import segments
from tests.processes.test_decision_log import FLUSH_S, arguments, logged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arbiter.client import Client
    from tests.processes.conftest import Served


def told(folder: Path) -> list[dict[str, Any]]:
    files, waiting = logfiles.happened_in(folder / "decisions")
    rows: list[dict[str, Any]] = pa.concat_tables(
        [waiting, *(pq.read_table(file).unify_dictionaries() for file in files)]
    ).to_pylist()
    return rows


def reported(folder: Path) -> dict[str, Any]:
    asked = ["report", str(folder / "decisions"), "--json", "--data", str(folder / "data")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_report_shows_what_became_of_decisions_each_thing_once(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    served = serve(*arguments(folder))
    client = served.client(served.address)
    for number in range(6):
        client.update_profile(f"s{number}", set={"number": number})
    given = [client.decide(f"s{number}", "home").decision_id for number in range(6)]
    shown = [Exposure(decision_id=each) for each in given]
    bought = [Outcome(decision_id=each, name="purchase", value=10.0, rule_id="all") for each in given[:4]]
    for results in (client.record_exposures(shown), client.record_outcomes(bought)):
        assert set(results) == {ReportResult.ACCEPTED}
    for results in (client.record_exposures(shown), client.record_outcomes(bought)):
        assert set(results) == {ReportResult.DUPLICATE}
    eventually(lambda: (len(logged(folder)), len(told(folder))) == (6, 10))
    # Some of it waits in the spool, some is Parquet, whatever the moment; at the end all is Parquet.
    for ended in (False, True):
        if ended:
            assert served.stop() == 0
            assert segments(folder / "decisions") == []
        found = reported(folder)
        assert (found["decisions"], found["exposures"], found["outcomes"], found["unjoined"]) == (6, 6, 4, 0)
        [rule] = found["rules"]
        assert (rule["rule"], rule["won"], rule["shown"], rule["converted"]) == ("all", 6, 6, {"purchase": 4})


class Telling:
    """Decides, and tells what became of it, again and again; notes the ids of what was accepted, and when."""

    def __init__(self, served: Served) -> None:
        self.accepted: list[tuple[float, str]] = []
        self._client = served.client(served.address)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._done.is_set():
            number += 1
            try:
                given = self._client.decide(f"s{number % 7}", "home").decision_id
                [result] = self._client.record_outcomes([Outcome(decision_id=given, name="visit")])
            except Unavailable:
                continue
            # One that was sent again after its worker was killed may be there already: its row is among the lost.
            if result is ReportResult.ACCEPTED:
                self.accepted.append((time.monotonic(), given.partition(".")[0]))

    def end(self) -> None:
        self._done.set()
        self._thread.join()


def decided_of(client: Client, subject: str) -> list[str]:
    """The decisions of a subject of which the store holds an outcome."""
    found, token = [], ""
    while True:
        page = client.list_events(subject, types=["arbiter.outcome"], page_token=token)
        found += [str(each.properties["decision"]) for each in page.events]
        token = page.next
        if not token:
            return found


def test_workers_that_are_killed_lose_a_moment_of_the_log_and_nothing_of_the_store(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    served = serve(*arguments(folder))
    telling = [Telling(served) for _ in range(3)]
    eventually(lambda: all(len(each.accepted) > 20 for each in telling))
    time.sleep(2 * FLUSH_S)
    killed = [each.pid for each in served.client(served.address).server_info().workers]
    at = time.monotonic()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: served.others(*killed))
    for each in telling:
        each.end()
    client = served.client(served.address)
    stored = {number for each in range(7) for number in decided_of(client, f"s{each}")}
    assert served.stop() == 0
    accepted = [one for each in telling for one in each.accepted]
    assert {number for _, number in accepted} <= stored
    rows = [row["decision"] for row in told(folder)]
    assert len(rows) == len(set(rows))
    assert set(rows) <= stored
    # A flush begins so long after the one before, and takes its own time, on a busy machine most of all.
    missing = [when for when, number in accepted if number not in set(rows)]
    assert [when for when in missing if not at - FLUSH_S - 2.0 <= when <= at + 1.0] == []
