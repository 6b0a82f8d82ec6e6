"""Whatever triggers and whatever histories: the machine does what the oracle finds by trying everything."""

from __future__ import annotations

from contextlib import closing
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.triggers.cage import Cage
from arbiter.triggers.machine import Machine
from arbiter.triggers.state import SubjectState, decode_state, encode_state
from tests.triggers.drawing import LATE, Happens, history, opened, triggers
from tests.triggers.oracle import Oracle, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from arbiter.triggers.state import Moment, Occurrence
    from arbiter.types import Event

# 10,000 histories in all; of the parts each worker of a run takes its share.
PARTS, EXAMPLES, HISTORIES = 4, 25, 100
TRIGGERS, COMMITS = 3, 9


def followed(machine: Machine, happens: Sequence[Happens], random: Random) -> Iterator[Outcome]:
    """What the machine makes of a history. Now and then the state goes to disk and comes back, and is pruned."""
    state = SubjectState()
    log: dict[int, Event] = {}
    for now, position, event in happens:
        found = machine.due(state, b"key", now) if event is None else _arrive(machine, state, log, now, position, event)
        for each in found:
            became = "late" if each.late else "fired" if machine.may(state, each) else "repeat"
            if became == "fired":
                machine.fired(state, each)
            yield Outcome(each.trigger.id, became, each.at, tuple(cause.position for cause in each.causes))
        if random.random() < 0.5:
            machine.prune(state, now)
            state = decode_state(encode_state(state))


def _arrive(
    machine: Machine, state: SubjectState, log: dict[int, Event], now: int, position: int, event: Event
) -> list[Occurrence]:
    log[position] = event

    def between(after: Moment, before: int) -> Iterable[tuple[int, Event]]:
        return [(at, each) for at, each in log.items() if after < (each.at, at) and each.at < before]

    look = machine.look(event, position)
    return [] if look is None else machine.arrive(state, b"key", look, now, between)


def expected(oracle: Oracle, happens: Sequence[Happens]) -> Iterator[Outcome]:
    for now, position, event in happens:
        yield from oracle.tick(now) if event is None else oracle.event(event, position, now)


@pytest.mark.parametrize("part", range(PARTS))
@given(seed=st.integers(0, 2**64))
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_machine_finds_what_the_oracle_finds(part: int, seed: int) -> None:
    random = Random(seed * PARTS + part)  # noqa: S311 - random data, not secrets
    specs = triggers(random, TRIGGERS)
    with closing(Machine(opened(specs), late=LATE, since={}, cage=Cage)) as machine:
        for _ in range(HISTORIES):
            happens = history(random, COMMITS)
            oracle, before = Oracle(specs, LATE), machine.cancelled
            assert [*followed(machine, happens, random)] == [*expected(oracle, happens)]
            assert machine.cancelled - before == oracle.cancelled
