"""Which connection a call takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arbiter.client.lanes import Lanes


def test_one_call_at_a_time_keeps_to_one_connection() -> None:
    lanes = Lanes(4)
    taken = []
    for now in range(5):
        taken.append(lanes.take(now))
        lanes.leave(taken[-1])
    assert taken == [0] * 5


def test_a_connection_that_failed_rests_twice_as_long_each_time() -> None:
    lanes = Lanes(2)
    now, taken = 0.0, []
    for pause in (0.9, 0.2, 1.9, 0.2, 3.9, 0.2):
        lane = lanes.take(now)
        taken.append(lane)
        if lane == 0:
            lanes.leave_broken(lane, now)
        else:
            lanes.leave(lane)
        now += pause
    assert taken == [0, 1, 0, 1, 0, 1]


def test_calls_that_fail_together_are_one_failure() -> None:
    lanes = Lanes(2)
    together = [lanes.take(0.0) for _ in range(8)]
    for lane in together:
        if lane == 0:
            lanes.leave_broken(lane, 0.0)
        else:
            lanes.leave(lane)
    assert [lanes.take(0.9), lanes.take(1.1)] == [1, 0]


def test_a_connection_that_carries_again_is_forgiven() -> None:
    lanes = Lanes(2)
    for now in (0.0, 1.0):
        lanes.leave_broken(lanes.take(now), now)
    lanes.leave(lanes.take(4.0))
    lanes.leave_broken(lanes.take(4.0), 4.0)
    assert [lanes.take(4.5), lanes.take(5.5)] == [1, 0]


def test_when_all_rest_all_are_taken() -> None:
    lanes = Lanes(2)
    lanes.leave_broken(lanes.take(0.0), 0.0)
    lanes.leave_broken(lanes.take(0.0), 0.0)
    assert {lanes.take(0.1), lanes.take(0.1)} == {0, 1}


@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["take", "leave", "break"]))))
def test_a_call_takes_the_least_busy_of_those_that_do_not_rest(count: int, told: list[tuple[int, str]]) -> None:
    lanes = Lanes(count)
    under_way: list[int] = []
    rests_until = [0.0] * count
    strikes = [0.0] * count
    now = 0.0
    for pause, what in told:
        now += pause / 4
        if what == "take":
            lane = lanes.take(now)
            awake = [each for each in range(count) if rests_until[each] <= now] or list(range(count))
            assert lane in awake
            assert under_way.count(lane) == min(under_way.count(each) for each in awake)
            under_way.append(lane)
        elif under_way:
            lane = under_way.pop(pause % len(under_way))
            if what == "leave":
                lanes.leave(lane)
                strikes[lane] = 0.0
            else:
                lanes.leave_broken(lane, now)
                if now >= rests_until[lane]:
                    strikes[lane] = min(32.0, strikes[lane] * 2 or 1.0)
                    rests_until[lane] = now + strikes[lane]
        assert lanes.under_way == tuple(under_way.count(each) for each in range(count))
