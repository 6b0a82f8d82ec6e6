"""What a week of clicks can say: a click model of a fashion shop's log, and policies judged from the log of another.

Law: the Open Bandit sample, whose propensities are true, so that estimates can be held against what was seen. Figures
are of data and seeds, and the same on every machine.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arbiter.datasets import openbandit
from arbiter.learning.offpolicy import Log, estimate, on_policy, overlap
from arbiter.models import from_bytes
from arbiter.training.reading import read_spec
from arbiter.training.run import train
from arbiter.training.table import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from arbiter.datasets.openbandit import Campaign, Shown
    from arbiter.learning.offpolicy import Estimate, Way
    from arbiter.models import Model

SEED = 7
WAYS: tuple[Way, ...] = ("inverse_propensity", "self_normalized", "doubly_robust")
SPEC = Path(__file__).parent / "openbandit.train.yaml"
_HEADS = ("at", "campaign", "position", "item_price", "item_kind", "user_0", "user_1", "user_2", "user_3", "clicked")
_SHARPNESS = 8.0  # how much a policy prefers what the model expects more of: its odds to the power of this
_SOFTEST = 0.1  # of all choices, the share that it makes at random


def rows_of(shown: Sequence[Shown], campaign: Campaign) -> list[list[Any]]:
    """What the click model reads of each row, and whether it was clicked."""
    known = openbandit.items(campaign)
    return [[each.at.isoformat(), *_inputs(each, each.item, campaign, known), int(each.clicked)] for each in shown]


def _inputs(each: Shown, item: int, campaign: Campaign, known: dict[int, tuple[float, tuple[str, ...]]]) -> list[Any]:
    price, words = known[item]
    return [campaign, f"place {each.position}", price, words[1], *each.user]


def click_model(folder: Path) -> tuple[Model, dict[str, Any]]:
    """Train the click model on the first days of the random policy's log; the last three days are held out."""
    table = folder / "clicks.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_HEADS)
        for campaign in openbandit.CAMPAIGNS:
            writer.writerows(rows_of(openbandit.load("random", campaign), campaign))
    content = SPEC.read_bytes()
    spec = read_spec(content, SPEC.name)
    trained = train(spec, content, read_table(spec, table))
    return from_bytes(trained.manifest, trained.onnx), trained.metrics


def expectations(model: Model, shown: Sequence[Shown], campaign: Campaign) -> NDArray[np.float64]:
    """What the model expects of every item in the place of each row: a column for each item."""
    known = openbandit.items(campaign)
    alike = {(each.position, each.user): each for each in shown}  # all that the model sees of a row but its item
    rows = []
    for each in alike.values():
        for item in sorted(known):
            row = model.encode(_inputs(each, item, campaign, known))
            assert row is not None  # noqa: S101 - every value is there
            rows.append(row)
    answers = np.array([answer[0] for answer in model.run(rows)], dtype=np.float64).reshape(len(alike), len(known))
    place = {key: number for number, key in enumerate(alike)}
    return answers[[place[each.position, each.user] for each in shown]]


def judged(model: Model, campaign: Campaign, after: str) -> tuple[Log, NDArray[np.float64]]:
    """The random policy's log after the moment, for a policy that prefers what the model expects more of; and the
    rewards, which are those of the random policy itself.
    """
    shown = [each for each in openbandit.load("random", campaign) if each.at.isoformat() > after]
    expected = expectations(model, shown, campaign)
    preferred = (expected / (1 - expected)) ** _SHARPNESS
    chances = (1 - _SOFTEST) * preferred / preferred.sum(axis=1, keepdims=True) + _SOFTEST / expected.shape[1]
    return _log(shown, chances, expected), np.array([each.clicked for each in shown], dtype=np.float64)


def random_from_the_other_log(model: Model, campaign: Campaign) -> tuple[Log, NDArray[np.float64]]:
    """The log of Thompson sampling, for the random policy; and what that policy truly earned."""
    shown = openbandit.load("bts", campaign)
    expected = expectations(model, shown, campaign)
    chances = np.full_like(expected, 1 / expected.shape[1])
    own = openbandit.load("random", campaign)
    return _log(shown, chances, expected), np.array([each.clicked for each in own], dtype=np.float64)


def _log(shown: Sequence[Shown], chances: NDArray[np.float64], expected: NDArray[np.float64]) -> Log:
    every, items = np.arange(len(shown)), np.array([each.item for each in shown])
    return Log(
        np.array([each.clicked for each in shown], dtype=np.float64),
        np.array([each.propensity for each in shown]),
        chances[every, items],
        expected[every, items],
        (chances * expected).sum(axis=1),
    )


def joined(logs: Sequence[Log]) -> Log:
    """Several logs as one, whose rows are each a unit of their own."""
    columns = [[getattr(log, name) for log in logs] for name in Log.__struct_fields__ if name != "units"]
    return Log(*map(np.concatenate, columns))


def run() -> dict[str, Any]:
    """Everything, in clicks per thousand."""
    with tempfile.TemporaryDirectory() as scratch:
        model, metrics = click_model(Path(scratch))
    held = metrics["held_out"]
    result: dict[str, Any] = {
        "click model": {
            "rows trained on": metrics["rows"]["trained_on"],
            "rows held out": metrics["rows"]["held_out"],
            "AUC": held["auc"]["value"],
            "AUC, low": held["auc"]["low"],
            "AUC, high": held["auc"]["high"],
            "log loss": held["log_loss"]["value"],
            "log loss of the base rate": metrics["base"]["log_loss"],
        }
    }
    pairs = [random_from_the_other_log(model, campaign) for campaign in openbandit.CAMPAIGNS]
    inside = 0
    for campaign, (log, own) in zip(openbandit.CAMPAIGNS, pairs, strict=True):
        said, truth = _said(log, own)
        result[f"random policy from the log of Thompson sampling, {campaign}"] = said
        inside += sum(said[f"{way}, low"] <= truth <= said[f"{way}, high"] for way in WAYS)
    cut = "2019-11-28T00:00:00+00:00"
    chosen = [judged(model, campaign, cut) for campaign in openbandit.CAMPAIGNS]
    log = joined([each for each, _ in chosen])
    said, _ = _said(log, np.concatenate([own for _, own in chosen]))
    result["a policy by the click model, from the random log"] = said
    result["ratios"] = {"estimates_that_hold_the_truth": inside / (len(WAYS) * len(pairs))}
    return result


def _said(log: Log, own: NDArray[np.float64]) -> tuple[dict[str, float], float]:
    """Estimates in clicks per thousand beside what the random policy earned itself."""
    truth, low, high = (1000 * each for each in on_policy(own, seed=SEED))
    said = {"clicks": float(log.rewards.sum()), "seen": truth, "seen, low": low, "seen, high": high}
    for way in WAYS:
        found: Estimate = estimate(log, way, seed=SEED)
        said |= {way: 1000 * found.value, f"{way}, low": 1000 * found.low, f"{way}, high": 1000 * found.high}
        said |= {"rows": float(found.rows), "effective rows": found.effective, "heaviest row": found.heaviest}
    return said | {"mean weight": overlap(log)}, truth
