"""Questions that take long leave the thread that answers the others."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from arbiter.runtime.engine import Engine
from arbiter.server.weights import LONG_NS, Weights
from arbiter.v1 import decision_pb2, decision_pb2_grpc

if TYPE_CHECKING:
    import pytest

    from tests.server.conftest import OpenShop

QUESTION = ("home",)


def test_one_late_answer_makes_no_question_heavy() -> None:
    weights = Weights()
    for _ in range(100):
        assert not weights.took(QUESTION, 50 * LONG_NS)
        for _ in range(2):
            weights.took(QUESTION, LONG_NS - 1)
    assert not weights.heavy(QUESTION)


def test_a_question_that_is_late_again_and_again_is_told_once_and_stays_heavy() -> None:
    weights = Weights()
    told = [weights.took(QUESTION, LONG_NS) for _ in range(50)]
    assert sum(told) == 1
    assert weights.heavy(QUESTION)
    assert not weights.heavy(("home", "cart"))


def test_a_question_that_only_waits_is_suspected_and_not_sent_away(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decide = Engine.decide

    def waiting(self: Engine, *asked: Any) -> Any:
        time.sleep(2 * LONG_NS / 1e9)  # as for a processor that others have
        return decide(self, *asked)

    monkeypatch.setattr(Engine, "decide", waiting)
    shop = open_shop()
    stub = decision_pb2_grpc.DecisionServiceStub(shop.channel)
    for _ in range(30):
        stub.Decide(decision_pb2.DecideRequest(subject_id="x", decision="shop.banner"))
    assert "again and again" not in caplog.text


def test_callers_who_make_up_pages_fill_no_memory() -> None:
    weights = Weights()
    for number in range(5000):
        weights.took((str(number),), LONG_NS)
    assert len(weights._strikes) == 1000


def test_a_heavy_question_is_answered_beside_the_others(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    decide = Engine.decide

    def slow(self: Engine, request: Any, *rest: Any) -> Any:
        if request.decisions == ("shop.banner",):
            asked.append(threading.current_thread().name)
            until = time.thread_time_ns() + 2 * LONG_NS
            while time.thread_time_ns() < until:
                pass
        return decide(self, request, *rest)

    monkeypatch.setattr(Engine, "decide", slow)
    shop = open_shop()
    stub = decision_pb2_grpc.DecisionServiceStub(shop.channel)
    for _ in range(12):
        stub.Decide(decision_pb2.DecideRequest(subject_id="x", decision="shop.banner"))
        stub.Decide(decision_pb2.DecideRequest(subject_id="x", decision="shop.footer"))
    assert asked[-1].startswith("arbiter-call_")  # a thread of the pool, whatever the transport
    assert "decisions at shop.banner take over 1 ms again and again" in caplog.text
