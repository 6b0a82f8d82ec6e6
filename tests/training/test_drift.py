"""Drift that is put into values raises the alarm, and without it there is none, whatever the seed."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from arbiter.learning.drift import Spread, by_chance, drift_of, stability
from arbiter.training.matrix import spread


def baseline(draw: np.random.Generator, rows: int = 3000) -> Spread:
    return msgspec.convert({"missing": 0.1} | spread(draw.exponential(10, rows)), Spread)


def values(draw: np.random.Generator, rows: int, scale: float = 10, missing: float = 0.1) -> list[float | None]:
    numbers = draw.exponential(scale, rows)
    return [None if gone else float(each) for each, gone in zip(numbers, draw.random(rows) < missing, strict=True)]


@pytest.mark.parametrize("rows", [20, 200, 5000])
def test_without_drift_there_is_no_alarm_over_twenty_seeds(rows: int) -> None:
    for seed in range(20):
        draw = np.random.default_rng(seed)
        found = drift_of("x", baseline(draw), values(draw, rows))
        assert found.alarms == []
        words = Spread({"a": 0.6, "b": 0.3, "c": 0.08})
        said = drift_of("w", words, list(draw.choice(["a", "b", "c", "d"], rows, p=[0.6, 0.3, 0.08, 0.02])))
        assert said.alarms == []


@pytest.mark.parametrize(
    ("scale", "missing", "why"),
    [(25.0, 0.1, "values have shifted"), (10.0, 0.4, "are missing, and 10% were"), (60.0, 0.1, "beyond all that")],
    ids=["shifted", "missing", "out of range"],
)
def test_drift_raises_the_alarm_over_twenty_seeds(scale: float, missing: float, why: str) -> None:
    for seed in range(20):
        draw = np.random.default_rng(seed)
        found = drift_of("x", baseline(draw), values(draw, 1000, scale, missing))
        assert any(why in alarm for alarm in found.alarms), (seed, found.alarms)


def test_a_word_that_was_never_there_is_drift() -> None:
    before = Spread({"ios": 0.5, "web": 0.5})
    found = drift_of("device", before, ["tv"] * 300 + ["web"] * 300)
    assert found.bins == ["ios", "web", "another"]
    assert found.now == [0, 0.5, 0.5]
    assert found.alarms[0].startswith("values have shifted")


def test_the_index_is_its_formula_and_no_more_than_chance_without_a_shift() -> None:
    assert stability([0.5, 0.5], [0.5, 0.5], 100) == 0
    assert stability([0.5, 0.5], [0.25, 0.75], 100) == pytest.approx(-0.25 * np.log(0.5) + 0.25 * np.log(1.5))
    draw = np.random.default_rng(1)
    even = np.full(10, 0.1)
    seen = [stability(even.tolist(), (draw.multinomial(500, even) / 500).tolist(), 500) for _ in range(2000)]
    assert max(seen) < by_chance(10, 500) < 3 * max(seen)


def test_without_values_there_is_nothing_to_compare() -> None:
    draw = np.random.default_rng(1)
    found = drift_of("x", baseline(draw), [None] * 100)
    assert (found.psi, found.alarms) == (None, ["100% are missing, and 10% were"])
    assert drift_of("x", baseline(draw), []).alarms == []
