"""A log of decisions that count: each comes out the same again, though what it counted is no more what it was."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from arbiter.config.limits import Limits
from arbiter.config.options import DecisionLog
from arbiter.runtime import logfiles
from arbiter.runtime.archive import Archive
from arbiter.runtime.comparing import Reproduction
from arbiter.runtime.local import open_local
from arbiter.runtime.recording import open_recorder
from arbiter.server.decisions import DecisionService
from arbiter.telemetry.counters import Counters
from arbiter.v1 import decision_pb2
from tests.answering import answered
from tests.conftest import Clock

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3_600_000_000
RULES = """
decisions:
  home: {slots: 2, default: {action: none}}
  side: {slots: 1, default: {action: none}}
caps:
  actions: {push: {max: 3, per: 23h, count_on: decision}}
  groups: {offers: {max: 2, per: 7h, count_on: decision, strict: true}}
rules:
  - {id: once, decision: home, priority: 9, then: {action: show, params: {x: 1}},
     cap: {max: 1, per: 5h, count_on: decision, strict: true}}
  - {id: often, decision: home, priority: 8, then: {action: show, params: {x: 2}},
     cap: {max: 2, per: 3h, count_on: decision}}
  - {id: offer, decision: home, group: offers, priority: 7, then: {action: push, params: {x: 3}}}
  - {id: other, decision: side, group: offers, priority: 7, then: {action: push, params: {x: 4}}}
  - {id: push, decision: side, priority: 6, then: {action: push, params: {x: 5}}}
  - {id: rest, decision: home, priority: 1, then: {action: show, params: {x: 6}}}
"""
DECISIONS = 1200


def test_decisions_that_count_come_out_the_same(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yaml").write_text(RULES)
    counters = Counters()
    engine, _ = open_local(tmp_path / "rules", None, tmp_path / "data", counters=counters)
    clock = engine.clock = Clock(1_790_000_000_000_000)
    engine.store.use_clock(clock)
    log = DecisionLog(directory=str(tmp_path / "log"), losers=0.0, flush_seconds=0.05, spare_mib=0)
    recorder = open_recorder(log, engine)
    service = DecisionService(engine, Limits(), counters, recorder)
    chance = random.Random(3)  # noqa: S311 - no secret
    for number in range(9):
        engine.store.refer(f"s{number}").result()
    made = 0
    while made < DECISIONS:
        clock.now += chance.randrange(HOUR // 20)
        asked = decision_pb2.DecideRequest(subject_id=f"s{chance.randrange(9)}", slots=chance.choice([0, 0, 1]))
        if chance.random() < 0.2:
            asked.decisions.extend(["home", "side"])
            made += 2
        else:
            asked.decision = chance.choice(["home", "side"])
            made += 1
        answered(service, asked.SerializeToString())
    recorder.close()
    engine.store.close()
    logfiles.convert(tmp_path / "log", 0)
    rows = list(logfiles.read_log(tmp_path / "log"))
    assert len(rows) == made
    won = Counter(each.rule for _, row in rows for each in row.won)
    assert set(won) == {"once", "often", "offer", "other", "push", "rest", ""}
    archive = Archive(tmp_path / "data" / "snapshots")
    reproduction = Reproduction(lambda digest: archive.read(digest, {}), 5)
    for head, row in rows:
        reproduction.add(head, row)
    found = reproduction.result()
    assert (found.decisions, found.different, found.left_out, found.examples) == (made, 0, {}, [])
    # Nothing but its cap keeps the first rule out, and that did so more often than not.
    homes = sum(head.point == "home" for head, _ in rows)
    assert 0 < won["once"] < homes / 2
