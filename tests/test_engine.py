"""The engine over a real store and real models: what it asks of models, and when; pages, batches, descriptions."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from arbiter.decision.walk import Need, Walk
from arbiter.errors import NotFound
from arbiter.expr.view import View
from arbiter.models import Model, from_bytes
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.image import Maker
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine
from arbiter.runtime.scoring import SLICE
from arbiter.snapshot import Snapshot, at_hand, finished, model_inputs, open_snapshot, pack, unpack
from arbiter.types import Event, ExplainLevel, Lack, Reason, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

NOW = 1_780_272_000_000_000
RULES = """
features:
  orders: {count: order}
segments:
  hot: models.score.s >= 20
  adult: profile.age >= 18
decisions:
  d: {slots: 2, order: [priority]}
  by_value: {order: [value]}
rules:
  - {id: a-hot, decision: d, priority: 3, when: [profile.on == 1, models.score.s >= 20],
     then: {action: show, params: {n: 1}}}
  - {id: b-warm, decision: d, priority: 2, when: [profile.on == 1, models.score.s >= 10],
     then: {action: show, params: {n: 2}}}
  - {id: c-other, decision: d, priority: 1, when: profile.on == 1 && models.other.s >= 10,
     then: {action: show, params: {n: 3}}}
  - {id: e-plain, decision: d, priority: 0, then: {action: show, params: {n: 4}}}
  - {id: v-score, decision: by_value, value: models.score.s, then: {action: show, params: {s: "${models.score.s}"}}}
  - {id: v-const, decision: by_value, value: 15, then: {action: show, params: {n: 6}}}
