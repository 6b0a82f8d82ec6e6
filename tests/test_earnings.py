"""What other rules would have earned, estimated from a log in which chance had a say, against what is true."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from arbiter.cli.app import app
from arbiter.cli.offline import load
from arbiter.config.limits import Limits
from arbiter.config.options import DecisionLog
from arbiter.errors import StoreError
from arbiter.profiles.store import Update
from arbiter.runtime import logfiles
from arbiter.runtime.archive import Archive
from arbiter.runtime.chances import chances_then
from arbiter.runtime.earning import NOTHING, SAME, UNCHANGED, Earning
from arbiter.runtime.local import open_local
from arbiter.runtime.recording import open_recorder
from arbiter.runtime.replaying import Again, OfThen, delivered
from arbiter.server.decisions import DecisionService
from arbiter.telemetry.counters import Counters
from arbiter.types import from_micros
from arbiter.v1 import decision_pb2
from tests.answering import answered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arbiter.learning.logged import Head, Row
    from arbiter.runtime.earning import Earned

RULES = """\
schema: {profile: {level: int, team: string}}
actions: {show: {params: {text: string}}}
experiments:
  tone: {decision: home, variants: {control: 3, loud: 1, twin: 1}, forced: {control: [s0]}}
  one: {decision: both, variants: {a: 1, b: 1}}
  two: {decision: both, variants: {a: 1, b: 2}, when: profile.level != 5}
  team: {decision: team, unit: profile.team, variants: {old: 1, new: 1}}
decisions:
  home: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
  both: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
  team: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
rules:
  - {id: loud, decision: home, priority: 9, when: 'experiments.tone == "loud"', then: {action: show, params: {text: l}}}
  - {id: high, decision: home, priority: 5, when: profile.level > 6, then: {action: show, params: {text: h}}}
  - {id: special, decision: both, priority: 1, when: ['experiments.one == "a"', 'experiments.two == "a"'],
     then: {action: show, params: {text: s}}}
  - {id: new, decision: team, when: ['experiments.team == "new"'], then: {action: show, params: {text: n}}}
"""
# Loud for those on whom it works, and for nobody else.
CHOSEN = RULES.replace("""'experiments.tone == "loud"'""", "profile.level > 3")
RATHER = RULES.replace("control: 3, loud: 1", "control: 1, loud: 3")
STRANGE = CHOSEN.replace("{text: l}", "{text: unheard}")
BESIDE = RULES.replace("{text: h}", "{text: unheard}")
SPECIAL = RULES.replace("""['experiments.one == "a"', 'experiments.two == "a"']""", '["true"]')
TEAMS = RULES.replace("""['experiments.team == "new"']""", '["true"]')
PEOPLE = 400
DAY = 86_400_000_000


def worth(level: int, rule: str) -> float:
    """How likely somebody buys, who was delivered that."""
    return (0.7 if level > 3 else 0.05) if rule == "loud" else 0.3


class Known:
    """A log, with outcomes of known chances."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        rules = self.rules(RULES)
        counters = Counters()
        engine, _ = open_local(rules, None, folder / "data", counters=counters)
        recorder = open_recorder(
            DecisionLog(directory=str(self.log), losers=0.0, flush_seconds=0.02, spare_mib=0), engine
        )
        service = DecisionService(engine, Limits(), counters, recorder)
        for number in range(PEOPLE):
            engine.store.update(Update(f"s{number}", {"level": number % 10, "team": f"t{number % 37}"})).result()
            engine.store.refer(f"s{number}").result()
        for number in range(PEOPLE):
            for _ in range(1 + number % 3):
                self._ask(service, number, "home")
            self._ask(service, number, "both")
            self._ask(service, number, "team")
        self._ask(service, 1, "both", "home")
        recorder.close()
        logfiles.convert(self.log, 0)
        engine.store.close()
        self.rows: list[tuple[Head, Row]] = list(logfiles.read_log(self.log))
        self.archive = Archive(folder / "data" / "snapshots")
        pq.write_table(pa.Table.from_pylist(list(self._happened())), self.log / "outcomes-1-x.parquet")

    def _ask(self, service: DecisionService, number: int, *points: str) -> None:
        asked = decision_pb2.DecideRequest(subject_id=f"s{number}")
        if len(points) == 1:
            asked.decision = points[0]
        else:
            asked.decisions.extend(points)
        answered(service, asked.SerializeToString())

    def rules(self, text: str) -> Path:
        folder = self.folder / f"rules-{abs(hash(text))}"
        folder.mkdir(exist_ok=True)
        (folder / "r.yaml").write_text(text)
        return folder

    def _happened(self) -> Iterator[dict[str, Any]]:
        chance = random.Random(11)  # noqa: S311 - no secret
        for number, (_, row) in enumerate(self.rows):
            common = {"decision": row.id, "decided_at": from_micros(row.at), "kind": "outcome", "id": str(number)}
            bought = {**common, "name": "bought", "at": from_micros(row.at + DAY), "value": 2.5}
            if chance.random() < worth(level_of(row), row.won[0].rule):
                yield from [bought] * chance.choice([1, 2])
            yield {**bought, "at": from_micros(row.at + 9 * DAY), "value": 1000.0}
            yield {**bought, "at": from_micros(row.at - 1)}
            yield {**common, "kind": "exposure", "name": None, "at": from_micros(row.at), "value": None}

    def replay(self, rules: str, *options: str) -> dict[str, Any]:
        done = self.run(rules, "--json", "--outcome", "bought", "--within", "2d", *options)
        assert done.exit_code == 0, (done.output, done.exception)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def run(self, rules: str, *options: str) -> Any:
        data = str(self.folder / "data")
        given = ("replay", str(self.log), "--rules", str(self.rules(rules)), "--data", data, *options)
        return CliRunner().invoke(app, given)


