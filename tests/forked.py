"""The command line in processes of their own that import nothing: each is forked off one that has imported all.

A command takes a second or two to load its libraries, and tests run hundreds. What is tested is the same: arguments,
environment, working directory, files for the three streams, an exit code. Commands on a terminal, and those whose start
is the point, are run by themselves.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
# What commands import when they need it.
LOADED = (
    "arbiter.cli.app", "arbiter.client", "arbiter.models", "arbiter.runtime.local", "arbiter.lint.run",
    "arbiter.ruletests.run", "arbiter.server.app", "arbiter.runtime.start", "arbiter.consumer.catching_up",
)  # fmt: skip
_REQUEST_BYTES = 1 << 17


def arbiter(
    *words: object,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Run the command; without an `environment` in this process' own. Raises TimeoutExpired."""
    command = ["arbiter", *map(str, words)]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
        given.write(stdin.encode())
        given.seek(0)
        request = {
            "argv": command,
            "cwd": str(cwd),
            "environment": dict(os.environ if environment is None else environment),
        }
        code = _nursery().run(request, (given, said, told), timeout)
        out, err = (_read(file) for file in (said, told))
    return subprocess.CompletedProcess(command, code, out, err)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


class Nursery:
    """The process that forks, and the way to it. One command at a time."""

    def __init__(self) -> None:
        self._way, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "engine")}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this file
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        atexit.register(self._end)

    def run(self, request: object, streams: tuple[IO[bytes], ...], timeout: float) -> int:
        """Have a command run; its exit code, negative for a signal."""
        with self._lock:
            socket.send_fds(self._way, [json.dumps(request).encode()], [stream.fileno() for stream in streams])
            pid = int(self._way.recv(100))
            self._way.settimeout(timeout)
            try:
                return int(self._way.recv(100))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._way.settimeout(None)
                self._way.recv(100)
                raise subprocess.TimeoutExpired(str(request), timeout) from None
            finally:
                self._way.settimeout(None)

    def _end(self) -> None:
        self._way.close()
        self._process.wait()


@functools.cache
def _nursery() -> Nursery:
    return Nursery()


def _become(way: socket.socket) -> bool:
    """Fork one process for each request; returns in each of them, True, and False at the end."""
    while True:
        content, streams, _, _ = socket.recv_fds(way, _REQUEST_BYTES, 3)
        if not content:
            return False
        pid = os.fork()
        if not pid:
            break
        for stream in streams:
            os.close(stream)
        way.send(str(pid).encode())
        way.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    way.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    request = json.loads(content)
    sys.argv = request["argv"]
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    return True


if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)
    if _become(socket.socket(fileno=int(sys.argv[1]))):
        from arbiter.cli.app import main

        main()
