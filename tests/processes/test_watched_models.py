"""What every worker's models see and say is one account: asked of any worker, or of the supervisor, it is the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from arbiter.cli.app import app
from arbiter.client import CallFailed
from arbiter.v1 import decision_pb2, decision_pb2_grpc
from arbiter.v1.value_pb2 import Value
from tests.graphs import times, write_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.conftest import Served

RULES = """\
decisions: {scored: }
rules:
  - {id: worthy, decision: scored, when: models.worth.score > 1.0, then: {action: show, params: {text: worthy}}}
"""
TOLD = {
    "rows": 9,
    "inputs": {"x": {"edges": [1.0], "shares": [0.5, 0.5]}},
    "outputs": {"score": {"edges": [2.0], "shares": [0.5, 0.5]}},
}


def test_what_all_workers_saw_is_told_by_each_of_them(
    serve: Callable[..., Served], folder: Path, eventually: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "rules" / "scored.yaml").write_text(RULES)
    onnx = times(2.0, metadata={"arbiter.baseline": json.dumps(TOLD)})
    write_model(folder / "models" / "worth", "worth", 3, onnx, source="context.x")
    served = serve("--models", str(folder / "models"), "--admin", "127.0.0.1:0")
    admin = served.client()
    (fresh,) = admin.models()
    assert (fresh.name, fresh.version, fresh.trained_on, fresh.rows) == ("worth", 3, 9, 0)
    decide = [decision_pb2_grpc.DecisionServiceStub(served.channel()).Decide for _ in range(6)]

    def seen() -> bool:
        for each in decide:
            request = decision_pb2.DecideRequest(
                subject_id="ann", decision="scored", context={"x": Value(double_value=7.0)}
            )
            each(request, timeout=30)
        return admin.models()[0].rows >= 4

    eventually(seen)
    there = served.client(served.address).models("worth")
    (found,) = there
    field = {each.name: each for each in found.fields}["outputs.score"]
    assert field.bins == ("up to 2", "above")
    assert field.counts == (0, found.rows)
    with pytest.raises(CallFailed, match="the snapshot has no model `worht`; did you mean `worth`") as caught:
        admin.models("worht")
    assert caught.value.code == "NOT_FOUND"

    page = folder / "worth.html"
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        app(["model", "report", "worth", "--target", served.admin_address, "--html", str(page), "--json"], "arbiter")
    assert ended.value.code == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["name"], told["judged_at"], told["windows"]) == ("worth", None, [])
    assert "inputs.x" in page.read_text()
    with pytest.raises(SystemExit) as ended:
        app(["model", "report", "worth", "--target", served.admin_address], "arbiter")
    assert ended.value.code == 0
    assert "worth, version 3: " in capsys.readouterr().out
