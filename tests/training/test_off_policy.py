"""Off-policy estimates: right in closed form, right on average, and as those who wrote the Open Bandit Pipeline compute
them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from arbiter.datasets import openbandit
from arbiter.learning.offpolicy import (
    Log,
    NotEstimable,
    Way,
    effective_rows,
    estimate,
    on_policy,
    overlap,
    overlap_p,
)
from arbiter.learning.outcomemodel import FOLDS, PRIOR, crossfitted

if TYPE_CHECKING:
    from pathlib import Path

WAYS: tuple[Way, ...] = get_args(Way)
ARMS = 4


def world(rows: int, seed: int, *, wrong_model: bool = False) -> tuple[Log, float]:
    """A log of a policy that is not even, a policy to judge, and what that is truly worth."""
    draw = np.random.default_rng(seed)
    context = draw.integers(0, 3, rows)
    truth = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.3, 0.2, 0.1], [0.05, 0.4, 0.1, 0.2]])
    logging = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    judged = np.array([[0.1, 0.1, 0.1, 0.7], [0.7, 0.1, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1]])
    arm = (draw.random((rows, 1)) > logging.cumsum(axis=1)[context]).sum(axis=1)
    rewards = (draw.random(rows) < truth[context, arm]).astype(float)
    model = truth[:, ::-1] if wrong_model else truth
    log = Log(
        rewards,
        logging[context, arm],
        judged[context, arm],
        model[context, arm],
        (judged * model).sum(axis=1)[context],
    )
    return log, float((judged * truth).sum(axis=1).mean())


def test_each_estimate_is_what_its_formula_says() -> None:
    log = Log(
        np.array([1.0, 0.0, 2.0]), np.array([0.5, 0.25, 1.0]), np.array([0.25, 0.5, 1.0]),
        np.array([0.5, 0.5, 1.0]), np.array([0.4, 0.6, 1.5]),
    )  # fmt: skip
    weights = [0.5, 2.0, 1.0]
    robust = [0.4 + 0.5 * 0.5, 0.6 + 2.0 * -0.5, 1.5 + 1.0 * 1.0]
    expected: dict[Way, float] = {
        "inverse_propensity": (0.5 + 0 + 2) / 3,
        "self_normalized": 2.5 / 3.5,
        "direct": 2.5 / 3,
        "doubly_robust": sum(robust) / 3,
        "switched": (robust[0] + 0.6 + robust[2]) / 3,
    }
    for way, value in expected.items():
        found = estimate(log, way, clip=1.5 if way == "switched" else float("inf"))
        assert found.value == pytest.approx(value)
        assert found.low <= found.value <= found.high
    clipped = estimate(log, "inverse_propensity", clip=1.0)
    assert clipped.value == pytest.approx((0.5 + 0 + 2) / 3)
    assert effective_rows(np.array(weights)) == pytest.approx(3.5**2 / 5.25)
    assert estimate(log, "inverse_propensity").heaviest == pytest.approx(2 / 3.5)
    assert overlap(log) == pytest.approx(3.5 / 3)


@pytest.mark.parametrize("way", WAYS)
def test_estimates_are_right_on_average_and_their_intervals_hold_the_truth(way: Way) -> None:
    inside, values = 0, []
    for seed in range(40):
        log, truth = world(800, seed)
        found = estimate(log, way, clip=5.0 if way == "switched" else float("inf"), seed=seed, draws=100)
        values.append(found.value)
        inside += found.low <= truth <= found.high
    error = float(np.std(values) / np.sqrt(len(values)))
    assert abs(float(np.mean(values)) - truth) < 4 * error + 1e-3
    assert inside >= 31  # of 40; 38 are expected


def test_a_wrong_model_misleads_the_direct_way_and_not_the_doubly_robust_one() -> None:
    log, truth = world(20_000, 1, wrong_model=True)
    direct, robust = (estimate(log, way, draws=200) for way in WAYS[2:4])
    assert abs(direct.value - truth) > 0.1
    assert robust.low <= truth <= robust.high


def test_a_good_model_makes_the_estimate_surer() -> None:
    log, _ = world(3000, 2)
    plain, robust = (estimate(log, way, draws=300) for way in (WAYS[0], WAYS[3]))
    assert robust.high - robust.low < 0.8 * (plain.high - plain.low)


def test_the_logging_policy_itself_is_estimated_by_its_own_mean() -> None:
    log, _ = world(500, 3)
    own = Log(log.rewards, log.logged, log.logged)
    found = estimate(own, "inverse_propensity", seed=4)
    assert (found.value, found.low, found.high) == on_policy(log.rewards, seed=4)
    assert found.effective == pytest.approx(500)


def clustered(units: int, seed: int) -> tuple[Log, float]:
    """A log in which each unit draws once and does much the same several times; and what is true."""
    draw = np.random.default_rng(seed)
    times = draw.integers(1, 12, units)
    arm, mood = draw.random(units) < 0.3, draw.normal(0, 0.3, units)
    of = np.repeat(np.arange(units), times)
    rewards = 1 + 0.5 * arm[of] + mood[of] + draw.normal(0, 0.1, len(of))
    logged = np.where(arm, 0.3, 0.7)[of]
    return Log(rewards, logged, arm[of].astype(float), units=of), 1.5


def test_what_one_unit_does_several_times_is_one_draw() -> None:
    inside, naive = 0, 0
    for seed in range(60):
        log, truth = clustered(150, seed)
        found = estimate(log, "self_normalized", seed=seed, draws=150)
        inside += found.low <= truth <= found.high
        blind = estimate(Log(log.rewards, log.logged, log.chosen), "self_normalized", seed=seed, draws=150)
        naive += blind.low <= truth <= blind.high
        assert found.value == pytest.approx(blind.value)
        assert found.effective < blind.effective
    assert inside >= 50  # of 60; 57 are expected
    assert naive < 45


@pytest.mark.parametrize("way", ["inverse_propensity", "self_normalized"])
def test_intervals_of_units_are_those_of_a_regression_with_errors_by_cluster(way: Way) -> None:
    """Of a weighted mean as of a plain one, and of the gain, which is a mean of what is linear in the rows."""
    log, _ = clustered(3000, 5)
    found = estimate(log, way, draws=1500)
    weights = log.weights()
    rows, values = np.ones(len(weights)), log.rewards if way == "self_normalized" else log.rewards * weights
    regression = sm.WLS(values, rows, weights if way == "self_normalized" else rows)
    theirs = regression.fit(cov_type="cluster", cov_kwds={"groups": log.units, "use_correction": False})
    assert found.value == pytest.approx(theirs.params[0])
    low, high = theirs.conf_int()[0]
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)
    assert found.low == pytest.approx(low, abs=0.15 * (high - low))
    if way == "inverse_propensity":
        gained = sm.OLS(values - log.rewards, rows)
        gain = gained.fit(cov_type="cluster", cov_kwds={"groups": log.units, "use_correction": False})
        assert found.gain == pytest.approx(gain.params[0])
        low, high = gain.conf_int()[0]
        assert (found.gain_low, found.gain_high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_weights_say_when_a_choice_could_not_have_been_logged() -> None:
    log, _ = clustered(400, 6)
    assert log.units is not None
    excess = np.bincount(log.units, log.weights() - 1)
    z = excess.sum() / np.sqrt((excess**2).sum())
    assert overlap_p(log) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=1e-12)
    assert np.mean([overlap_p(clustered(400, seed)[0]) < 0.05 for seed in range(200)]) < 0.1
    lacking = Log(log.rewards, log.logged, np.where(log.chosen > 0, 0.2, 0.0), units=log.units)
    assert overlap_p(lacking) < 1e-6
    own = Log(log.rewards, log.logged, log.logged, units=log.units)
    assert overlap_p(own) == 1


def test_a_row_is_expected_to_earn_what_other_units_did() -> None:
    draw = np.random.default_rng(8)
    arms, rewards, units = draw.integers(0, 3, 200), draw.random(200), draw.integers(0, 40, 200)
    found = crossfitted(arms, rewards, units, 4)
    for fold in range(FOLDS):
        others = units % FOLDS != fold
        usual = rewards[others].mean()
        for arm in range(4):
            own = rewards[others & (arms == arm)]
            assert found[fold, arm] == pytest.approx((own.sum() + PRIOR * usual) / (len(own) + PRIOR))
    assert crossfitted(np.zeros(1, int), np.ones(1), np.zeros(1, int), 1)[0, 0] == 0


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (Log(np.ones(2), np.array([0.0, 1.0]), np.ones(2)), r"a propensity lies outside \(0, 1\]"),
        (Log(np.ones(2), np.ones(2), np.array([0.5, 1.5])), r"of the judged policy lies outside \[0, 1\]"),
        (Log(np.ones(2), np.ones(3), np.ones(2)), "one entry of each array"),
        (Log(np.array([]), np.array([]), np.array([])), "one row at least"),
        (Log(np.array([np.nan]), np.ones(1), np.ones(1)), "no finite number"),
    ],
    ids=["never possible", "more than sure", "lengths", "empty", "nan"],
)
def test_what_cannot_be_estimated_is_refused(log: Log, why: str) -> None:
    with pytest.raises(NotEstimable, match=why):
        estimate(log, "inverse_propensity")


def test_there_is_no_self_normalized_estimate_without_overlap() -> None:
    with pytest.raises(NotEstimable, match="none of the choices"):
        estimate(Log(np.ones(2), np.ones(2), np.zeros(2)), "self_normalized")
    with pytest.raises(NotEstimable, match="needs what a model expects"):
        estimate(Log(np.ones(2), np.ones(2), np.ones(2)), "doubly_robust")


_THEIRS = """
import sys, types, json, numpy as np
for name in ("torch", "pandas"):  # their module names these for types, and the arrays here are NumPy's
    made = types.ModuleType(name)
    made.Tensor = made.DataFrame = made.Series = type("T", (), {})
    sys.modules[name] = made
