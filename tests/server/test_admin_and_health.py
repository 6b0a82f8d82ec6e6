"""GetSnapshot, Reload, Validate, health and reflection on a real port."""

from __future__ import annotations

import hashlib
import queue
from typing import TYPE_CHECKING
from urllib.parse import unquote

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from arbiter.client import InvalidRequest, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from tests.server.conftest import OpenShop, Shop

SERVICES = (
    "arbiter.v1.DecisionService", "arbiter.v1.ProfileService", "arbiter.v1.OutcomeService", "arbiter.v1.TriggerService",
    "arbiter.v1.AdminService",
)  # fmt: skip
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
BROKEN = "rules:\n  - id: ü\n    decision: shop.banner\n"


def check(shop: Shop, service: str) -> tuple[int, str]:
    """The state of a service, and the last error that came with it."""
    stub = health_pb2_grpc.HealthStub(shop.channel)
    response, call = stub.Check.with_call(health_pb2.HealthCheckRequest(service=service))
    metadata = dict(call.trailing_metadata())
    return response.status, unquote(str(metadata.get("arbiter-last-error", "")))


def test_the_snapshot_tells_what_runs(shop: Shop) -> None:
    status = shop.client.snapshot()
    assert status.snapshot is not None
    assert shop.engine.snapshot is not None
    assert status.snapshot.digest == shop.engine.snapshot.digest
    counts = status.snapshot.counts
    assert (counts.rules, counts.decisions, counts.segments, counts.features, counts.models) == (6, 3, 2, 2, 0)
    content = (shop.rules / "shop.yaml").read_bytes()
    (file,) = status.snapshot.files
    assert (file.path.endswith("shop.yaml"), file.size) == (True, len(content))
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert status.last_reload is not None
    assert status.last_reload.ok
    assert status.workers == {0: status.snapshot.digest}


def test_a_reload_takes_good_files_and_keeps_the_old_on_bad_ones(open_shop: OpenShop) -> None:
    shop = open_shop()
    before = shop.client.snapshot().workers
    same = shop.client.reload()
    assert same.last_reload is not None
    assert (same.last_reload.ok, same.last_reload.changed) == (True, False)

    shop.write((shop.rules / "shop.yaml").read_text("utf-8").replace("bestsellers", "charts"))
    better = shop.client.reload()
    assert better.last_reload is not None
    assert (better.last_reload.ok, better.last_reload.changed) == (True, True)
    assert better.workers != before
    assert shop.client.decide("x", "shop.banner").treatments[0].params == {"banner": "charts"}

    shop.write(BROKEN)
    failed = shop.client.reload()
    assert failed.last_reload is not None
    assert (failed.last_reload.ok, failed.last_reload.changed, failed.workers) == (False, False, better.workers)
    first = failed.last_reload.diagnostics[0]
    assert (first.file, first.line > 0, first.severity) == ("rules/shop.yaml", True, "error")
    assert first.source in BROKEN.splitlines()
    assert shop.client.decide("x", "shop.banner").treatments[0].params == {"banner": "charts"}


def test_validate_reports_every_mistake_and_changes_nothing(shop: Shop) -> None:
    before = shop.client.snapshot()
    good = (shop.rules / "shop.yaml").read_bytes()
    assert shop.client.validate({"shop.yaml": good}) == []
    found = shop.client.validate({"a/b.yaml": good.replace(b"profile.country ==", b"profil.country ==")})
    assert {(each.file, each.severity) for each in found} == {("a/b.yaml", "error")}
    assert len(found) == 3
    assert found[0].hint == "did you mean `profile`?"
    assert shop.client.snapshot() == before


@pytest.mark.parametrize(
    "path", ["/etc/rules.yaml", "../up.yaml", "a/../b.yaml", "a\\b.yaml", "", "a//b.yaml", "./a.yaml"]
)
def test_validate_refuses_a_path_that_leaves_its_folder(shop: Shop, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        shop.client.validate({path: b""})
    assert caught.value.field.startswith("files[")


def test_validate_has_limits(open_shop: OpenShop) -> None:
    shop = open_shop(limits={"validate_files": 1, "validate_file_bytes": 10})
    with pytest.raises(ResourceExhausted) as caught:
        shop.client.validate({"a.yaml": b"", "b.yaml": b""})
    assert caught.value.limit == "validate_files"
    with pytest.raises(ResourceExhausted) as caught:
        shop.client.validate({"a.yaml": b"01234567890"})
    assert (caught.value.limit, caught.value.field) == ("validate_file_bytes", 'files["a.yaml"]')


def test_health_serves_the_server_each_service_and_the_reload(shop: Shop) -> None:
    for name in ("", *SERVICES, "arbiter.reload"):
        assert check(shop, name) == (SERVING, "")
    with pytest.raises(grpc.RpcError) as caught:
        check(shop, "no.such.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_failed_reload_shows_in_health_until_a_good_one(open_shop: OpenShop) -> None:
    shop = open_shop()
    good = (shop.rules / "shop.yaml").read_text("utf-8")
    shop.write(BROKEN)
    report = shop.client.reload().last_reload
    assert report is not None
    assert check(shop, "arbiter.reload") == (NOT_SERVING, report.first_error)
    assert "shop.yaml:" in report.first_error
    assert check(shop, "") == (SERVING, report.first_error)
    shop.write(good)
    shop.client.reload()
    assert check(shop, "arbiter.reload") == (SERVING, "")


def test_before_the_first_snapshot_nothing_serves(open_shop: OpenShop) -> None:
    shop = open_shop(load=False)
    for name in ("", *SERVICES, "arbiter.reload"):
        assert check(shop, name) == (NOT_SERVING, "")
    with pytest.raises(Unavailable) as caught:
        shop.client.decide("x", "shop.banner")
    assert caught.value.reason == "NOT_READY"
    assert shop.client.snapshot().snapshot is None
    shop.client.reload()
    assert check(shop, "") == (SERVING, "")


def test_who_watches_health_is_told_of_changes(open_shop: OpenShop) -> None:
    shop = open_shop()
    stub = health_pb2_grpc.HealthStub(shop.channel)
    stream = stub.Watch(health_pb2.HealthCheckRequest(service="arbiter.reload"))
    assert next(stream).status == SERVING
    shop.write(BROKEN)
    shop.client.reload()
    assert next(stream).status == NOT_SERVING
    stream.cancel()


def test_a_stopping_server_says_so_first(open_shop: OpenShop) -> None:
    shop = open_shop()
    stub = health_pb2_grpc.HealthStub(shop.channel)
    stream = stub.Watch(health_pb2.HealthCheckRequest())
    seen: queue.SimpleQueue[int] = queue.SimpleQueue()
    seen.put(next(stream).status)
    shop.server.stop(0.5)
    seen.put(next(stream).status)
    assert [seen.get(), seen.get()] == [SERVING, NOT_SERVING]


def test_reflection_lists_and_describes_every_service(shop: Shop) -> None:
    database = ProtoReflectionDescriptorDatabase(shop.channel)
    assert set(database.get_services()) == {
        *SERVICES,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    service = DescriptorPool(database).FindServiceByName("arbiter.v1.DecisionService")
    assert [method.name for method in service.methods] == ["Decide", "DecideBatch", "DecideStream"]
