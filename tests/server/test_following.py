"""Subscribe on a real port: what fired is told in order, from any position, filtered, and nobody's slowness harms."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import pytest

from arbiter.client.channels import failure_of
from arbiter.profiles.firings import Cause, FiringRecord, put_firing
from arbiter.profiles.shedding import Shed
from arbiter.profiles.store import Declarations
from arbiter.server import following
from arbiter.types import Decision, Event, Treatment
from arbiter.v1 import trigger_pb2, trigger_pb2_grpc
from arbiter.wire.values import plain_values, read_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arbiter.profiles.group import Group
    from arbiter.server.app import Server
    from tests.server.conftest import OpenShop, Shop

T0 = 1_790_000_000_000_000
PATIENCE_S = 60


class Fire:
    """Writes firings, as what runs triggers does."""

    weight = 1

    def __init__(self, *firings: FiringRecord) -> None:
        self._firings = firings

    def apply(self, group: Group) -> list[int]:
        group.wrote = True
        return [put_firing(group.environment, group.txn, each) for each in self._firings]


def fire(shop: Shop, *subjects: str, trigger: str = "cart", **fields: Any) -> list[int]:
    """Let a trigger fire for subjects; the positions."""
    now = time.time_ns() // 1000
    firings = [
        FiringRecord(
            id=f"{number:032x}", trigger=trigger, pattern="p", subject=shop.store.keys.subject(subject), at=T0 + number,
            recorded=now, snapshot="s" * 32, causes=(Cause("view", f"e{number}", "viewed", T0, number),), **fields,
        )
        for number, subject in enumerate(subjects)
    ]  # fmt: skip
    done: list[int] = shop.store.write(Fire(*firings)).result()
    return done


def follow(shop: Shop, **asked: Any) -> Any:
    stub = trigger_pb2_grpc.TriggerServiceStub(shop.channel)
    return stub.Subscribe(trigger_pb2.SubscribeRequest(**asked), timeout=PATIENCE_S)


def take(stream: Any, count: int) -> list[trigger_pb2.Firing]:
    """The next so many firings."""
    found: list[trigger_pb2.Firing] = []
    while len(found) < count:
        found += next(stream).firings
    return found


def refused(stream: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        for _ in stream:
            pass
    return failure_of(caught.value)


def noting(stream: Any, positions: list[int]) -> Iterator[None]:
    for each in stream:
        positions.extend(firing.position for firing in each.firings)
        yield


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_there_comes_first_and_then_what_happens(open_shop: OpenShop) -> None:
    shop = open_shop()
    fire(shop, "ann", "bob")
    stream = follow(shop, after=0)
    assert [each.position for each in take(stream, 2)] == [1, 2]
    for number in range(3, 6):
        fire(shop, "cyd")
        (firing,) = take(stream, 1)
        assert firing.position == number
    again = follow(shop, after=3)
    assert [each.position for each in take(again, 2)] == [4, 5]
    stream.cancel()
    again.cancel()
    until(lambda: shop.counters.followers == 0)
    assert shop.counters.firings_told == 7


def test_without_a_position_only_what_is_new_is_told(open_shop: OpenShop) -> None:
    shop = open_shop()
    fire(shop, "ann", "bob")
    stream = follow(shop)
    first = next(stream)
    assert (len(first.firings), first.position, first.newest) == (0, 2, 2)
    fire(shop, "cyd")
    assert [each.position for each in take(stream, 1)] == [3]
    stream.cancel()


def test_a_firing_tells_what_was_done_and_of_whom(open_shop: OpenShop) -> None:
    shop = open_shop()
    shop.store.use_declared(Declarations(named=True))
    shop.store.ingest([Event("e", "ann", "viewed", T0)]).result()
    decision = Decision("shop.banner", (Treatment("by-name", "greet", {"text": "Hello"}, 90),), defaulted=False)
    acts = {
        "set": {"seen": ["a", 1]}, "unset": ["old"], "increment": {"n": 2}, "enter_segment": ["vip"],
        "leave_segment": ["trial"], "emit": {"event": "abandoned", "properties": {"product": "p1"}},
        "decide": {"decision": "shop.banner", "context": {}},
    }  # fmt: skip
    fire(shop, "ann", acts=acts, emitted="trigger:7.1", decision=msgspec.msgpack.encode(decision), depth=1)
    stream = follow(shop, after=0, include_decision=True)
    (firing,) = take(stream, 1)
    stream.cancel()
    assert (firing.trigger, firing.subject_id, firing.depth) == ("cart", "ann", 1)
    assert firing.pseudonym == shop.store.pseudonym("ann")
    assert read_timestamp(firing.at) == T0
    assert [(each.label, each.id, each.type, each.position) for each in firing.causes] == [("view", "e0", "viewed", 0)]
    assert plain_values(firing.set) == {"seen": ["a", 1]}
    assert plain_values(firing.increment) == {"n": 2}
    assert (list(firing.unset), list(firing.enter_segments), list(firing.leave_segments)) == (
        ["old"], ["vip"], ["trial"],
    )  # fmt: skip
    assert (firing.emitted.id, firing.emitted.type) == ("trigger:7.1", "abandoned")
    assert plain_values(firing.emitted.properties) == {"product": "p1"}
    assert (firing.decision_point, firing.decision.treatments[0].rule_id) == ("shop.banner", "by-name")
    assert firing.decision.decision_id == ""
    stream = follow(shop, after=0)
    assert not take(stream, 1)[0].HasField("decision")
    stream.cancel()


def test_filters_let_through_what_was_asked_for_and_the_position_goes_on(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "BEAT_S", 0.05)
    shop = open_shop()
    fire(shop, "ann", "bob", trigger="one")
    fire(shop, "ann", "bob", trigger="two")
    stream = follow(shop, after=0, triggers=["two", "three"], subject_id="bob")
    first = next(stream)
    assert list(first.unknown_triggers) == ["three", "two"]
    assert [each.position for each in take(stream, 1)] == [4]
    stream.cancel()
    stream = follow(shop, after=0, triggers=["three"])
    while (told := next(stream)).position < 4:
        assert not told.firings
    assert not told.unknown_triggers
    stream.cancel()
    # By an id that stands for another, and was linked after it began.
    stream = follow(shop, after=0, subject_id="phone")
    assert next(stream).newest == 4
    shop.client.link_identity("phone", "ann")
    fire(shop, "ann")
    assert take(stream, 1)[0].pseudonym == shop.store.pseudonym("ann")
    stream.cancel()


def test_tags_are_those_of_the_rules_that_run(open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "BEAT_S", 0.05)
    shop = open_shop()
    rules = (shop.rules / "shop.yaml").read_text("utf-8")
    declared = "triggers: [{{id: one, after: {{event: viewed}}, tags: [{}], then: {{set: {{x: 1}}}}}}]\n"
    shop.write(rules + declared.format("cart"))
    assert shop.admin.reload().last_reload.ok  # type: ignore[union-attr]
    fire(shop, "ann", trigger="two")
    fire(shop, "ann", trigger="one")
    stream = follow(shop, after=0, tags=["cart", "other"])
    assert [each.position for each in take(stream, 1)] == [2]
    shop.write(rules + declared.format("mail"))
    shop.admin.reload()
    fire(shop, "ann", trigger="one")
    shop.write(rules + declared.format("other"))
    while (told := next(stream)).position < 3:
        assert not told.firings
    shop.admin.reload()
    fire(shop, "ann", trigger="one")
    assert [each.position for each in take(stream, 1)] == [4]
    stream.cancel()


def test_a_position_that_is_no_longer_kept_or_never_was_is_refused_with_what_is(open_shop: OpenShop) -> None:
    shop = open_shop()
    fire(shop, "ann", "bob", "cyd")
    limits = msgspec.structs.replace(shop.store._limits, keep_firings=1)
    shop.store._writer._limits = limits
    assert shop.store.write(Shed()).result() == 3
    fire(shop, "dan")
    failure = refused(follow(shop, after=2))
    assert (failure.code, failure.reason, failure.field) == ("OUT_OF_RANGE", "NOT_KEPT", "after")
    assert (failure.facts["earliest"], failure.facts["newest"]) == ("4", "4")
    assert refused(follow(shop, after=5)).facts["newest"] == "4"
    for after in (0, 3):
        stream = follow(shop, after=after)
        assert [each.position for each in take(stream, 1)] == [4]
        stream.cancel()


def test_erased_firings_hold_nobody_up(open_shop: OpenShop) -> None:
    shop = open_shop()
    fire(shop, "ann", "bob", "bob")
    shop.store.erase("bob").result()
    stream = follow(shop, after=1)
    assert next(stream).newest == 3
    fire(shop, "cyd")
    assert [each.position for each in take(stream, 1)] == [4]
    stream.cancel()
    stream = follow(shop, after=2)
    assert [each.position for each in take(stream, 1)] == [4]
    stream.cancel()


def test_who_takes_nothing_is_told_where_to_go_on_and_costs_no_memory(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "STALL_S", 0.5)
    monkeypatch.setattr(following.Follower, "break_off", lambda _: None)
    shop = open_shop()
    big = {"set": {"text": "x" * 50_000}}
    for _ in range(20):
        fire(shop, *(["ann"] * 20), acts=big)  # 20 MB, more than a connection takes without being read
    stream = follow(shop, after=0)
    first = next(stream)
    until(lambda: shop.counters.firings_told > 0)
    told = -1
    while told != shop.counters.firings_told:  # until it waits for the reader
        told = shop.counters.firings_told
        time.sleep(1)
    assert told < 400
    assert first.position == 0
    positions: list[int] = []
    failure = refused(noting(stream, positions))
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "FELL_BEHIND")
    assert failure.retry_after
    position = int(failure.facts["position"])
    assert positions == list(range(1, len(positions) + 1))
    assert positions[-1] <= position < 400
    rest = take(follow(shop, after=positions[-1]), 400 - positions[-1])
    assert [each.position for each in rest] == list(range(positions[-1] + 1, 401))


def test_who_never_takes_anything_is_broken_off(open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "STALL_S", 0.2)
    shop = open_shop(limits={"followers": 1})
    for _ in range(10):
        fire(shop, *(["ann"] * 20), acts={"set": {"text": "x" * 50_000}})
    stream = follow(shop, after=0)
    next(stream)
    until(lambda: shop.counters.followers == 0)
    again = follow(shop, after=199)
    assert [each.position for each in take(again, 1)] == [200]


def test_streams_are_bounded_and_end_when_their_caller_goes(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"followers": 2})
    streams = [follow(shop), follow(shop)]
    for stream in streams:
        next(stream)
    failure = refused(follow(shop))
    assert (failure.code, failure.limit) == ("RESOURCE_EXHAUSTED", "followers")
    assert failure.retry_after
    streams[0].cancel()
    until(lambda: shop.counters.followers == 1)
    third = follow(shop)
    next(third)
    third.cancel()
    streams[1].cancel()


def test_a_server_that_stops_ends_streams_with_the_position(open_shop: OpenShop) -> None:
    shop = open_shop()
    fire(shop, "ann")
    stream = follow(shop, after=0)
    take(stream, 1)
    began = time.monotonic()
    stopping = threading.Thread(target=stop, args=(shop.server,))
    stopping.start()
    failure = refused(stream)
    stopping.join()
    assert (failure.code, failure.reason) == ("UNAVAILABLE", "NOT_READY")
    assert "after the position 1" in failure.message
    assert time.monotonic() - began < 15


def stop(server: Server) -> None:
    server.stop(20.0)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"subject_id": "x" * 257}, "subject_id"),
        ({"triggers": ["ok", ""]}, "triggers[1]"),
        ({"tags": ["x"] * 101}, "tags"),
    ],
)
def test_a_bad_question_is_refused(shop: Shop, asked: dict[str, Any], field: str) -> None:
    assert refused(follow(shop, **asked)).field == field


def test_nobody_looks_at_the_log_while_nobody_follows(open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = open_shop()
    looks: list[int] = []
    last = shop.store.fired.last

    def counted() -> int:
        looks.append(1)
        return last()

    monkeypatch.setattr(shop.store.fired, "last", counted)
    time.sleep(0.1)
    assert not looks
    stream = follow(shop)
    next(stream)
    until(lambda: len(looks) > 10)
    stream.cancel()
    until(lambda: shop.counters.followers == 0)
    until(lambda: not any(each.name == "arbiter-tail" for each in threading.enumerate()))
