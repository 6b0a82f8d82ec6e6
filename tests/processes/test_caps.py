"""Caps on a real server: what one worker was told of is counted by all of them, and answers say when there is room."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from arbiter.types import ExplainLevel, Reason, from_micros
from arbiter.v1 import decision_pb2, decision_pb2_grpc, outcome_pb2, outcome_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import grpc

    from tests.processes.conftest import Served

PATIENCE_S = 30.0
RULES = """\
decisions: {home: {default: {action: show, params: {text: none}}}}
rules:
  - id: offer
    decision: home
    priority: 9
    then: {action: show, params: {text: 10 % off}}
    cap: {max: 2, per: 7d, count_on: exposure}
  - {id: tip, decision: home, priority: 5, then: {action: show, params: {text: Did you know?}}}
"""


def decide(channel: grpc.Channel, subject: str) -> decision_pb2.DecideResponse:
    asked = decision_pb2.DecideRequest(subject_id=subject, decision="home")
    return decision_pb2_grpc.DecisionServiceStub(channel).Decide(asked, timeout=PATIENCE_S)


def show(channel: grpc.Channel, answer: decision_pb2.DecideResponse) -> None:
    report = outcome_pb2.RecordExposuresRequest(exposures=[outcome_pb2.Exposure(decision_id=answer.decision_id)])
    told = outcome_pb2_grpc.OutcomeServiceStub(channel).RecordExposures(report, timeout=PATIENCE_S)
    assert list(told.results) == [outcome_pb2.REPORT_RESULT_ACCEPTED]


def test_what_was_shown_fills_a_cap_for_all_workers_which_say_when_it_has_room(
    folder: Path, serve: Callable[..., Served]
) -> None:
    (folder / "rules" / "rules.yaml").write_text(RULES)
    served = serve()
    channels = [served.channel() for _ in range(8)]
    for place in (0, 3):
        answer = decide(channels[place], "ann")
        assert [each.rule_id for each in answer.treatments] == ["offer"]
        show(channels[place + 1], answer)
    for channel in channels:
        assert [each.rule_id for each in decide(channel, "ann").treatments] == ["tip"]
        assert [each.rule_id for each in decide(channel, "bob").treatments] == ["offer"]
    client = served.client(served.address)
    told = client.decide("ann", "home", explain=ExplainLevel.ALL)
    (offer,) = [each for each in told.explanation if each.rule_id == "offer"]
    first = client.list_events("ann", types=["arbiter.exposure"]).events[0].at
    free = from_micros(first) + timedelta(days=7)
    assert (offer.reason, told.valid_until) == (Reason.CAPPED, free)
    assert offer.detail == f"2 of 2 exposures in 7d, free again {free:%Y-%m-%dT%H:%M:%SZ}"
