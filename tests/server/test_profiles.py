"""UpdateProfile, IngestEvents and GetProfile on a real port."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import msgspec
import pytest

from arbiter.client import Answer, Ask, AttributeChange, Conflict, InvalidRequest, PreconditionFailed, ResourceExhausted
from arbiter.config.limits import Limits
from arbiter.runtime.survey import follow
from arbiter.server.app import Server
from arbiter.server.calls import Call, settled
from arbiter.server.gate import Caller
from arbiter.server.profiles import ProfileService
from arbiter.server.settings import FaceSettings
from arbiter.server.status import DeadlinePassed
from arbiter.types import Event, ExplainLevel, to_micros
from arbiter.v1 import profile_pb2, profile_pb2_grpc
from tests.server.conftest import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.server.gate import Identities, Metadata
    from tests.server.conftest import OpenShop, Shop


def test_values_come_back_as_they_went(shop: Shop) -> None:
    values = {
        "yes": True,
        "big": 2**63 - 1,
        "small": -(2**63),
        "half": 0.5,
        "whole": 2.0,
        "text": "Zoë ✓",
        "raw": b"\x00\xff",
        "at": datetime(2026, 2, 28, 12, 30, 15, 123456, tzinfo=UTC),
        "early": datetime(1, 1, 1, tzinfo=UTC),
        "list": [1, "two", [3.0], {"four": False}],
        "map": {"Any key!": [], "nested": {"deep": b""}},
    }
    assert shop.client.update_profile("values", set=values) == 1
    found = shop.client.get_profile("values").attributes
    assert found == values
    assert {name: type(value) for name, value in found.items()} == {name: type(v) for name, v in values.items()}


def test_features_that_are_rebuilt_are_named_until_they_are(open_shop: OpenShop) -> None:
    shop = open_shop()
    client = shop.client
    follow(shop.store, shop.counters)
    events = [Event(str(n), f"s{n}", "purchase", 1, {"amount": 2.0}) for n in range(2_000)]
    for start in range(0, len(events), 500):
        shop.store.ingest(events[start : start + 500]).result()
    until(lambda: shop.store.rebuilding is None)
    shop.write(RULES.replace("last_amount: {last: purchase.amount, window: 90d}", "total: {sum: purchase.amount}"))
    assert client.reload().last_reload
    found, status = client.get_profile("s7"), client.server_info()
    assert (found.rebuilding, found.features["total"]) == (("total",), 2.0)
    assert status.store is not None
    assert status.store.rebuilding == ("total",)
    assert 0 < status.store.left <= 2_000
    until(lambda: not client.get_profile("s7").rebuilding)
    status = client.server_info()
    assert status.store is not None
    assert (status.store.rebuilding, status.store.left) == ((), 0)


def until(holds: Callable[[], bool], patience: float = 60) -> None:
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_update_sets_unsets_increments_and_appends(shop: Shop) -> None:
    client = shop.client
    client.update_profile("ops", set={"a": 1, "b": 2, "tags": ["x"]})
    version = client.update_profile("ops", set={"c": "new"}, unset=["a"], increment={"b": 0.5}, append={"tags": "y"})
    profile = client.get_profile("ops")
    assert (version, profile.version) == (2, 2)
    assert profile.attributes == {"b": 2.5, "c": "new", "tags": ["x", "y"]}


def test_every_verb_reaches_the_store(shop: Shop) -> None:
    client = shop.client
    client.update_profile("verbs", set={"low": 5, "high": 5, "seen": ["a"], "tags": ["x", "y", "x"]})
    client.update_profile(
        "verbs",
        add_to_set={"seen": "b"},
        remove={"tags": "x"},
        min={"low": 2.5, "first": datetime(2026, 1, 1, tzinfo=UTC)},
        max={"high": 4, "name": "Zoë"},
        append={"visits": "home"},
        keep={"seen": 1, "visits": 3},
    )
    first = datetime(2026, 1, 1, tzinfo=UTC)
    assert client.get_profile("verbs").attributes == {
        "low": 2.5, "high": 5, "seen": ["b"], "tags": ["y"], "first": first, "name": "Zoë", "visits": ["home"],
    }  # fmt: skip


def test_an_attribute_with_a_time_to_live_says_when_it_goes_and_is_gone_then(shop: Shop) -> None:
    now = [shop.engine.clock()]
    real, shop.engine.clock = shop.engine.clock, lambda: now[0]
    shop.store.use_clock(shop.engine.clock)
    try:
        shop.client.update_profile("goes", set={"country": "CA", "name": "Ann"}, ttl={"country": timedelta(minutes=30)})
        profile = shop.client.get_profile("goes")
        assert profile.expires == {"country": profile.at + timedelta(minutes=30)}
        answer = shop.client.decide("goes", "shop.footer")
        assert (answer.treatments[0].rule_id, answer.valid_until) == ("footer-canadian", profile.expires["country"])
        now[0] += 30 * 60 * 1_000_000
        profile = shop.client.get_profile("goes", history=1)
        assert (profile.attributes, profile.expires) == ({"name": "Ann"}, {})
        change = profile.history[0].changes["country"]
        assert (change.before, change.after, change.expires_at) == (None, None, profile.at)
        assert shop.client.decide("goes", "shop.footer").defaulted
        # What starts from an attribute starts from nothing once its time is over.
        shop.client.update_profile("goes", append={"country": "US"})
        assert shop.client.get_profile("goes").attributes == {"name": "Ann", "country": ["US"]}
    finally:
        shop.engine.clock = real
        shop.store.use_clock(real)


def test_a_declared_default_is_read_and_started_from_and_stored_with_nobody(open_shop: OpenShop) -> None:
    shop = open_shop()
    declared = "schema: {profile: {age: {type: int, values: [17, 18, 19], default: 18}, name: string, country: string}}"
    shop.write(f"{declared}\n{RULES}")
    assert not shop.client.reload().last_reload.diagnostics  # type: ignore[union-attr] # there was one
    profile = shop.client.get_profile("nobody")
    assert (profile.exists, profile.attributes, profile.segments["grown"]) == (False, {"age": 18}, True)
    with pytest.raises(InvalidRequest) as caught:
        shop.client.update_profile("ann", set={"age": 20})
    assert caught.value.field == "set.age"
    shop.client.update_profile("ann", set={"name": "Ann"})
    answer = shop.client.decide("ann", "shop.banner", explain=ExplainLevel.ALL)
    assert answer.treatments[0].params == {"text": "Hello Ann", "age": 18}
    (result,) = shop.client.decide_batch([Ask(subject_id="ann", decision="shop.banner")]).results
    assert isinstance(result, Answer)
    assert result.treatments == answer.treatments
    assert shop.client.update_profile("ann", increment={"age": 1}) == 2
    assert shop.client.get_profile("ann").attributes == {"age": 19, "name": "Ann"}
    with pytest.raises(PreconditionFailed) as refused:
        shop.client.update_profile("ann", increment={"age": 1})
    assert refused.value.field == "increment.age"
    shop.write(RULES)
    shop.client.reload()
    assert shop.client.get_profile("nobody").attributes == {}
    assert shop.client.get_profile("ann").attributes == {"age": 19, "name": "Ann"}


def test_the_history_tells_what_changed_newest_first(open_shop: OpenShop) -> None:
    shop = open_shop()
    client = shop.client
    client.update_profile("past", set={"a": 1, "b": [1, {"c": b"x"}]})
    client.update_profile("past", set={"a": 2}, unset=["b"])
    client.update_profile("past", set={"a": 2})
    profile = client.get_profile("past", history=10)
    assert [each.version for each in profile.history] == [3, 2, 1]
    assert [each.changes for each in profile.history] == [
        {},
        {"a": AttributeChange(before=1, after=2), "b": AttributeChange(before=[1, {"c": b"x"}], after=None)},
        {"a": AttributeChange(before=None, after=1), "b": AttributeChange(before=None, after=[1, {"c": b"x"}])},
    ]
    assert profile.history[0].at <= profile.at
    assert [each.version for each in client.get_profile("past", history=2).history] == [3, 2]
    assert client.get_profile("past").history == ()


def test_the_history_names_the_caller(shop: Shop, transport: str) -> None:
    settings = msgspec.convert({"transport": transport}, FaceSettings)
    server = Server(shop.backing, "127.0.0.1:0", settings, _ByName())
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = profile_pb2_grpc.ProfileServiceStub(channel)
            request = profile_pb2.UpdateProfileRequest(subject_id="known", unset=["a"])
            for name in ("shop", "desk"):
                stub.UpdateProfile(request, metadata=(("x-name", name),))
            known = stub.GetProfile(
                profile_pb2.GetProfileRequest(subject_id="known", history=5), metadata=(("x-name", "desk"),)
            )
            assert [each.by for each in known.history] == ["desk", "shop"]
    finally:
        server.stop(0)


class _ByName:
    def admit(self, _method: str, metadata: Metadata, _identities: Identities) -> Caller:
        return Caller(str(dict(metadata)["x-name"]))


def test_append_adds_one_element_a_list_too(shop: Shop) -> None:
    for item in ("y", ["a", "b"]):
        shop.client.update_profile("append", increment={"n": 2}, append={"tags": item})
    assert shop.client.get_profile("append").attributes == {"n": 4, "tags": ["y", ["a", "b"]]}


def test_another_version_than_expected_is_a_conflict(shop: Shop) -> None:
    assert shop.client.update_profile("version", set={"a": 1}, expected_version=0) == 1
    with pytest.raises(Conflict) as caught:
        shop.client.update_profile("version", set={"a": 2}, expected_version=0)
    assert (caught.value.code, caught.value.reason) == ("ABORTED", "VERSION_CONFLICT")
    assert shop.client.get_profile("version").attributes == {"a": 1}


def test_an_idempotency_key_counts_once_and_for_one_body(shop: Shop) -> None:
    once = [shop.client.update_profile("key", increment={"n": 1}, idempotency_key="k") for _ in range(2)]
    assert once == [1, 1]
    assert shop.client.get_profile("key").attributes == {"n": 1}
    with pytest.raises(PreconditionFailed) as caught:
        shop.client.update_profile("key", increment={"n": 2}, idempotency_key="k")
    assert caught.value.reason == "KEY_REUSED"


def test_what_is_stored_may_not_fit_the_request(shop: Shop) -> None:
    shop.client.update_profile("unfit", set={"name": "text"})
    with pytest.raises(PreconditionFailed) as caught:
        shop.client.update_profile("unfit", increment={"name": 1})
    assert (caught.value.reason, caught.value.field) == ("STORED_VALUE", "increment.name")


def test_a_bad_update_names_its_field(shop: Shop) -> None:
    client = shop.client
    with pytest.raises(InvalidRequest) as caught:
        client.update_profile("", set={"a": 1})
    assert caught.value.field == "subject_id"
    with pytest.raises(InvalidRequest) as caught:
        client.update_profile("x", set={"Not A Name": 1})
    assert caught.value.field == "set.Not A Name"
    with pytest.raises(InvalidRequest) as caught:
        client.update_profile("x", set={"a": 1}, unset=["a"])
    assert caught.value.field == "unset.a"
    with pytest.raises(InvalidRequest) as caught:
        client.update_profile("x", set={"a": {"b": [1.0, float("nan")]}})
    assert caught.value.field == "set.a.b[1]"
    stub = profile_pb2_grpc.ProfileServiceStub(shop.channel)
    request = profile_pb2.UpdateProfileRequest(subject_id="x")
    request.set["a"].int_value = 1
    request.ttl["a"].nanos = -1
    with pytest.raises(grpc.RpcError, match=r"ttl\.a is no time to live"):
        stub.UpdateProfile(request)
    assert client.get_profile("x").exists is False


def test_events_become_features_and_segments(shop: Shop) -> None:
    now = shop.engine.clock()
    events = [Event(f"e{n}", "buyer", "purchase", now - n * 1_000_000, {"amount": 10.0 + n}) for n in range(3)]
    done = shop.client.ingest_events([*events, events[0]])
    assert (done.accepted, done.duplicates) == (3, 1)
    again = shop.client.ingest_events(events)
    assert (again.accepted, again.duplicates) == (0, 3)
    assert again.position >= done.position > 0
    profile = shop.client.get_profile("buyer")
    assert profile.features == {"orders_90d": 3, "last_amount": 10.0}
    assert profile.segments == {"loyal": True, "grown": None}
    assert (profile.exists, profile.version, profile.attributes) == (True, 0, {})
    assert profile.snapshot == shop.client.snapshot().workers[0]


def test_an_event_without_a_time_happens_when_it_arrives(shop: Shop) -> None:
    stub = profile_pb2_grpc.ProfileServiceStub(shop.channel)
    before = shop.engine.clock()
    event = profile_pb2.Event(id="1", subject_id="untimed", type="purchase")
    stub.IngestEvents(profile_pb2.IngestEventsRequest(events=[event]))
    (stored,) = shop.store.events("untimed")
    assert before <= stored.at <= shop.engine.clock()


def test_a_bad_event_refuses_the_batch_and_is_named(shop: Shop) -> None:
    stub = profile_pb2_grpc.ProfileServiceStub(shop.channel)
    good = Event("1", "refused", "purchase", to_micros(datetime(2026, 1, 1, tzinfo=UTC)), {})
    for bad, field in (
        (Event("", "refused", "purchase", 0, {}), "events[1].id"),
        (Event("2", "", "purchase", 0, {}), "events[1].subject_id"),
        (Event("2", "refused", "Purchase", 0, {}), "events[1].type"),
        (Event("2", "refused", "purchase", 0, {"a": [float("inf")]}), "events[1].properties.a[0]"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            shop.client.ingest_events([good, bad])
        assert caught.value.field == field
    event = profile_pb2.Event(id="2", subject_id="refused", type="purchase")
    event.at.nanos = -1
    with pytest.raises(Exception, match=r"events\[0\]\.at is no moment"):
        stub.IngestEvents(profile_pb2.IngestEventsRequest(events=[event]))
    assert shop.client.get_profile("refused").exists is False


def test_an_unknown_subject_is_an_empty_profile(shop: Shop) -> None:
    profile = shop.client.get_profile("never-seen")
    assert (profile.exists, profile.version, profile.attributes) == (False, 0, {})
    assert profile.features == {"orders_90d": 0}
    assert profile.segments == {"loyal": False, "grown": None}


def test_too_many_events_name_the_limit(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"batch_events": 2})
    with pytest.raises(ResourceExhausted) as caught:
        shop.client.ingest_events([Event(str(n), "s", "purchase", 0, {}) for n in range(3)])
    assert (caught.value.limit, caught.value.field) == ("batch_events", "events")


def test_a_write_that_cannot_be_answered_in_time_says_so(open_shop: OpenShop) -> None:
    shop = open_shop()
    work = ProfileService(shop.engine, Limits(), shop.counters).works()["UpdateProfile"]
    request = profile_pb2.UpdateProfileRequest(subject_id="slow", idempotency_key="k").SerializeToString()

    def answered(call: Call) -> bytes:
        return settled(work(request, call), call)

    # LMDB has one writer: while this transaction is open, nothing else reaches the disk.
    held = shop.store._environment.handle.begin(write=True)
    with held, pytest.raises(DeadlinePassed, match="send the same request again"):
        answered(Call(time.monotonic() + 0.05))
    assert profile_pb2.UpdateProfileResponse.FromString(answered(Call())).version == 1
    assert shop.counters.store_writes == 1


def test_writes_from_many_threads_all_arrive(shop: Shop) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: shop.client.update_profile("many", increment={"n": 1}), range(64)))
    assert sorted(versions) == list(range(1, 65))
    assert shop.client.get_profile("many").attributes == {"n": 64}


def test_an_account_is_written_and_read_by_its_own_id(shop: Shop) -> None:
    client = shop.client
    assert client.update_profile("acme", set={"name": "a subject"}) == 1
    assert client.update_profile(account_id="acme", set={"plan": "team"}, increment={"seats": 3}) == 1
    assert client.update_profile(account_id="acme", increment={"seats": 1}, expected_version=1) == 2
    with pytest.raises(Conflict):
        client.update_profile(account_id="acme", set={"plan": "free"}, expected_version=1)
    account, subject = client.get_profile(account_id="acme"), client.get_profile("acme")
    assert (account.account_id, account.subject_id, account.version) == ("acme", "", 2)
    assert account.attributes == {"plan": "team", "seats": 4}
    assert (account.features, account.segments) == ({}, {})
    assert (subject.subject_id, subject.account_id, subject.attributes) == ("acme", "", {"name": "a subject"})
    assert not client.get_profile(account_id="nobody's").exists


@pytest.mark.parametrize(
    ("subject_id", "account_id", "field"),
    [("", "", "subject_id"), ("a", "b", "account_id"), ("", "x" * 257, "account_id")],
)
def test_a_profile_is_a_subjects_or_an_accounts(shop: Shop, subject_id: str, account_id: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        shop.client.update_profile(subject_id, account_id=account_id, set={"a": 1})
    assert refused.value.field == field
    with pytest.raises(InvalidRequest) as refused:
        shop.client.get_profile(subject_id, account_id=account_id)
    assert refused.value.field == field


def test_an_anonymous_id_becomes_a_known_one(shop: Shop) -> None:
    client = shop.client
    client.update_profile("device", set={"cart": ["mug"], "country": "US"})
    client.ingest_events([Event("1", "device", "purchase", 5, {}), Event("2", "device", "purchase", 7, {})])
    client.update_profile("zoe", set={"country": "CA"})
    client.ingest_events([Event("2", "zoe", "purchase", 6, {})])
    done = client.link_identity("device", "zoe")
    assert (done.linked, done.version, done.events, done.duplicates) == (True, 2, 1, 1)
    zoe, device = client.get_profile("zoe"), client.get_profile("device")
    assert zoe.attributes == device.attributes == {"country": "CA", "cart": ["mug"]}
    assert device.subject_id == "device"
    assert client.decide("device", "shop.footer").treatments == client.decide("zoe", "shop.footer").treatments
    again = client.link_identity("device", "zoe")
    assert (again.linked, again.version, again.events) == (False, 2, 0)
    client.update_profile("device", set={"country": "US"})
    assert client.get_profile("zoe").attributes["country"] == "US"
    with pytest.raises(PreconditionFailed, match="somebody else already") as refused:
        client.link_identity("device", "yan")
    assert (refused.value.reason, refused.value.field) == ("ALREADY_LINKED", "anonymous_id")


@pytest.mark.parametrize(
    ("anonymous_id", "known_id", "field"),
    [("", "zoe", "anonymous_id"), ("x", "", "known_id"), ("x", "y" * 257, "known_id"), ("x", "x", "anonymous_id")],
)
def test_a_link_is_of_two_ids(shop: Shop, anonymous_id: str, known_id: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        shop.client.link_identity(anonymous_id, known_id)
    assert refused.value.field == field


def test_attributes_merge_as_the_rule_files_declare(open_shop: OpenShop) -> None:
    shop = open_shop()
    rules = (shop.rules / "shop.yaml").read_text("utf-8")
    shop.write(
        f"{rules}\nschema: {{profile: {{country: string, name: string, age: int, cups: {{type: int, merge: sum}}}}}}\n"
    )
    assert shop.client.reload().last_reload is not None
    for subject, cups in (("device", 3), ("ann", 4)):
        shop.client.update_profile(subject, set={"cups": cups, "country": subject})
    shop.client.link_identity("device", "ann")
    assert shop.client.get_profile("ann").attributes == {"cups": 7, "country": "ann"}
