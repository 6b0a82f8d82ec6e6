"""What every worker's models see and say is one account: asked of any worker, or of the supervisor, it is the same."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from arbiter.cli.app import app
from arbiter.client import CallFailed
from arbiter.runtime.watchfile import WatchFile
from arbiter.v1 import decision_pb2, decision_pb2_grpc
from arbiter.v1.value_pb2 import Value
from tests.graphs import times, write_model

if TYPE_CHECKING:
    from collections.abc import Callable

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


def test_what_was_counted_outlives_kill_9_of_a_worker_and_of_the_server(
    serve: Callable[..., Served], folder: Path, eventually: Callable[..., None]
) -> None:
    (folder / "rules" / "scored.yaml").write_text(RULES)
    onnx = times(2.0, metadata={"arbiter.baseline": json.dumps(TOLD)})
    write_model(folder / "models" / "worth", "worth", 3, onnx, source="context.x")
    served = serve("--models", str(folder / "models"), "--admin", "127.0.0.1:0")

    def rows_over(served: Served, least: int) -> bool:
        for channel in [served.channel() for _ in range(4)]:
            request = decision_pb2.DecideRequest(
                subject_id="ann", decision="scored", context={"x": Value(double_value=7.0)}
            )
            with contextlib.suppress(grpc.RpcError):  # a worker that is killed leaves calls unanswered
                decision_pb2_grpc.DecisionServiceStub(channel).Decide(request, timeout=30)
            channel.close()
        return served.client().models()[0].rows > least

    eventually(lambda: rows_over(served, 1))
    counted = served.client().models()[0].rows
    gone = served.workers()[0]
    os.kill(gone, signal.SIGKILL)
    eventually(lambda: served.others(gone))
    assert served.client().models()[0].rows >= counted
    since = served.client().models()[0].since
    kept = WatchFile(folder / "data")
    eventually(lambda: rows_over(served, counted) and any(each.rows > counted for each in kept.read().values()))
    left = served.workers()
    served.process.kill()
    served.process.wait()
    eventually(lambda: not any(Path(f"/proc/{each}").exists() for each in left))
    (before,) = kept.read().values()
    assert (before.rows, before.since) == (before.filling, since)
    again = serve("--models", str(folder / "models"), "--admin", "127.0.0.1:0")
    (found,) = again.client().models()
    assert (found.rows, found.since) == (before.rows, since)
    assert sum({each.name: each for each in found.fields}["inputs.x"].counts) == before.rows
    eventually(lambda: rows_over(again, before.rows))
    assert again.stop() == 0
    (after,) = kept.read().values()  # an end in good order writes all
    assert after.rows > before.rows
