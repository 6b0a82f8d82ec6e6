"""A file that would end who opens it ends a child: the server that finds it among its models goes on as it was."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from arbiter.models.judge import Asked, Judge
from arbiter.runtime import judging
from arbiter.runtime.loader import Loader
from tests.graphs import times, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES = """\
actions: {show: {}}
decisions: {home: }
rules: [{id: only, decision: home, when: models.fine.score > 1, then: {action: show}}]
"""
GIB = 1 << 30


def greedy() -> bytes:
    """A graph that is all well to look at, and that wants 3 GiB when it runs."""
    node = helper.make_node
    size = numpy_helper.from_array(np.array([3 * (GIB >> 2)], dtype=np.int64), "size")
    graph = helper.make_graph(
        [
            node("ConstantOfShape", ["size"], ["many"]),
            node("ReduceMax", ["many"], ["most"], keepdims=1),
            node("Add", ["x", "most"], ["y"]),
        ],
        "greedy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [size],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(RULES)
    write_model(tmp_path / "models" / "fine", "fine", 1, times(2.0), source="context.x")
    return tmp_path


@pytest.fixture
def judge() -> Iterator[Judge]:
    with contextlib.closing(Judge(memory=GIB)) as child:
        yield child


def asked(folder: Path) -> Asked:
    return Asked((folder / "manifest.yaml").read_bytes(), (folder / "model.onnx").read_bytes(), "m/manifest.yaml")


def test_a_server_refuses_it_with_its_place_and_stays_as_it_was(home: Path) -> None:
    loader = Loader(home / "rules", home / "models", None, apart=True)
    first = loader.load()
    assert first.built is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_model(home / "models" / "greedy", "greedy", 1, greedy(), source="context.x")
    attempt = loader.look()
    assert attempt is not None
    assert attempt.built is None
    (found,) = attempt.diagnostics
    assert (found.file, found.severity) in {
        ("models/greedy/manifest.yaml", "error"), ("models/greedy/model.onnx", "error"),
    }  # fmt: skip
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < GIB >> 10
    (home / "models" / "greedy" / "model.onnx").write_bytes(b"\x08\x08")
    again = loader.look()
    assert again is not None
    assert again.built is None
    write_model(home / "models" / "greedy", "greedy", 1, times(3.0), source="context.x")
    mended = loader.look()
    assert mended is not None
    assert mended.built is not None
    assert set(mended.built.snapshot.models) == {"fine", "greedy"}
    assert mended.built.snapshot.models["fine"] is first.built.snapshot.models["fine"]


def test_none_is_judged_twice_whatever_else_changes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Counting(Judge):
        def verdict(self, asked: Asked) -> Any:
            seen.append(asked.file)
            return super().verdict(asked)

    monkeypatch.setattr(judging, "Judge", Counting)
    write_model(home / "models" / "broken", "broken", 1, b"no graph", source="context.x")
    loader = Loader(home / "rules", home / "models", None, apart=True)
    assert loader.load().built is None
    (home / "rules" / "r.yaml").write_text(RULES + "# changed\n")
    attempt = loader.look()
    assert attempt is not None
    assert attempt.built is None
    assert sorted(seen) == ["models/broken/manifest.yaml", "models/fine/manifest.yaml"]


def test_one_that_ends_the_child_ends_no_other(home: Path, judge: Judge, tmp_path: Path) -> None:
    fine = asked(home / "models" / "fine")
    assert judge.verdict(fine).sound
    write_model(tmp_path / "greedy", "greedy", 1, greedy(), source="context.x")
    assert not judge.verdict(asked(tmp_path / "greedy")).sound
    os.kill(judge._child._process.pid, 9) if judge._child is not None else None
    died = judge.verdict(fine)
    assert died.died == "the process that opened it was ended by SIGKILL"
    assert judge.verdict(fine).sound
