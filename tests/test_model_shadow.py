"""Another version of a model in the shadow: what it would change of what was decided, and nothing else."""

from __future__ import annotations

import json
import operator
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from arbiter.cli.app import app
from arbiter.config.limits import Limits
from arbiter.config.options import DecisionLog
from arbiter.learning import apart
from arbiter.learning.apart import Answers
from arbiter.runtime.local import open_local
from arbiter.runtime.recording import open_recorder
from arbiter.server.decisions import DecisionService
from arbiter.telemetry.counters import Counters
from arbiter.v1 import decision_pb2
from arbiter.v1.value_pb2 import Value
from tests.answering import answered
from tests.graphs import times, write_model

if TYPE_CHECKING:
    from pathlib import Path

RULES = """\
schema: {context: {x: double}}
actions: {show: {}}
decisions: {home: }
segments: {rich: 30.0 <= models.worth.score}
rules:
  - {id: worthy, decision: home, when: models.worth.score > 10.0, then: {action: show}}
"""


def test_what_another_version_of_a_model_would_change_is_counted(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(RULES)
    models = tmp_path / "models"
    for version, factor in ((1, 1.0), (2, 3.0)):
        write_model(models / "worth" / f"v{version}", "worth", version, times(factor), source="context.x")
    (models / "worth" / "versions.yaml").write_text("live: v1\n")
    counters = Counters()
    engine, _ = open_local(tmp_path / "rules", models, tmp_path / "data", counters=counters)
    log = DecisionLog(directory=str(tmp_path / "log"), purpose="", flush_seconds=0.05, spare_mib=0)
    recorder = open_recorder(log, engine)
    service = DecisionService(engine, Limits(), counters, recorder)
    draw = random.Random(4)  # noqa: S311 - no secret
    values = [draw.uniform(0, 20) for _ in range(400)]
    for value in values:
        context = {"x": Value(double_value=value)}
        asked = decision_pb2.DecideRequest(subject_id="ann", decision="home", context=context)
        answered(service, asked.SerializeToString())
    recorder.close()
    engine.store.close()

    def replayed(*more: str) -> tuple[int, str]:
        words = ["replay", str(tmp_path / "log"), "--rules", str(tmp_path / "rules"), "--models", str(models), *more]
        ran = CliRunner().invoke(app, words)
        return ran.exit_code, ran.output

    code, said = replayed("--json")
    assert (code, json.loads(said)["changed"]) == (0, 0)
    code, said = replayed("--model", "worth=v2", "--json")
    assert code == 0
    assert json.loads(said)["decisions"] == len(values)
    assert json.loads(said)["changed"] == sum(value <= 10 < 3 * value for value in values) > 50
    (apart,) = json.loads(said)["models"]
    assert (apart["live"], apart["tried"], apart["asked"], apart["lost"], apart["gained"]) == (1, 2, 400, 0, 0)
    assert apart["flipped"] == json.loads(said)["changed"]
    (score,) = apart["outputs"]
    assert (score["name"], score["rows"], score["differ"]) == ("score", 400, 400)
    assert score["difference"]["0.95"] == pytest.approx(np.quantile([2 * value for value in values], 0.95), rel=1e-5)
    assert score["largest"] == pytest.approx(2 * max(values), rel=1e-5)
    assert score["rank_correlation"] == pytest.approx(1.0)
    marks = ((">", 10.0, operator.gt), (">=", 30.0, operator.ge))
    for told, (sign, mark, holds) in zip(score["thresholds"], marks, strict=True):
        was, would = ([bool(holds(factor * value, mark)) for value in values] for factor in (1, 3))
        come = sum(b and not a for a, b in zip(was, would, strict=True))
        assert told == {"test": f"{sign} {mark:g}", "before": sum(was), "after": sum(would), "come": come, "gone": 0}
    code, said = replayed("--model", "worth=v2")
    assert "worth, version 2 beside 1: asked in 400 decisions, " in said
    assert "score > 10" in said
    assert replayed("--model", "worth")[0] == 2
    ran = CliRunner().invoke(
        app, ["shadow", str(tmp_path / "rules"), "--models", str(models), "--log", str(tmp_path / "log"),
              "--model", "worth=v2", "--seconds", "0.3", "--json"]
    )  # fmt: skip
    assert (ran.exit_code, json.loads(ran.stdout)["decisions"]) == (0, 0)


SCORES = st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 0.5, 1.0]))


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=40))
def test_how_far_scores_lie_apart_is_what_numpy_and_scipy_say(pairs: list[tuple[float, float]]) -> None:
    answers = Answers("score", [(">", 0.5), ("<=", 1.0)])
    for before, after in pairs:
        answers.add(before, after)
    found = answers.found()
    old, new = np.array(pairs).T
    assert found.differ == sum(before != after for before, after in pairs)
    assert [*found.difference.values()] == pytest.approx(np.quantile(new - old, apart.QUANTILES))
    assert found.largest == pytest.approx(np.abs(new - old).max())
    if len({*old}) > 1 and len({*new}) > 1:
        assert found.rank_correlation == pytest.approx(stats.spearmanr(old, new).statistic)
    else:
        assert found.rank_correlation is None
    over = found.thresholds[0]
    assert (over.test, over.before, over.after) == ("> 0.5", (old > 0.5).sum(), (new > 0.5).sum())
    assert over.after - over.before == over.come - over.gone


def test_words_are_told_by_where_they_go() -> None:
    answers = Answers("cluster")
    for before, after, count in (("gold", "silver", 3), ("gold", "gold", 5), ("new", "gold", 4)):
        for _ in range(count):
            answers.add(before, after)
    found = answers.found()
    assert (found.rows, found.differ, found.largest) == (12, 7, None)
    assert list(found.moves.items()) == [("new → gold", 4), ("gold → silver", 3)]


def test_of_many_pairs_so_many_are_kept_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_KEPT", 500)
    answers = Answers("score", [(">", 0.5)])
    draw = np.random.default_rng(2)
    for before, after in draw.random((5000, 2)):
        answers.add(before, after)
    found = answers.found()
    assert len(answers._before) == 500
    assert found.rows == 5000
    assert found.thresholds[0].before + found.thresholds[0].after == pytest.approx(5000, abs=250)
    assert found.before["0.5"] == pytest.approx(0.5, abs=0.1)
