"""Decisions out of a log, decided again: the same to the last bit, and by other rules what these would change."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from typer.testing import CliRunner

from arbiter.cli.app import app
from arbiter.config.limits import Limits
from arbiter.config.options import DecisionLog
from arbiter.errors import StoreError
from arbiter.profiles import records
from arbiter.profiles.consenting import ConsentChange
from arbiter.profiles.ingesting import IngestEvents
from arbiter.profiles.store import Update
from arbiter.runtime import logfiles
from arbiter.runtime.archive import Archive
from arbiter.runtime.comparing import Comparison, Reproduction
from arbiter.runtime.following import Following
from arbiter.runtime.loader import Loader
from arbiter.runtime.local import open_local
from arbiter.runtime.recording import open_recorder
from arbiter.server.decisions import DecisionService
from arbiter.telemetry.counters import Counters
from arbiter.types import ConsentState, Event
from arbiter.v1 import decision_pb2
from tests.answering import answered
from tests.conftest import ROOT, SHIPPED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arbiter.learning.logged import Head, Row
    from arbiter.snapshot import Snapshot

RULES = """\
schema:
  profile:
    country: string
    name: {type: string, personal: true}
    born: {type: timestamp, purposes: [marketing]}
    score: double
    team: string
    account_id: string
    zone: string
  account: {plan: string}
  context: {device: string, cart: double}
  events: {visit: {}, purchase: {amount: double}}
subject: {time_zone: profile.zone, default_time_zone: UTC}
consent: {purposes: [analytics, marketing]}
features:
  visits_7d: {count: visit, window: 7d}
  spend_30d: {sum: purchase.amount, window: 30d}
  since_visit: {since: visit, unit: d}
segments:
  active: features.visits_7d >= 2
  europe: profile.country in ["DE", "FR"]
actions: {show: {params: {text: string, days: double}}}
experiments:
  tone: {decision: [home, side], traffic: 0.7, variants: {calm: 1, loud: 2}, when: profile.country != "FR"}
decisions:
  home: {slots: 2, order: [priority, value, recency], default: {action: show, params: {text: none, days: 0.0}}}
  side: {slots: 1, order: [priority], default: {action: show, params: {text: side, days: 0.0}}}
  calm: {slots: 1, order: [priority]}
caps:
  actions: {show: {max: 9, per: 4d, count_on: exposure}}
  in_a_row: {calm: {max: 3, within: 5d, count_on: exposure}}
rules:
  - {id: calm, decision: calm, priority: 1, when: [features.visits_7d >= 1],
     then: {action: show, params: {text: calm, days: 0.0}}}
  - {id: rare, decision: calm, priority: 2, when: ['profile.country == "FR"'],
     cap: {max: 2, per: day, count_on: exposure},
     then: {action: show, params: {text: rare, days: 0.0}}}
  - {id: rarer, decision: calm, priority: 3, when: ['profile.country != "FR"'],
     cap: {max: 1, per: 7d, count_on: exposure},
     then: {action: show, params: {text: rarer, days: 0.0}}}
  - {id: active, decision: home, priority: 9, when: [segments.active], group: one,
     value: features.spend_30d * profile.score,
     then: {action: show, params: {text: "Hi ${profile.name}", days: "${features.since_visit}"}}}
  - {id: europe, decision: home, priority: 9, when: [segments.europe], group: one, value: profile.score,
     then: {action: show, params: {text: europe, days: 1.0}}}
  - {id: grown, decision: home, priority: 8, when: ['profile.born < timestamp("2000-01-01T00:00:00Z")'],
     requires_consent: [marketing], then: {action: show, params: {text: grown, days: 1.0}}}
  - {id: loud, decision: home, priority: 8, when: ['experiments.tone == "loud"'], value: 0.5,
     then: {action: show, params: {text: "${experiments.tone}", days: 4.0}}}
  - {id: few, decision: home, priority: 7, rollout: {percent: 40, by: subject, salt: few}, when: ["true"],
     then: {action: show, params: {text: few, days: 2.0}}}
  - {id: teams, decision: home, priority: 6, rollout: {percent: 40, by: profile.team, salt: teams}, when: ["true"],
     then: {action: show, params: {text: teams, days: 2.5}}}
  - {id: rich, decision: home, priority: 5, when: ['context.cart * 2.0 > features.spend_30d'],
     then: {action: show, params: {text: rich, days: 3.0}}}
  - {id: plan, decision: side, priority: 5, when: ['account.plan == "gold"'],
     then: {action: show, params: {text: gold, days: 3.0}}}
  - {id: morning, decision: side, priority: 4, when: ['now.getHours() < 12'],
     active: {from: 2020-01-01T00:00:00, zone: subject}, then: {action: show, params: {text: rich, days: 3.0}}}
