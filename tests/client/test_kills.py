"""Worker processes that are killed under load: the client's retries succeed, and nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arbiter.client import Client, Retries
from tests.conftest import workers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.client.conftest import OpenClient

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60.0
CALLERS = 4
# What is spent is not earned back, so that it shows afterwards.
RETRIES = Retries(attempts=20, first=0.02, burst=1000, share=1e-9)


class Served:
    """`arbiter serve` with two workers."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "arbiter.cli", "serve", "--listen", "127.0.0.1:0", "--workers", "2"]
        command += ["--rules", str(ROOT / "rules"), "--models", str(ROOT / "models"), "--data", str(folder / "data")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT / "engine")},
            )
        assert self.process.stdout is not None
        self.target = self.process.stdout.readline().removeprefix("arbiter ready on ").partition(",")[0]

    def workers(self) -> list[int]:
        return workers_of(self.process.pid)

    def kill(self, worker: int) -> None:
        """Kill a worker, and return when another one serves in its place."""
        before = set(self.workers())
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        with Client(self.target, timeout=PATIENCE_S, retries=RETRIES) as client:
            while not set(self.workers()) - before or not all(client.snapshot().workers.values()):
                assert time.monotonic() < deadline, "nobody took its place"
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    started = Served(tmp_path)
    yield started
    started.stop()


def test_retries_carry_calls_over_killed_workers(served: Served, open_client: OpenClient) -> None:
    client = open_client(served.target, timeout=PATIENCE_S, retries=RETRIES)
    done = threading.Event()
    asked = threading.Semaphore(0)

    def decide(_caller: int) -> int:
        count = 0
        while not done.is_set():
            assert not client.decide("ann", "store.home_banner").local
            asked.release()
            count += 1
        return count

    def update(caller: int) -> int:
        count = 0
        while not done.is_set():
            assert client.update_profile(f"subject-{caller}", increment={"visits": 1}) == count + 1
            asked.release()
            count += 1
        return count

    with ThreadPoolExecutor(2 * CALLERS) as pool:
        decided = [pool.submit(decide, caller) for caller in range(CALLERS)]
        updated = [pool.submit(update, caller) for caller in range(CALLERS)]
        try:
            for worker in served.workers():
                for _ in range(10 * CALLERS):
                    assert asked.acquire(timeout=PATIENCE_S)
                served.kill(worker)
        finally:
            done.set()
        assert all(each.result() for each in decided)
        counts = [each.result() for each in updated]
    visits = [client.get_profile(f"subject-{caller}").attributes["visits"] for caller in range(CALLERS)]
    assert visits == counts
    shared = getattr(client, "client", client)._shared
    assert shared.budget.tokens < RETRIES.burst, "nothing had to be sent again"
