"""What a report says of a log is what one finds by going through its rows one by one."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from statistics import mean
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from typer.testing import CliRunner

from arbiter.cli.app import app
from arbiter.config.limits import Limits
from arbiter.config.options import DecisionLog
from arbiter.learning.columns import HAPPENED
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

    from arbiter.learning.logged import Head, Row

RULES = """\
schema: {profile: {team: string, level: int}}
actions: {show: {params: {text: string}}}
experiments:
  tone: {decision: home, variants: {control: 3, loud: 1}}
  team: {decision: side, unit: profile.team, variants: {control: 1, new: 1}, when: profile.level > 0}
decisions:
  home: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
  side: {slots: 2, order: [priority]}
rules:
  - {id: loud, decision: home, priority: 9, when: 'experiments.tone == "loud"', then: {action: show, params: {text: l}}}
  - {id: high, decision: home, priority: 5, when: profile.level > 3, then: {action: show, params: {text: h}}}
  - {id: hidden, decision: home, priority: 4, when: profile.level > 6, then: {action: show, params: {text: x}}}
  - {id: never, decision: home, priority: 3, when: profile.level > 99, then: {action: show, params: {text: x}}}
  - {id: new, decision: side, priority: 2, when: 'experiments.team == "new"', then: {action: show, params: {text: n}}}
  - {id: a, decision: side, priority: 1, when: profile.level > 1, then: {action: show, params: {text: a}}}
  - {id: b, decision: side, priority: 0, when: profile.level > 2, then: {action: show, params: {text: b}}}
