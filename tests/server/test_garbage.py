"""What calls leave behind is freed with them: the collector finds nothing, and a loaded snapshot holds none of it.

The collector looks seldom where calls are answered, and what stands in a circle when a snapshot is loaded is taken out
of its sight for good, with the snapshot that it refers to (runtime/quiet.py).
"""

from __future__ import annotations

import contextlib
import gc
import types
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from arbiter.v1 import admin_pb2, admin_pb2_grpc, decision_pb2, decision_pb2_grpc, profile_pb2, profile_pb2_grpc
from arbiter.v1.value_pb2 import Value
from tests.server.conftest import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.server.conftest import OpenShop, Shop

TIMES = 5
# What is unknown of somebody without a profile, in each way in which that is kept for a while.
UNKNOWN = """
  - {id: either, decision: shop.banner, when: profile.a > 1 || profile.b > 1, then: {action: go}}
  - {id: some, decision: shop.banner, when: "context.l.exists(e, e.x > 1)", then: {action: go}}
  - {id: every, decision: shop.banner, when: "context.l.all(e, e.x > 1 || e.y > 1)", then: {action: go}}
  - {id: text, decision: shop.banner, then: {action: go, params: {p: ["${profile.a}", {q: "${profile.b + 1}"}]}}}
"""


def ask(**fields: Any) -> decision_pb2.DecideRequest:
    return decision_pb2.DecideRequest(**({"subject_id": "ann", "decision": "shop.banner"} | fields))


def event(**fields: Any) -> profile_pb2.Event:
    return profile_pb2.Event(**({"id": "e1", "subject_id": "ann", "type": "purchase"} | fields))


def update(**fields: Any) -> profile_pb2.UpdateProfileRequest:
    # With an age and no name the first rule matches, and its text cannot be written.
    return profile_pb2.UpdateProfileRequest(subject_id="ann", set={"age": Value(int_value=20)}, **fields)


def events(**fields: Any) -> Iterator[profile_pb2.IngestStreamRequest]:
    return iter([profile_pb2.IngestStreamRequest(events=[event(**fields)])] * 3)


def calls(channel: grpc.Channel) -> dict[str, Callable[[], object]]:
    """Each kind of call, and each way in which it ends."""
    decisions = decision_pb2_grpc.DecisionServiceStub(channel)
    profiles = profile_pb2_grpc.ProfileServiceStub(channel)
    admin = admin_pb2_grpc.AdminServiceStub(channel)
    batch, explained = decision_pb2.DecideBatchRequest, ask(explain={})
    long = batch(requests=[ask()] * 200)
    return {
        "decide": lambda: decisions.Decide(ask()),
        "explain": lambda: decisions.Decide(explained),
        "unknown": lambda: decisions.Decide(ask(decision="nope")),
        "malformed": lambda: decisions.Decide(ask(context_json=b"{")),
        "late": lambda: decisions.Decide(explained, timeout=0.001),
        "cancelled": lambda: decisions.Decide.future(explained).cancel(),  # type: ignore[no-untyped-call]
        "batch": lambda: decisions.DecideBatch(batch(requests=[ask(), explained])),
        "bad batch": lambda: decisions.DecideBatch(batch(requests=[ask(decision="nope"), ask(slots=1_000)])),
        "cancelled batch": lambda: decisions.DecideBatch.future(long).cancel(),  # type: ignore[no-untyped-call]
        "update": lambda: profiles.UpdateProfile(update()),
        "conflict": lambda: profiles.UpdateProfile(update(expected_version=1 << 40)),
        "late update": lambda: profiles.UpdateProfile(update(), timeout=0.001),
        "ingest": lambda: profiles.IngestEvents(profile_pb2.IngestEventsRequest(events=[event()])),
        "bad ingest": lambda: profiles.IngestEvents(profile_pb2.IngestEventsRequest(events=[event(type="No Name")])),
        "stream": lambda: list(profiles.IngestStream(events())),
        "profile": lambda: profiles.GetProfile(profile_pb2.GetProfileRequest(subject_id="ann")),
        "no profile": lambda: profiles.GetProfile(profile_pb2.GetProfileRequest()),
        "events": lambda: profiles.ListEvents(profile_pb2.ListEventsRequest(subject_id="ann")),
        "snapshot": lambda: admin.GetSnapshot(admin_pb2.GetSnapshotRequest()),
        "rollback": lambda: admin.Rollback(admin_pb2.RollbackRequest(digest="0" * 64)),
        "reload": lambda: admin.Reload(admin_pb2.ReloadRequest()),
        "health": lambda: health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()),
        "no method": lambda: channel.unary_unary("/a.B/C", bytes, bytes)(b""),
    }


def left_by(call: Callable[[], object], settle: Callable[[], object]) -> list[str]:
    """What of some calls only the collector finds."""

    def made() -> None:
        with contextlib.suppress(grpc.RpcError):
            call()

    made()
    settle()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(TIMES):
            made()
        settle()
        gc.collect()
        return sorted({told(each) for each in gc.garbage})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def told(thing: object) -> str:
    if isinstance(thing, types.FrameType):
        return f"frame of {thing.f_code.co_qualname}"
    return repr(thing) if isinstance(thing, BaseException) else type(thing).__qualname__


def test_no_call_leaves_anything_for_the_collector(shop: Shop) -> None:
    profiles = profile_pb2_grpc.ProfileServiceStub(shop.channel)

    def settle() -> None:
        # What comes after it: the thread that writes, the pool, and the loop have ended with what came before.
        profiles.UpdateProfile(update())
        decision_pb2_grpc.DecisionServiceStub(shop.channel).Decide(ask(explain={}))
        profiles.UpdateProfile(update())

    left = {kind: left_by(call, settle) for kind, call in calls(shop.channel).items()}
    assert {kind: found for kind, found in left.items() if found} == {}


def test_what_is_unknown_leaves_nothing_for_the_collector(open_shop: OpenShop) -> None:
    shop = open_shop()
    shop.write(RULES + UNKNOWN)
    shop.client.reload()
    decisions = decision_pb2_grpc.DecisionServiceStub(shop.channel)
    given = {"subject_id": "nobody", "context_json": b'{"l": [{"x": 1}, {}]}'}
    levels = decision_pb2.ExplainLevel.values()
    asked = [ask(**given), *(ask(**given, explain={"level": level}) for level in levels)]
    outcomes = {rule.rule_id: rule.outcome for rule in decisions.Decide(asked[-1]).explanation.rules}
    assert [outcomes[name] for name in ("either", "some", "every", "text")] == [
        decision_pb2.RULE_OUTCOME_UNKNOWN, decision_pb2.RULE_OUTCOME_UNKNOWN, decision_pb2.RULE_OUTCOME_UNKNOWN,
        decision_pb2.RULE_OUTCOME_RENDER_FAILED,
    ]  # fmt: skip

    def all_of_them() -> None:
        for request in asked:
            decisions.Decide(request)

    assert left_by(all_of_them, lambda: decisions.Decide(asked[-1])) == []
