"""What Prometheus finds at the supervisor: the workers added up, exactly, whatever becomes of them."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from arbiter.telemetry.endpoint import Endpoint, EndpointError
from arbiter.v1 import decision_pb2, profile_pb2
from tests.conftest import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.telemetry.conftest import Patiently, Serve, Served

DECIDE = "/arbiter.v1.DecisionService/Decide"
UPDATE = "/arbiter.v1.ProfileService/UpdateProfile"


def fetch(address: str, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
        content: bytes = answer.read()
    return content.decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (each.name, frozenset(each.labels.items())): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def total(found: dict[Any, float], name: str, **labels: str) -> float:
    return sum(value for (sample, has), value in found.items() if sample == name and labels.items() <= set(has))


def scraped(served: Served) -> str:
    """Where a server's metrics are."""
    said = re.search(r"metrics on http://(\S+)/metrics", served.log.read_text())
    assert said is not None
    return said[1]


def decide(served: Served, count: int, decision: str = "shop.banner") -> None:
    request = decision_pb2.DecideRequest(subject_id="ann", decision=decision)
    for _ in range(count):
        served.call(DECIDE, request, decision_pb2.DecideResponse)


def roles(address: str, name: str = "process_thread_count") -> set[str]:
    """Who has said such a thing."""
    return {dict(labels)["arbiter_role"] for sample, labels in samples(fetch(address)) if sample == name}


def decide_on_both(served: Served, address: str) -> int:
    """Decide on many connections, and scrape meanwhile; how often."""
    made = 0
    while made < 60:
        decide(served, 5)
        made += 5
        served.reconnect()
        fetch(address)
    return made


# A scrape waits for workers for a second, and a call is counted as it ends, a moment after its answer went out: what is
# counted is waited for, and must then be exact.


def test_two_workers_add_up_to_what_was_sent(serve: Serve, patiently: Patiently) -> None:
    served = serve({}, "--workers", "2", "--metrics", "127.0.0.1:0")
    address = scraped(served)
    made = decide_on_both(served, address)
    request = profile_pb2.UpdateProfileRequest(subject_id="ann")
    request.set["country"].string_value = "CA"
    served.call(UPDATE, request, profile_pb2.UpdateProfileResponse)
    decide(served, 7)
    calls = {"rpc_method": "arbiter.v1.DecisionService/Decide", "rpc_status_code": "OK"}

    def settled() -> dict[Any, float] | None:
        found = samples(fetch(address))
        ended = total(found, "rpc_server_call_duration_seconds_count", **calls)
        return found if (ended, total(found, "arbiter_calls_active")) == (made + 7, 0) else None

    everyone = {"supervisor", "worker-0", "worker-1"}
    patiently(lambda: roles(address) == roles(address, "arbiter_snapshot_info") == everyone)
    patiently(lambda: total(samples(fetch(address)), "arbiter_store_writes_total") == 1)
    found = patiently(settled)
    assert total(found, "arbiter_decisions_total", arbiter_decision_point="shop.banner") == made + 7
    assert total(found, "arbiter_decisions_defaulted_total") == made
    assert total(found, "arbiter_rule_wins_total", arbiter_rule_id="canadian") == 7
    assert total(found, "arbiter_decision_duration_seconds_count", arbiter_decision_point="shop.banner") == made + 7
    assert total(found, "arbiter_store_writes_total") == 1
    assert total(found, "arbiter_store_commit_writes_count") >= 1
    assert total(found, "arbiter_store_reads_total") >= made + 7
    assert total(found, "arbiter_workers_serving") == 2
    assert total(found, "arbiter_reload_last_ok") == 1
    infos = [dict(labels) for name, labels in found if name == "arbiter_snapshot_info"]
    assert len({each["arbiter_snapshot_digest"] for each in infos}) == 1
    assert (
        total(found, "arbiter_snapshot_decisions_total", **{k: v for k, v in infos[0].items() if "digest" in k})
        == made + 7
    )
    assert "ann" not in re.findall(r'"([^"]*)"', fetch(address))


