"""kill -9 of whoever runs triggers, and of whoever logs beside it: `python -m tests.triggers.kills KILLS [SEED]`.

Random triggers over random histories of some subjects. One process logs commit after commit, another runs the triggers,
and one of them or both are killed at a random moment, again and again, until all is logged. Then what was fired is what
the oracle says of each subject's history, each once, and profiles were changed once by each. Children are forked before
any store is opened here, and the clock is a number that they share: an hour takes no time.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from arbiter.profiles.holdings import last_position
from arbiter.profiles.store import Limits, Store
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine
from arbiter.runtime.triggering.aside import AtWork
from arbiter.runtime.triggering.loading import rules_of
from arbiter.runtime.triggering.loop import Loop
from arbiter.snapshot import Snapshot
from arbiter.telemetry.counters import Counters
from arbiter.types import EMITTED, Event
from tests.faults.kills import forked, killed
from tests.triggers.drawing import LATE, SECOND, _written, history, triggers
from tests.triggers.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.triggers.oracle import Outcome, Spec

SUBJECTS, TRIGGERS, COMMITS, CHAIN = 3, 4, 24, 8


class Clock:
    """µs since the epoch, as whoever logs says; over forks."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    def __call__(self) -> int:
        return int.from_bytes(self._shared[:8], "little")

    def set(self, now: int) -> None:
        self._shared[:8] = now.to_bytes(8, "little")


class Story(NamedTuple):
    """What happens: triggers, and commits in the order of the log, each with its arrival (µs). `end` is after all."""

    specs: list[Spec]
    snapshot: Snapshot
    commits: list[tuple[int, list[Event]]]
    end: int


def story(generator: random.Random) -> Story:
    """A random one."""
    specs = triggers(generator, TRIGGERS)
    written = [_written(spec) | {"then": {"increment": {spec.id: 1}}} for spec in specs]
    text = "triggers:\n" + "".join(f"  - {json.dumps(each)}\n" for each in written)
    happened = [
        (each.arrival, f"s{subject}", each.event)
        for subject in range(SUBJECTS)
        for each in history(generator, COMMITS)
        if each.event is not None
    ]
    happened.sort(key=lambda each: each[0])
    commits = [
        (arrival, [_sent(subject, event) for _, subject, event in events])
        for arrival, events in groupby(happened, key=lambda each: each[0])
    ]
    ruleset, found = load_ruleset({"triggers.yaml": text.encode()}, {})
    assert ruleset is not None, [each.render() for each in found]
    return Story(specs, Snapshot(ruleset, {}), commits, commits[-1][0] + 10 * SECOND)


def _sent(subject: str, event: Event) -> Event:
    """An event as a caller may send it."""
    return Event(event.id.removeprefix(EMITTED), subject, event.type, event.at, event.properties)


def expected(story: Story, subject: str) -> Iterator[Outcome]:
    """What the oracle finds in the history of a subject."""
    oracle, position = Oracle(story.specs, LATE), 0
    for arrival, events in story.commits:
        yield from oracle.tick(arrival)
        for event in events:
            position += 1
            if event.subject_id == subject:
                yield from oracle.event(event, position, arrival)
        yield from oracle.tick(arrival)
    yield from oracle.tick(story.end)


def open_store(path: Path, clock: Clock) -> Store:
    return Store.open(path, clock=clock, limits=Limits(), background=False)


def logs(path: Path, story: Story, clock: Clock, pause: float) -> None:
    """Log what is not logged yet."""
    with open_store(path, clock) as store:
        with store.fired.looking() as (environment, txn):
            done = last_position(environment, txn)
        position = 0
        for arrival, events in story.commits:
            position += len(events)
            if position > done:
                clock.set(arrival)
                store.ingest(events).result()
                time.sleep(pause)


def begun(path: Path, story: Story, store: Store, clock: Clock) -> Loop:
    """A loop over the story's triggers."""
    engine = Engine(store, clock)
    engine.activate(story.snapshot)
    loop = Loop(store, AtWork(path.parent / "triggers.at", Counters()), Counters(), clock)
    loop.begin(rules_of(engine, late=LATE, chain=CHAIN))
    return loop


def runs(path: Path, story: Story, clock: Clock, told: int) -> None:
    """Run triggers until killed; a byte once they run."""
    with open_store(path, clock) as store:
        loop = begun(path, story, store, clock)
        os.write(told, b"o")
        while True:
            if not loop.step():
                time.sleep(0.001)


def check(path: Path, story: Story, clock: Clock) -> None:
    """Log and run what is left; what was fired is what is expected. Raises AssertionError."""
    logs(path, story, clock, 0.0)
    with open_store(path, clock) as store:
        clock.set(story.end)
        loop = begun(path, story, store, clock)
        while loop.step():
            pass
        found, _ = store.fired.after(0, 1_000_000)
        ids = [told.firing.id for told in found]
        assert len(ids) == len(set(ids)), "an occurrence fired twice"
        for number in range(SUBJECTS):
            subject = f"s{number}"
            fired = [
                (told.firing.trigger, told.firing.at, tuple(cause.position for cause in told.firing.causes))
                for told in found
                if told.firing.subject.hex() == store.pseudonym(subject)
            ]
            wanted = [
                (each.trigger, each.at, each.positions) for each in expected(story, subject) if each.became == "fired"
            ]
            assert fired == wanted, (subject, fired, wanted)
            counts: dict[str, int] = {}
            for trigger, _, _ in wanted:
                counts[trigger] = counts.get(trigger, 0) + 1
            assert store.read(subject, story.end).attributes == counts, subject


def rounds(folder: Path, generator: random.Random, most: int) -> tuple[int, int]:
    """One story with at most so many kills; how many there were, and how many firings."""
    path, clock, told = folder / "store", Clock(), story(generator)
    clock.set(told.commits[0][0])
    kills, logger = 0, 0
    try:
        while kills < most:
            heard, tell = os.pipe()
            pid = forked(lambda tell=tell: runs(path, told, clock, tell))  # type: ignore[misc]
            os.close(tell)
            assert os.read(heard, 1) == b"o", "triggers do not run"
            os.close(heard)
            if not logger:
                logger = forked(lambda: logs(path, told, clock, generator.choice((0.0, 0.002, 0.01))))
            time.sleep(generator.expovariate(60))
            if generator.random() < 0.3:
                killed(logger)
                logger = 0
            killed(pid)
            kills += 1
            if logger and os.waitpid(logger, os.WNOHANG)[0]:
                logger = 0
                break
    finally:
        if logger:
            killed(logger)
    pid = forked(lambda: check(path, told, clock))
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise SystemExit(f"the firings in {path} are not what they must be")
    return kills, sum(each.became == "fired" for n in range(SUBJECTS) for each in expected(told, f"s{n}"))


def main(most: int, seed: int) -> None:
    """Go through stories until there were so many kills; says what was done, and ends with 1 when that is wrong."""
    generator = random.Random(seed)  # noqa: S311 - moments and histories, not secrets
    kills = stories = firings = 0
    while kills < most:
        with tempfile.TemporaryDirectory() as folder:
            more, fired = rounds(Path(folder), generator, min(12, most - kills))
        kills, stories, firings = kills + more, stories + 1, firings + fired
    print(f"{kills} kills in {stories} histories, {firings} firings: as the oracle has them, each once")  # noqa: T201


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20261129)
