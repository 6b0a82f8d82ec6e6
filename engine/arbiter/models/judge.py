"""A model judged in a process of its own, so that whatever its file does, the caller goes on.

Law: the file is opened, run and timed in a child that has little memory and little time; what comes back is plain data.
A child that dies is an answer too. Nothing here knows what a model is for.
"""

from __future__ import annotations

import contextlib
import math
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.errors import AuthorError, Diagnostic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MEMORY_BYTES: Final = 2 << 30  # beyond what the child has when it begins
SECONDS: Final = 60
_LENGTH: Final = struct.Struct(">Q")
_LEAST_S: Final = 0.001  # a timeout of 0 would mean another thing
_ENDING_S: Final = 5.0  # for a child that closed its line to be gone
_ROUNDS: Final = 9
_RUNS: Final = 100


class Asked(msgspec.Struct, frozen=True):
    """What is to be judged: the two files, and rows with one value an input to run. With `timed` it says how long."""

    manifest: bytes
    onnx: bytes
    file: str
    rows: list[list[Any]] = []
    timed: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """What a child found. `died` says how it ended when it gave no answer, and then nothing else is known.

    `answers` are the model's to the rows, None for one that it does not take. `micros` is the median time of one row
    in µs, `reference_micros` that of a logistic regression over as many columns, measured by turns with it.
    """

    diagnostics: list[Diagnostic] = []
    answers: list[list[Any] | None] = []
    micros: float = 0.0
    reference_micros: float = 0.0
    died: str = ""

    @property
    def sound(self) -> bool:
        """Whether the model could be opened and run."""
        return not self.died and not self.diagnostics


class Judge:
    """A child that judges one model after another, begun when the first comes; a model that ends it ends no other's.

    `memory` is in bytes; `seconds` bounds the time on the processor for each model, and `patience` the time on the
    clock, which is more where others go first. To be closed. One thread uses it.
    """

    def __init__(self, *, memory: int = MEMORY_BYTES, seconds: float = SECONDS, patience: float = 0.0) -> None:
        self._limits = (str(memory), str(math.ceil(seconds)))
        self._patience = patience or seconds
        self._child: _Child | None = None

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.end()
        self._child = None

    def verdict(self, asked: Asked) -> Verdict:
        """Have the child judge the files. Never raises for anything that they hold."""
        child = self._child = self._child or _Child(self._limits)
        deadline = time.monotonic() + self._patience
        try:
            _send(child.line, msgspec.msgpack.encode(asked), deadline)
            return msgspec.msgpack.decode(_receive(child.line, deadline), type=Verdict)
        except TimeoutError:
            died = f"it took longer than {self._patience:g} seconds"
        except (OSError, EOFError, msgspec.DecodeError):
            died = child.how_it_ended()
        self.close()
        return Verdict(died=died)


class _Child:
    """The process, the line to it, and what it says when it fails."""

    def __init__(self, limits: tuple[str, str]) -> None:
        self.line, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the rest
        command = [sys.executable, "-m", "arbiter.models.judge", *limits]
        # A group of its own, so that Ctrl-C does not end it; no session, since Linux weighs these against each other
        # (autogroup): a child that is to leave the processor to calls would get as much as they do.
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this very module, and two numbers
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=self._errors, process_group=0
            )

    def end(self) -> None:
        """End it, whatever it does."""
        self.line.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def how_it_ended(self) -> str:
        """In words."""
        try:
            code = self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            return "the process that opened it answers no more"
        if code < 0:
            return f"the process that opened it was ended by {signal.Signals(-code).name}"
        self._errors.seek(0)
        said = (self._errors.read().decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
        return f"the process that opened it ended with {code} and said: {said[:300]}"


def judge(asked: Asked, *, memory: int = MEMORY_BYTES, seconds: float = SECONDS) -> Verdict:
    """Have a child of its own judge the files. Never raises for anything that they hold.

    `memory` is in bytes, `seconds` bounds the child's time on the clock and on the processor.
    """
    with contextlib.closing(Judge(memory=memory, seconds=seconds)) as child:
        return child.verdict(asked)


def _send(line: socket.socket, content: bytes, deadline: float | None) -> None:
    _wait_until(line, deadline)
    line.sendall(_LENGTH.pack(len(content)) + content)


def _receive(line: socket.socket, deadline: float | None) -> bytes:
    """What the other end sent. Raises EOFError at its end, and TimeoutError."""
    (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size, deadline))
    return _exactly(line, length, deadline)


def _exactly(line: socket.socket, length: int, deadline: float | None) -> bytes:
    found = bytearray()
    while len(found) < length:
        _wait_until(line, deadline)
        part = line.recv(min(1 << 20, length - len(found)))
        if not part:
            raise EOFError
        found += part
    return bytes(found)


def _wait_until(line: socket.socket, deadline: float | None) -> None:
    line.settimeout(None if deadline is None else max(_LEAST_S, deadline - time.monotonic()))


def main(memory: int, seconds: int) -> None:
    """Be the child: whatever is asked by standard input, a socket, is answered there, until nobody asks any more."""
    from arbiter.models import from_bytes  # noqa: PLC0415 - onnxruntime's own memory is not the model's

    with socket.socket(fileno=sys.stdin.fileno()) as line:
        while True:
            try:
                content = _receive(line, None)
            except (EOFError, ConnectionError):
                return
            _limit(memory, seconds)
            _send(line, msgspec.msgpack.encode(_verdict(from_bytes, content, memory)), None)


def _verdict(from_bytes: Callable[..., Any], content: bytes, memory: int) -> Verdict:
    asked = msgspec.msgpack.decode(content, type=Asked)
    try:
        model = from_bytes(asked.manifest, asked.onnx, file=asked.file)
        answers = [_answer(model, row) for row in asked.rows]
        times = _times(model, asked.file) if asked.timed else (0.0, 0.0)
        return Verdict([], answers, *times)
    except AuthorError as error:
        return Verdict(list(error.diagnostics))
    except MemoryError:
        return Verdict([Diagnostic(file=asked.file, message=f"it wants more than {memory >> 20:,} MiB of memory")])


def _limit(memory: int, seconds: int) -> None:
    """Bound what this process may use from now on, beyond what it has and has used. The limits proper stay, so that
    the next model gets as much.
    """
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a few bytes of the kernel's
        have = int(file.read().split()[0]) * resource.getpagesize()
    used = math.ceil(time.process_time())
    limits = (resource.RLIMIT_AS, have + memory), (resource.RLIMIT_CPU, used + seconds), (resource.RLIMIT_CORE, 0)
    for kind, most in limits:
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


def _answer(model: Any, row: Sequence[Any]) -> list[Any] | None:
    columns = model.encode(row)
    return None if columns is None else list(model.run_one(columns))


def _times(model: Any, file: str) -> tuple[float, float]:
    """Median µs of one row, of the model and of the reference, by turns."""
    from arbiter.models.reference import reference  # noqa: PLC0415 - for who wants times

    row = [0.0] * sum(each.width for each in model.inputs)
    other = reference(len(row), file)
    turns: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for run, found in zip((model.run_one, other.run_one), turns, strict=True):
            found.append(_timed(run, row))
    return statistics.median(turns[0]), statistics.median(turns[1])


def _timed(run: Callable[[Sequence[Any]], Any], row: Sequence[Any]) -> float:
    start = time.perf_counter_ns()
    for _ in range(_RUNS):
        run(row)
    return (time.perf_counter_ns() - start) / _RUNS / 1000


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
