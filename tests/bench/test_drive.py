"""Load on real servers: every call is accounted for, whatever the server does."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from arbiter.bench import Histogram, Load, LoadError, NoServer, drive
from arbiter.bench.frames import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[..., str]

PATH = "/a.B/C"


def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Echo; the request says what else is wanted."""
    kind, _, rest = request.partition(b" ")
    if kind == b"status":
        context.abort(next(code for code in grpc.StatusCode if code.value[0] == int(rest)), "as asked for")
    return rest * 1000 if kind == b"large" else request


@pytest.fixture
def serve() -> Iterator[Open]:
    servers = []

    def start(work: Callable[[bytes, grpc.ServicerContext], bytes] = answer, **options: Any) -> str:
        server = grpc.server(
            ThreadPoolExecutor(4), options=[(f"grpc.{name}", value) for name, value in options.items()]
        )
        handler = grpc.unary_unary_rpc_method_handler(work)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


def load(target: str, *bodies: bytes, **more: Any) -> Load:
    return Load(target, PATH, bodies or (b"hello",), **({"seconds": 0.3, "warmup": 0.0} | more))


def stalling(seconds: float) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """Work that answers nothing for some time after the first call."""
    go = threading.Event()
    begin = iter([threading.Timer(seconds, go.set)])

    def work(request: bytes, _: grpc.ServicerContext) -> bytes:
        for timer in begin:
            timer.start()
        go.wait(10)
        return request

    return work


def test_a_closed_loop_keeps_its_callers_busy_and_counts_what_they_are_answered(serve: Open) -> None:
    (result,) = drive(load(serve(), streams=8, connections=2))
    assert list(result.ended) == [0]
    assert 0 < result.arrived[0] <= result.ended[0] == len(result.latency) <= result.arrived[0] + 8
    assert result.goodput == result.throughput == result.arrived[0] / 0.3
    assert result.failed == result.reconnected == 0


def test_answers_are_counted_by_status_and_shown_to_whoever_wants(serve: Open) -> None:
    seen: Counter[tuple[int, int, bytes]] = Counter()
    bodies = [b"hello", b"status 5", b"status 8"]
    (result,) = drive(load(serve(), *bodies, on_answer=lambda *told: seen.update([told])))
    assert set(seen) == {(0, 0, b"hello"), (1, 5, b""), (2, 8, b"")}
    assert set(result.ended) == {0, 5, 8}
    assert len(result.refused) == result.ended[5] + result.ended[8] == result.failed


def test_large_messages_go_both_ways(serve: Open) -> None:
    seen = []
    body = b"large " + b"x" * 300
    (result,) = drive(
        load(serve(), body, b"y" * 200_000, streams=4, on_answer=lambda n, _, got: seen.append((n, len(got))))
    )
    assert set(seen) == {(0, 300_000), (1, 200_000)}
    assert result.failed == 0


def test_connections_that_the_server_ends_are_made_anew_and_lose_no_call(serve: Open) -> None:
    target = serve(max_connection_age_ms=60, max_connection_age_grace_ms=10_000)
    (result,) = drive(load(target, streams=8, connections=2, seconds=1.0))
    assert result.reconnected > 2
    assert list(result.ended) == [0]
    assert result.unanswered == 0


def test_callers_wait_where_the_server_takes_fewer_streams(serve: Open) -> None:
    together, most = set(), []

    def work(request: bytes, _: grpc.ServicerContext) -> bytes:
        me = threading.get_ident()
        together.add(me)
        most.append(len(together))
        together.discard(me)
        return request

    (result,) = drive(load(serve(work, max_concurrent_streams=1), streams=6))
    assert max(most) == 1
    assert result.failed == 0


def test_an_open_loop_tells_of_every_call_that_was_due(serve: Open) -> None:
    (result,) = drive(load(serve(), rate=500, seconds=0.5))
    assert result.ended == {0: 250}
    assert len(result.latency) == len(result.lag) == 250


def test_random_arrivals_are_the_same_for_the_same_seed(serve: Open) -> None:
    target = serve()
    first, again, other = drive(*(load(target, rate=300, poisson=True, seed=seed) for seed in (1, 1, 2)))
    assert first.ended == again.ended
    assert 40 < first.ended[0] < 150
    assert first.ended != other.ended


def test_a_server_that_stalls_is_asked_no_less_and_its_stall_is_told(serve: Open) -> None:
    (result,) = drive(load(serve(stalling(0.25)), rate=200, seconds=0.5))
    assert result.ended == {0: 100}
    # Half of the calls were due before it went on, each of which waited from then.
    assert result.latency.percentile(75) > 50e6
    assert result.latency.longest > 200e6


def test_calls_beyond_the_cap_are_not_sent_and_said_to_be(serve: Open) -> None:
    (result,) = drive(load(serve(stalling(1.5)), rate=200, seconds=0.5, cap=10))
    assert result.ended == {0: 10}
    assert result.unsent == result.failed == 90


class EverySecond:
    """Holds every second call back, and notes what became of the others."""

    def __init__(self) -> None:
        self.asked, self.told = 0, [0, 0]

    def allows(self, now: float, draw: float) -> bool:
        assert now > 0
        assert 0 <= draw < 1
        self.asked += 1
        return bool(self.asked % 2)

    def taken(self, _now: float) -> None:
        self.told[0] += 1

    def refused(self, _now: float) -> None:
        self.told[1] += 1


