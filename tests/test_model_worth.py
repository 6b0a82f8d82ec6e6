"""What a model's scores were worth: joined with what happened, judged by subject, and not beyond what outcomes show."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from typer.testing import CliRunner

from arbiter.cli.app import app
from arbiter.config.limits import Limits
from arbiter.config.options import DecisionLog
from arbiter.learning.chance import binomial_beyond
from arbiter.learning.columns import HAPPENED
from arbiter.learning.worth import FEW, Marks, Trained, auc, worth
from arbiter.profiles.store import Update
from arbiter.runtime import logfiles
from arbiter.runtime.local import open_local
from arbiter.runtime.recording import open_recorder
from arbiter.server.decisions import DecisionService
from arbiter.telemetry.counters import Counters
from arbiter.types import from_micros
from arbiter.v1 import decision_pb2
from arbiter.v1.value_pb2 import Value
from tests.answering import answered
from tests.graphs import times, write_model

if TYPE_CHECKING:
    from pathlib import Path

RULES = """\
schema: {context: {x: double, skip: bool}}
actions: {show: {}}
decisions: {home: , side: {slots: 2}}
rules:
  - {id: free, decision: home, priority: 9, when: context.skip, then: {action: show}}
  - {id: likely, decision: home, when: models.buys.probability > 0.5, then: {action: show}}
  - {id: never, decision: side, when: models.buys.probability > 2.0, then: {action: show}}
"""
PROBABILITY = "{probability: {tensor: y, type: double}}"
WEEK = 7 * 86_400_000_000
HOUR = 3_600_000_000


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])), min_size=2, max_size=60))
@settings(max_examples=60, deadline=None)
def test_figures_are_those_of_scikit_learn(rows: list[tuple[bool, float]]) -> None:
    y, p = np.array([each for each, _ in rows]), np.array([each for _, each in rows])
    if y.all() or not y.any():
        assert math.isnan(worth(y, p, np.arange(len(y)), probable=True).auc.value)
        return
    found = worth(y, p, np.arange(len(y)) // 2, probable=True)
    assert found.auc.value == pytest.approx(roc_auc_score(y, p))
    assert found.log_loss is not None
    assert found.log_loss.value == pytest.approx(log_loss(y, p))
    assert found.brier is not None
    assert found.brier.value == pytest.approx(brier_score_loss(y, p))
    assert found.gain is not None
    assert found.gain.value == pytest.approx(log_loss(y, np.full(len(y), y.mean())) - log_loss(y, p))


def test_the_calibration_table_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(3)
    p = draw.random(1000)
    y = draw.random(1000) < p
    happened, said = calibration_curve(y, p, n_bins=10, strategy="quantile")
    levels = worth(y, p, np.arange(1000), probable=True).levels
    assert [each.happened for each in levels] == pytest.approx(happened)
    assert [each.predicted for each in levels] == pytest.approx(said)
    for each in levels:
        exact = stats.binomtest(round(each.happened * each.count), each.count).proportion_ci(method="wilson")
        assert (each.least, each.most) == pytest.approx((exact.low, exact.high))


@given(st.integers(0, 300), st.integers(1, 300), st.floats(0.001, 0.999))
def test_the_chance_of_a_count_is_that_of_scipy(found: int, of: int, share: float) -> None:
    found = min(found, of)
    tails = stats.binom.sf(found - 1, of, share), stats.binom.cdf(found, of, share)
    assert binomial_beyond(found, of, share) == pytest.approx(min(1.0, 2 * min(tails)), abs=1e-12)


def test_where_each_row_is_a_subject_the_error_is_that_of_delong() -> None:
    draw = np.random.default_rng(5)
    y = draw.random(300) < 0.2
    p = np.asarray(np.round(draw.random(300) + 0.3 * y, 2), dtype=np.float64)
    ones, zeros = p[y], p[~y]
    wins = (ones[:, None] > zeros) + 0.5 * (ones[:, None] == zeros)
    expected = np.var(wins.mean(axis=1), ddof=1) / len(ones) + np.var(wins.mean(axis=0), ddof=1) / len(zeros)
    found, error = auc(y, p, np.arange(300))
    assert error == pytest.approx(math.sqrt(expected))
    assert found.low < found.value < found.high


def people(seed: int, subjects: int = 120, each: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions of subjects who differ by more than is seen of them, so that those of one go together: the same score
    and nearly the same outcome. Scores are right on average.
    """
    draw = np.random.default_rng(seed)
    score = np.repeat(draw.beta(1, 3, subjects), each)
    always = np.repeat(draw.random(subjects), each)
    alone = draw.random(len(score))
    y = np.where(draw.random(len(score)) < 0.9, always, alone) < score
    return y, score, np.repeat(np.arange(subjects), each)


