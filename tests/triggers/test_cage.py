"""durable-rules in its cage says what trying every choice of facts says, whatever it is asked and however long."""

from __future__ import annotations

import itertools
import os
from contextlib import closing
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import durable_rules_engine
import pytest

from arbiter.triggers.cage import MOST_FACTS, Cage, EngineFailed
from arbiter.triggers.joins import MOST_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.triggers.cage import Keys, Shape

PAIR: Shape = ((0,), (0,))


def every_choice(shape: Shape, facts: Sequence[Sequence[Keys]]) -> set[tuple[int, ...]]:
    found = set()
    for places in itertools.product(*(range(len(each)) for each in facts)):
        bound: dict[int, int] = {}
        held = [zip(shape[step], facts[step][place], strict=True) for step, place in enumerate(places)]
        if all(bound.setdefault(name, value) == value for each in held for name, value in each):
            found.add(places)
    return found


def shape(random: Random) -> Shape:
    variables = range(random.randint(0, 4))
    steps = range(random.randint(1, MOST_FACTS))
    return tuple(tuple(sorted(random.sample(variables, random.randint(0, len(variables))))) for _ in steps)


def facts(random: Random, of: Shape) -> list[list[Keys]]:
    return [list({tuple(random.randint(0, 2) for _ in held) for _ in range(random.randint(0, 4))}) for held in of]


def test_what_completes_patterns_is_what_every_choice_gives() -> None:
    random = Random(7)  # noqa: S311 - random data, not secrets
    shapes = [shape(random) for _ in range(100)]
    matches = 0
    with closing(Cage(shapes)) as cage:
        for _ in range(3_000):
            asked = {pattern: facts(random, shapes[pattern]) for pattern in random.sample(range(100), 3)}
            found = cage.complete(asked)
            assert found == {pattern: every_choice(shapes[pattern], each) for pattern, each in asked.items()}
            matches += sum(map(len, found.values()))
    assert matches > 1_000


def test_thousands_of_patterns_are_kept_apart() -> None:
    """In one rule set, 256 rules with one condition make unrelated ones fire, and 512 conditions never return."""
    with closing(Cage([PAIR] * 3_000)) as cage:
        asked = {pattern: [[(1,), (2,)], [(2,)]] for pattern in range(3_000)}
        assert cage.complete(asked) == {pattern: {(1, 0)} for pattern in asked}


def test_as_many_facts_and_variables_as_are_allowed_work() -> None:
    variables = tuple(range(MOST_VARIABLES))
    with closing(Cage([(variables,) * MOST_FACTS] * 40)) as cage:
        same = [(*(5 for _ in variables),)]
        other = [(*(5 for _ in variables[1:]), 6)]
        assert cage.complete({0: [same] * MOST_FACTS}) == {0: {(0,) * MOST_FACTS}}
        assert cage.complete({0: [same, other, *[same] * (MOST_FACTS - 2)]}) == {0: set()}


def test_many_facts_that_all_go_together_are_all_found() -> None:
    with closing(Cage([((), (), ()), ((0,), (0,))])) as cage:
        many = [[()] * 16] * 3
        assert len(cage.complete({0: many})[0]) == 16**3
        assert cage.complete({1: [[(1,)] * 300, [(1,), (2,)]]}) == {1: {(place, 0) for place in range(300)}}


def test_what_the_engine_would_die_of_is_refused() -> None:
    with pytest.raises(ValueError, match="pattern 1 has 7 facts and 0 variables"):
        Cage([PAIR, ((),) * 7])
    with pytest.raises(ValueError, match="pattern 0 has 1 facts and 17 variables"):
        Cage([(tuple(range(17)),)])


def test_nothing_of_an_evaluation_is_left_in_the_next() -> None:
    with closing(Cage([PAIR])) as cage:
        for turn in range(1_000):
            assert cage.complete({0: [[(turn,)], []]}) == {0: set()}
            assert cage.complete({0: [[], [(turn,)]]}) == {0: set()}
            assert cage.complete({0: [[(turn,)], [(turn,)]]}) == {0: {(0, 0)}}


def test_a_rule_set_that_was_spoilt_is_made_anew() -> None:
    with closing(Cage([PAIR])) as cage:
        assert cage.complete({0: [[(1,)], [(1,)]]}) == {0: {(0, 0)}}
        spoilt = cage._sets[0]
        durable_rules_engine.assert_fact(spoilt._handle, '{"id":"0","sid":"0","kind":1,"v0":1}')
        assert cage.complete({0: [[(1,)], [(1,)]]}) == {0: {(0, 0)}}
        assert cage._sets[0] is not spoilt


def test_an_engine_that_fails_again_ends_the_evaluation_and_goes_on() -> None:
    with closing(Cage([PAIR])) as cage:
        with pytest.raises(EngineFailed, match="durable-rules failed at 2 facts"):
            cage.complete({0: [[("no number",)], [(1,)]]})  # type: ignore[list-item]
        assert cage.complete({0: [[(1,)], [(1,)]]}) == {0: {(0, 0)}}


def test_memory_stays_as_it_is() -> None:
    """Over evaluations, and over rule sets that come and go as rule files are loaded anew."""

    def held() -> int:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGESIZE")

    def used(times: int) -> None:
        for _ in range(times):
            with closing(Cage([PAIR] * 32)) as cage:
                for turn in range(500):
                    cage.complete({turn % 32: [[(1,), (2,)], [(2,), (3,)]]})

    used(20)
    before = held()
    used(40)
    assert held() - before < 8_000_000
