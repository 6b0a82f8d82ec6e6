"""Whom a rule would reach: what is counted over a store is what deciding for each subject says."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.errors import NotFound
from arbiter.expr.evaluate import judge
from arbiter.learning.effects import wilson
from arbiter.profiles import records
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.ingesting import IngestEvents
from arbiter.profiles.store import Store, Update
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine
from arbiter.runtime.reaching import Reach
from arbiter.snapshot import Snapshot
from arbiter.types import ConsentState, Event, ExplainLevel, Request
from tests import forked
from tests.conftest import ROOT
from tests.test_engine import NOW, table_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arbiter.ruleset.rules import Rule
    from arbiter.runtime.audience import Audience

DAY = 86_400_000_000
PEOPLE = 160
# Where there are triggers the ids of subjects are kept, so that what is drawn by id can be compared one by one.
TRIGGER = "triggers: [{id: t, after: {event: nothing}, then: {set: {seen: true}}}]\n"
RULES = """\
schema:
  profile:
    country: string
    age: {type: double, purposes: [marketing]}
    x: double
    team: string
    account_id: string
    zone: string
    seen: bool
  account: {plan: string}
  context: {device: string}
  events: {visit: {}, nothing: {}}
subject: {time_zone: profile.zone, default_time_zone: UTC}
consent: {purposes: [marketing]}
features:
  visits_7d: {count: visit, window: 7d}
  since_visit: {since: visit, unit: d}
segments: {active: features.visits_7d >= 2, grown: segments.active && profile.age >= 30}
actions: {show: {params: {text: string, days: double}}}
experiments: {tone: {decision: home, traffic: 0.7, variants: {calm: 1, loud: 2}, when: profile.country != "FR"}}
groups: {drawn: {choose: thompson, metric: bought}}
metrics: {bought: {outcome: purchase, within: 7d}}
decisions:
  home: {slots: 2, order: [priority, value, recency], default: {action: show, params: {text: none, days: 0.0}}}
  side: {order: [priority]}
  lots: {order: [priority]}
rules:
  - {id: active, decision: home, priority: 9, group: one, value: features.since_visit,
     when: [segments.active, 'profile.country in ["DE", "CA"]'],
     then: {action: show, params: {text: active, days: "${features.since_visit}"}}}
  - {id: grown, decision: home, priority: 9, group: one, when: [segments.grown, profile.age < 60],
     then: {action: show, params: {text: grown, days: 1.0}}}
  - {id: scored, decision: home, priority: 8, when: ['profile.country != "FR"', models.score.s >= 10,
     'profile.team != "b"'], value: models.other.s, then: {action: show, params: {text: scored, days: 1.0}}}
  - {id: agreed, decision: home, priority: 7, requires_consent: [marketing], when: [profile.age > 20 || profile.x > 1],
     then: {action: show, params: {text: agreed, days: 1.0}}}
  - {id: loud, decision: home, priority: 7, when: ['experiments.tone == "loud"', features.visits_7d > 0],
     then: {action: show, params: {text: "${experiments.tone}", days: 4.0}}}
  - {id: few, decision: home, priority: 6, rollout: {percent: 40}, then: {action: show, params: {text: few, days: 2.0}}}
  - {id: again, decision: home, priority: 5, then: {action: show, params: {text: few, days: 2.0}}}
  - {id: days, decision: home, priority: 5, then: {action: show, params: {text: x, days: "${features.since_visit}"}}}
  - {id: over, decision: home, priority: 5, active: {from: 2020-01-01T00:00:00Z, until: 2021-01-01T00:00:00Z},
     then: {action: show, params: {text: over, days: 2.0}}}
  - {id: device, decision: home, priority: 4, when: ['context.device == "ios"'],
     then: {action: show, params: {text: device, days: 2.0}}}
  - {id: gold, decision: side, priority: 3, when: ['account.plan == "gold"'],
     then: {action: show, params: {text: gold, days: 3.0}}}
  - {id: teams, decision: side, priority: 2, rollout: {percent: 50, by: profile.team}, when: [profile.x >= 0],
     cap: {max: 1, per: 7d, count_on: exposure}, then: {action: show, params: {text: teams, days: 2.5}}}
  - {id: one, decision: lots, group: drawn, when: [profile.x < 3], then: {action: show, params: {text: a, days: 1.0}}}
  - {id: two, decision: lots, group: drawn, then: {action: show, params: {text: b, days: 1.0}}}
  - {id: three, decision: lots, group: drawn, when: [timestamp(profile.team) < now],
     then: {action: show, params: {text: c, days: 1.0}}}
