"""Bandits of several workers: what is reported to one of them changes what each of them draws."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from arbiter.client import Exposure, Outcome
from arbiter.types import ExplainLevel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arbiter.client import Client
    from tests.processes.conftest import Served

RULES = """\
decisions: {home: }
metrics: {bought: {outcome: purchase, within: 1h}}
groups: {offers: {choose: thompson, metric: bought, floor: 0.1}}
rules:
  - {id: a, decision: home, priority: 2, group: offers, then: {action: show, params: {x: a}}}
  - {id: b, decision: home, priority: 1, group: offers, then: {action: show, params: {x: b}}}
"""
TELLERS = 12  # connections: all of them end at the same one of two workers once in 2,048 times


def chance_of_b(client: Client, subject: str) -> float:
    """With which probability the worker at the other end draws `b`."""
    answer = client.decide(subject, "home", explain=ExplainLevel.ALL)
    (drawn,) = answer.treatments
    (outcome,) = [each for each in answer.explanation if each.rule_id == drawn.rule_id]
    said = re.search(r"with probability ([\d.e-]+)", outcome.detail)
    assert said is not None, outcome
    return float(said[1]) if drawn.rule_id == "b" else 1 - float(said[1])


def test_what_one_worker_is_told_changes_what_all_draw(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    (folder / "rules" / "rules.yaml").write_text(RULES)
    served = serve()
    assert len(served.workers()) == 2
    clients = [served.client(served.address) for _ in range(TELLERS)]
    assert {chance_of_b(client, f"before-{place}") for place, client in enumerate(clients)} == {0.5}
    teller = clients[0]
    answers = [teller.decide(f"s{number}", "home") for number in range(80)]
    teller.record_exposures([Exposure(decision_id=each.decision_id) for each in answers])
    won = [each.decision_id for each in answers if each.treatments[0].rule_id == "b"]
    assert 10 < len(won) < 70
    teller.record_outcomes([Outcome(decision_id=each, name="purchase") for each in won])
    eventually(lambda: all(chance_of_b(client, "after") > 0.9 for client in clients))
    # By the same numbers, whoever is asked, and from what is stored after a restart, too.
    chances = {chance_of_b(client, f"later-{place}") for place, client in enumerate(clients)}
    assert max(chances) - min(chances) < 0.01
    arms = {arm.rule_id: (round(arm.wins), round(arm.losses)) for arm in clients[-1].bandits("offers")}
    assert arms == {"a": (0, 80 - len(won)), "b": (len(won), 0)}
    assert served.stop() == 0
    again = serve()
    assert chance_of_b(again.client(again.address), "again") > 0.9
