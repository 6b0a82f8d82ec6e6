"""A server of the demo's own: `arbiter serve` in another process, on a port that the system chose.

Law: starts it, waits for the line that says ready, and ends what it started by its id, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from arbiter.cli.demo.stage import StepFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_READY = re.compile(r"^arbiter ready on (\S+),")
_START_S = 60.0
_STOP_S = 20.0
_LOG_LINES = 40


@contextlib.contextmanager
def serving(rules: Path, models: Path, data: Path, log: Path, *, workers: int) -> Iterator[str]:
    """Serve while the block runs. Gives the address, ``HOST:PORT``. Raises StepFailed when no server comes up.

    The server leads a process group of its own: Ctrl-C reaches the demo alone, which then ends the server.
    """
    command = [
        sys.executable, "-m", "arbiter.cli", "serve", "--listen", "127.0.0.1:0", "--workers", str(workers),
        "--rules", str(rules), "--models", str(models), "--data", str(data),
    ]  # fmt: skip
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - every word of it is ours
            command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True, start_new_session=True
        )
    try:
        yield _address(process, log)
        if process.poll() is not None:
            raise StepFailed(f"the server ended by itself with exit code {process.returncode}:\n{_tail(log)}")
    finally:
        _end(process)


def _address(process: subprocess.Popen[str], log: Path) -> str:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_follow, args=(process, lines), name="server-output", daemon=True).start()
    try:
        line = lines.get(timeout=_START_S)
    except queue.Empty:
        raise StepFailed(f"the server was not ready within {_START_S:.0f} s:\n{_tail(log)}") from None
    if not (found := _READY.match(line)):
        raise StepFailed(f"the server did not start:\n{line}{_tail(log)}")
    return found[1]


def _follow(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    """Pass on the line that says ready, or an empty one when none comes; read on, so that the pipe never fills."""
    stdout = process.stdout
    for line in stdout or ():
        if _READY.match(line):
            lines.put(line)
    lines.put("")


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        # The supervisor and its workers: the group that was started here, whose leader still holds its number.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-_LOG_LINES:])