"""
RAISED = RULES.replace("percent: 40", "percent: 70")
NOW = 1_790_000_000_000_000
DAY = 86_400_000_000
SPENT = {"amount": 5.25}
DECISIONS = 10_000


class Logged:
    """Ten thousand decisions of two snapshots, written down by what writes them down in a worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "rules").mkdir()
        (folder / "rules" / "r.yaml").write_text(RULES)
        counters = Counters()
        engine, admin = open_local(folder / "rules", None, folder / "data", counters=counters)
        clock = _Clock()
        engine.clock = clock
        engine.store.use_clock(clock)
        log = DecisionLog(directory=str(folder / "log"), losers=0.0, flush_seconds=0.05, spare_mib=0)
        self.recorder = open_recorder(log, engine)
        service = DecisionService(engine, Limits(), counters, self.recorder)
        chance = random.Random(8)  # noqa: S311 - no secret
        people = [_person(engine.store, chance, number) for number in range(200)]
        for futures in people:
            for future in futures:
                future.result()
        for number in range(200):
            engine.store.refer(f"s{number}").result()
        made = 0
        while made < DECISIONS:
            if made == DECISIONS // 2:
                (folder / "rules" / "r.yaml").write_text(RAISED)
                admin.reload()
            clock.now += chance.randrange(30_000_000)
            asked = decision_pb2.DecideRequest(
                subject_id=f"s{chance.randrange(205)}", slots=chance.choice([0, 0, 0, 1])
            )
            context = {"device": chance.choice(["ios", "web"]), "cart": chance.random() * 100}
            asked.context_json = json.dumps(
                {name: value for name, value in context.items() if chance.random() < 0.7}
            ).encode()
            if chance.random() < 0.1:
                asked.decisions.extend(["home", "side"])
                made += 2
            else:
                asked.decision = chance.choice(["home", "home", "side", "calm"])
                made += 1
            answered(service, asked.SerializeToString())
        self.recorder.close()
        assert not counters.log_dropped
        logfiles.convert(folder / "log", 0)
        self.rows: list[tuple[Head, Row]] = list(logfiles.read_log(folder / "log"))
        assert engine.snapshot is not None
        self.snapshot = engine.snapshot
        self._archive = Archive(folder / "data" / "snapshots")
        engine.store.close()

    def opened(self, digest: str) -> Snapshot:
        return self._archive.read(digest, {})

    def candidate(self, rules: str) -> Snapshot:
        place = self.folder / "candidate"
        place.mkdir(exist_ok=True)
        (place / "r.yaml").write_text(rules)
        built = Loader(place, None, None).load().built
        assert built is not None
        return built.snapshot


class _Clock:
    now = NOW

    def __call__(self) -> int:
        return self.now


def _exposures(store: Any, chance: random.Random, number: int) -> list[Any]:
    """Reports that rules with caps were shown: none, or some of the last days."""
    key = store.keys.subject(f"s{number}")
    found = []
    for n in range(chance.randrange(7)):
        rule, at = chance.choice(["rare", "rarer"]), NOW - chance.randrange(9 * DAY)
        said = {"rule": rule, "point": "calm", "action": "show", "group": ""}
        event = Event(f"x{n}", "", "arbiter.exposure", at, said)
        found.append((key, records.seen_key(key, event.id), event, records.encode(event), b""))
    return found