for name in ("obp", "obp.ope"):
    made = types.ModuleType(name)
    made.__path__ = [sys.argv[1] + "/" + name.replace(".", "/")]
    sys.modules[name] = made
from obp.ope import estimators as e
log = {key: np.array(value) for key, value in json.load(sys.stdin).items()}
rows, arms = log["policy"].shape
common = dict(reward=log["rewards"], action=log["action"], pscore=log["logged"], position=np.zeros(rows, int),
              action_dist=log["policy"][:, :, None], estimated_rewards_by_reg_model=log["model"][:, :, None])
made = {"inverse_propensity": e.InverseProbabilityWeighting(), "self_normalized":
        e.SelfNormalizedInverseProbabilityWeighting(), "direct": e.DirectMethod(), "doubly_robust": e.DoublyRobust(),
        "switched": e.SwitchDoublyRobust(tau=2.0)}
print(json.dumps({name: float(each.estimate_policy_value(**common)) for name, each in made.items()}))
"""


def test_estimates_are_those_of_the_open_bandit_pipeline(tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    rows = 400
    policy = draw.dirichlet(np.ones(ARMS), rows)
    logging = draw.dirichlet(np.ones(ARMS) * 3, rows) * 0.9 + 0.1 / ARMS
    model = draw.random((rows, ARMS))
    action = np.array([draw.choice(ARMS, p=each / each.sum()) for each in logging])
    every = np.arange(rows)
    log = Log(
        draw.integers(0, 2, rows).astype(float),
        logging[every, action],
        policy[every, action],
        model[every, action],
        (policy * model).sum(axis=1),
    )
    with zipfile.ZipFile(openbandit.fetch_wheel()) as wheel:
        wheel.extractall(tmp_path, [name for name in wheel.namelist() if name.endswith(".py")])
    sent = {"rewards": log.rewards, "action": action, "logged": log.logged, "policy": policy, "model": model}
    done = subprocess.run(  # noqa: S603 - the command is a constant
        [sys.executable, "-c", _THEIRS, str(tmp_path)],
        input=json.dumps({key: value.tolist() for key, value in sent.items()}),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for way, value in json.loads(done.stdout).items():
        mine = estimate(log, way, clip=2.0 if way == "switched" else float("inf"), draws=10)
        assert mine.value == pytest.approx(value, abs=1e-12)
