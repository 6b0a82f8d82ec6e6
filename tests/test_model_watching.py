"""Whether models still see and say what they did at training: counted beside the calls, judged by window."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from arbiter.learning.drift import MISSING, Spread, by_chance, drift_of, stability
from arbiter.runtime.curiosity import Curiosity
from arbiter.runtime.local import open_local
from arbiter.runtime.modelwatch import ModelWatch
from arbiter.runtime.watchfile import FILE, KeptTally, WatchFile
from arbiter.runtime.watching import Watch
from arbiter.telemetry.counters import Counters
from arbiter.types import Request
from tests.graphs import times, write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arbiter.runtime.engine import Engine
    from arbiter.runtime.messages import Noticed

RULES = """\
schema: {context: {x: double, secret: {type: double, personal: true}}, profile: {y: {type: double, purposes: [scores]}}}
consent: {purposes: [scores]}
actions: {show: {params: {score: double}}}
decisions: {home: {default: {action: show, params: {score: -1.0}}}}
rules:
  - {id: only, decision: home, when: models.worth.score > 1000, then: {action: show, params: {score: 1.0}}}
"""
WINDOW = 200
TRAINED = 5000


def spread(values: np.ndarray) -> dict[str, object]:
    """How training tells of values: ten bins of about equally many."""
    edges = np.quantile(values, np.arange(1, 10) / 10)
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=10)
    return {
        "missing": 0.0, "low": float(values.min()), "high": float(values.max()), "edges": edges.tolist(),
        "shares": (counts / len(values)).tolist(),
    }  # fmt: skip


def baseline() -> str:
    values = np.random.default_rng(0).exponential(10, TRAINED)
    told = {"rows": TRAINED, "inputs": {"x": spread(values)}, "outputs": {"score": spread(2 * values)}}
    return json.dumps(told)


@pytest.fixture
def open_engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    opened: list[Engine] = []

    def start(told: str, source: str = "context.x") -> Engine:
        (tmp_path / "rules").mkdir()
        (tmp_path / "rules" / "rules.yaml").write_text(RULES)
        onnx = times(2.0, metadata={"arbiter.baseline": told})
        write_model(tmp_path / "models" / "worth", "worth", 3, onnx, source=source)
        engine, _ = open_local(tmp_path / "rules", tmp_path / "models", tmp_path / "data")
        opened.append(engine)
        return engine

    yield start
    for each in opened:
        each.store.close()


def watching(engine: Engine, counters: Counters, rows: int = 1000) -> tuple[Watch, ModelWatch]:
    """A worker's watch, and the supervisor's to which it tells what it notices."""
    judge = ModelWatch(counters, lambda: [engine.current().snapshot], rows, lambda: 7)
    return Watch(counters, judge.noticed), judge


def feed(engine: Engine, watch: Watch, values: list[float | None], name: str = "x") -> None:
    active = engine.current()
    for number, value in enumerate(values):
        context = {} if value is None else {name: value}
        view, _ = engine.view(Request(f"s{number}", ("home",), engine.clock(), context), active, ("worth",))
        watch.note(active.snapshot, view)


@pytest.mark.parametrize("scale", [10.0, 25.0], ids=["as at training", "drifted"])
def test_drift_raises_the_alarm_and_nothing_else_does_over_twenty_seeds(
    open_engine: Callable[..., Engine], scale: float
) -> None:
    engine = open_engine(baseline())
    for seed in range(20):
        counters = Counters()
        draw = np.random.default_rng(seed + 1)
        feed(engine, watching(engine, counters, WINDOW)[0], draw.exponential(scale, WINDOW).tolist())
        alarms = {field: count for (*_, field), count in counters.model_alarms.items()}
        assert alarms.keys() == {"inputs.x", "outputs.score"}
        assert all(map(bool, alarms.values())) == (scale > 10), (seed, alarms, counters.model_drift)
        assert any(map(bool, alarms.values())) == (scale > 10), (seed, alarms, counters.model_drift)


def test_what_is_missing_raises_the_alarm_too_and_a_window_is_judged_when_it_is_full(
    open_engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    engine, counters = open_engine(baseline()), Counters()
    watch, _ = watching(engine, counters, WINDOW)
    values: list[float | None] = np.random.default_rng(5).exponential(10, WINDOW).tolist()
    feed(engine, watch, values[:-1])
    assert counters.model_alarms == {}
    feed(engine, watch, values[-1:])
    assert set(counters.model_alarms.values()) == {0}
    for _ in range(2):
        feed(engine, watch, [None if number % 2 else each for number, each in enumerate(values)])
    assert counters.model_alarms["worth", "3", "inputs.x"] == 1
    said = [record.getMessage() for record in caplog.records if "inputs.x" in record.getMessage()]
    assert said == ["model worth, version 3, inputs.x: 50% are missing, and 0% were"]
    feed(engine, watch, values)
    assert counters.model_alarms["worth", "3", "inputs.x"] == 0


def test_values_are_counted_by_the_bins_of_the_training(open_engine: Callable[..., Engine]) -> None:
    told = {"rows": 9, "inputs": {"x": {"missing": 0.5, "edges": [1.0, 2.0], "shares": [0.5, 0.25, 0.25]}}}
    engine, counters = open_engine(json.dumps(told)), Counters()
    feed(engine, watching(engine, counters)[0], [0.5, 1.0, 1.5, 7.0, None])
    assert {found: count for (*_, field, found), count in counters.model_values.items() if field == "inputs.x"} == {
        "up to 1": 2, "up to 2": 1, "above": 1, MISSING: 1,
    }  # fmt: skip


def test_of_what_is_personal_only_whether_it_is_there_is_told(open_engine: Callable[..., Engine]) -> None:
    told = {"rows": 9, "inputs": {"x": {"edges": [1.0], "shares": [0.5, 0.5]}}}
    engine, counters = open_engine(json.dumps(told), source="context.secret"), Counters()
    feed(engine, watching(engine, counters)[0], [0.5, 7.0, None], name="secret")
    assert dict(counters.model_values) == {
        ("worth", "3", "inputs.x", "known"): 2,
        ("worth", "3", "inputs.x", MISSING): 1,
    }


def test_who_has_not_consented_is_not_counted(open_engine: Callable[..., Engine]) -> None:
    engine, counters = open_engine(baseline(), source="profile.y"), Counters()
    feed(engine, watching(engine, counters, 1)[0], [1.0])
    assert (dict(counters.model_values), counters.model_alarms) == ({}, {})


@pytest.mark.parametrize(
    "told",
    [
        "",
        "{",
        '{"rows": "many"}',
        '{"inputs": {"x": {"edges": [1.0], "shares": [1.0]}}}',
        '{"inputs": {"z": {"shares": [1.0]}}}',
    ],
)
def test_a_baseline_that_says_nothing_hinders_nobody(open_engine: Callable[..., Engine], told: str) -> None:
    engine, counters = open_engine(told), Counters()
    feed(engine, watching(engine, counters, 1)[0], [1.0, 2.0])
    assert dict(counters.model_values) == {}


def test_decisions_that_are_looked_into_are_counted(open_engine: Callable[..., Engine]) -> None:
    engine, counters = open_engine(baseline()), Counters()
    noticed: list[Noticed] = []
    curiosity = Curiosity(engine, counters, noticed.append, period=3600)
    try:
        curiosity.look_into(Request("ann", ("home",), engine.clock(), {"x": 3.0}), engine.current())
    finally:
        curiosity.close()
    assert {field for (*_, field, _), count in counters.model_values.items() if count == 1} == {
        "inputs.x",
        "outputs.score",
    }
    (found,) = noticed
    assert (found.digest, len(found.places)) == (engine.current().snapshot.models["worth"].digest, 2)


def test_what_several_workers_noticed_is_one_window_and_no_worker_alone_raises_the_alarm(
    open_engine: Callable[..., Engine],
) -> None:
    """Of each worker's values the half is shifted; none has enough of them to fill a window, all together have."""
    engine, counters = open_engine(baseline()), Counters()
    judge = ModelWatch(counters, lambda: [engine.current().snapshot], WINDOW, lambda: 7)
    workers = [Watch(Counters(), judge.noticed) for _ in range(4)]
    draw = np.random.default_rng(3)
    for number, watch in enumerate(workers):
        assert counters.model_alarms == {}
        feed(engine, watch, draw.exponential(40.0 if number % 2 else 10.0, WINDOW // 4).tolist())
    assert counters.model_alarms["worth", "3", "inputs.x"] >= 1
    feed(engine, workers[0], [1.0, None])
    (report,) = judge.reports()
    assert (report.name, report.version, report.trained_on) == ("worth", 3, TRAINED)
    assert (report.rows, report.filling, report.judged_at, report.since) == (WINDOW + 2, 2, 7, 7)
    field = {each.name: each for each in report.fields}["inputs.x"]
    assert (sum(field.counts), field.missing, len(field.bins)) == (WINDOW + 1, 1, 10)
    assert field.drift == counters.model_drift["worth", "3", "inputs.x"]
    assert field.alarms[0].startswith("values have shifted")
    (window,) = report.windows
    assert (window.rows, sum(window.outputs["score"])) == (WINDOW, WINDOW)
    together = [sum(pair) for pair in zip(*(each.outputs["score"] for each in report.windows), strict=True)]
    assert together[-1] == 0


def test_of_what_is_personal_a_report_tells_the_index_and_no_value(open_engine: Callable[..., Engine]) -> None:
    told = {"rows": 9, "inputs": {"x": {"edges": [1.0], "shares": [0.5, 0.5]}}}
    engine, counters = open_engine(json.dumps(told), source="context.secret"), Counters()
    watch, judge = watching(engine, counters, 3)
    feed(engine, watch, [0.5, 7.0, None], name="secret")
    (field,) = judge.reports()[0].fields
    assert (field.withheld, field.bins, field.counts, field.missing) == (True, ("known",), (2,), 1)
    assert field.drift == 0


def test_alarms_go_with_the_version_that_raised_them(open_engine: Callable[..., Engine]) -> None:
    engine, counters = open_engine(baseline()), Counters()
    served = [engine.current().snapshot]
    judge = ModelWatch(counters, lambda: served, WINDOW)
    feed(engine, Watch(Counters(), judge.noticed), [1e6] * WINDOW)
    assert counters.model_alarms["worth", "3", "inputs.x"] >= 1
    gone = served.pop()
    assert judge.reports() == ()
    assert (counters.model_alarms, counters.model_drift) == ({}, {})
    served.append(gone)
    assert judge.reports()[0].rows == 0


def test_a_restart_goes_on_with_what_was_counted_and_an_alarm_stays(
    open_engine: Callable[..., Engine], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In three lives of the judge the same is counted as in one; some was written at an end, and some in between."""
    engine = open_engine(baseline())
    values: list[float | None] = [*np.random.default_rng(5).exponential(40, 2 * WINDOW + 30).tolist()]
    values[7] = None
    once = Counters()
    watch, judge = watching(engine, once, WINDOW)
    feed(engine, watch, values)
    whole = judge.reports()
    counters, at = Counters(), 0
    for ahead in (90, WINDOW + 50, len(values)):
        counters = Counters()
        letters: list[Callable[[], None]] = []

        def later(_: float, letter: Callable[[], None], letters: list[Callable[[], None]] = letters) -> None:
            letters.append(letter)

        judge = ModelWatch(counters, lambda: [engine.current().snapshot], WINDOW, lambda: 7, WatchFile(tmp_path), later)
        feed(engine, Watch(Counters(), judge.noticed), values[at:ahead])
        assert len(letters) == 1  # however many were noticed
        if ahead == 90:
            letters.pop()()
        judge.close()
        at = ahead
    assert judge.reports() == whole
    assert (counters.model_alarms, counters.model_drift) == (once.model_alarms, once.model_drift)
    assert counters.model_alarms["worth", "3", "inputs.x"] >= 1
    caplog.clear()
    last = Counters()
    again = ModelWatch(last, lambda: [engine.current().snapshot], WINDOW, file=WatchFile(tmp_path))
    assert again.reports() == whole
    assert last.model_alarms == once.model_alarms
    assert not caplog.records  # an alarm that goes on does not begin


@pytest.mark.parametrize("harm", [lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"\x91\x02"])
def test_a_file_that_is_harmed_costs_the_counts_and_nothing_else(
    open_engine: Callable[..., Engine], tmp_path: Path, harm: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    engine, file = open_engine(baseline()), tmp_path / FILE

    def judge() -> ModelWatch:
        return ModelWatch(Counters(), lambda: [engine.current().snapshot], WINDOW, file=WatchFile(tmp_path))

    first = judge()
    feed(engine, Watch(Counters(), first.noticed), [1.0] * 9)
    first.close()
    assert judge().reports()[0].rows == 9
    file.write_bytes(harm(file.read_bytes()))
    assert judge().reports()[0].rows == 0
    assert "is counted anew" in caplog.text


def test_what_was_counted_by_other_bins_is_not_taken_up(open_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = open_engine(baseline())
    first = ModelWatch(Counters(), lambda: [engine.current().snapshot], WINDOW, file=WatchFile(tmp_path))
    feed(engine, Watch(Counters(), first.noticed), [1.0] * 9)
    first.close()
    file = WatchFile(tmp_path)
    (kept,) = file.read().values()
    other = msgspec.structs.replace(kept, window={**kept.window, "inputs.x": KeptTally([1, 2], 0, 0)})
    file.write([other])
    file.close()
    again = ModelWatch(Counters(), lambda: [engine.current().snapshot], WINDOW, file=file)
    assert again.reports()[0].rows == 0


def test_words_are_compared_with_their_shares_and_others_are_another() -> None:
    before = Spread({"ios": 0.5, "web": 0.5})
    found = drift_of("device", before, ["tv"] * 300 + ["web"] * 300)
    assert (found.bins, found.now) == (["ios", "web", "another"], [0, 0.5, 0.5])
    assert found.alarms[0].startswith("values have shifted")
    even = random.Random(1)  # noqa: S311 - a test
    assert drift_of("device", before, [even.choice(["ios", "web"]) for _ in range(300)]).alarms == []


def test_the_index_stays_below_what_chance_gives_where_the_training_was_small_too() -> None:
    draw = np.random.default_rng(1)
    even = np.full(10, 0.1)
    for trained in (300, 5000):
        seen = [
            stability(
                (draw.multinomial(trained, even) / trained).tolist(), (draw.multinomial(500, even) / 500).tolist(), 500
            )
            for _ in range(2000)
        ]
        assert max(seen) < by_chance(10, 500, trained) < 3 * max(seen)