def test_counters_outlive_a_worker_that_was_killed(serve: Serve, patiently: Patiently) -> None:
    served = serve({}, "--workers", "2", "--metrics", "127.0.0.1:0")
    address = scraped(served)
    made = decide_on_both(served, address)
    patiently(lambda: total(samples(fetch(address)), "arbiter_decisions_total") == made)
    before = samples(fetch(address))
    for worker in served.workers():
        os.kill(worker, signal.SIGKILL)
        patiently(lambda: worker not in served.workers() and len(served.workers()) == 2)  # noqa: B023 - called at once
    patiently(lambda: total(samples(fetch(address)), "arbiter_workers_serving") == 2)
    after = samples(fetch(address))
    assert total(after, "arbiter_worker_restarts_total") == 2
    assert total(after, "arbiter_decisions_total") == made
    fallen = [
        key
        for key, value in before.items()
        if key[0].endswith(("_total", "duration_seconds_count", "_sum", "_bucket")) and after.get(key, -1) < value
    ]
    assert fallen == []
    served.reconnect()
    decide(served, 3)
    patiently(lambda: total(samples(fetch(address)), "arbiter_decisions_total") == made + 3)


def test_a_worker_that_hangs_counts_with_what_it_said_last(serve: Serve, patiently: Patiently) -> None:
    served = serve({}, "--workers", "1", "--metrics", "127.0.0.1:0")
    address = scraped(served)
    decide(served, 4)
    patiently(lambda: total(samples(fetch(address)), "arbiter_decisions_total") == 4)
    (worker,) = served.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        assert total(samples(fetch(address)), "arbiter_decisions_total") == 4
    finally:
        os.kill(worker, signal.SIGCONT)


def test_what_became_of_rules_is_looked_into(serve: Serve, patiently: Patiently) -> None:
    served = serve({}, "--workers", "1", "--metrics", "127.0.0.1:0")
    address = scraped(served)
    request = profile_pb2.UpdateProfileRequest(subject_id="ann")
    request.set["country"].string_value = "CA"
    served.call(UPDATE, request, profile_pb2.UpdateProfileResponse)

    def looked() -> bool:
        decide(served, 1)
        return total(samples(fetch(address)), "arbiter_decisions_sampled_total") > 0

    patiently(looked)
    # The one wins, the other matches and loses, and the third lacks an age.
    expected: list[tuple[str, dict[str, str]]] = [
        ("arbiter_rule_matches_total", {"arbiter_rule_id": "canadian"}),
        ("arbiter_rule_matches_total", {"arbiter_rule_id": "also-canadian"}),
        ("arbiter_rule_unknowns_total", {"arbiter_missing_name": "profile.age"}),
        ("arbiter_rule_outcomes_total", {"arbiter_rule_outcome": "unknown"}),
    ]
    patiently(lambda: all(total(samples(fetch(address)), name, **labels) > 0 for name, labels in expected))
    assert total(samples(fetch(address)), "arbiter_rule_wins_total", arbiter_rule_id="also-canadian") == 0


def test_a_broken_file_is_told_with_the_number_of_mistakes(serve: Serve, patiently: Patiently) -> None:
    served = serve({}, "--workers", "1", "--metrics", "127.0.0.1:0")
    address = scraped(served)
    replace(served.rules / "broken.yaml", "rules: [{id: a, prioritty: 1}]")
    patiently(lambda: total(samples(fetch(address)), "arbiter_reload_last_ok") == 0)
    found = samples(fetch(address))
    assert total(found, "arbiter_reload_mistakes", error_type="author") > 0
    assert total(found, "arbiter_reloads_total", arbiter_outcome="failed") == 1
    assert 0 <= total(found, "arbiter_reload_age_seconds") < 60


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    opened = Endpoint("127.0.0.1:0", lambda: {"arbiter.store.writes": [((), 5)]}, lambda: False)
    yield opened
    opened.close()


def status(address: str, method: str, path: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_nothing_is_answered_but_get_of_what_is_there(endpoint: Endpoint) -> None:
    assert "arbiter_store_writes_total 5.0" in fetch(endpoint.address)
    assert status(endpoint.address, "GET", "/") == 404
    assert status(endpoint.address, "GET", "/healthz") == 503
    assert status(endpoint.address, "POST", "/metrics") == 501
    assert status(endpoint.address, "GET", "/" + 70_000 * "x") == 414


def test_whoever_says_nothing_holds_up_others_for_a_moment_only(endpoint: Endpoint) -> None:
    host, _, port = endpoint.address.rpartition(":")
    with socket.create_connection((host, int(port))):
        assert "arbiter_store_writes_total" in fetch(endpoint.address)


def test_open_metrics_is_spoken_to_who_asks_for_it(endpoint: Endpoint) -> None:
    asked = urllib.request.Request(
        f"http://{endpoint.address}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 - as above
        assert "openmetrics" in answer.headers["Content-Type"]
        assert answer.read().endswith(b"# EOF\n")


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_cannot_be_had_is_a_clear_error(listen: str) -> None:
    with pytest.raises(EndpointError, match=f"cannot serve metrics on {listen}"):
        Endpoint(listen, dict, lambda: True)
