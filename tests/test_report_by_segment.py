"""What a report says by segment, of segments over time and of bounds is what one finds row by row."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from arbiter.cli.app import app
from arbiter.config.limits import Limits
from arbiter.config.options import DecisionLog
from arbiter.learning.effects import proportions
from arbiter.learning.report.guards import guarded
from arbiter.learning.report.terms import Effect, Guard, Trial
from arbiter.profiles.store import Update
from arbiter.runtime import logfiles
from arbiter.runtime.local import open_local
from arbiter.runtime.recording import open_recorder
from arbiter.server.decisions import DecisionService
from arbiter.telemetry.counters import Counters
from arbiter.types import from_micros
from arbiter.v1 import decision_pb2
from tests.answering import answered

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.learning.logged import Row

RULES = """\
schema: {profile: {level: int}}
actions: {show: {params: {text: string}}}
segments: {high: profile.level > 4, absent: profile.level > 99}
experiments: {tone: {decision: home, variants: {control: 1, loud: 1}}}
decisions:
  home: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
  side: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
rules:
  - {id: loud, decision: home, priority: 9, when: 'experiments.tone == "loud"', then: {action: show, params: {text: l}}}
  - {id: high, decision: home, priority: 5, when: segments.high, then: {action: show, params: {text: h}}}
  - {id: any, decision: side, when: "true", then: {action: show, params: {text: x}}}
"""
DAY = 86_400_000_000
NOW = 20_000 * DAY + DAY // 3
PEOPLE, DAYS = 150, 5


class Known:
    """Five days, in which people go up and down."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.now = folder, folder / "log", NOW
        (folder / "rules").mkdir()
        (folder / "rules" / "r.yaml").write_text(RULES)
        counters = Counters()
        engine, _ = open_local(folder / "rules", None, folder / "data", counters=counters)
        engine.clock = lambda: self.now
        engine.store.use_clock(lambda: self.now)
        recorder = open_recorder(
            DecisionLog(directory=str(self.log), losers=1.0, flush_seconds=0.02, spare_mib=0), engine
        )
        service = DecisionService(engine, Limits(), counters, recorder)
        chance = random.Random(5)  # noqa: S311 - no secret
        for number in range(PEOPLE):
            engine.store.refer(f"s{number}").result()
        for day in range(DAYS):
            self.now = NOW + day * DAY
            writes = [
                engine.store.update(Update(f"s{number}", {"level": chance.randrange(10)}))
                for number in range(PEOPLE) if not day or chance.random() < 0.3
            ]  # fmt: skip
            for write in writes:
                write.result()
            for _ in range(160):
                self.now += 1000
                asked = decision_pb2.DecideRequest(subject_id=f"s{chance.randrange(PEOPLE)}", decision="home")
                answered(service, asked.SerializeToString())
        answered(service, decision_pb2.DecideRequest(subject_id="s1", decision="side").SerializeToString())
        recorder.close()
        engine.store.close()
        rows = sorted(logfiles.read_log(self.log), key=lambda each: each[1].at)
        self.rows: list[Row] = [row for head, row in rows if head.point == "home"]
        self.happened = [
            {"kind": kind, "id": f"{number}{kind}", "decision": row.id, "at": from_micros(row.at + 1),
             "decided_at": from_micros(row.at), "name": name, "value": None, "rule": "", "point": "home"}
            for number, row in enumerate(self.rows)
            for kind, name in (("exposure", None), ("outcome", "bought"))
            if chance.random() < (0.9 if kind == "exposure" else 0.2 if row.won[0].rule == "loud" else 0.7)
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(self.happened), self.log / "outcomes-1-x.parquet")

    def report(self, *options: str) -> tuple[int, dict[str, Any]]:
        done = self.run("--segments", "--json", *options)
        assert done.stdout, (done.output, done.exception)
        return done.exit_code, json.loads(done.stdout)

    def run(self, *options: str) -> Any:
        return CliRunner().invoke(app, ["report", str(self.log), "--data", str(self.folder / "data"), *options])


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return Known(tmp_path_factory.mktemp("segments"))


@pytest.fixture(scope="module")
def told(known: Known) -> dict[str, Any]:
    return known.report()[1]


def high(row: Row) -> bool:
    assert row.values is not None
    (level,) = row.values
    return bool(level > 4)


