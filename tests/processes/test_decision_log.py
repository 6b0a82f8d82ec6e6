"""A running server whose decisions are written down: nothing that was answered is lost but what a crash may take."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from arbiter.client import Unavailable
from arbiter.runtime import logfiles
from arbiter.runtime.spool import segments
from tests.processes.conftest import ENGINE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.conftest import Served

FLUSH_S = 0.2


def arguments(folder: Path, **more: Any) -> list[str]:
    chosen = {"directory": folder / "decisions", "flush-seconds": FLUSH_S, "rotate-seconds": 1, "spare-mib": 0, **more}
    return [part for name, value in chosen.items() for part in (f"--decision-log-{name}", str(value))]


def logged(folder: Path) -> list[str]:
    return [row.id for _, row in logfiles.read_log(folder / "decisions")]


class Asking:
    """Decides again and again; notes the ids that were answered, and when."""

    def __init__(self, served: Served) -> None:
        self.answered: list[tuple[float, str]] = []
        self._client = served.client(served.address)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._done.is_set():
            number += 1
            try:
                answer = self._client.decide(f"s{number % 7}", "home")
            except Unavailable:
                continue
            self.answered.append((time.monotonic(), answer.decision_id.partition(".")[0]))

    def end(self) -> None:
        self._done.set()
        self._thread.join()


def test_a_server_that_is_stopped_leaves_every_decision_in_parquet(folder: Path, serve: Callable[..., Served]) -> None:
    served = serve(*arguments(folder))
    client = served.client(served.address)
    client.update_profile("s1", set={"number": 1})
    asking = [Asking(served) for _ in range(3)]
    time.sleep(2.5)  # some become Parquet meanwhile
    for each in asking:
        each.end()
    assert served.stop() == 0
    assert segments(folder / "decisions") == []
    expected = sorted(number for each in asking for _, number in each.answered)
    assert sorted(logged(folder)) == expected
    command = [sys.executable, "-m", "arbiter.cli", "replay", str(folder / "decisions"), "--json"]
    replayed = subprocess.run(  # noqa: S603 - our own program
        [*command, "--data", str(folder / "data")],
        env={**os.environ, "PYTHONPATH": str(ENGINE)}, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    found = json.loads(replayed.stdout)
    assert (found["decisions"], found["different"]) == (len(expected), 0)


def test_workers_that_are_killed_lose_no_more_than_is_stated(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    served = serve(*arguments(folder))
    asking = [Asking(served) for _ in range(4)]
    eventually(lambda: all(len(each.answered) > 50 for each in asking))
    time.sleep(2 * FLUSH_S)
    killed = [each.pid for each in served.client(served.address).server_info().workers]
    at = time.monotonic()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: served.others(*killed))
    for each in asking:
        each.end()
    assert served.stop() == 0
    there = set(logged(folder))
    answered = [one for each in asking for one in each.answered]
    missing = [when for when, number in answered if number not in there]
    # A flush begins so long after the one before, and takes its own time, on a busy machine most of all.
    assert [when for when in missing if not at - FLUSH_S - 2.0 <= when <= at + 1.0] == []
    assert len(there) == len(logged(folder))


def test_a_disk_without_room_is_told_and_decisions_go_on(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    served = serve(*arguments(folder, **{"spare-mib": 2**31 - 1}), "--metrics", "127.0.0.1:0")
    client = served.client(served.address)
    assert client.decide("s1", "home").treatments
    metrics = re.search(r"metrics on (\S+)", served.log)
    assert metrics is not None

    def told() -> str:
        with urllib.request.urlopen(metrics[1], timeout=30) as answer:  # noqa: S310 - our own
            return str(answer.read().decode())

    eventually(lambda: "arbiter_decision_log_stopped 1.0" in told())
    assert client.decide("s1", "home").treatments
    assert "decisions are not logged" in served.log
    log = client.server_info().decision_log
    assert log is not None
    assert "spare_mib" in log.error
    assert served.stop() == 0
