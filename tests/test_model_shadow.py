"""Another version of a model in the shadow: what it would change of what was decided, and nothing else."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from arbiter.cli.app import app
from arbiter.config.limits import Limits
from arbiter.config.options import DecisionLog
from arbiter.runtime.local import open_local
from arbiter.runtime.recording import open_recorder
from arbiter.server.decisions import DecisionService
from arbiter.telemetry.counters import Counters
from arbiter.v1 import decision_pb2
from arbiter.v1.value_pb2 import Value
from tests.graphs import times, write_model

if TYPE_CHECKING:
    from pathlib import Path

RULES = """\
schema: {context: {x: double}}
actions: {show: {}}
decisions: {home: }
rules: [{id: worthy, decision: home, when: models.worth.score > 10.0, then: {action: show}}]
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
        service.decide(asked.SerializeToString())
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
    assert replayed("--model", "worth")[0] == 2
    ran = CliRunner().invoke(
        app, ["shadow", str(tmp_path / "rules"), "--models", str(models), "--log", str(tmp_path / "log"),
              "--model", "worth=v2", "--seconds", "0.3", "--json"]
    )  # fmt: skip
    assert (ran.exit_code, json.loads(ran.stdout)["decisions"]) == (0, 0)
