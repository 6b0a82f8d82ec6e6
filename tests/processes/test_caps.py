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


STRICT = """\
decisions: {home: {slots: 3, default: {action: show, params: {text: none}}}}
rules:
  - {id: a, decision: home, priority: 9, then: {action: show, params: {text: a}},
     cap: {max: 3, per: lifetime, count_on: decision, strict: true}}
  - {id: b, decision: home, priority: 8, then: {action: show, params: {text: b}},
     cap: {max: 5, per: 7d, count_on: decision, strict: true}}
  - {id: c, decision: home, priority: 7, then: {action: show, params: {text: c}},
     cap: {max: 4, per: lifetime, count_on: decision}}
  - {id: d, decision: home, priority: 6, then: {action: show, params: {text: d}}}
"""


def test_a_strict_cap_is_never_more_than_full_however_many_ask_many_workers_at_once(
    folder: Path, serve: Callable[..., Served]
) -> None:
    (folder / "rules" / "rules.yaml").write_text(STRICT)
    served = serve()
    channels = [served.channel() for _ in range(6)]
    asked = decision_pb2.DecideRequest(subject_id="ann", decision="home")
    page = decision_pb2.DecideRequest(subject_id="ann", decisions=["home"])
    batch = decision_pb2.DecideBatchRequest(requests=[asked, page])
    stubs = [decision_pb2_grpc.DecisionServiceStub(channel) for channel in channels]
    singles = [
        stub.Decide.future(each, timeout=PATIENCE_S) for _ in range(4) for stub in stubs for each in (asked, page)
    ]
    batches = [stub.DecideBatch.future(batch, timeout=PATIENCE_S) for stub in stubs]
    answers = [call.result() for call in singles]
    answers += [each.response for call in batches for each in call.result().results]
    assert all(answer.treatments or answer.decisions for answer in answers)
    of_pages = [t.rule_id for answer in answers for each in answer.decisions for t in each.treatments]
    given = of_pages + [t.rule_id for answer in answers for t in answer.treatments]
    assert (given.count("a"), given.count("b")) == (3, 5)
    assert given.count("c") >= 4
    assert given.count("d") >= len(answers) - 4 * len(stubs)
    client = served.client(served.address)
    counted = [event.properties["rule"] for event in client.list_events("ann", types=["arbiter.decision"]).events]
    assert (counted.count("a"), counted.count("b")) == (3, 5)


def test_a_group_s_strict_cap_counts_what_one_answer_gives_of_it(folder: Path, serve: Callable[..., Served]) -> None:
    cap = "{max: 2, per: 7d, count_on: decision, strict: true}"
    rules = f"decisions: {{home: {{slots: 3}}, side: }}\ncaps: {{actions: {{push: {cap}}}}}\nrules:\n"
    rules += "".join(
        f"  - {{id: r{n}, decision: home, then: {{action: push, params: {{n: {n}}}}}}}\n" for n in range(4)
    )
    rules += "  - {id: s, decision: side, then: {action: push, params: {n: 9}}}\n"
    (folder / "rules" / "rules.yaml").write_text(rules)
    served = serve()
    client = served.client(served.address)
    dry = client.decide("ann", "home", dry_run=True)
    assert [each.rule_id for each in dry.treatments] == ["r0", "r1"]
    first, second = client.decide_page("ann", ["home", "side"]).decisions
    assert ([each.rule_id for each in first.treatments], second.treatments) == (["r0", "r1"], ())
    told = client.decide("ann", "home", explain=ExplainLevel.ALL)
    assert {each.reason for each in told.explanation} == {Reason.CAPPED}
    assert told.explanation[0].detail.startswith("action `push`: 2 of 2 decisions in 7d, free again ")
    assert len(client.list_events("ann", types=["arbiter.decision"]).events) == 2
