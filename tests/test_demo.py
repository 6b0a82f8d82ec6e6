"""The demo: its quick form in a process of its own, told to the end, told to nobody, and cut short.

The purchase record must be in the cache or within pip's reach: without it these tests fail, they are never skipped.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def command(place: Path, *options: object) -> list[str]:
    plot = place / "plot" / "demo.png"
    return [sys.executable, "-m", "arbiter.cli", "demo", "--quick", "--plot", str(plot), *map(str, options)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which every temporary file is below `tmp_path`, so that what the demo leaves behind can be found."""
    (tmp_path / "tmp").mkdir()
    return {**os.environ, "PYTHONPATH": str(ROOT / "engine"), "TMPDIR": str(tmp_path / "tmp")}


def left_behind(place: Path) -> list[str]:
    """Files in the demo's temporary directory, and processes that were started on them."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    folder = str(place / "tmp")
    return [line for line in lines if folder in line] + [path.name for path in (place / "tmp").glob("arbiter-demo-*")]


def test_the_whole_story_happens(tmp_path: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(  # noqa: S603 - the command is ours
        command(tmp_path), capture_output=True, text=True, env=environment, cwd=ROOT, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout
    assert [line for line in said.splitlines() if re.match(r"\d\. ", line)] == [
        "1. A server",
        "2. 39 weeks of purchases arrive",
        "3. Who gets what on the home page, and why",
        "4. New customers buy for the first, second and third time",
        "5. One decision explained, and changed by what we learn",
        "6. A rule file is edited while decisions flow",
        "7. The file is broken on purpose",
        "8. The file is mended",
        "9. How long decisions took",
    ]
    assert "✓ 2 workers on 127.0.0.1:" in said
    assert "duplicates dropped, nothing counted twice" in said
    assert re.search(r"champions\t0\.\d\d\tbanner early-access champions-early-access: ", said)
    assert "\tonboarding-join-the-club" in said or "onboarding-join-the-club: " in said
    assert '"We miss you, Ada"' in said
    assert re.search(r"\d ms after the write began, customer \d{5} gets banner listening-party", said)
    assert "rules/store/banner.yaml:14:11: unknown segment `champoins`\n" in said
    assert "  hint: did you mean `champions`?\n" in said
    assert "none failed, none mixed the two" in said
    assert "decisions\tp50\tp90\tp99\tp99.9\n" in said
    assert "All of it happened" in said
    assert (tmp_path / "plot" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert left_behind(tmp_path) == []


def test_a_story_that_cannot_begin_says_why(tmp_path: Path, environment: dict[str, str]) -> None:
    rules = Path(shutil.copytree(ROOT / "rules", tmp_path / "rules"))
    segments = rules / "store" / "segments.yaml"
    segments.write_text(segments.read_text().replace("newcomer: features.orders", "newcomer: features.ordres"))
    done = subprocess.run(  # noqa: S603 - the command is ours
        command(tmp_path, "--rules", rules), capture_output=True, text=True, env=environment, cwd=ROOT, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: the server did not start:\n")
    assert "unknown feature `ordres`" in done.stderr
    assert "Traceback" not in done.stderr
    assert "✓" not in done.stdout
    assert left_behind(tmp_path) == []


def test_a_story_that_does_not_come_true_fails(tmp_path: Path, environment: dict[str, str]) -> None:
    rules = Path(shutil.copytree(ROOT / "rules", tmp_path / "rules"))
    banner = rules / "store" / "banner.yaml"
    banner.write_text(banner.read_text().replace("banner: early-access,", "banner: previews,"))
    done = subprocess.run(  # noqa: S603 - the command is ours
        command(tmp_path, "--rules", rules), capture_output=True, text=True, env=environment, cwd=ROOT, check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "error: store/banner.yaml no longer holds exactly one `banner: early-access,`: the demo edits that text\n"
    )
    assert "All of it happened" not in done.stdout
    assert left_behind(tmp_path) == []


def test_a_story_that_is_cut_short_leaves_nothing_behind(tmp_path: Path, environment: dict[str, str]) -> None:
    process = subprocess.Popen(  # noqa: S603 - the command is ours
        command(tmp_path), stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if "workers on" in line:
                break
        assert left_behind(tmp_path)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM
    until = time.monotonic() + 20
    while left_behind(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)  # workers end a moment after the supervisor
    assert left_behind(tmp_path) == []
