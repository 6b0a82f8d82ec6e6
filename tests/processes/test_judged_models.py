"""A running server that is told what became of decisions: its models are judged by that, then and afterwards."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from arbiter.cli.app import app
from arbiter.client import Exposure, Outcome, ReportResult
from tests.graphs import times, write_model
from tests.processes.test_decision_log import arguments, logged
from tests.processes.test_outcome_rows import told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.conftest import Served

RULES = """\
decisions: {scored: }
rules:
  - {id: likely, decision: scored, when: models.buys.probability > -1.0, then: {action: show, params: {text: likely}}}
"""


def judged(folder: Path, *options: str) -> dict[str, Any]:
    words = ["model", "report", "buys", "--log", str(folder / "decisions"), "--data", str(folder / "data")]
    done = CliRunner().invoke(app, [*words, "--outcome", "bought", "--json", *options])
    assert done.stdout, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_model_is_judged_by_what_a_server_was_told(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    (folder / "rules" / "scored.yaml").write_text(RULES)
    write_model(folder / "models" / "buys", "buys", 4, times(2.0, logistic=True), source="context.x",
                outputs="{probability: {tensor: y, type: double}}", kind="propensity")  # fmt: skip
    served = serve(*arguments(folder), "--models", str(folder / "models"))
    client = served.client(served.address)
    draw = random.Random(2)  # noqa: S311 - no secret
    values = [draw.uniform(-2, 2) for _ in range(60)]
    given = [client.decide(f"s{n % 20}", "scored", context={"x": value}).decision_id for n, value in enumerate(values)]
    happened = [value > -1 and draw.random() < 0.5 for value in values]
    bought = [each for each, did in zip(given, happened, strict=True) if did]
    results = [
        *client.record_exposures([Exposure(decision_id=each) for each in given[:30]]),
        *client.record_outcomes([Outcome(decision_id=each, name="bought") for each in bought]),
        *client.record_outcomes([Outcome(decision_id=given[0], name="clicked")]),
    ]
    assert set(results) == {ReportResult.ACCEPTED}

    rows = len(values), 30 + len(bought) + 1
    eventually(lambda: (len(logged(folder)), len(told(folder))) == rows)
    for ended in (False, True):
        if ended:
            assert served.stop() == 0
        (version,) = judged(folder)["versions"]
        assert (version["version"], version["worth"]["decisions"]) == (4, len(values))
        assert version["worth"]["happened"] == len(bought)
        assert version["worth"]["auc"]["value"] == pytest.approx(roc_auc_score(happened, values))
    assert judged(folder, "--shown")["versions"][0]["worth"]["decisions"] == 30
    assert judged(folder, "--shown")["left_out"] == {"not shown": 30}