def _person(store: Any, chance: random.Random, number: int) -> list[Any]:
    attributes = {
        "country": chance.choice(["DE", "FR", "US"]), "name": f"N{number}", "score": chance.random(),
        "team": f"t{number % 7}", "zone": chance.choice(["Europe/Paris", "America/New_York"]),
        "account_id": f"a{number % 5}", "born": datetime(1990 + number % 20, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    kept = {name: value for name, value in attributes.items() if chance.random() < 0.9}
    done = [store.update(Update(f"s{number}", {**kept, "country": attributes["country"]}))]
    done += [
        store.set_consent(ConsentChange(f"s{number}", purpose, ConsentState.GRANTED, "form"))
        for purpose, share in (("analytics", 1.0), ("marketing", 0.5))
        if chance.random() < share
    ]
    events = [
        Event(f"e{n}", f"s{number}", chance.choice(["visit", "purchase"]), NOW - chance.randrange(40 * DAY), SPENT)
        for n in range(chance.randrange(8))
    ]
    return [
        *done,
        store.update(Update(account_id=f"a{number % 5}", set={"plan": chance.choice(["gold", "free"])})),
        *([store.ingest(events)] if events else []),
        store.write(IngestEvents(_exposures(store, chance, number))),
    ]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    return Logged(tmp_path_factory.mktemp("logged"))


def test_ten_thousand_decisions_come_out_the_same(logged: Logged) -> None:
    reproduction = Reproduction(logged.opened, 5)
    for head, row in logged.rows:
        reproduction.add(head, row)
    found = reproduction.result()
    impersonal = sum(row.values is None for _, row in logged.rows)
    assert found.decisions + impersonal >= DECISIONS
    assert found.decisions > DECISIONS * 0.9
    assert (found.different, found.examples, found.left_out) == (0, [], {"impersonal": impersonal})
    # They are worth deciding again: every rule of either point won, and the default did.
    assert {won.rule for _, row in logged.rows for won in row.won} >= {
        "active", "europe", "grown", "rare", "rarer", "few", "teams", "rich", "plan", "morning", "calm", "",
    }  # fmt: skip


@pytest.mark.parametrize("field", ["at", "values", "shares", "granted", "horizon", "slots", "won", "variants"])
def test_a_log_that_was_changed_is_found_out(logged: Logged, field: str) -> None:

    changes: dict[str, Callable[[Row], Any]] = {
        "at": lambda row: row.at + 400 * DAY,
        "values": lambda row: (None,) * len(row.values or ()),
        "shares": lambda row: {salt: 1 - share for salt, share in row.shares.items()},
        "granted": lambda _: (),
        "horizon": lambda row: (row.horizon or 0) + 1,
        "slots": lambda row: 1 if row.slots == 0 else 2,
        "won": lambda row: tuple(reversed(row.won)),
        "variants": lambda row: {name: "" if variant == "loud" else "loud" for name, variant in row.variants.items()},
    }
    reproduction = Reproduction(logged.opened, 3)
    for head, row in logged.rows[:3000]:
        if row.values is not None and not row.page:
            reproduction.add(head, msgspec.structs.replace(row, **{field: changes[field](row)}))
    found = reproduction.result()
    assert found.different > 0
    assert len(found.examples) == 3


def test_the_rules_of_then_change_nothing(logged: Logged) -> None:
    comparison = Comparison(logged.snapshot, 5)
    for head, row in logged.rows:
        if head.snapshot == logged.snapshot.digest:
            comparison.add(head, row)
    found = comparison.result()
    assert found.decisions > DECISIONS * 0.4
    assert (found.changed, found.open, found.redrawn, found.by_rule) == (0, 0, 0, {})


def test_a_candidate_is_told_apart_by_rule_point_segment_and_example(logged: Logged) -> None:
    rules = RAISED.replace("segments.europe]", "'profile.country == \"DE\"']")
    comparison = Comparison(logged.candidate(rules), 40)
    expected = 0
    for head, row in logged.rows:
        # On a page another treatment at one point may change what comes at the next.
        if head.snapshot == logged.snapshot.digest and not row.page:
            comparison.add(head, row)
            read = {name: value for (_, name, _), value in zip(head.reads, row.values or (), strict=False)}
            expected += read.get("country") == "FR" and any(won.rule == "europe" for won in row.won)
    found = comparison.result()
    assert expected
    assert found.changed == expected
    assert found.by_point["side"][1] == 0
    assert found.by_point["home"][1] == expected
    assert found.by_rule["europe"][0] - found.by_rule["europe"][1] == expected
    assert found.by_segment["europe"][1] == expected
    assert any(move.startswith("europe → ") for move in found.moves)
    assert len(found.examples) == 40
    for example in found.examples:
        assert "europe" in example.before
        assert "europe" not in example.after
        assert "profile.name" not in example.read
    # A time since, and not the moment since when, as which it is stored.
    assert all(0 <= days < 365 for each in found.examples if (days := each.read.get("features.since_visit")))
    assert any("features.since_visit" in each.read for each in found.examples)


def test_what_the_log_does_not_hold_is_said_and_not_guessed(logged: Logged) -> None:
    rules = RAISED.replace("    zone: string\n", "    zone: string\n    fresh: string\n") + (
        "  - {id: new, decision: home, priority: 20, when: ['profile.fresh == \"x\"', segments.europe],\n"
        "     then: {action: show, params: {text: new, days: 1.0}}}\n"
        "  - {id: drawn, decision: side, priority: 20, rollout: {percent: 50, by: subject, salt: other},\n"
        "     when: ['true'], then: {action: show, params: {text: new, days: 1.0}}}\n"
    )
    comparison = Comparison(logged.candidate(rules), 0)
    of = [
        (head, row) for head, row in logged.rows if head.snapshot == logged.snapshot.digest and row.values is not None
    ]
    for head, row in of:
        comparison.add(head, row)
    found = comparison.result()
    europe = 0
    for head, row in of:
        read = {name: value for (_, name, _), value in zip(head.reads, row.values or (), strict=True)}
        europe += head.point == "home" and read.get("country") in {"DE", "FR"}
    assert found.unlogged == ["profile.fresh"]
    assert found.open == europe
    side = sum(head.point == "side" for head, _ in of)
    assert found.redrawn == side
    assert 0.3 < found.by_rule["drawn"][1] / side < 0.7  # half of 200 people, who are drawn anew in each run


def test_variants_are_those_of_then_and_an_experiment_that_the_log_does_not_know_is_drawn_anew(logged: Logged) -> None:
    of = [each for each in logged.rows if each[0].snapshot == logged.snapshot.digest and each[1].values is not None]
    seen = {row.variants.get("tone") for head, row in of if head.point == "home"}
    assert seen == {"", "calm", "loud"}
    assert all(set(row.exposed) <= {name for name, variant in row.variants.items() if variant} for _, row in of)
    # Other weights draw nobody anew who has a variant already; another experiment draws everybody.
    for rules, redrawn in ((RAISED.replace("loud: 2", "loud: 9"), 0), (RAISED.replace("tone", "voice"), 1)):
        comparison = Comparison(logged.candidate(rules), 0)
        for head, row in of:
            comparison.add(head, row)
        found = comparison.result()
        assert found.redrawn == redrawn * sum(head.point == "home" for head, _ in of)
        assert bool(found.changed) is bool(redrawn)


def test_a_snapshot_that_is_gone_is_said(logged: Logged) -> None:
    def gone(digest: str) -> Snapshot:
        raise StoreError(digest)

    reproduction = Reproduction(gone, 5)
    for head, row in logged.rows[:50]:
        reproduction.add(head, row)
    found = reproduction.result()
    assert found.decisions == 0
    assert found.left_out["snapshot gone"] > 40


def test_models_run_again_on_what_they_saw(tmp_path: Path) -> None:
    counters = Counters()
    engine, _ = open_local(ROOT / "rules", SHIPPED, tmp_path / "data", counters=counters)
    recorder = open_recorder(DecisionLog(directory=str(tmp_path / "log"), flush_seconds=0.05, spare_mib=0), engine)
    service = DecisionService(engine, Limits(), counters, recorder)
    chance, now = random.Random(3), engine.clock()  # noqa: S311 - no secret
    for number in range(60):
        events = [
            Event(f"e{n}", f"s{number}", "purchase", now - chance.randrange(300 * DAY), {"amount": 9.5, "pieces": 2})
            for n in range(6)
        ]  # fmt: skip
        engine.store.ingest(events).result()
    for number in range(300):
        asked = decision_pb2.DecideRequest(subject_id=f"s{number % 60}", decision="store.home_banner")
        answered(service, asked.SerializeToString())
    recorder.close()
    archive = Archive(tmp_path / "data" / "snapshots")
    reproduction = Reproduction(lambda digest: archive.read(digest, {}), 5)
    for head, row in logfiles.read_log(tmp_path / "log"):
        reproduction.add(head, row)
    assert (reproduction.result().decisions, reproduction.result().different) == (300, 0)
    engine.store.close()


def test_the_command_reproduces_and_compares(logged: Logged) -> None:
    logged.candidate(RAISED.replace("id: grown, decision: home, priority: 8", "id: grown, decision: home, priority: 1"))
    log, data = str(logged.folder / "log"), str(logged.folder / "data")
    ran = CliRunner().invoke(app, ["replay", log, "--data", data, "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.output)["different"] == 0
    ran = CliRunner().invoke(app, ["replay", log, "--rules", str(logged.folder / "candidate"), "--decision", "home"])
    assert ran.exit_code == 0, ran.output
    assert "would change" in ran.output
    assert "grown" in ran.output
    ran = CliRunner().invoke(app, ["replay", log, "--data", data, "--since", "2030-01-01T00:00:00Z"])
    assert "0 decisions decided again, 0 differences" in ran.output


def test_a_shadow_sees_what_is_decided_after_it_began(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(RULES)
    counters = Counters()
    engine, _ = open_local(tmp_path / "rules", None, tmp_path / "data", counters=counters)
    recorder = open_recorder(
        DecisionLog(directory=str(tmp_path / "log"), purpose="", flush_seconds=0.05, spare_mib=0), engine
    )
    service = DecisionService(engine, Limits(), counters, recorder)
    asked = decision_pb2.DecideRequest(subject_id="nobody", decision="side").SerializeToString()

    def decided(count: int) -> None:
        before = counters.log_rows
        for _ in range(count):
            answered(service, asked)
        until = time.monotonic() + 60
        while counters.log_rows < before + count:
            assert time.monotonic() < until
            time.sleep(0.01)

    decided(3)
    following = Following(tmp_path / "log")
    decided(5)
    assert len(list(following.new())) == 5
    assert list(following.new()) == []
    decided(1)
    assert len(list(following.new())) == 1
    recorder.close()
    engine.store.close()