"""
IDS = [line.group(1) for line in re.finditer(r"id: ([a-z]+), decision", RULES)]


class Stage:
    """A store with people in it, and an engine that decides for them."""

    def __init__(self, store: Store, rules: str) -> None:
        models = {name: table_model(name) for name in ("score", "other")}
        ruleset, found = load_ruleset({"a.yaml": rules.encode()}, {name: {"s": "double"} for name in models})
        assert ruleset is not None, [each.render() for each in found]
        self.store = store
        self.engine = Engine(store, clock=lambda: NOW)
        self.snapshot = Snapshot(ruleset, models)
        self.engine.activate(self.snapshot)

    def fill(self) -> None:
        chance = random.Random(3)  # noqa: S311 - no secret
        done: list[Any] = []
        for number in range(PEOPLE):
            whole = {
                "country": chance.choice(["DE", "FR", "CA"]), "age": chance.randrange(80),
                "x": chance.randrange(5), "team": chance.choice("abc"), "account_id": f"a{chance.randrange(9)}",
                "zone": "Europe/Berlin",
            }  # fmt: skip
            known = {name: value for name, value in whole.items() if chance.random() < 0.8}
            done.append(self.store.update(Update(f"s{number}", known)))
            visits = [NOW - chance.randrange(12 * DAY) for _ in range(chance.randrange(4))]
            events = [Event(f"{number}-{n}", f"s{number}", "visit", at) for n, at in enumerate(visits)]
            # With an event of a subject its id is kept.
            done.append(self.store.ingest([*events, Event(f"{number}", f"s{number}", "nothing", NOW - DAY)]))
            if chance.random() < 0.6:
                change = ConsentChange(f"s{number}", "marketing", ConsentState.GRANTED, "test", NOW - DAY)
                done.append(self.store.set_consent(change))
        done += [
            self.store.update(Update(account_id=f"a{n}", set={"plan": chance.choice(["gold", "free"])}))
            for n in range(9)
        ]
        done.append(self.store.link("guest", "s3"))
        key = self.store.keys.subject
        shown = Event("shown", "", "arbiter.exposure", NOW - DAY, {"rule": "teams"})
        for number in range(0, PEOPLE, 3):
            of = key(f"s{number}")
            entry = (of, records.seen_key(of, shown.id), shown, records.encode(shown), b"")
            done.append(self.store.write(IngestEvents([entry])))
        for each in done:
            each.result()

    def reach(self, rule: str, **more: Any) -> Audience:
        counted = Reach(self.engine, rule, more.pop("at", NOW), more.pop("context", {}), **more)
        while counted.step() is not None:
            pass
        return counted.result()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    path = tmp_path_factory.mktemp("audience") / "data" / "store"
    with Store.open(path, clock=lambda: NOW, map_size=1 << 28, background=False) as store:
        made = Stage(store, TRIGGER + RULES)
        made.fill()
        yield made


class Slow:
    """What deciding for each subject says, all rules of a decision point explained."""

    def __init__(self, stage: Stage, point: str, at: int, context: dict[str, Any]) -> None:
        models = sorted(stage.snapshot.models)
        requests = [Request(f"s{n}", (point,), at, context, explain=ExplainLevel.ALL) for n in range(PEOPLE)]
        self.symbols = stage.snapshot.symbols
        self.explained = [
            {each.rule_id: each for each in stage.engine.decide(request)[0].explanation} for request in requests
        ]
        self.views = [stage.engine.view(request, stage.engine.current(), models)[0] for request in requests]

    def of(self, rule: Rule) -> tuple[Counter[str], Counter[str], list[Counter[bool | None]]]:
        """What became of a rule, whom it is lost to, and its lines one by one."""
        outcomes = [explained[rule.id] for explained in self.explained]
        lines = [Counter[bool | None]() for _ in rule.when]
        for view in self.views:
            if set(rule.requires_consent) <= view.consent.granted:
                for line, expression in zip(lines, rule.when, strict=True):
                    verdict = judge(expression.root, view, self.symbols).value
                    line[verdict] += 1
                    if verdict is False:
                        break
        lost = Counter(each.lost_to for each in outcomes if each.lost_to)
        return Counter(each.reason.name.lower() for each in outcomes), lost, lines


_CASES: tuple[tuple[int, dict[str, Any]], ...] = ((NOW, {"device": "ios"}), (NOW + 3 * DAY, {}))


@pytest.fixture(scope="module")
def asked(stage: Stage) -> dict[tuple[str, int], Slow]:
    """What deciding says at each decision point at each time."""
    points = stage.snapshot.points
    return {(point, at): Slow(stage, point, at, context) for point in points for at, context in _CASES}


@pytest.mark.parametrize("rule", IDS)
def test_what_is_counted_is_what_deciding_for_each_says(
    stage: Stage, asked: dict[tuple[str, int], Slow], rule: str
) -> None:
    written = next(each for each in stage.snapshot.ruleset.rules if each.id == rule)
    for at, context in _CASES:
        outcomes, lost, lines = asked[written.decision, at].of(written)
        found = stage.reach(rule, at=at, context=context)
        assert found.outcomes == dict(outcomes)
        assert (found.profiles, found.whole, found.ids) == (PEOPLE, True, PEOPLE)
        by_rule: Counter[str] = Counter()
        for each in found.lost:
            by_rule[each.rule] += each.profiles
        assert by_rule == lost
        assert [{True: c.true, False: c.false, None: c.unknown} for c in found.conditions] == [
            {each: line[each] for each in (True, False, None)} for line in lines
        ]
        before = sum(outcomes[name] for name in ("no_consent", "failed", "unknown"))
        out = sum(outcomes[name] for name in ("inactive", "rolled_out_of", "capped"))
        assert (found.holds, found.eligible, found.shown) == (PEOPLE - before, PEOPLE - before - out, outcomes["won"])


def test_the_rules_of_the_test_end_in_every_way(stage: Stage) -> None:
    met = {name for rule in IDS for name in stage.reach(rule, context={"device": "ios"}).outcomes}
    assert met == {
        "won", "failed", "unknown", "inactive", "rolled_out_of", "lost_group", "lost_slot", "duplicate",
        "render_failed", "no_consent", "capped",
    }  # fmt: skip


def test_what_is_unknown_is_told_by_what_lacks_and_consent_as_its_cause(stage: Stage) -> None:
    found = stage.reach("grown")
    missing = {each.name: each for each in found.missing}
    denied = without = 0
    for number in range(PEOPLE):
        request = Request(f"s{number}", ("home",), NOW, explain=ExplainLevel.ALL, explain_rules=("grown",))
        (outcome,) = stage.engine.decide(request)[0].explanation
        if outcome.reason.name == "UNKNOWN":
            without += "profile.age" in outcome.missing
            denied += "profile.age" in outcome.denied
    assert denied > 0
    assert (missing["profile.age"].profiles, missing["profile.age"].denied) == (without, denied)


def test_of_a_model_that_has_no_outputs_the_input_is_named_that_lacks(stage: Stage) -> None:
    found = stage.reach("scored")
    missing = {each.name: each.profiles for each in found.missing}
    lacking = beyond = failed = 0
    for number in range(PEOPLE):
        request = Request(f"s{number}", ("home",), NOW, explain=ExplainLevel.ALL, explain_rules=("scored",))
        (outcome,) = stage.engine.decide(request)[0].explanation
        known = stage.store.read(f"s{number}", NOW).attributes
        failed += known.get("x") == 4 and known.get("country") != "FR"
        if "models.score.s" in outcome.missing:
            lacking, beyond = lacking + ("x" not in known), beyond + ("x" in known)
    assert (missing["profile.x"], missing["models.score.s"]) == (lacking, beyond)
    assert found.degraded["score"] == failed >= beyond > 0


def test_a_context_that_nobody_gives_is_said_to_lack(stage: Stage) -> None:
    assert stage.reach("device").outcomes == {"unknown": PEOPLE}
    assert stage.reach("device").lacking == ("context.device",)
    assert stage.reach("few").lacking == ()
    assert stage.reach("few").lacking_beside == ("context.device",)
    assert stage.reach("device", context={"device": "ios"}).lacking == ()


def test_variants_of_experiments_add_up(stage: Stage) -> None:
    found = stage.reach("loud")
    assert {each.variant for each in found.variants} == {"", "calm", "loud"}
    assert sum(each.profiles for each in found.variants) == PEOPLE
    assert sum(each.shown for each in found.variants) == found.shown > 0
    assert sum(each.eligible for each in found.variants if each.variant != "loud") == 0


def test_parts_of_one_expression_are_told_apart(stage: Stage, tmp_path: Path) -> None:
    rules = RULES.replace(
        '[segments.active, \'profile.country in ["DE", "CA"]\']',
        '\'segments.active && (profile.country == "DE" || profile.country == "CA")\'',
    )
    with Store.open(tmp_path / "store", clock=lambda: NOW, map_size=1 << 28, background=False) as store:
        other = Stage(store, TRIGGER + rules)
        other.fill()
        found, lines = other.reach("active"), stage.reach("active")
    assert [each.text.strip("()") for each in found.conditions] == [
        "segments.active", 'profile.country == "DE" || profile.country == "CA"'
    ]  # fmt: skip
    assert [(c.true, c.false, c.unknown) for c in found.conditions] == [
        (c.true, c.false, c.unknown) for c in lines.conditions
    ]


def test_examples_are_only_told_when_asked_and_by_reference_where_no_id_is_kept(stage: Stage, tmp_path: Path) -> None:
    assert stage.reach("few").examples == ()
    told = stage.reach("few", examples=3).examples
    assert Counter(each.reason for each in told).most_common(1)[0][1] == 3
    for each in told:
        request = Request(each.subject, ("home",), NOW, explain=ExplainLevel.ALL, explain_rules=("few",))
        assert stage.engine.decide(request)[0].explanation[0].reason.name.lower() == each.reason
    with Store.open(tmp_path / "store", clock=lambda: NOW, map_size=1 << 28, background=False) as store:
        other = Stage(store, RULES)
        other.fill()
        found = other.reach("few", examples=PEOPLE)
        names = {store.pseudonym(f"s{number}") for number in range(PEOPLE)}
    assert {each.subject for each in found.examples} == names
    assert (found.ids, found.by_id) == (0, True)


def test_ids_that_are_not_kept_are_drawn_for_and_all_else_is_the_same(stage: Stage, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", clock=lambda: NOW, map_size=1 << 28, background=False) as store:
        other = Stage(store, RULES)
        other.fill()
        for rule in ("gold", "teams", "grown", "agreed"):
            assert other.reach(rule).outcomes["unknown"] == stage.reach(rule).outcomes["unknown"]
        assert other.reach("gold").outcomes == stage.reach("gold").outcomes
        out = other.reach("few").outcomes["rolled_out_of"]
    _, low, high = wilson(out, PEOPLE, 0.9999)
    assert low < 0.6 < high


def test_a_rule_that_is_switched_off_says_whom_it_would_compete_for(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", clock=lambda: NOW, map_size=1 << 28, background=False) as store:
        other = Stage(store, RULES.replace("id: again,", "id: again, enabled: false,"))
        other.fill()
        found = other.reach("again")
    assert (found.enabled, found.eligible, found.shown, found.outcomes) == (False, PEOPLE, 0, {"disabled": PEOPLE})


@settings(max_examples=25)
@given(size=st.integers(1, PEOPLE + 60), start=st.binary(min_size=16, max_size=16))
def test_a_sample_meets_nobody_twice_and_no_more_than_asked(stage: Stage, size: int, start: bytes) -> None:
    found = stage.reach("again", sample=size, examples=1000, start=lambda _: start)
    assert found.profiles == len({each.subject for each in found.examples}) == min(size, PEOPLE)
    assert found.whole == (size > PEOPLE) or size == PEOPLE


def test_an_unknown_rule_has_its_closest_named(stage: Stage) -> None:
    with pytest.raises(NotFound, match="did you mean `grown`"):
        Reach(stage.engine, "growm", NOW)


# The command, in a process of its own.

SIMPLE = """\
features: {visits: {count: visit}}
decisions: {home: {}}
rules:
  - {id: canadians, decision: home, priority: 2, when: ['profile.country == "CA"', 'context.device == "ios"'],
     then: {action: show, params: {text: hello}}}
  - {id: all, decision: home, priority: 1, then: {action: show, params: {text: hi}}}
