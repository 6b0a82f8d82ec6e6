"""The audit of dependencies: known holes end it with 1, and where nobody answers it says that nothing is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
SOUND: dict[str, Any] = {"name": "sound", "version": "1.0", "vulns": []}
HOLED: dict[str, Any] = {
    "name": "holed",
    "version": "2.1",
    "vulns": [{"id": "GHSA-1", "fix_versions": ["2.2", "3.0"]}, {"id": "PYSEC-2", "fix_versions": []}],
}
SKIPPED: dict[str, Any] = {"name": "ours", "skip_reason": "not found on the index"}


@pytest.fixture
def audit(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the audit where `pip-audit` prints this, and ends with this code."""

    def run(printed: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        (tmp_path / "pip_audit.py").write_text(f"import sys\nprint({printed!r})\nsys.exit({code})\n", "utf-8")
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, str(ROOT / ".ci" / "audit.py"), *arguments],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip

    return run


def answer(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_holes_are_named_with_what_mends_them_and_end_it_with_1(audit: Callable[..., Any]) -> None:
    done = audit(answer(SOUND, HOLED, SKIPPED), code=1)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "holed 2.1 has GHSA-1, mended in 2.2, 3.0",
        "holed 2.1 has PYSEC-2, mended in no version yet",
        "2 dependencies audited, 2 known holes; nothing is known of 1",
    ]


def test_without_holes_all_is_well(audit: Callable[..., Any]) -> None:
    done = audit(answer(SOUND, SKIPPED))
    assert (done.returncode, done.stdout) == (0, "1 dependencies audited, 0 known holes; nothing is known of 1\n")


@pytest.mark.parametrize("printed", ["", "a traceback of pip-audit", answer(SKIPPED), answer()])
def test_where_nobody_answers_nothing_is_called_well(audit: Callable[..., Any], printed: str) -> None:
    said = "the advisories cannot be reached from here: NOTHING WAS AUDITED\n"
    done = audit(printed, code=1)
    assert (done.returncode, done.stdout) == (0, said)
    done = audit(printed, "--strict", code=1)
    assert (done.returncode, done.stdout) == (1, said)


def test_ci_runs_it() -> None:
    assert "\nmake audit\n" in (ROOT / ".ci" / "run").read_text("utf-8")
    assert ".ci/audit.py" in (ROOT / "Makefile").read_text("utf-8")