def level_of(row: Row) -> int:
    """What the row says of the level: home reads it, and the experiments of other points, or nothing does."""
    return next((value for value in row.values or () if isinstance(value, int)), 0)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return Known(tmp_path_factory.mktemp("earnings"))


def at(found: dict[str, Any], point: str) -> dict[str, Any]:
    return next(each for each in found["earned"] if each["point"] == point)


def truth(known: Known, rule: Callable[[Row], dict[str, float]]) -> float:
    """What the judged policy is worth at home, that gives each rule with these chances; without whom it was forced."""
    rows = [row for head, row in known.rows if head.point == "home" and not row.place]
    return float(np.mean([sum(odds * worth(level_of(row), each) for each, odds in rule(row).items()) for row in rows]))


def chosen(row: Row) -> dict[str, float]:
    return {"loud": 1.0} if level_of(row) > 3 else {"": 1.0}


def rather(row: Row) -> dict[str, float]:
    other = "high" if level_of(row) > 6 else ""
    return {"loud": 0.6, other: 0.4}


@pytest.mark.parametrize(("rules", "policy"), [(CHOSEN, chosen), (RATHER, rather)], ids=["rules", "weights"])
def test_what_other_rules_would_have_earned_is_what_they_are_worth(
    known: Known, rules: str, policy: Callable[[Row], dict[str, float]]
) -> None:
    found = at(known.replay(rules, "--level", "0.99"), "home")
    assert {each["way"] for each in found["estimates"]} == {"inverse_propensity", "self_normalized", "doubly_robust"}
    assert found["why"] == ""
    assert found["weight"] == pytest.approx(1, abs=0.2)
    value = truth(known, policy)
    for each in found["estimates"]:
        assert each["low"] < value < each["high"]
        assert each["high"] - each["low"] < 0.4
        assert each["gain"] == pytest.approx(each["value"] - found["mean"])
        assert each["effective"] < found["units"] <= PEOPLE
    if rules is CHOSEN:  # which earns more than what was done, and this log is enough to know
        assert all(each["gain_low"] > 0 for each in found["estimates"])


def test_rules_that_do_the_same_earn_the_same(known: Known) -> None:
    found = known.replay(RULES)
    assert [each["point"] for each in found["earned"]] == ["both", "home", "team"]
    assert all((each["unsupported"], each["estimates"], each["why"]) == (0, [], SAME) for each in found["earned"])
    assert "it would have earned the same" in known.run(RULES, "--outcome", "bought").stdout
    assert found["not_estimated"] == {"later on a page": 1}


def test_outcomes_count_in_time_and_by_their_values(known: Known) -> None:
    earned = at(known.replay(RULES), "home")["mean"]
    rows = {row.id for head, row in known.rows if head.point == "home" and not row.place}
    table = pq.read_table(known.log / "outcomes-1-x.parquet").to_pylist()
    bought = [each for each in table if each["value"] == 2.5 and each["at"] > each["decided_at"]]
    assert earned == pytest.approx(len({each["decision"] for each in bought} & rows) / len(rows))
    worth_it = at(known.replay(RULES, "--value"), "home")["mean"]
    times = sum(each["decision"] in rows for each in bought) / len(rows)
    assert worth_it == pytest.approx(2.5 * times)
    for value, mean in (("any", earned), ("count", times), ("amount", worth_it)):
        metric = f"metrics: {{sold: {{outcome: bought, within: 2d, value: {value}}}}}\n{RULES}"
        found = json.loads(known.run(metric, "--json", "--metric", "sold").stdout)
        assert at(found, "home")["mean"] == pytest.approx(mean)