"""


def table_model(name: str, *, default: str = "", root: str = "profile.x", purposes: str = "") -> Model:
    """A model that looks a name up in the table [0, 10, 20, 30]: 4 and more are out of its range, and it fails."""
    nodes = [
        helper.make_node("Cast", ["x"], ["at"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "at"], ["y"]),
    ]
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
            initializer=[numpy_helper.from_array(np.array([0, 10, 20, 30], dtype=np.float32), "table")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx = proto.SerializeToString()
    manifest = (
        f"name: {name}\nversion: 1\nkind: score\nsha256: {hashlib.sha256(onnx).hexdigest()}\n"
        f"inputs: [{{name: x, from: {root}{default}}}]\noutputs: {{s: {{tensor: y, type: double}}}}\n"
        + (f"purposes: {purposes}\n" if purposes else "")
    )
    return from_bytes(manifest.encode(), onnx)


class Watched(Model):
    """A model that writes down each run."""

    def watch(self) -> Watched:
        self.alone: list[Any] = []
        self.batches: list[list[Any]] = []
        return self

    def score(self, row: Sequence[Any]) -> Any:
        self.alone.append(list(row))
        return super().score(row)

    def run(self, rows: Sequence[Sequence[Any]]) -> Any:
        self.batches.append([list(row) for row in rows])
        return super().run(rows)


def watched(name: str, *, default: str = "") -> Watched:
    model = table_model(name, default=default)
    model.__class__ = Watched
    assert isinstance(model, Watched)
    return model.watch()


class Stage:
    """An engine with its store and its models."""

    def __init__(self, store: Store, rules: str = RULES) -> None:
        self.score, self.other = watched("score"), watched("other", default=", default: 1")
        models: dict[str, Model] = {"score": self.score, "other": self.other}
        ruleset, found = load_ruleset({"a.yaml": rules.encode()}, {name: {"s": "double"} for name in models})
        assert ruleset is not None, [d.render() for d in found]
        self.snapshot = Snapshot(ruleset, models)
        self.store = store
        self.engine = Engine(store, clock=lambda: NOW)
        self.engine.activate(self.snapshot)

    def subject(self, subject_id: str, **attributes: Any) -> str:
        self.store.update(Update(subject_id=subject_id, set=attributes)).result()
        return subject_id

    def decide(self, subject_id: str, *decisions: str, **more: Any) -> Any:
        return self.engine.decide(Request(subject_id, decisions or ("d",), NOW), **more)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Store.open(tmp_path / "store", map_size=1 << 28, background=False) as store:
        yield Stage(store)


def won(decision: Any) -> list[str]:
    return [t.rule_id for t in decision.treatments]


def test_a_model_runs_only_for_a_rule_that_survived_everything_else(stage: Stage) -> None:
    (decision,) = stage.decide(stage.subject("s", on=0, x=2))
    assert won(decision) == ["e-plain"]
    assert (stage.score.alone, stage.other.alone) == ([], [])


def test_a_model_runs_once_for_all_the_rules_that_read_it(stage: Stage) -> None:
    (decision,) = stage.decide(stage.subject("s", on=1, x=1))
    assert won(decision) == ["b-warm", "c-other"]
    assert (stage.score.alone, stage.other.alone) == ([[1]], [[1]])


def test_a_model_is_not_run_for_rules_behind_the_last_slot(stage: Stage) -> None:
    (decision,) = stage.decide(stage.subject("s", on=1, x=3))
    assert won(decision) == ["a-hot", "b-warm"]
    assert stage.other.alone == []


def test_a_page_shares_its_scores(stage: Stage) -> None:
    first, second = stage.decide(stage.subject("s", on=1, x=2), "d", "by_value")
    assert won(first) == ["a-hot", "b-warm"]
    assert [(t.rule_id, t.value, t.params) for t in second.treatments] == [("v-score", 20.0, {"s": 20.0})]
    assert len(stage.score.alone) == 1


def test_a_missing_input_makes_the_model_unknown_and_nothing_degraded(stage: Stage) -> None:
    (decision,) = stage.decide(stage.subject("s", on=1))
    assert won(decision) == ["c-other", "e-plain"]  # the other model has a default
    assert decision.degraded == ()
    assert (stage.score.alone, stage.other.alone) == ([], [[1]])


def test_a_model_that_fails_costs_its_rules_and_no_more(stage: Stage) -> None:
    (decision,) = stage.engine.decide(Request(stage.subject("s", on=1, x=9), ("d",), NOW, explain=ExplainLevel.ALL))
    assert won(decision) == ["e-plain"]
    assert [(d.model, d.cause) for d in decision.degraded] == [("other", Lack.FAILED), ("score", Lack.FAILED)]
    became = {o.rule_id: (o.reason, o.missing) for o in decision.explanation}
    assert became["a-hot"] == (Reason.UNKNOWN, ("models.score.s",))
    assert became["c-other"] == (Reason.UNKNOWN, ("models.other.s",))
    assert became["e-plain"] == (Reason.WON, ())
    assert len(stage.score.alone) == 1  # asked once, failed once


def test_a_passed_deadline_is_said_and_no_model_starts(stage: Stage) -> None:
    (decision,) = stage.decide(stage.subject("s", on=1, x=2), deadline=time.monotonic() - 1)
    assert won(decision) == ["e-plain"]
    assert [(d.model, d.cause) for d in decision.degraded] == [("other", Lack.LATE), ("score", Lack.LATE)]
    assert (stage.score.alone, stage.other.alone) == ([], [])


def test_an_unknown_value_sorts_last_and_a_model_value_first(stage: Stage) -> None:
    for x, winner in [(1, "v-const"), (2, "v-score"), (9, "v-const")]:
        (decision,) = stage.decide(stage.subject(f"s{x}", x=x), "by_value")
        assert won(decision) == [winner]


def test_a_batch_answers_as_one_by_one_and_asks_each_model_once(stage: Stage) -> None:
    subjects = [stage.subject(f"s{n}", on=int(n != 3), x=n % 4) for n in range(24)]
    requests = [Request(s, ("d",), NOW) for s in subjects]
    one_by_one = [stage.engine.decide(r) for r in requests]
    stage.score.watch()
    stage.other.watch()
    assert stage.engine.decide_batch(requests) == one_by_one
    assert [len(batch) for batch in stage.score.batches] == [23]
    assert len(stage.other.batches) == 1
    assert (stage.score.alone, stage.other.alone) == ([], [])


def test_a_bad_request_of_a_batch_fails_alone(stage: Stage) -> None:
    subject_id = stage.subject("s", on=1, x=3)
    good = Request(subject_id, ("d",), NOW)
    bad = Request(subject_id, ("dd",), NOW)
    page = Request(subject_id, ("d", "by_value"), NOW)
    explained = Request(subject_id, ("d",), NOW, explain=ExplainLevel.ALL)
    answers = stage.engine.decide_batch([good, bad, page, explained])
    refused = answers.pop(1)
    assert isinstance(refused, NotFound)
    assert "did you mean `d`?" in str(refused)
    assert answers == [stage.engine.decide(r) for r in (good, page, explained)]
    assert stage.engine.decide_batch([]) == []


def test_a_row_on_which_a_model_fails_spoils_no_other_of_the_batch(stage: Stage) -> None:
    subjects = [stage.subject(f"s{x}", on=1, x=x) for x in (1, 9, 3)]
    requests = [Request(s, ("d",), NOW) for s in subjects]
    answers = stage.engine.decide_batch(requests)
    assert answers == [stage.engine.decide(r) for r in requests]
    decisions = [a[0] for a in answers if isinstance(a, tuple)]
    assert [[d.model for d in decision.degraded] for decision in decisions] == [[], ["other", "score"], []]


def test_late_models_of_a_batch_degrade_what_waited_for_them(stage: Stage) -> None:
    requests = [Request(stage.subject("a", on=1, x=1), ("d",), NOW), Request(stage.subject("b", on=0), ("d",), NOW)]
    (late,), (early,) = stage.engine.decide_batch(requests, deadline=time.monotonic() - 1)  # type: ignore[misc]
    assert [(d.model, d.cause) for d in late.degraded] == [("other", Lack.LATE), ("score", Lack.LATE)]
    assert (won(late), won(early), early.degraded) == (["e-plain"], ["e-plain"], ())


def far() -> float:
    return time.monotonic() + 3600


def test_a_model_that_would_end_behind_the_deadline_does_not_start_until_it_is_trusted_again(stage: Stage) -> None:
    subject_id = stage.subject("s", on=1, x=1)
    for pace in (stage.score.pace, stage.other.pace):
        pace.took(8000.0)
    refused = 0
    while True:
        (decision,) = stage.decide(subject_id, deadline=far())
        if not decision.degraded:
            break
        assert {each.cause for each in decision.degraded} == {Lack.LATE}
        assert refused < 100
        refused += 1
    assert refused > 1
    assert won(decision) == ["b-warm", "c-other"]
    # Its runs are quick, and it is soon known to be so. Without a deadline it is not even looked at.
    for _ in range(60):
        stage.decide(subject_id, deadline=far())
    assert stage.score.pace.longest < 3600
    stage.score.pace.took(1e9)
    assert stage.decide(subject_id)[0].degraded == ()


def test_a_batch_that_would_be_late_is_tried_row_by_row(stage: Stage) -> None:
    requests = [Request(stage.subject(f"s{n}", on=1, x=1), ("d",), NOW) for n in range(5)]
    stage.score.pace_of_row.took(8000.0)
    stage.score.watch()
    answers = stage.engine.decide_batch(requests, far())
    assert [won(answer[0]) for answer in answers if isinstance(answer, tuple)] == [["b-warm", "c-other"]] * 5
    assert len(stage.score.alone) == 5
    for pace in (stage.score.pace, stage.score.pace_of_row):
        pace.took(1e9)
    late = stage.engine.decide_batch(requests, far())
    assert [[each.model for each in answer[0].degraded] for answer in late if isinstance(answer, tuple)] == [
        ["score"]
    ] * 5


def test_a_large_batch_runs_each_model_in_slices(stage: Stage) -> None:
    requests = [Request(stage.subject(f"s{n}", on=1, x=1), ("d",), NOW) for n in range(2 * SLICE + 9)]
    alone = [stage.engine.decide(each) for each in requests]
    stage.score.watch()
    assert stage.engine.decide_batch(requests) == alone
    assert [len(batch) for batch in stage.score.batches] == [SLICE, SLICE, 9]
    stage.score.watch()
    steps = stage.engine.deciding(requests)
    assert sum(1 for _ in steps) >= 3  # others may be answered in between


def test_the_walk_asks_for_what_it_lacks_and_goes_on_where_it_stopped(stage: Stage) -> None:
    view = View({"on": 1, "x": 2}, {}, {}, NOW)
    walk = Walk(stage.snapshot.point("d"), view, "s")
    assert walk.advance() == Need(("score",))
    assert walk.advance() == Need(("score",))
    view.models["score"] = {"s": 12.0}
    assert walk.advance() == Need(("other",))
    view.models["other"] = {}
    decision = walk.advance()
    assert not isinstance(decision, Need)
    assert won(decision) == ["b-warm", "e-plain"]


def test_explaining_asks_the_models_that_deciding_did_not_need(stage: Stage) -> None:
    subject_id = stage.subject("s", on=1, x=3)
    for level, runs in [(ExplainLevel.WINNERS, 0), (ExplainLevel.ALL, 1)]:
        stage.other.watch()
        (decision,) = stage.engine.decide(Request(subject_id, ("d",), NOW, explain=level))
        assert won(decision) == ["a-hot", "b-warm"]
        assert len(stage.other.alone) == runs
    assert {o.rule_id: o.reason for o in decision.explanation}["c-other"] is Reason.LOST_SLOT


def test_a_subject_is_described_as_decisions_see_it(stage: Stage) -> None:
    stage.subject("s", x=2, age=17)
    stage.store.ingest([Event("e", "s", "order", NOW - 1, {})]).result()
    found = stage.engine.describe("s", NOW)
    assert found.attributes == {"x": 2, "age": 17}
    assert found.features == {"orders": 1}
    assert found.segments == {"hot": True, "adult": False}
    nobody = stage.engine.describe("nobody", NOW)
    assert (nobody.version, nobody.attributes, nobody.features) == (0, {}, {"orders": 0})
    assert nobody.segments == {"hot": None, "adult": None}


def test_an_activated_snapshot_is_what_the_next_call_sees(stage: Stage) -> None:
    subject_id = stage.subject("s", on=0)
    before = stage.engine.current()
    ruleset, _ = load_ruleset({"b.yaml": b"decisions: {d: {default: {action: rest}}}\n"}, {})
    assert ruleset is not None
    stage.engine.activate(Snapshot(ruleset, {}))
    (after,) = stage.decide(subject_id)
    assert (after.defaulted, after.treatments[0].action) == (True, "rest")
    (as_before,) = stage.decide(subject_id, active=before)
    assert won(as_before) == ["e-plain"]
    with pytest.raises(NotFound):
        stage.decide(subject_id, "by_value")


def test_a_digest_names_what_rules_and_models_mean(stage: Stage) -> None:
    ruleset = stage.snapshot.ruleset
    image = stage.snapshot.image
    assert unpack(pack(image)) == image
    parts = Maker().make(ruleset, model_inputs(stage.snapshot.models, {})).parts
    reopened = finished(open_snapshot(unpack(pack(image)), at_hand(parts), stage.snapshot.models))
    assert (reopened.digest, reopened.ruleset) == (stage.snapshot.digest, ruleset)
    assert Snapshot(ruleset, {}).digest != stage.snapshot.digest
    assert Snapshot(
        ruleset, {**stage.snapshot.models, "score": table_model("score", default=", default: 0")}
    ).digest != (stage.snapshot.digest)
    louder, _ = load_ruleset(
        {"a.yaml": RULES.replace("priority: 3", "priority: 4").encode()},
        {"score": {"s": "double"}, "other": {"s": "double"}},
    )
    assert louder is not None
    assert Snapshot(louder, stage.snapshot.models).digest != stage.snapshot.digest
    assert stage.snapshot.counts() == {"decisions": 2, "rules": 6, "segments": 2, "features": 1, "models": 2}


def test_valid_until_is_the_nearest_of_dates_and_windows(tmp_path: Path) -> None:
    rules = """