"""
PEOPLE = 240
WEEK = 7 * 86_400_000_000


def reweighted(rules: str) -> str:
    return rules.replace("control: 3, loud: 1", "control: 1, loud: 1")


class Known:
    """A log of two snapshots with weights of their own, half of it in Parquet, with what came of its decisions."""

    rules = RULES

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        (folder / "rules").mkdir()
        (folder / "rules" / "r.yaml").write_text(self.rules)
        counters = Counters()
        engine, admin = open_local(folder / "rules", None, folder / "data", counters=counters)
        options = DecisionLog(directory=str(self.log), losers=1.0, flush_seconds=0.02, spare_mib=0)
        chance = random.Random(4)  # noqa: S311 - no secret
        people = [f"s{number}" for number in range(PEOPLE)]
        for number, who in enumerate(people):
            engine.store.update(Update(who, {"team": f"t{number % 30}", "level": chance.randrange(10)})).result()
            engine.store.refer(who).result()
        for half in range(2):
            recorder = open_recorder(options, engine)
            service = DecisionService(engine, Limits(), counters, recorder)
            for _ in range(600):
                # Of the second half there are people who were never seen in the first.
                who = people[min(chance.randrange(PEOPLE), chance.randrange(PEOPLE // (2 - half)))]
                asked = decision_pb2.DecideRequest(subject_id=who, decision=chance.choice(["home", "side"]))
                answered(service, asked.SerializeToString())
            recorder.close()
            if not half:
                logfiles.convert(self.log, 0)
                (folder / "rules" / "r.yaml").write_text(reweighted(self.rules))
                admin.reload()
        engine.store.close()
        self.rows: list[tuple[Head, Row]] = list(logfiles.read_log(self.log))
        self.happened = list(_happened(self.rows, chance))
        pq.write_table(pa.Table.from_pylist(self.happened, HAPPENED), self.log / "outcomes-1-x.parquet")

    def report(self, *options: str) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(app, ["report", str(self.log), "--json", *options])
        assert done.stdout, (done.output, done.exception)
        return done.exit_code, json.loads(done.stdout)

    def outcomes(self, name: str, within: int = WEEK) -> list[dict[str, Any]]:
        """Those of a name that came in time."""
        return [each for each in self.happened if each["name"] == name and each["late"] < within]


def _happened(rows: list[tuple[Head, Row]], chance: random.Random) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, (head, row) in enumerate(rows):
        rules = [won.rule for won in row.won]
        common = {"decision": row.id, "decided_at": from_micros(row.at), "subject": row.subject, "point": head.point,
                  "snapshot": head.snapshot, "recorded": from_micros(row.at)}  # fmt: skip
        told: list[tuple[str, str | None, float | None]] = [("exposure", None, None)] if chance.random() < 0.7 else []
        told += [("outcome", "bought", chance.random() * 9)] * (chance.randrange(3) if "loud" in rules else 1)
        told += [("outcome", "clicked", None)] * (chance.random() < 0.3)
        for kind, name, value in told:
            late = chance.choice([0, WEEK - 1, WEEK, -1]) if name else 5
            rule = "" if chance.random() < 0.5 else chance.choice(rules or [""])
            own = {"id": f"{number}-{len(found)}", "kind": kind, "name": name, "value": value, "rule": rule}
            never = WEEK * 99
            found.append({**common, **own, "at": from_micros(row.at + late), "late": never if late < 0 else late})
    stranger = {**found[0], "decision": "gone", "kind": "outcome", "name": "bought", "value": 1.0, "late": WEEK * 99}
    return [*found, stranger]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return Known(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def told(known: Known) -> dict[str, Any]:
    code, found = known.report("--data", str(known.folder / "data"), "--within", "7d")
    assert code == 0
    return found


def exposed(known: Known, experiment: str) -> list[tuple[Head, Row]]:
    return [(head, row) for head, row in known.rows if experiment in row.exposed]


def test_it_counts_what_there_is_in_files_and_in_what_waits(known: Known, told: dict[str, Any]) -> None:
    assert len(logfiles.files(known.log)) == 1
    assert told["decisions"] == len(known.rows) == 1200
    assert told["subjects"] == len({row.subject for _, row in known.rows})
    assert told["exposures"] == sum(each["kind"] == "exposure" for each in known.happened)
    assert told["outcomes"] == len(known.happened) - told["exposures"]
    assert told["unjoined"] == 1


def test_arms_are_compared_with_the_weights_of_the_snapshot_by_which_each_subject_came(
    known: Known, told: dict[str, Any]
) -> None:
    trial = next(each for each in told["experiments"] if each["name"] == "tone")
    first: dict[str, tuple[str, str]] = {}
    seen: dict[str, set[str]] = defaultdict(set)
    for head, row in sorted(exposed(known, "tone"), key=lambda each: each[1].at):
        first.setdefault(row.subject, (head.snapshot, row.variants["tone"]))
        seen[row.subject].add(row.variants["tone"])
    crossed = {who for who, variants in seen.items() if len(variants) > 1}
    assert crossed
    assert trial["crossed"] == len(crossed)
    assert trial["units"] == trial["ratio"]["counts"] == Counter(variant for _, variant in first.values())
    old, new = (known.rows[place][0].snapshot for place in (0, -1))
    statistic = 0.0
    for snapshot, share in ((old, 0.75), (new, 0.5)):
        arms = Counter(variant for own, variant in first.values() if own == snapshot)
        whole = arms.total()
        assert whole
        statistic += stats.chisquare([arms["control"], arms["loud"]], [whole * share, whole * (1 - share)]).statistic
    assert trial["ratio"]["statistic"] == pytest.approx(statistic)
    assert trial["ratio"]["p"] == pytest.approx(stats.chi2.sf(statistic, 2))
    assert trial["unchecked"] == 0


@pytest.mark.parametrize(("name", "unit"), [("tone", "subject"), ("team", "profile.team")])
def test_effects_add_up_what_a_unit_did_and_compare_those_who_came_by_the_same_weights(
    known: Known, told: dict[str, Any], name: str, unit: str
) -> None:
    trial = next(each for each in told["experiments"] if each["name"] == name)
    rows = sorted(exposed(known, name), key=lambda each: each[1].at)
    units = {row.id: row.subject if unit == "subject" else _team(head, row) for head, row in rows}
    first: dict[str, tuple[str, str]] = {}
    for head, row in rows:
        first.setdefault(units[row.id], (head.snapshot if name == "tone" else "", row.variants[name]))
    decisions = Counter(units.values())
    times: Counter[str] = Counter()
    values: dict[str, float] = defaultdict(float)
    for each in known.outcomes("bought"):
        if each["decision"] in units:
            times[units[each["decision"]]] += 1
            values[units[each["decision"]]] += each["value"]
    strata = sorted({stratum for stratum, _ in first.values()})
    assert len(strata) == {"tone": 2, "team": 1}[name]
    found = {each["take"]: each["found"] for each in trial["effects"] if each["outcome"] == "bought"}
    assert trial["by"] == unit
    assert trial["control"] == "control"
    for arm, place in (({"tone": "loud", "team": "new"}[name], "arm"), ("control", "control")):
        expected: dict[str, float] = defaultdict(float)
        for stratum in strata:
            own = [u for u, come in first.items() if come == (stratum, arm)]
            share = sum(come[0] == stratum for come in first.values()) / len(first)
            expected["any"] += share * mean(times[u] > 0 for u in own)
            expected["count"] += share * mean(times[u] for u in own)
            expected["sum"] += share * mean(values[u] for u in own)
            expected["each"] += share * sum(times[u] for u in own) / sum(decisions[u] for u in own)
        assert {take: each[place] for take, each in found.items()} == pytest.approx(dict(expected))
    if name == "team":
        new, control = ([values[u] for u, own in first.items() if own[1] == arm] for arm in ("new", "control"))
        low, high = stats.ttest_ind(new, control, equal_var=False).confidence_interval(0.95)
        assert (found["sum"]["low"], found["sum"]["high"]) == pytest.approx((low, high), rel=1e-6)
    assert {each["take"] for each in trial["effects"] if each["outcome"] == "clicked"} == {"any", "count", "each"}


def _team(head: Head, row: Row) -> str:
    assert row.values is not None
    return next(str(v) for (_, n, _), v in zip(head.reads, row.values, strict=True) if n == "team")


def test_rules_are_counted_by_who_was_looked_at_won_and_was_shown(known: Known, told: dict[str, Any]) -> None:
    assert any(row.losers for _, row in known.rows)
    for each in told["rules"]:
        own = [row for head, row in known.rows if head.point == each["point"]]
        won = {row.id: row.subject for row in own if each["rule"] in {w.rule for w in row.won}}
        looked = [row for row in own if row.losers is not None]
        lost = [x for row in looked for x in row.losers or () if x.rule == each["rule"]]
        mine = [h for h in known.happened if h["decision"] in won and h["rule"] in {"", each["rule"]}]
        assert (each["won"], each["subjects"]) == (len(won), len(set(won.values())))
        assert each["looked"] == len(looked)
        assert each["eligible"] == len(lost) + sum(row.id in won for row in looked)
        assert {(x["stage"], x["to"]): x["times"] for x in each["lost"]} == Counter((x.stage, x.lost_to) for x in lost)
        assert each["shown"] == len({h["decision"] for h in mine if h["kind"] == "exposure"})
        bought = {h["decision"] for h in mine if h["name"] == "bought" and h["late"] < WEEK}
        assert each["converted"].get("bought", 0) == len(bought)
    hidden = next(each for each in told["rules"] if each["rule"] == "hidden")
    assert hidden["won"] == 0
    assert {each["to"] for each in hidden["lost"]} == {"loud", "high"}


def test_rules_that_reach_no_one_and_people_who_get_everything_are_told(known: Known, told: dict[str, Any]) -> None:
    home, side = told["reach"]
    assert home["never"] == ["hidden", "never"]
    assert side["rules"] == 3
    got: dict[str, set[str]] = defaultdict(set)
    times: Counter[str] = Counter()
    for head, row in known.rows:
        if head.point == "side":
            got[row.subject] |= {w.rule for w in row.won if w.rule}
            times[row.subject] += len([w for w in row.won if w.rule])
    everything = Counter(map(len, got.values()))
    assert side["everything"] == everything[3]
    assert {int(n): count for n, count in side["different"].items() if int(n)} == {
        n: c for n, c in everything.items() if n
    }
    assert home["bare"] == len(
        {row.subject for head, row in known.rows if head.point == "home"}
        - {row.subject for head, row in known.rows if head.point == "home" and row.won[0].rule}
    )
    assert side["bare"] == sum(not own for own in got.values()) > 0
    most = sorted(times.values(), reverse=True)
    assert side["heaviest"] == pytest.approx(sum(most[: len(most) // 10]) / times.total())


def test_without_the_snapshots_of_then_it_says_what_it_could_not_check(known: Known) -> None:
    code, found = known.report("--data", str(known.folder / "nothing"))
    assert code == 0
    trial = next(each for each in found["experiments"] if each["name"] == "tone")
    assert trial["ratio"] is None
    assert trial["unchecked"] == sum(trial["units"].values())
    assert trial["effects"]


def test_arms_of_wrong_sizes_end_with_one(known: Known, tmp_path: Path) -> None:
    """The rows of most who are in one arm are lost, as they are where a client fails in it."""
    file = logfiles.files(known.log)[0]
    kept = [
        row for row in pq.read_table(file).to_pylist()
        if not any(e["exposed"] and e["variant"] == "control" for e in row["experiments"])
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(kept, pq.read_schema(file)), tmp_path / "decisions-1-x.parquet")
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--data", str(known.folder / "data")])
    assert done.exit_code == 1, done.output
    assert "do NOT have the sizes" in done.stdout


def test_the_page_needs_nothing_beside_it_and_escapes_what_is_not_ours(known: Known, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    known.report("--html", str(page), "--data", str(known.folder / "data"))
    text = page.read_text("utf-8")
    assert text.count("<svg") > 6
    assert not re.search(r"(?:src|href)=|https?:|<script", text)
    assert "Experiment tone" in text


def test_a_log_without_a_row_and_one_that_is_none_are_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (0, "The log holds no decision.\n")
    (tmp_path / "decisions-1-x.parquet").write_text("no Parquet")
    with pytest.raises(Exception, match="the log cannot be read"):
        CliRunner().invoke(app, ["report", str(tmp_path)], catch_exceptions=False)
    assert CliRunner().invoke(app, ["report", str(tmp_path), "--within", "soon"]).exit_code == 2