def test_what_was_never_drawn_has_no_estimate_and_that_is_said(known: Known) -> None:
    rows = [row for head, row in known.rows if head.point == "home" and not row.place]
    found = at(known.replay(STRANGE), "home")
    assert found["unsupported"] == sum(level_of(row) > 3 for row in rows)
    for each in found["estimates"]:  # of the others, of which it is known what comes of the default
        assert each["rows"] == len(rows) - found["unsupported"]
        assert each["low"] < worth(0, "") < each["high"]
    found = at(known.replay(BESIDE), "home")
    assert found["unsupported"] == sum(level_of(row) > 6 for row in rows)
    assert (found["estimates"], found["why"]) == ([], UNCHANGED)
    everywhere = RULES.replace("""'experiments.tone == "loud"'""", '["true"]').replace("{text: l}", "{text: unheard}")
    found = at(known.replay(everywhere), "home")
    assert (found["unsupported"], found["estimates"], found["why"]) == (found["decisions"], [], NOTHING)
    assert "NO ESTIMATE" in known.run(everywhere, "--outcome", "bought").stdout


def test_experiments_that_hang_on_each_other_are_drawn_together(known: Known) -> None:
    """Who got the default has it for three sets of variants of four, though each experiment alone may not matter."""
    past = Again(known.archive.read(known.rows[0][0].snapshot, {}))
    seen = set()
    for head, row in known.rows:
        if head.point == "both" and not row.page:
            then, forced = chances_then(past, head, row, past.seen(head, row), {})
            assert forced == ()
            # Of level 5 nobody is in the second experiment, which the rule asks for.
            special = 0.0 if row.variants["two"] == "" else 1 / 2 * 1 / 3
            expected = special if row.won[0].rule == "special" else 1 - special
            assert then.of(delivered(row.won), {}) == pytest.approx(expected)
            assert sum(each.odds for each in then.courses) == pytest.approx(1)
            seen.add((row.won[0].rule, len(row.exposed), round(row.won[0].propensity, 3)))
    # What the row says by itself is the product of the shares, which is another figure where they hang together.
    assert {("special", 2, 0.167), ("", 1, 0.5), ("", 1, 0.667), ("", 0, 1.0)} == seen
    found = at(known.replay(SPECIAL), "both")
    assert found["unsupported"] == PEOPLE // 10
    assert found["weight"] == pytest.approx(1, abs=0.35)


def test_what_a_variant_was_forced_for_is_no_chance(known: Known) -> None:
    past = Again(known.archive.read(known.rows[0][0].snapshot, {}))
    (forced,) = [(h, r) for h, r in known.rows if h.point == "home" and not r.page and not r.exposed]
    then, names = chances_then(past, *forced, past.seen(*forced), {})
    assert names == ("tone",)
    assert [each.odds for each in then.courses] == [1.0]
    drawn = [row for head, row in known.rows if head.point == "home" and row.exposed]
    assert {round(row.won[0].propensity, 6) for row in drawn} == {0.2, 0.8}


def test_units_are_what_chance_assigned(known: Known) -> None:
    assert at(known.replay(TEAMS), "team")["units"] == 37
    assert at(known.replay(TEAMS), "home")["units"] == PEOPLE


def test_without_the_snapshot_of_then_the_log_says_the_propensity(known: Known) -> None:
    def gone(digest: str) -> Any:
        raise StoreError(digest)

    snapshot, _ = load(known.rules(CHOSEN), None)
    assert snapshot is not None
    candidate = Again(snapshot)
    results: list[list[Earned]] = []
    for opened in (gone, lambda digest: known.archive.read(digest, {})):
        earning = Earning(OfThen(opened), {row.id: 1.0 for _, row in known.rows[::3]}, 0.95)
        for head, row in known.rows:
            if head.point == "home":
                earning.add(head, row, candidate, candidate.view(head, row))
        results.append(earning.result())
    ((without,), (told,)) = results
    assert (without.assumed, told.assumed) == (told.decisions - 1, 0)  # one was forced
    assert without.unsupported == told.unsupported == 0
    for one, other in zip(without.estimates, told.estimates, strict=True):
        assert one.value == pytest.approx(other.value)


def test_what_is_asked_wrongly_is_said(known: Known) -> None:
    nobody = known.run(RULES, "--outcome", "sold")
    assert nobody.exit_code
    assert "there are bought" in nobody.output
    assert "no duration" in known.run(RULES, "--outcome", "bought", "--within", "soon").output
    unknown = known.run(RULES, "--metric", "sold")
    assert unknown.exit_code == 2
    assert "no metric" in unknown.output
    assert known.run(RULES, "--metric", "sold", "--outcome", "bought").exit_code == 2
    alone = CliRunner().invoke(app, ["replay", str(known.log), "--outcome", "bought"])
    assert alone.exit_code
    assert "--rules" in alone.output


def test_a_terminal_says_what_it_is_of(known: Known) -> None:
    said = known.run(CHOSEN, "--outcome", "bought", "--within", "2d").stdout
    assert "home: bought a decision" in said
    assert "doubly robust\t0." in said
    assert "1 in no estimate: later on a page" in said
