"""The laws of the machine that decides about retries, whatever happens to whom and when."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from arbiter.client.failures import CallFailed, Misconfigured, failure
from arbiter.client.retry import AnswerLocally, Attempts, Budget, Raise, Retries, Send, Wait, may_pass, stands_in

SECONDS = st.floats(0, 20, allow_nan=False)
DRAW = st.floats(0, 1, exclude_max=True)
KEPT = 1.0  # a draw with which nothing is held back
CODES = st.sampled_from([code for code in code_pb2.Code.values() if code])
RETRIES = st.builds(
    Retries,
    attempts=st.integers(1, 6),
    first=st.floats(0.001, 2),
    longest=st.floats(0.001, 5),
    burst=st.floats(0.5, 20),
    share=st.floats(0.001, 1),
)


def failed(code: int, retry_after: float | None = None) -> CallFailed:
    status = Status(code=code)
    if retry_after is not None:
        delay, detail = Duration(), Packed()
        delay.FromNanoseconds(int(retry_after * 1e9))
        detail.Pack(RetryInfo(retry_delay=delay))
        status.details.append(detail)
    return failure(status)


# What becomes of an attempt: how long it takes of the time that it has, and its failure; None is success.
OUTCOME = st.tuples(st.floats(0, 1), st.none() | st.builds(failed, CODES, st.none() | SECONDS), DRAW)
UNLUCKY = st.tuples(st.floats(0, 0.01), st.builds(failed, st.just(code_pb2.UNAVAILABLE)), DRAW)


class Told(msgspec.Struct):
    """What a machine said in one call."""

    sends: list[tuple[float, float]] = []
    waits: list[float] = []
    end: Any = None


def play(attempts: Attempts, timeout: float, outcomes: list[Any], start: float = 100.0) -> Told:
    """Let a call meet these outcomes, the last of them again and again."""
    told = Told()
    now = start
    step = attempts.begin(now, timeout, KEPT)
    while True:
        if isinstance(step, Send):
            told.sends.append((now, step.timeout))
            part, outcome, draw = outcomes[min(len(told.sends), len(outcomes)) - 1]
            now += part * step.timeout
            if outcome is None:
                attempts.succeeded(now)
                return told
            step = attempts.failed(outcome, now, draw)
        elif isinstance(step, Wait):
            told.waits.append(step.seconds)
            now += step.seconds
            step = attempts.waited(now)
        else:
            told.end = step
            return told


@given(RETRIES, SECONDS, st.lists(OUTCOME, min_size=1), st.booleans(), st.booleans())
def test_a_call_keeps_to_its_time_and_its_attempts(
    retries: Retries,
    timeout: float,
    outcomes: list[Any],
    safe: bool,  # noqa: FBT001 - drawn
    local: bool,  # noqa: FBT001 - drawn
) -> None:
    told = play(Attempts(retries, Budget(retries), safe=safe, local=local), timeout, outcomes)
    assert len(told.sends) <= (retries.attempts if safe else 1)
    assert len(told.waits) in {len(told.sends), max(0, len(told.sends) - 1)}
    for at, given_time in told.sends:
        assert given_time > 0
        assert at + given_time == pytest.approx(100.0 + timeout)
    assert sum(told.waits) <= timeout + 1e-6


@given(RETRIES, SECONDS, st.lists(OUTCOME, min_size=1), st.booleans())
def test_it_ends_with_the_last_failure_and_locally_only_where_the_caller_is_not_at_fault(
    retries: Retries,
    timeout: float,
    outcomes: list[Any],
    local: bool,  # noqa: FBT001 - drawn
) -> None:
    told = play(Attempts(retries, Budget(retries), safe=True, local=local), timeout, outcomes)
    if told.end is None:
        return
    assert isinstance(told.end, AnswerLocally) == (local and stands_in(told.end.failure))
    assert isinstance(told.end, AnswerLocally | Raise)
    assert told.end.failure.attempts == len(told.sends)
    met = [outcomes[min(place, len(outcomes) - 1)][1] for place in range(len(told.sends))]
    assert told.end.failure is met[-1] if met else told.end.failure.code == "DEADLINE_EXCEEDED"
    assert all(may_pass(each) for each in met[:-1])


@given(RETRIES, st.lists(st.booleans(), min_size=1, max_size=60), st.lists(UNLUCKY, min_size=1, max_size=60))
def test_all_calls_together_keep_to_the_budget(retries: Retries, fates: list[bool], bad: list[Any]) -> None:
    """Each retry costs a token that only luck gives back, and half of the tokens are never spent on retries."""
    budget = Budget(retries)
    retried = succeeded = 0
    for place, lucky in enumerate(fates):
        outcomes = [(0.0, None, 0.0)] if lucky else [bad[place % len(bad)]]
        told = play(Attempts(retries, budget, safe=True, local=False), 1000.0, outcomes)
        retried += len(told.sends) - 1
        succeeded += told.end is None
        assert 0 <= budget.tokens <= retries.burst
        assert retried <= retries.burst / 2 + succeeded * retries.share


@given(RETRIES, st.floats(0, 5), DRAW)
def test_a_wait_is_what_the_server_asks_for_and_a_part_of_what_doubles(
    retries: Retries, asked: float, draw: float
) -> None:
    generous = msgspec.structs.replace(retries, burst=1000.0)
    outcome = (0.0, failed(code_pb2.UNAVAILABLE, asked), draw)
    told = play(Attempts(generous, Budget(generous), safe=True, local=False), 1e6, [outcome])
    for place, wait in enumerate(told.waits):
        drawn = draw * min(retries.longest, retries.first * 2**place)
        assert wait == pytest.approx(asked + drawn, abs=1e-6)


@pytest.mark.parametrize("code", [code for code in code_pb2.Code.values() if code])
def test_only_what_may_pass_is_sent_again(code: int) -> None:
    retries = Retries()
    plain = play(Attempts(retries, Budget(retries), safe=True, local=False), 100.0, [(0.0, failed(code), 0.5)])
    delayed = play(Attempts(retries, Budget(retries), safe=True, local=False), 100.0, [(0.0, failed(code, 0.1), 0.5)])
    away, full = code in {code_pb2.UNAVAILABLE, code_pb2.CANCELLED}, code == code_pb2.RESOURCE_EXHAUSTED
    assert (len(plain.sends), len(delayed.sends)) == (5 if away else 1, 5 if away or full else 1)


def test_without_retries_a_call_is_sent_once() -> None:
    told = play(Attempts(None, Budget(Retries()), safe=True, local=False), 100.0, [(0.0, failed(14), 0.5)])
    assert len(told.sends) == 1


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first": 0}, {"longest": -1}, {"burst": 0}, {"share": 0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match=f"`{next(iter(wrong))}` is"):
        Retries(**wrong)
