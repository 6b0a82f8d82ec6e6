"""ExplainTriggers on a real port: how far along a subject is, from what the store keeps of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from arbiter.client.channels import failure_of
from arbiter.profiles.pending import put_state
from arbiter.triggers.state import Progress, SubjectState, Waiting, encode_state
from arbiter.types import Event
from arbiter.v1 import trigger_pb2, trigger_pb2_grpc
from arbiter.wire.values import read_timestamp
from tests.server.conftest import RULES
from tests.server.test_following import fire

if TYPE_CHECKING:
    from arbiter.profiles.group import Group
    from tests.server.conftest import OpenShop, Shop

S = 1_000_000
TRIGGERS = """
triggers:
  - id: abandoned
    after: {event: viewed, as: view}
    unless: {event: added, where: event.product == view.product, within: 5m}
    tags: [cart]
    then: {set: {product: "${view.product}"}, emit: abandoned}
  - id: learner
    count: {event: lesson, times: 3, within: 1h}
    then: {set: {learner: true}}
  - id: past
    after: {event: viewed}
    active: {until: 2020-01-01T00:00:00Z}
    then: {set: {x: 1}}
"""


class Keep:
    """Keeps a state of a subject, as what runs triggers does."""

    weight = 1

    def __init__(self, key: bytes, state: SubjectState) -> None:
        self._key = key
        self._state = state

    def apply(self, group: Group) -> None:
        group.wrote = True
        put_state(group.environment, group.txn, self._key, encode_state(self._state), self._state.next_due())


def explain(shop: Shop, **asked: Any) -> trigger_pb2.ExplainTriggersResponse:
    stub = trigger_pb2_grpc.TriggerServiceStub(shop.channel)
    answer: trigger_pb2.ExplainTriggersResponse = stub.ExplainTriggers(trigger_pb2.ExplainTriggersRequest(**asked))
    return answer


@pytest.fixture
def shop(open_shop: OpenShop) -> Shop:
    opened = open_shop(load=False)
    opened.write(RULES + TRIGGERS)
    opened.admin.reload()
    return opened


def keys_of(shop: Shop) -> dict[str, str]:
    snapshot = shop.engine.snapshot
    assert snapshot is not None
    return {each.id: each.key for each in snapshot.frame.triggers}


def test_of_an_unknown_subject_nothing_has_happened(shop: Shop) -> None:
    answer = explain(shop, subject_id="nobody")
    snapshot = shop.engine.snapshot
    assert snapshot is not None
    assert (answer.subject_id, answer.snapshot) == ("nobody", snapshot.digest)
    assert [(each.trigger, each.stage) for each in answer.triggers] == [
        ("abandoned", trigger_pb2.TRIGGER_STAGE_IDLE),
        ("learner", trigger_pb2.TRIGGER_STAGE_IDLE),
        ("past", trigger_pb2.TRIGGER_STAGE_INACTIVE),
    ]
    assert answer.triggers[0].position.startswith("shop.yaml:")
    assert answer.triggers[1].text == "learner: waits for 3 times lesson within 1h"


def test_what_waits_what_is_under_way_and_what_was_done(shop: Shop) -> None:
    now, keys = shop.engine.clock(), keys_of(shop)
    state = SubjectState(
        {
            "abandoned": Progress(
                keys["abandoned"], 0, [], [Waiting(now + 300 * S, (now, 1), (1,))], fired=2, last=now - 60 * S
            ),
            "learner": Progress(keys["learner"], 0, [[2, 3]]),
        },
        {
            1: Event("v1", "", "viewed", now, {"product": "p1"}),
            2: Event("l1", "", "lesson", now - 120 * S, {}),
            3: Event("l2", "", "lesson", now - 60 * S, {}),
        },
    )
    shop.store.write(Keep(shop.store.keys.subject("ann"), state)).result()
    acts = {"set": {"product": "p0"}, "emit": {"event": "abandoned", "properties": {}}}
    fire(shop, "ann", "ann", "bob", trigger="abandoned", acts=acts, emitted="trigger:1.1")
    abandoned, learner, _ = explain(shop, subject_id="ann").triggers
    assert (abandoned.stage, abandoned.fired) == (trigger_pb2.TRIGGER_STAGE_PENDING, 2)
    (pending,) = abandoned.pending
    assert read_timestamp(pending.due) == now + 300 * S
    assert [(each.label, each.id) for each in pending.causes] == [("view", "v1")]
    assert (list(pending.unless), pending.where) == (["added"], "event.product == view.product")
    assert [each.position for each in abandoned.firings] == [2]
    assert 'it set product = "p0"; emitted abandoned' in abandoned.text
    assert "it fired 2 times" in abandoned.text
    (step,) = learner.steps
    assert (step.needed, step.seen_count, [each.id for each in step.seen]) == (3, 2, ["l2", "l1"])
    assert read_timestamp(step.until) == now - 120 * S + 3600 * S
    assert not learner.firings
    (only,) = explain(shop, subject_id="ann", triggers=["abandoned"], firings=5).triggers
    assert [each.position for each in only.firings] == [2, 1]
    # What was kept for another pattern says nothing of this one.
    progress = state.of("learner")
    assert progress is not None
    progress.key = "another"
    shop.store.write(Keep(shop.store.keys.subject("ann"), state)).result()
    assert explain(shop, subject_id="ann").triggers[1].stage == trigger_pb2.TRIGGER_STAGE_IDLE


def test_ids_that_became_one_are_explained_as_one(shop: Shop) -> None:
    now, keys = shop.engine.clock(), keys_of(shop)
    for number, subject in enumerate(("phone", "ann"), 1):
        state = SubjectState(
            {"learner": Progress(keys["learner"], 0, [[number]])},
            {number: Event(f"l{number}", "", "lesson", now - number * S, {})},
        )
        shop.client.update_profile(subject, set={"age": 20})
        shop.store.write(Keep(shop.store.keys.subject(subject), state)).result()
    shop.client.link_identity("phone", "ann")
    for subject in ("phone", "ann"):
        (learner,) = explain(shop, subject_id=subject, triggers=["learner"]).triggers
        assert learner.steps[0].seen_count == 2


@pytest.mark.parametrize(
    ("asked", "code", "field"),
    [
        ({}, "INVALID_ARGUMENT", "subject_id"),
        ({"subject_id": "ann", "triggers": ["lerner"]}, "NOT_FOUND", "triggers[0]"),
        ({"subject_id": "ann", "firings": 101}, "INVALID_ARGUMENT", "firings"),
        ({"subject_id": "ann", "triggers": ["x"] * 101}, "RESOURCE_EXHAUSTED", "triggers"),
    ],
)
def test_a_bad_question_is_refused(shop: Shop, asked: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        explain(shop, **asked)
    failure = failure_of(caught.value)
    assert (failure.code, failure.field) == (code, field)
    if code == "NOT_FOUND":
        assert "did you mean `learner`?" in failure.message
