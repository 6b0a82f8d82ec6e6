"""The statistics of experiments are those of SciPy and statsmodels, and right where designs are unequal."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from arbiter.learning.chance import chi_square_beyond, student_below, student_quantile
from arbiter.learning.effects import Pair, Sample, combined, means, proportions, ratios, sample_ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

counts = st.integers(1, 100_000)


@given(st.floats(0, 5000), st.integers(1, 2000))
def test_chi_square_is_that_of_scipy(statistic: float, freedom: int) -> None:
    assert chi_square_beyond(statistic, freedom) == pytest.approx(
        stats.chi2.sf(statistic, freedom), rel=1e-8, abs=1e-13
    )


@given(st.floats(-60, 60), st.floats(0.5, 1e6))
def test_student_is_that_of_scipy(t: float, freedom: float) -> None:
    assert student_below(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), rel=1e-6, abs=1e-9)


@given(st.floats(0.01, 0.99), st.floats(1, 1e6))
def test_quantiles_of_student_are_those_of_scipy(share: float, freedom: float) -> None:
    assert student_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-6, abs=1e-6)


@given(st.lists(st.tuples(counts, st.floats(0.01, 100)), min_size=2, max_size=8))
def test_one_stratum_is_pearsons_test_whatever_the_weights(arms: list[tuple[int, float]]) -> None:
    found = sample_ratio(
        [({f"v{n}": arm[0] for n, arm in enumerate(arms)}, {f"v{n}": a[1] for n, a in enumerate(arms)})]
    )
    seen, weights = np.array([arm[0] for arm in arms]), np.array([arm[1] for arm in arms])
    known = stats.chisquare(seen, seen.sum() * weights / weights.sum())
    assert found is not None
    assert found.statistic == pytest.approx(known.statistic, rel=1e-9, abs=1e-9)
    assert found.p == pytest.approx(known.pvalue, rel=1e-7, abs=1e-12)
    assert found.freedom == len(arms) - 1


def test_arms_of_unequal_designs_that_change_are_suspected_as_often_as_chance_says() -> None:
    """Weights of 9:1, then of 1:1:2: the p is spread evenly, so that of 1,000 experiments a tenth is below a tenth."""
    draw = np.random.default_rng(8)
    found = []
    for _ in range(1000):
        first, then = draw.multinomial(900, [0.9, 0.1]), draw.multinomial(400, [0.25, 0.25, 0.5])
        ratio = sample_ratio([
            ({"a": int(first[0]), "b": int(first[1])}, {"a": 9, "b": 1}),
            ({"a": int(then[0]), "b": int(then[1]), "c": int(then[2])}, {"a": 1, "b": 1, "c": 2}),
        ])  # fmt: skip
        assert ratio is not None
        assert ratio.freedom == 3
        found.append(ratio.p)
    assert stats.kstest(found, "uniform").pvalue > 0.001


def test_an_arm_that_nobody_should_have_or_nobody_has_is_suspected() -> None:
    impossible = sample_ratio([({"a": 100, "b": 1}, {"a": 1, "b": 0})])
    empty = sample_ratio([({"a": 100}, {"a": 1, "b": 1})])
    assert impossible is not None
    assert empty is not None
    assert impossible.p == 0
    assert impossible.suspect
    assert empty.counts == {"a": 100, "b": 0}
    assert empty.suspect
    assert sample_ratio([]) is None


@given(counts, counts, st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_difference_of_proportions_is_newcombes(n: int, m: int, p: float, q: float, level: float) -> None:
    arm, control = round(n * p), round(m * q)
    found = proportions(arm, n, control, m, level)
    low, high = confint_proportions_2indep(arm, n, control, m, method="newcomb", alpha=1 - level)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert found.difference == pytest.approx(arm / n - control / m)


@given(st.integers(0, 2**32), st.integers(2, 200), st.integers(2, 200))
def test_the_difference_of_means_is_welchs(seed: int, n: int, m: int) -> None:
    draw = np.random.default_rng(seed)
    arm, control = draw.gamma(1, 20, n), draw.normal(15, 3, m)
    found = means(_sample(arm), _sample(control))
    low, high = CompareMeans(DescrStatsW(arm), DescrStatsW(control)).tconfint_diff(usevar="unequal")
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)


def test_the_interval_of_ratios_holds_the_truth_as_often_as_it_says_where_one_of_rows_would_not() -> None:
    """Units differ in how often they come and in what they do each time: rows of one unit are alike."""
    draw = np.random.default_rng(88)
    held = held_by_rows = 0
    for _ in range(300):
        pairs, rows = [], []
        for _ in range(2):
            times = 1 + draw.poisson(4, 300)
            done = draw.binomial(times, draw.beta(0.5, 2, 300))
            table = np.cov(done, times)
            below = Sample(300, float(times.mean()), float(table[1, 1]))
            pairs.append(Pair(Sample(300, float(done.mean()), float(table[0, 0])), below, float(table[0, 1])))
            rows.append((int(done.sum()), int(times.sum())))
        found, naive = ratios(pairs[0], pairs[1]), proportions(*rows[0], *rows[1])
        held += found.low <= 0 <= found.high
        held_by_rows += naive.low <= 0 <= naive.high
    assert stats.binomtest(held, 300, 0.95).pvalue > 0.001
    assert stats.binomtest(held_by_rows, 300, 0.95).pvalue < 0.001


def test_weights_that_change_make_no_effect_of_what_differs_between_times() -> None:
    """Nine to one at first, one to one later, when there is three times as much to win: nothing differs by arm."""
    draw = np.random.default_rng(888)
    held = held_together = 0
    for _ in range(300):
        arms, controls, strata = [], [], []
        for n, m, size in ((40, 360, 5.0), (150, 150, 15.0)):
            arm, control = draw.gamma(1, size, n), draw.gamma(1, size, m)
            strata.append((n + m, means(_sample(arm), _sample(control))))
            arms.append(arm)
            controls.append(control)
        found, together = combined(strata), means(_sample(np.concatenate(arms)), _sample(np.concatenate(controls)))
        held += found.low <= 0 <= found.high
        held_together += together.low <= 0 <= together.high
    assert stats.binomtest(held, 300, 0.95).pvalue > 0.001
    assert held_together < 150


def test_of_one_stratum_it_is_the_difference_itself_and_what_is_not_known_spoils_no_other() -> None:
    alone, unknown = proportions(30, 100, 40, 200), means(Sample(1, 9.0, 0.0), Sample(7, 1.0, 1.0))
    for found in (combined([(300, alone)]), combined([(300, alone), (8, unknown)])):
        assert (found.arm, found.control) == (alone.arm, alone.control)
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    assert math.isnan(combined([(8, unknown)]).low)
    assert combined([(8, unknown)]).difference == 8.0


def _sample(values: NDArray[np.float64]) -> Sample:
    return Sample(len(values), float(values.mean()), float(values.var(ddof=1)))


def test_what_cannot_be_said_is_not_a_number() -> None:
    alone = means(Sample(1, 2.0, 0.0), Sample(5, 1.0, 0.5))
    assert alone.difference == 1.0
    assert math.isnan(alone.low)
    assert not alone.sure
    assert math.isnan(proportions(0, 0, 1, 2).difference)
    assert math.isnan(proportions(1, 2, 0, 2).lift)
    level = random.Random(3).random()  # noqa: S311 - no secret
    assert math.isnan(means(Sample(9, level, 0.0), Sample(9, level, 0.0)).low)
