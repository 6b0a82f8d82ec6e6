"""Thompson sampling: chances are the posterior probabilities of being best, and drawing by them loses as little."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mabwiser.mab import MAB, LearningPolicy
from scipy.special import betaln
from scipy.stats import beta

from arbiter.decision.lots import pick
from arbiter.learning.thompson import LEAST, chances

CERTAIN = 1e-8
counts = st.integers(1, 400)
amounts = st.floats(LEAST, 1e6)


def better(one: tuple[int, int], other: tuple[int, int]) -> float:
    """The probability that a Beta variable of whole parameters is the greater one: a finite sum (Cook, Exact
    calculation of Beta inequalities, 2005).
    """
    (a, b), (c, d) = one, other
    i = np.arange(a)
    terms = betaln(c + i, b + d) - np.log(b + i) - betaln(1 + i, b) - betaln(c, d)
    return float(np.exp(terms).sum())


@given(st.tuples(counts, counts), st.tuples(counts, counts))
@settings(max_examples=200, deadline=None)
def test_of_two_arms_chances_are_those_of_the_finite_sum(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = chances([one, other])
    assert math.isclose(first, better(one, other), abs_tol=CERTAIN)
    assert math.isclose(first + second, 1, abs_tol=CERTAIN)


@given(st.lists(st.tuples(amounts, amounts), min_size=2, max_size=6), st.floats(0, 1), st.randoms())
@settings(max_examples=100, deadline=None)
def test_chances_hang_on_no_order_add_up_to_one_and_keep_the_floor(
    arms: list[tuple[float, float]], floor: float, chance: Any
) -> None:
    found = dict(zip(arms, chances(arms, floor), strict=True))
    mixed = list(arms)
    chance.shuffle(mixed)
    for arm, share in zip(mixed, chances(mixed, floor), strict=True):
        assert math.isclose(share, found[arm], abs_tol=1e-6)
        assert share >= floor / len(arms) - CERTAIN
    assert math.isclose(math.fsum(chances(arms, floor)), 1, abs_tol=CERTAIN)


@pytest.mark.parametrize(
    "arms",
    [
        [(0.1, 0.1), (0.1, 5), (3, 0.1)],
        [(1, 1), (3, 50), (5, 50), (10, 120), (0.5, 3)],
        [(0.1, 1e5), (1, 1e6), (2, 2e5)],
        [(1e6, 1e6), (1e6, 1.001e6), (1, 1)],
    ],
    ids=str,
)
def test_of_many_arms_of_any_shape_chances_are_how_often_each_is_greatest(arms: list[tuple[float, float]]) -> None:
    number = 400_000
    drawn = np.array([beta.rvs(a, b, size=number, random_state=place) for place, (a, b) in enumerate(arms)])
    often = np.bincount(drawn.argmax(axis=0), minlength=len(arms)) / number
    found = np.array(chances(arms))
    assert np.all(np.abs(often - found) < 5 * np.sqrt(found * (1 - found) / number) + 1e-5)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8), st.floats(0, 1, exclude_max=True))
def test_a_lot_falls_on_each_place_as_often_as_its_chance(weights: list[float], lot: float) -> None:
    shares = [weight / math.fsum(weights) for weight in weights]
    place, chance = pick(shares, lot)
    assert chance == min(shares[place], math.nextafter(1, 0))
    assert math.fsum(shares[:place]) <= lot + CERTAIN
    assert lot < math.fsum(shares[: place + 1]) + CERTAIN


def test_what_has_no_chance_in_doubles_is_not_drawn_and_the_other_is_never_certain() -> None:
    assert pick(chances([(1e6, 1), (1, 1e6)]), 0.5) == (0, math.nextafter(1, 0))


RATES = (0.3, 0.5, 0.62)
STEPS, SEEDS = 400, range(8)


def lost(arms: list[int]) -> float:
    """What was lost against always taking the best arm, in expected rewards."""
    return sum(max(RATES) - RATES[arm] for arm in arms)


def ours(rewards: Any, seed: int) -> list[int]:
    chance = np.random.default_rng(seed)
    state, taken = [[1.0, 1.0] for _ in RATES], []
    for step in range(STEPS):
        arm, _ = pick(chances([(wins, losses) for wins, losses in state]), chance.random())
        state[arm][0 if rewards[step][arm] else 1] += 1
        taken.append(arm)
    return taken


def published(rewards: Any, seed: int) -> list[int]:
    """The same by mabwiser's Thompson sampling."""
    bandit = MAB(list(range(len(RATES))), LearningPolicy.ThompsonSampling(), seed=seed)
    bandit.fit([], [])
    taken = []
    for step in range(STEPS):
        arm = bandit.predict()
        bandit.partial_fit([arm], [int(rewards[step][arm])])
        taken.append(arm)
    return taken


def test_regret_is_that_of_mabwiser_within_noise_and_far_below_that_of_drawing_alike() -> None:
    rewards = {seed: np.random.default_rng(1000 + seed).random((STEPS, len(RATES))) < RATES for seed in SEEDS}
    own = np.array([lost(ours(rewards[seed], seed)) for seed in SEEDS])
    theirs = np.array([lost(published(rewards[seed], seed)) for seed in SEEDS])
    alike = STEPS * (max(RATES) - sum(RATES) / len(RATES))
    noise = math.sqrt((own.var(ddof=1) + theirs.var(ddof=1)) / len(SEEDS))
    assert abs(own.mean() - theirs.mean()) < 3 * noise
    assert own.mean() + 3 * own.std(ddof=1) / math.sqrt(len(SEEDS)) < alike / 2
