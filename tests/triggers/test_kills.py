"""kill -9 of who runs triggers at random moments, some dozens of them; `make faults` goes on for hundreds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_whatever_is_killed_each_occurrence_fires_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.triggers.kills", "24"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'engine'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("24 kills in ")