features: {recent: {count: order, window: 1d}}
decisions: {d: {}}
rules:
  - {id: a, decision: d, when: features.recent > 5, active: {until: 2026-06-02T00:00:00Z}, then: {action: show}}
"""
    with Store.open(tmp_path / "store", map_size=1 << 28, background=False) as store:
        stage = Stage(store, rules)
        (no_events,) = stage.decide("nobody")
        midnight = NOW + 86_400_000_000
        assert no_events.valid_until == midnight
        store.ingest([Event("e", "s", "order", NOW - 3_600_000_000, {})]).result()
        (soon,) = stage.decide("s")
        assert soon.valid_until == midnight - 3_600_000_000


def test_an_int_of_the_context_becomes_a_double_where_one_is_declared(tmp_path: Path) -> None:
    rules = """
schema: {context: {total: double, count: int}}
decisions: {d: }
rules: [{id: r, decision: d, then: {action: a, params: {half: "${context.total / 2}", part: "${context.count / 2}"}}}]
"""
    with Store.open(tmp_path / "store", map_size=1 << 28, background=False) as store:
        stage = Stage(store, rules)
        request = Request("s", ("d",), NOW, {"total": 7, "count": 7})
        (alone,) = stage.engine.decide(request)
        ((together,),) = stage.engine.decide_batch([request])  # type: ignore[misc]  # no mistake in it
        assert alone.treatments[0].params == together.treatments[0].params == {"half": 3.5, "part": 3}
        assert request.context == {"total": 7, "count": 7}