"""


@pytest.fixture
def arbiter(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command on rules and a store of 60 people, of whom a third are Canadian."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(SIMPLE)
    with Store.open(tmp_path / "data" / "store", background=False) as store:
        done = [store.update(Update(f"s{n}", {"country": ("CA", "DE", "FR")[n % 3]})) for n in range(60)]
        for each in done:
            each.result()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "engine"), "ARBITER_TARGET": ""}

    def run(*words: object, data: Path = tmp_path / "data") -> subprocess.CompletedProcess[str]:
        done = forked.arbiter("audience", tmp_path / "rules", *words, "--data", data, environment=environment)
        assert "Traceback" not in done.stderr
        return done

    return run


def test_the_command_prints_plain_lines_in_a_pipe(arbiter: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = arbiter("canadians", "--context", "device=ios", "--at", "2026-11-29T12:00:00Z")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "canadians at home, as of 2026-11-29T12:00:00+00:00: all 60 profiles of the store",
        "condition\tasked of\ttrue\tfalse: out\tunknown",
        'profile.country == "CA"\t60\t20\t40\t0',
        'context.device == "ios"\t20\t20\t0\t0',
        "what becomes of it\tprofiles\tshare",
        "condition false\t40\t66.67%",
        "condition holds\t20\t33.33%",
        "eligible\t20\t33.33%",
        "would be shown it\t20\t33.33%",
    ]


def test_the_command_says_what_the_context_lacks_and_who_wins(
    arbiter: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert "unknown, since no --context gives it: context.device" in arbiter("canadians").stdout
    lost = arbiter("all", "--context", '{"device": "ios"}').stdout
    assert "canadians\tthe slot\t20" in lost
    told = json.loads(arbiter("all", "--context", "device=ios", "--sample", "30", "--json").stdout)
    assert (told["profiles"], told["whole"], told["interrupted"]) == (30, False, False)
    assert told["shares"]["shown"]["low"] < told["shares"]["shown"]["share"] < told["shares"]["shown"]["high"]


def test_mistakes_on_the_command_line_are_told(
    arbiter: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    unknown = arbiter("canadian")
    assert (unknown.returncode, "did you mean `canadians`" in unknown.stderr) == (1, True)
    (tmp_path / "nothing").mkdir()
    nowhere = arbiter("all", data=tmp_path / "nothing")
    assert (nowhere.returncode, "there is no store in" in nowhere.stderr) == (1, True)
    assert not list((tmp_path / "nothing").iterdir())
    for words in (("--context", "device"), ("--at", "soon"), ("--context", "a=1", "--context", "a=2")):
        assert arbiter("all", *words).returncode == 2, words


def test_a_store_in_which_nobody_is_has_nobody_to_reach(
    arbiter: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    Store.open(tmp_path / "empty" / "store", background=False).close()
    done = arbiter("canadians", data=tmp_path / "empty")
    assert (done.returncode, done.stderr) == (0, "")
    assert "all 0 profiles of the store" in done.stdout
    sampled = json.loads(arbiter("canadians", "--sample", "5", "--json", data=tmp_path / "empty").stdout)
    assert (sampled["profiles"], sampled["whole"], sampled["shares"]["shown"]) == (0, True, None)


def test_a_store_is_read_while_others_write_to_it(
    arbiter: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    with Store.open(tmp_path / "data" / "store") as store:
        before = store.figures().written.commits
        done = arbiter("all", "--context", "device=ios")
        assert store.figures().written.commits == before
        store.update(Update("s60", {"country": "CA"})).result()
        after = arbiter("all", "--context", "device=ios")
    assert "all 60 profiles" in done.stdout
    assert "all 61 profiles" in after.stdout


def test_ctrl_c_tells_what_was_counted_until_then(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from arbiter.cli.app import main
from arbiter.runtime import reaching
step = reaching.Reach.step
def stepped(reach):
    looked = step(reach)
    if looked:
        os.kill(os.getpid(), signal.SIGINT)
    return looked
reaching.Reach.step, reaching._AT_ONCE = stepped, 25
main()
"""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(SIMPLE)
    with Store.open(tmp_path / "data" / "store", background=False) as store:
        for each in [store.update(Update(f"s{n}", {"country": "CA"})) for n in range(60)]:
            each.result()
    done = subprocess.run(  # noqa: S603 - the command is ours
        [sys.executable, "-c", program, "audience", tmp_path / "rules", "all", "--data", tmp_path / "data", "--json"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "engine")},
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (done.returncode, told["profiles"], told["interrupted"], told["whole"]) == (130, 25, True, False)
    assert "interrupted" in done.stderr
