"""kill -9 at random moments, some dozens of them; `make faults` goes on for thousands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_kills_at_random_moments_lose_nothing_and_count_nothing_twice() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kills", "24"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'engine'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("24 rounds, ")
