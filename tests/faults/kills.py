"""kill -9 at random moments, round after round, on the store alone: `python -m tests.faults.kills ROUNDS [SEED]`.

Two processes write to one store, and one of them or both are killed; now and then a compaction runs beside them and is
killed too. After every round another process opens the store: what was acknowledged is there. Then it sends again all
that may have been on its way, and every write counts once. Children are forked before any store is opened here.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from arbiter.profiles import generations
from arbiter.profiles.compaction import compact_store
from arbiter.profiles.copies import damage_of, data_of
from arbiter.profiles.store import Store, Update
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

WRITERS = 2
IN_FLIGHT = 16
NOW = 1 << 60
_FRESH_EVERY = 40  # rounds on one store
_WHOLE_EVERY = 10  # rounds after which every page is looked at


def writes(store: Store, writer: int, turn: int, number: int) -> list[Future[object]]:
    """The two writes with this number: an update that must count once, and an event."""
    name = f"{turn}-{writer}-{number}"
    update = Update(f"c{writer}", increment={"n": 1}, idempotency_key=name)
    return [store.update(update), store.ingest([Event(name, f"c{writer}", "buy", number, {})])]  # type: ignore[list-item]


def write(path: Path, writer: int, turn: int, told: int) -> None:
    """Write until killed; a byte for each number whose writes were both acknowledged."""
    room = threading.Semaphore(IN_FLIGHT)

    def acknowledged(futures: list[Future[object]]) -> Callable[[object], None]:
        def done(_: object) -> None:
            for future in futures:
                future.result()
            os.write(told, b".")
            room.release()

        return done

    with Store.open(path, background=False) as store:
        os.write(told, b"o")
        for number in range(1_000_000):
            room.acquire()
            futures = writes(store, writer, turn, number)
            futures[-1].add_done_callback(acknowledged(futures))


def compacts(path: Path) -> None:
    """Compact again and again until killed."""
    while True:
        compact_store(path, patience_s=0.0)


def check(path: Path, turn: int, acknowledged: list[int], before: list[int], *, whole: bool) -> None:
    """What was acknowledged is there, and what is sent again counts once. Raises AssertionError."""
    if whole:
        assert not damage_of(data_of(path))
    with Store.open(path, background=False) as store:
        for writer in range(WRITERS):
            subject, least = f"c{writer}", before[writer] + acknowledged[writer]
            counted = store.read(subject, NOW).attributes.get("n", 0)
            assert least <= counted <= least + IN_FLIGHT, (turn, writer, least, counted)
            ids = {event.id for event in store.events(subject, limit=1_000_000)}
            missing = [n for n in range(acknowledged[writer]) if f"{turn}-{writer}-{n}" not in ids]
            assert not missing, (turn, writer, missing[:5])
            again = [writes(store, writer, turn, n) for n in range(acknowledged[writer] + IN_FLIGHT)]
            for future in (each for pair in again for each in pair):
                future.result()
            expected = least + IN_FLIGHT
            logged = [event.id for event in store.events(subject, limit=1_000_000)]
            assert store.read(subject, NOW).attributes["n"] == expected, (turn, writer)
            assert len(logged) == len(set(logged)) == expected, (turn, writer, len(logged), expected)
    generations.remove_superseded(path)


def forked(work: Callable[[], None]) -> int:
    """Do something in a child; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:  # noqa: BLE001 - a child must not go on as its parent would
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def killed(pid: int) -> None:
    """Kill a child, if it is there still."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def round_of(path: Path, turn: int, generator: random.Random, before: list[int]) -> list[int]:
    """Write, kill, look; how many numbers each writer was acknowledged."""
    pipes = [os.pipe() for _ in range(WRITERS)]
    pids = [forked(lambda w=w: write(path, w, turn, pipes[w][1])) for w in range(WRITERS)]  # type: ignore[misc]
    for _, told in pipes:
        os.close(told)
    opened = [os.read(heard, 1) for heard, _ in pipes]
    assert opened == [b"o"] * WRITERS
    compaction = forked(lambda: compacts(path)) if generator.random() < 0.4 else 0
    time.sleep(generator.expovariate(60))
    order = generator.sample(pids, WRITERS)
    killed(order[0])
    if generator.random() < 0.5:
        time.sleep(generator.expovariate(100))
    if compaction:
        killed(compaction)
    killed(order[1])
    acknowledged = []
    for heard, _ in pipes:
        with os.fdopen(heard, "rb") as file:
            acknowledged.append(len(file.read()))
    pid = forked(lambda: check(path, turn, acknowledged, before, whole=turn % _WHOLE_EVERY == 0))
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise SystemExit(f"round {turn}: the store in {path} is not what it must be")
    return acknowledged


def main(rounds: int, seed: int) -> None:
    """Go through the rounds; says what was done, and ends with 1 when something is missing."""
    generator = random.Random(seed)  # noqa: S311 - moments, not secrets
    total = 0
    for first in range(0, rounds, _FRESH_EVERY):
        with tempfile.TemporaryDirectory() as folder:
            before = [0] * WRITERS
            for turn in range(first, min(rounds, first + _FRESH_EVERY)):
                acknowledged = round_of(Path(folder, "store"), turn, generator, before)
                total += sum(acknowledged)
                before = [b + a + IN_FLIGHT for b, a in zip(before, acknowledged, strict=True)]
    print(f"{rounds} rounds, {2 * total} acknowledged writes: all there, each once")  # noqa: T201 - it is a program


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20261128)
