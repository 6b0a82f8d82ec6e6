"""Clients hold back while a server turns their calls away, and send everything again once it takes them."""

from __future__ import annotations

import random

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from arbiter.client.failures import CallFailed, failure
from arbiter.client.restraint import Restraint
from arbiter.client.retry import AnswerLocally, Attempts, Budget, Raise, Retries, Send, may_pass

MORE = 0.2
DRAW = st.floats(0, 1, exclude_max=True)
MOMENTS = st.lists(st.tuples(st.floats(0, 5), DRAW, st.booleans()), max_size=80)


def turned_away(limit: str = "concurrent_calls") -> CallFailed:
    status = Status(code=code_pb2.RESOURCE_EXHAUSTED)
    for detail in (ErrorInfo(metadata={"limit": limit}), RetryInfo()):
        packed = Packed()
        packed.Pack(detail)
        status.details.append(packed)
    return failure(status)


def asked(restraint: Restraint, rate: float, takes: float, seconds: float, start: float = 0.0) -> list[tuple[int, int]]:
    """By seconds: calls sent and answered, of `rate` a second to a server that answers `takes` a second of them."""
    draw = random.Random(7)  # noqa: S311 - no secrets
    told = []
    for second in range(int(seconds)):
        sent = answered = 0
        for number in range(int(rate)):
            now = start + second + number / rate
            if not restraint.allows(now, draw.random()):
                continue
            sent += 1
            # So many by now, and no more: what comes earlier is turned away.
            if answered < takes * (number + 1) / rate:
                answered += 1
                restraint.taken(now)
            else:
                restraint.refused(now)
        told.append((sent, answered))
    return told


@pytest.mark.parametrize("over", [1.3, 2.0, 5.0])
def test_a_full_server_is_sent_little_more_than_it_takes_and_stays_full(over: float) -> None:
    told = asked(Restraint(MORE), over * 1000, 1000, 8)[3:]
    assert all(answered >= 0.95 * 1000 for _, answered in told)
    assert all(sent <= (1 + MORE) * 1000 * 1.1 for sent, _ in told)


@pytest.mark.parametrize("takes", [0, 200])
def test_all_is_sent_again_once_the_server_takes_it(takes: int) -> None:
    restraint = Restraint(MORE)
    asked(restraint, 1000, takes, 5)
    told = asked(restraint, 1000, 1e9, 30, start=5.0)
    assert told[-1][0] == 1000


def test_a_server_that_takes_nothing_is_still_tried() -> None:
    sent = [count for count, _ in asked(Restraint(MORE), 1000, 0, 10)]
    assert all(20 <= count <= 120 for count in sent[1:])


@given(MOMENTS)
def test_nothing_is_held_back_while_nothing_is_refused(moments: list[tuple[float, float, bool]]) -> None:
    restraint, now = Restraint(MORE), 0.0
    for passed, draw, answered in moments:
        now += passed
        assert restraint.allows(now, draw)
        if answered:
            restraint.taken(now)


@given(MOMENTS)
def test_what_draws_highest_is_always_sent(moments: list[tuple[float, float, bool]]) -> None:
    restraint, now = Restraint(MORE), 0.0
    for passed, draw, answered in moments:
        now += passed
        if restraint.allows(now, draw):
            (restraint.taken if answered else restraint.refused)(now)
        assert restraint.allows(now, 1.0)


def fill(budget: Budget, refusal: CallFailed) -> None:
    for _ in range(50):
        attempts = Attempts(Retries(attempts=1), budget, safe=True, local=False)
        attempts.begin(0.0, 1.0, 1.0)
        attempts.failed(refusal, 0.0, 0.0)


@pytest.mark.parametrize("local", [False, True])
def test_what_is_held_back_fails_at_once_as_what_is_turned_away(*, local: bool) -> None:
    budget = Budget(Retries())
    fill(budget, turned_away())
    attempts = Attempts(Retries(), budget, safe=True, local=local)
    step = attempts.begin(0.0, 1.0, 0.0)
    assert isinstance(step, AnswerLocally if local else Raise)
    assert step.failure.code == "RESOURCE_EXHAUSTED"
    assert may_pass(step.failure)
    assert step.failure.attempts == attempts.sent == 0


def test_other_limits_and_clients_without_retries_hold_nothing_back() -> None:
    budget = Budget(Retries())
    fill(budget, turned_away("ingest_streams"))
    assert isinstance(Attempts(Retries(), budget, safe=True, local=False).begin(0.0, 1.0, 0.0), Send)
    fill(budget, turned_away())
    assert isinstance(Attempts(None, budget, safe=True, local=False).begin(0.0, 1.0, 0.0), Send)