def test_what_a_restraint_holds_back_is_not_sent_and_said_to_be(serve: Open) -> None:
    made: list[EverySecond] = []

    def restraint() -> EverySecond:
        made.append(EverySecond())
        return made[0]

    bodies = (b"status 8", b"hello", b"status 8")
    (result,) = drive(load(serve(), *bodies, rate=240, seconds=0.5, restraint=restraint))
    assert result.ended == {0: 20, 8: 40}
    assert (made[0].asked, made[0].told, result.held, result.failed) == (120, [20, 40], 60, 100)
    with pytest.raises(LoadError, match="`restraint` holds back calls of an open loop"):
        load("127.0.0.1:1", restraint=restraint)


def test_a_deadline_ends_calls_that_are_not_answered(serve: Open) -> None:
    go = threading.Event()
    left = []

    def work(request: bytes, context: grpc.ServicerContext) -> bytes:
        left.append(context.time_remaining())
        go.wait(10)
        return request

    (result,) = drive(load(serve(work), rate=50, seconds=0.2, timeout=0.1))
    go.set()
    assert result.ended == {4: 10}
    assert 0.05 < max(left) <= 0.1


def test_the_server_is_told_what_is_left_when_a_call_had_to_wait_for_its_turn(serve: Open) -> None:
    left = []

    def work(request: bytes, context: grpc.ServicerContext) -> bytes:
        left.append(context.time_remaining())
        threading.Event().wait(0.05)
        return request

    drive(load(serve(work, max_concurrent_streams=1), streams=8, seconds=0.1, timeout=0.3))
    assert min(left) < 0.2 < max(left) <= 0.3


def test_what_is_never_answered_is_told(serve: Open) -> None:
    go = threading.Event()

    def work(request: bytes, _: grpc.ServicerContext) -> bytes:
        go.wait(10)
        return request

    (result,) = drive(load(serve(work), streams=3, seconds=0.1, patience=0.1))
    go.set()
    assert result.ended == {}
    assert result.unanswered == result.failed == 3


def test_callers_that_are_refused_wait_when_told_to(serve: Open) -> None:
    asked = []

    def work(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked.append(request)
        return answer(request, context)

    (result,) = drive(load(serve(work), b"status 8", streams=4, seconds=0.3, backoff=10.0))
    assert result.ended == {8: 4}
    assert len(asked) == 4


def test_several_loads_are_put_on_at_once(serve: Open) -> None:
    target = serve()
    decisions, updates = drive(load(target, b"a", streams=2), load(target, b"b", b"status 5", rate=100))
    assert set(decisions.ended) == {0}
    assert updates.ended == {0: 15, 5: 15}


def test_calls_of_a_connection_that_is_lost_are_unavailable_and_a_new_one_is_made() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = []

        def rudely() -> None:
            for _ in range(3):
                taken.append(listening.accept()[0])
                taken[-1].sendall(bytes.fromhex("000000040000000000"))
                taken[-1].recv(100)
                taken[-1].recv(100)
                taken[-1].close()

        thread = threading.Thread(target=rudely)
        thread.start()
        (result,) = drive(load(f"127.0.0.1:{listening.getsockname()[1]}", streams=2, seconds=1.0, patience=0.1))
        thread.join()
    assert result.reconnected >= 2
    assert result.ended[14] >= 2


def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(NoServer, match=f"no server answers at 127.0.0.1:{port}: Connection refused"):
        drive(load(f"127.0.0.1:{port}"))


def test_what_is_no_http2_server_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            with listening.accept()[0] as taken:
                taken.sendall(b"220 mail.example.com ready\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(ProtocolError, match="does not speak HTTP/2"):
            drive(load(f"127.0.0.1:{listening.getsockname()[1]}"))
        thread.join()


@pytest.mark.parametrize("target", ["", "localhost", "127.0.0.1:port", "127.0.0.1:99999", ":50051"])
def test_a_target_that_is_no_address_is_said(target: str) -> None:
    with pytest.raises(LoadError, match="is no address"):
        drive(load(target))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"streams": 0}, "`streams` is 0: it must be more than 0"),
        ({"seconds": -1}, "`seconds` is -1: it must be more than 0"),
        ({"rate": 0.0}, "`rate` is 0.0: it must be more than 0 calls a second"),
        ({"streams": 2, "connections": 3}, "2 streams cannot keep 3 connections busy: ask for fewer"),
        ({"bodies": ()}, "no bodies: nothing could be sent"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadError, match=said):
        Load(**({"target": "127.0.0.1:1", "path": PATH, "bodies": (b"",)} | wrong))


def test_a_histogram_keeps_durations_within_half_a_percent() -> None:
    histogram = Histogram()
    for duration in range(1, 200_001):
        histogram.add(duration)
        histogram.settle()
    assert len(histogram) == 200_000
    for percent in (1, 50, 90, 99, 99.9):
        assert histogram.percentile(percent) == pytest.approx(2000 * percent, rel=0.005)
    assert histogram.percentile(100) == pytest.approx(200_000, rel=0.005)
    assert histogram.longest == 200_000
    assert Histogram().percentile(50) == Histogram().longest == 0