def test_intervals_hold_the_truth_where_rows_of_a_subject_go_together_and_nothing_is_alarmed() -> None:
    y, score, _ = people(0, 200_000, 1)
    truth = roc_auc_score(y, score)
    inside = naive = 0
    marks = Marks(fallen=0.0, off=0.0)  # whatever is beyond chance
    for seed in range(1, 201):
        y, score, whose = people(seed)
        found = worth(y, score, whose, probable=True, trained=Trained(float(truth), 0.0), marks=marks)
        assert found.alarms == []
        inside += found.auc.low <= truth <= found.auc.high
        alone = worth(y, score, np.arange(len(y)), probable=True).auc
        naive += alone.low <= truth <= alone.high
    assert inside >= 182  # of 200, of which 190 are to be awaited
    assert naive < 160  # rows taken for people: what the interval is there to prevent


@pytest.mark.parametrize(("bend", "said"), [
    (lambda p: p / 2, "over all"), (lambda p: np.clip(0.3 + (p - 0.3) * 3, 0.001, 0.999), "it is not calibrated from"),
    (lambda p: 1 - p, "ranks worse"),
])  # fmt: skip
def test_what_is_wrong_is_alarmed(bend: Any, said: str) -> None:
    draw = np.random.default_rng(8)
    right = np.clip(draw.normal(0.3, 0.08, 6000), 0.01, 0.99)
    y = draw.random(6000) < right
    found = worth(y, bend(right), np.arange(6000), probable=True, trained=Trained(0.61, 0.01))
    assert any(said in each for each in found.alarms), found.alarms
    assert worth(y, right, np.arange(6000), probable=True, trained=Trained(0.61, 0.01)).alarms == []


def test_so_few_outcomes_are_told_and_not_judged() -> None:
    draw = np.random.default_rng(9)
    p = draw.random(400) * 0.05
    y = np.zeros(400, dtype=bool)
    y[: FEW - 1] = True
    few = worth(y, 1 - p, np.arange(400), probable=True, trained=Trained(0.9, 0.0))
    assert few.alarms == []
    (note,) = few.notes
    assert note.startswith("9 outcomes say nothing of how good a model is")
    y[: 3 * FEW] = True
    more = worth(y, draw.random(400), np.arange(400), probable=True)
    assert "they do not show that it ranks better than chance" in more.notes
    known = next(each for each in more.notes if "know the AUC" in each)
    half = (more.auc.high - more.auc.low) / 2
    assert f"±{half:.3f}" in known
    needed = 30 * (half / 0.02) ** 2
    assert int(known.rpartition("about ")[2].replace(",", "")) == pytest.approx(needed, rel=0.06)
    perfect = worth(y, y * 0.5 + p, np.arange(400), probable=True)
    assert math.isnan(perfect.auc.low)
    assert "cannot be said" in perfect.notes[0]


