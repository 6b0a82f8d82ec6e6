"""A model judged in a process of its own, so that whatever its file does, the caller goes on.

Law: the file is opened, run and timed in a child that has little memory and little time; what comes back is plain data.
A child that dies is an answer too. Nothing here knows what a model is for.
"""

from __future__ import annotations

import math
import resource
import signal
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.errors import AuthorError, Diagnostic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MEMORY_BYTES: Final = 2 << 30  # beyond what the child has when it begins
SECONDS: Final = 60
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


def judge(asked: Asked, *, memory: int = MEMORY_BYTES, seconds: float = SECONDS) -> Verdict:
    """Have a child judge the files. Never raises for anything that they hold.

    `memory` is in bytes, `seconds` bounds the child's time on the clock and on the processor.
    """
    command = [sys.executable, "-m", "arbiter.models.judge", str(memory), str(math.ceil(seconds))]
    try:
        done = subprocess.run(  # noqa: S603 - this very module, and two numbers
            command, input=msgspec.msgpack.encode(asked), capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict(died=f"it took longer than {seconds:g} seconds")
    if done.returncode < 0:
        return Verdict(died=f"the process that opened it was ended by {signal.Signals(-done.returncode).name}")
    try:
        return msgspec.msgpack.decode(done.stdout, type=Verdict)
    except msgspec.DecodeError:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
        return Verdict(died=f"the process that opened it ended with {done.returncode} and said: {said[:300]}")


def main(memory: int, seconds: int) -> None:
    """Be the child: read what is asked from standard input, write the verdict to standard output."""
    content = sys.stdin.buffer.read()
    from arbiter.models import from_bytes  # noqa: PLC0415 - onnxruntime's own memory is not the model's

    _limit(memory, seconds)
    asked = msgspec.msgpack.decode(content, type=Asked)
    try:
        model = from_bytes(asked.manifest, asked.onnx, file=asked.file)
        answers = [_answer(model, row) for row in asked.rows]
        times = _times(model, asked.file) if asked.timed else (0.0, 0.0)
        verdict = Verdict([], answers, *times)
    except AuthorError as error:
        verdict = Verdict(list(error.diagnostics))
    except MemoryError:
        verdict = Verdict([Diagnostic(file=asked.file, message=f"it wants more than {memory >> 20:,} MiB of memory")])
    sys.stdout.buffer.write(msgspec.msgpack.encode(verdict))


def _limit(memory: int, seconds: int) -> None:
    """Bound what this process may use from now on."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a few bytes of the kernel's
        have = int(file.read().split()[0]) * resource.getpagesize()
    for kind, most in ((resource.RLIMIT_AS, have + memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (most, most))


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
