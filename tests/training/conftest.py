"""Small tables that have something to say, and trainings on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from arbiter.training.reading import read_spec
from arbiter.training.run import Trained, train
from arbiter.training.table import read_table

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 400
PLANS = ("free", "trial", "pro", "team")


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file: visits and plan say whether somebody buys, what they are worth and which genre they like."""
    draw = np.random.default_rng(11)
    visits, age = draw.integers(0, 20, ROWS), draw.normal(40, 12, ROWS).round(1)
    spend, plan = draw.exponential(30, ROWS).round(2), draw.choice(PLANS[:3], ROWS, p=[0.5, 0.3, 0.2])
    chance = 1 / (1 + np.exp(-(visits / 4 - 3 + 2 * (plan == "pro"))))
    bought = draw.random(ROWS) < chance
    genre = np.where(visits > 12, "rock", np.where(plan == "free", "pop", "jazz"))
    worth = 2.0 * visits + 10 * (plan == "pro") + draw.normal(0, 1, ROWS)
    missing = draw.random(ROWS) < 0.1
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    lines = ["who,at,visits,age,spend,plan,bought,genre,worth"]
    for row in range(ROWS):
        day, known = row % 28 + 1, "" if missing[row] else str(age[row])
        lines.append(
            f"u{row // 2},2026-0{row // 100 + 1}-{day:02}T00:00:00Z,{visits[row]},{known},{spend[row]},{plan[row]},"
            f"{int(bought[row])},{genre[row]},{worth[row]:.3f}"
        )
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


LABELS = {"propensity": "bought", "class": "genre", "score": "worth", "segment": "bought"}
NUMBERS = (
    "{name: visits, from: features.visits}",
    "{name: age, from: profile.age, impute: median}",
    "{name: spend, from: features.spend, default: 0}",
)


def text_of(kind: str, estimator: str, **more: Any) -> str:
    """A training of the table, as text."""
    said = {
        "name": "m",
        "version": 1,
        "kind": kind,
        "source": "{table: rows.csv, time: at, subject: who}",
        "label": LABELS[kind],
        "inputs": "[" + ", ".join(NUMBERS) + "]",
        "estimator": estimator,
        "seed": 5,
        "validation": "{held_out: 0.25}",
    }
    if kind == "segment":
        said["segments"] = "{keen: {most: visits}, rich: {most: spend}, others: rest}"
    return "".join(f"{key}: {value}\n" for key, value in (said | more).items())


def trained(table: Path, kind: str, estimator: str, **more: Any) -> Trained:
    """A training of the table, done."""
    content = text_of(kind, estimator, **more).encode()
    spec = read_spec(content, "train.yaml")
    return train(spec, content, read_table(spec, table))