class Known:
    """A log of a model's two versions, half of it in Parquet, and of what happened then."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        (folder / "rules").mkdir()
        (folder / "rules" / "r.yaml").write_text(RULES)
        told = {"rows": {"held_out": 500}, "held_out": {"auc": {"value": 0.8, "low": 0.77, "high": 0.83}}}
        metadata = {"arbiter.training": json.dumps(told)}
        for version, factor in ((1, 1.0), (2, 3.0)):
            onnx = times(factor, metadata=metadata, logistic=True)
            write_model(folder / "models" / "buys" / f"v{version}", "buys", version, onnx,
                        source="context.x", outputs=PROBABILITY, kind="propensity")  # fmt: skip
        self.draw = np.random.default_rng(11)
        counters = Counters()
        (folder / "models" / "buys" / "versions.yaml").write_text("live: v1\n")
        engine, admin = open_local(folder / "rules", folder / "models", folder / "data", counters=counters)
        self.began = int(time.time() * 1e6) - 9 * WEEK
        engine.clock = lambda: self.began
        for number in range(200):
            engine.store.update(Update(f"s{number}", {})).result()
            engine.store.refer(f"s{number}").result()
        options = DecisionLog(directory=str(self.log), purpose="", flush_seconds=0.02, spare_mib=0)
        for half in range(2):
            recorder = open_recorder(options, engine)
            service = DecisionService(engine, Limits(), counters, recorder)
            for number in range(1500):
                self.decide(service, f"s{self.draw.integers(200)}", skip=number % 5 == 0)
            if half:
                engine.clock = lambda: int(time.time() * 1e6)
                for _ in range(50):
                    self.decide(service, "s1", skip=False)
            recorder.close()
            if not half:
                logfiles.convert(self.log, 0)
                (folder / "models" / "buys" / "versions.yaml").write_text("live: v2\n")
                admin.reload()
        engine.store.close()
        self.rows = list(logfiles.read_log(self.log))
        happened = [each for head, row in self.rows for each in self.happened(head, row)]
        pq.write_table(pa.Table.from_pylist(happened, HAPPENED), self.log / "outcomes-1-x.parquet")
        self.within = {
            each["decision"] for each in happened
            if each["name"] == "bought" and 0 <= (each["at"] - each["decided_at"]).total_seconds() * 1e6 < WEEK
        }  # fmt: skip
        self.shown = {each["decision"] for each in happened if each["kind"] == "exposure"}

    def decide(self, service: DecisionService, who: str, *, skip: bool) -> None:
        context = {"x": Value(double_value=float(self.draw.normal(-1, 1))), "skip": Value(bool_value=skip)}
        point = "side" if self.draw.random() < 0.2 else "home"
        asked = decision_pb2.DecideRequest(subject_id=who, decision=point, context=context)
        answered(service, asked.SerializeToString())

    def happened(self, head: Any, row: Any) -> list[dict[str, Any]]:
        decided = from_micros(row.at)
        about = {"decision": row.id, "decided_at": decided, "recorded": decided, "subject": row.subject,
                 "point": head.point, "snapshot": head.snapshot, "rule": ""}  # fmt: skip
        x = dict(zip((name for _, name, _ in head.reads), row.values or (), strict=True))["x"]
        found: list[tuple[str, str | None, int]] = []
        if self.draw.random() < 0.5:
            found.append(("exposure", None, 1))
        if self.draw.random() < 1 / (1 + math.exp(-x)):
            found += [("outcome", "bought", int(self.draw.choice([0, WEEK - 1]))), ("outcome", "bought", HOUR)]
        elif self.draw.random() < 0.3:
            found.append(("outcome", "bought", int(self.draw.choice([-1, WEEK]))))
        return [
            {**about, "kind": kind, "id": f"{row.id}-{n}", "name": name, "at": from_micros(row.at + late), "value": 1.0}
            for n, (kind, name, late) in enumerate(found)
        ]

    def report(self, *options: str) -> tuple[int, str]:
        words = ["model", "report", "buys", "--log", str(self.log), "--data", str(self.folder / "data"), *options]
        done = CliRunner().invoke(app, words)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            return 2, str(done.exception)
        return done.exit_code, done.output


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return Known(tmp_path_factory.mktemp("worth"))


def test_each_version_is_judged_by_the_decisions_that_asked_it(known: Known, tmp_path: Path) -> None:
    code, said = known.report("--outcome", "bought", "--within", "7d", "--json", "--html", str(tmp_path / "page.html"))
    told = json.loads(said)
    mine = [(head, row) for head, row in known.rows if row.at < known.began + WEEK]
    read = [dict(zip((name for _, name, _ in head.reads), row.values or (), strict=True)) for head, row in mine]
    asked = [(row, each["x"]) for (head, row), each in zip(mine, read, strict=True)
             if head.point == "side" or not each["skip"]]  # fmt: skip
    assert told["left_out"] == {"model not asked": len(mine) - len(asked), "too young": 50}
    before = {row.id for _, row in known.rows[:1500]}
    first, second = ([each for each in asked if (each[0].id in before) == old] for old in (True, False))
    for version, part, factor in ((1, first, 1.0), (2, second, 3.0)):
        each = told["versions"][version - 1]
        found = each["worth"]
        y = np.array([row.id in known.within for row, _ in part])
        p = 1 / (1 + np.exp(-factor * np.array([x for _, x in part])))
        assert (each["version"], each["output"], found["at_training"]) == (version, "probability", 0.8)
        assert (found["decisions"], found["happened"]) == (len(part), int(y.sum()))
        assert found["subjects"] == len({row.subject for row, _ in part})
        assert found["auc"]["value"] == pytest.approx(roc_auc_score(y, p), abs=1e-4)
        assert found["log_loss"]["value"] == pytest.approx(log_loss(y, p), abs=1e-4)
        assert found["brier"]["value"] == pytest.approx(brier_score_loss(y, p), abs=1e-4)
    # The second version says of most that it is all but sure, either way.
    assert code == 1
    assert told["alarms"]
    assert all(each.startswith("version 2: it is not calibrated") for each in told["alarms"])
    page = (tmp_path / "page.html").read_text()
    assert "Version 2, `probability`: bought" in page
    assert page.count("what happened, by what was said") == 2


def test_the_terminal_says_it_and_marks_say_what_is_an_alarm(known: Known) -> None:
    code, said = known.report("--outcome", "bought", "--within", "7d", "--off", "1e9")
    assert code == 0
    assert "2 versions judged by `bought`: 0 alarms" in said
    assert "0.8000 at training" in said
    assert "a loss of less than that cannot be seen" in said
    assert "too young" not in known.report("--outcome", "bought")[1]  # whatever happened until now counts


def test_the_figures_are_metrics_that_prometheus_can_collect(known: Known, tmp_path: Path) -> None:
    file = tmp_path / "buys.prom"
    told = json.loads(known.report("--outcome", "bought", "--within", "7d", "--json", "--metrics", str(file))[1])
    found = {
        (sample.name, sample.labels["arbiter_model_version"]): sample.value
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
        if sample.labels["arbiter_model_name"] == "buys" and sample.labels["arbiter_outcome"] == "bought"
    }
    for each in told["versions"]:
        worth, version = each["worth"], str(each["version"])
        assert found["arbiter_model_auc", version] == worth["auc"]["value"]
        assert found["arbiter_model_auc_low", version] == worth["auc"]["low"]
        assert found["arbiter_model_log_loss", version] == worth["log_loss"]["value"]
        assert found["arbiter_model_outcome_alarms", version] == len(worth["alarms"])
        assert found["arbiter_model_happened", version] == worth["happened"] / worth["decisions"]
        assert found["arbiter_model_judged_seconds", version] == pytest.approx(known.began / 1e6)


def test_some_decisions_alone_can_be_asked_about(known: Known) -> None:
    told = json.loads(known.report("--outcome", "bought", "--rule", "likely", "--shown", "--json")[1])
    delivered = [row for _, row in known.rows if any(won.rule == "likely" for won in row.won)]
    assert sum(each["worth"]["decisions"] for each in told["versions"]) == sum(
        row.id in known.shown for row in delivered
    )
    assert told["left_out"]["not shown"] == sum(row.id not in known.shown for row in delivered)
    told = json.loads(known.report("--outcome", "bought", "--decision", "side", "--json")[1])
    assert sum(each["worth"]["decisions"] for each in told["versions"]) == sum(
        head.point == "side" for head, _ in known.rows
    )


@pytest.mark.parametrize("options", [["--within", "7d"], ["--shown"], ["--metrics", "x.prom"], ["--rule", "likely"]])
def test_what_asks_about_outcomes_is_not_taken_without_a_log(options: list[str]) -> None:
    done = CliRunner().invoke(app, ["model", "report", "buys", *options])
    assert done.exit_code == 2
    assert "say which --log" in " ".join(done.output.split())


def test_what_is_asked_wrongly_is_said(known: Known) -> None:
    for options, said in (
        (("--outcome", "bougth"), "did you mean `bought`"),
        ((), "--log LOG --outcome NAME"),
        (("--outcome", "bought", "--every", "30d"), "asks about profiles, and --log about decisions"),
        (("--outcome", "bought", "--within", "soon"), "is no duration"),
        (("--outcome", "bought", "--output", "probabilty"), "did you mean `probability`"),
        (
            ("--outcome", "bought", "--decision", "away"),
            "no decision of the log tells of a model `buys`: there is none",
        ),
    ):
        code, output = known.report(*options)
        assert code
        assert said in " ".join(output.split())