def test_segments_have_their_sizes_and_flows_by_day(known: Known, told: dict[str, Any]) -> None:
    (absent, found) = told["segments"]
    assert (absent["segment"], found["segment"]) == ("absent", "high")
    days: list[dict[str, bool]] = [{} for _ in range(DAYS)]
    for row in known.rows:
        days[(row.at - NOW) // DAY][row.subject] = high(row)
    assert found["spans"] == [20_000 * DAY + day * DAY for day in range(DAYS)]
    assert found["known"] == absent["known"] == [len(day) for day in days]
    assert found["inside"] == [sum(day.values()) for day in days]
    moves = [
        Counter((day[who], after[who]) for who in day.keys() & after.keys()) for day, after in itertools.pairwise(days)
    ]
    for name, move in (("stayed", (True, True)), ("left", (True, False)), ("came", (False, True))):
        assert found[name] == [each[move] for each in moves]
    assert all(sum(found[name]) > 5 for name in ("stayed", "left", "came"))
    whole = sum(moves, Counter())
    assert found["stays"] == pytest.approx(whole[True, True] / (whole[True, True] + whole[True, False]))
    assert found["comes"] == pytest.approx(whole[False, True] / (whole[False, True] + whole[False, False]))
    assert (absent["stays"], absent["comes"]) == (None, 0)


def test_spans_are_as_long_as_is_asked(known: Known) -> None:
    _, found = known.report("--every", "28d")
    (_, each) = found["segments"]
    assert len(each["spans"]) == 1
    assert each["stayed"] == []
    last = {row.subject: high(row) for row in known.rows}
    assert each["inside"] == [sum(last.values())]
    assert "nobody was seen twice" in known.run("--segments", "--every", "28d").stdout


def test_rules_are_counted_by_segment(known: Known, told: dict[str, Any]) -> None:
    inside = [row for row in known.rows if high(row)]
    bought, shown = (
        {each["decision"] for each in known.happened if each["kind"] == kind} for kind in ("outcome", "exposure")
    )
    found = {each["rule"]: each for each in told["rules_by_segment"]}
    assert set(found) == {"loud", "high"}
    for rule, each in found.items():
        own = [row for row in inside if row.won[0].rule == rule]
        looked = [row for row in inside if row.losers is not None]
        assert (each["point"], each["segment"], each["won"]) == ("home", "high", len(own))
        assert each["subjects"] == len({row.subject for row in own})
        assert each["shown"] == len({row.id for row in own} & shown)
        assert each["converted"] == {"bought": len({row.id for row in own} & bought)}
        assert each["looked"] == len(looked)
        eligible = [r for r in looked if rule in {r.won[0].rule, *(lost.rule for lost in r.losers or ())}]
        assert each["eligible"] == len(eligible)


def test_effects_are_of_those_who_were_in_the_segment_when_it_first_mattered(
    known: Known, told: dict[str, Any]
) -> None:
    (trial,) = told["experiments"]
    first: dict[str, tuple[str, bool]] = {}
    times: dict[str, int] = defaultdict(int)
    bought = {each["decision"] for each in known.happened if each["kind"] == "outcome"}
    for row in known.rows:
        if "tone" in row.exposed:
            first.setdefault(row.subject, (row.variants["tone"], high(row)))
            times[row.subject] += row.id in bought
    (part,) = trial["parts"]
    units = Counter(variant for variant, inside in first.values() if inside)
    assert (part["segment"], part["units"]) == ("high", units)
    assert units.total() < sum(trial["units"].values())
    (effect,) = (each["found"] for each in part["effects"] if each["take"] == "any")
    arms = [[times[who] > 0 for who, own in first.items() if own == (arm, True)] for arm in ("loud", "control")]
    expected = proportions(sum(arms[0]), len(arms[0]), sum(arms[1]), len(arms[1]))
    assert effect["difference"] == pytest.approx(expected.difference)
    assert (effect["low"], effect["high"]) == pytest.approx((expected.low, expected.high))


def test_without_being_asked_nothing_is_told_of_segments(known: Known) -> None:
    found = json.loads(known.run("--json").stdout)
    assert (found["segments"], found["rules_by_segment"], found["experiments"][0]["parts"]) == ([], [], [])


def test_a_bound_is_broken_when_the_whole_interval_lies_beyond_it(known: Known, told: dict[str, Any]) -> None:
    (effect,) = (each["found"] for each in told["experiments"][0]["effects"] if each["take"] == "any")
    low, top = effect["low"], effect["high"]
    assert top < 0  # loud sells less, by far
    states = {f">={top + 1e-9}": "broke", f">={low}": "kept", f">={(low + top) / 2}": "open",
              f"<={low - 1e-9}": "broke", f"<={top}": "kept", f"<={(low + top) / 2}": "open"}  # fmt: skip
    for bound, state in states.items():
        code, found = known.report("--guard", f"bought{bound}")
        (guard,) = found["guards"]
        assert (guard["experiment"], guard["variant"], guard["state"]) == ("tone", "loud", state)
        assert code == (state == "broke")
    _, found = known.report("--guard", "sold >= 0", "--guard", "bought:count>=-9", "--guard", "bought:sum>=0")
    assert [each["state"] for each in found["guards"]] == ["open", "kept", "open"]
    for wrong in ("bought", "bought>=much", ">=1", "bought:most>=x"):
        assert known.run("--guard", wrong).exit_code == 2


def test_bounds_are_said_to_be_broken_as_seldom_as_the_level_promises() -> None:
    """Of variants that lie on their bound: by Newcombe's interval, one in forty."""
    chance = random.Random(3)  # noqa: S311 - no secret
    broke = 0
    for _ in range(800):
        arm, control = (sum(chance.random() < share for _ in range(150)) for share in (0.35, 0.4))
        effect = Effect("bought", "any", "loud", proportions(arm, 150, control, 150))
        units = {"control": 150, "loud": 150}
        trial = Trial("tone", "subject", "control", units, 300, 0, 0, None, [effect], [])
        (found,) = guarded([trial], [Guard("bought", "any", -0.05)])
        broke += found.state == "broke"
    assert 5 <= broke <= 40  # 20 are expected


def test_the_page_and_the_terminal_show_segments_and_bounds(known: Known, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = known.run("--segments", "--guard", "bought>=-0.01", "--html", str(page))
    assert done.exit_code == 1
    assert "tone.loud\tBROKE" in done.stdout
    assert "tone by segment" in done.stdout
    text = page.read_text("utf-8")
    for said in ("Segment high", "Rules by segment", "tone by segment", "tone.loud broke bought"):
        assert said in text


def test_segments_of_a_snapshot_that_is_gone_cannot_be_told(known: Known, tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    done = CliRunner().invoke(app, ["report", str(known.log), "--segments", "--data", str(tmp_path)])
    assert done.exit_code
    assert "newest snapshot" in done.output
