"""What real servers export by OTLP: traces, metrics and logs, each as it should be, and nothing of a subject."""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from arbiter.v1 import decision_pb2, profile_pb2
from arbiter.v1.value_pb2 import Value

if TYPE_CHECKING:
    from tests.telemetry.conftest import Collector, Patiently, Serve, Served

DECIDE = "/arbiter.v1.DecisionService/Decide"
UPDATE = "/arbiter.v1.ProfileService/UpdateProfile"
CANARY = "canary-e3b0c44298fc"  # in everything that a caller sends, and never in what is exported
ANN = "subject-5feceb66ffc8"  # whose id must not be exported either


def decide(served: Served, subject: str, parent: str = "", decision: str = "shop.banner") -> Any:
    request = decision_pb2.DecideRequest(
        subject_id=subject, decision=decision, context={"note": Value(string_value=CANARY)}
    )
    metadata = (("traceparent", parent),) if parent else ()
    return served.call(DECIDE, request, decision_pb2.DecideResponse, metadata)


def become_canadian(served: Served, subject: str) -> None:
    request = profile_pb2.UpdateProfileRequest(subject_id=subject)
    request.set["country"].string_value = "CA"
    request.set["name"].string_value = CANARY
    served.call(UPDATE, request, profile_pb2.UpdateProfileResponse)


def parent(*, sampled: bool) -> tuple[str, bytes, bytes]:
    """A `traceparent`, and the ids of its trace and span."""
    trace, span = secrets.token_bytes(16), secrets.token_bytes(8)
    return f"00-{trace.hex()}-{span.hex()}-{int(sampled):02x}", trace, span


@pytest.mark.parametrize("transport", ["inline", "stock"])
def test_a_sampled_caller_has_its_call_traced_and_another_has_not(
    serve: Serve, collector: Collector, patiently: Patiently, transport: str
) -> None:
    served = serve(collector.environment(OTEL_TRACES_EXPORTER="otlp"), "--workers", "1", "--transport", transport)
    become_canadian(served, ANN)
    unsampled, silent, _ = parent(sampled=False)
    for _ in range(20):
        decide(served, ANN, unsampled)
        decide(served, ANN)
    sampled, trace, span = parent(sampled=True)
    answer = decide(served, ANN, sampled)
    patiently(
        lambda: any(each.trace_id == trace and each.kind == Span.SPAN_KIND_SERVER for _, each in collector.sent())
    )
    served.stop()
    found = collector.sent()
    assert {each.trace_id for _, each in found} == {trace}, "the unsampled parent's trace, or one without, was traced"
    assert silent not in {each.trace_id for _, each in found}
    ((told, call),) = [each for each in found if each[1].kind == Span.SPAN_KIND_SERVER]
    assert call.name == "arbiter.v1.DecisionService/Decide"
    assert call.parent_span_id == span
    assert told == {
        "rpc.system.name": "grpc",
        "rpc.method": "arbiter.v1.DecisionService/Decide",
        "rpc.status_code": "OK",
        "arbiter.decision.point": ["shop.banner"],
        "arbiter.decision.defaulted": [False],
        "arbiter.rule.id": ["canadian"],
        "arbiter.snapshot.digest": answer.snapshot,
    }
    ((_, read),) = [each for each in found if each[1].name == "store.read"]
    assert read.parent_span_id == call.span_id
    assert call.start_time_unix_nano <= read.start_time_unix_nano <= read.end_time_unix_nano
    assert CANARY not in str(found)
    assert ANN not in str(found)


def test_a_ratio_traces_calls_without_a_caller_that_has_decided(
    serve: Serve, collector: Collector, patiently: Patiently
) -> None:
    variables = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"}
    served = serve(collector.environment(OTEL_TRACES_EXPORTER="otlp", **variables), "--workers", "1")
    unsampled, trace, _ = parent(sampled=False)
    decide(served, ANN, unsampled)
    for _ in range(5):
        decide(served, ANN)
    patiently(lambda: len({each.trace_id for _, each in collector.sent()}) >= 5)
    served.stop()
    assert len({each.trace_id for _, each in collector.sent()}) == 5
    assert trace not in {each.trace_id for _, each in collector.sent()}


def test_a_call_that_fails_says_so_on_its_span_and_a_fault_of_ours_is_an_error(
    serve: Serve, collector: Collector, patiently: Patiently
) -> None:
    served = serve(
        collector.environment(OTEL_TRACES_EXPORTER="otlp", OTEL_TRACES_SAMPLER="always_on"), "--workers", "1"
    )
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        decide(served, ANN, decision="shop.bannner")
    told, span = patiently(lambda: next(iter(collector.sent()), None))
    assert told["rpc.status_code"] == "NOT_FOUND"
    # By the conventions for gRPC that is the caller's fault, and no error of the server.
    assert "error.type" not in told
    assert span.status.code == Status.STATUS_CODE_UNSET


def test_metrics_are_the_figures_of_each_process(serve: Serve, collector: Collector, patiently: Patiently) -> None:
    served = serve(collector.environment(OTEL_METRICS_EXPORTER="otlp"), "--workers", "2")
    become_canadian(served, ANN)
    for _ in range(30):
        decide(served, ANN)
    decide(served, "bob")

    def newest(name: str) -> dict[Any, Any]:
        return {
            (who["service.instance.id"], *sorted(told.items())): point for who, told, point in collector.points(name)
        }

    def made() -> list[Any]:
        points = newest("arbiter.decision.duration").items()
        return [point for key, point in points if ("arbiter.decision.point", "shop.banner") in key]

    def counted(name: str) -> int:
        return sum(point.as_int for point in newest(name).values())

    # Each process exports in its own time, and may read one instrument before a call and the next one after it.
    everyone = {"supervisor", "worker-0", "worker-1"}
    patiently(lambda: {who["arbiter.role"] for who, _, _ in collector.points("process.memory.usage")} == everyone)
    patiently(lambda: counted("arbiter.decisions") == 31)
    patiently(lambda: counted("arbiter.rule.wins") == 30)
    patiently(lambda: counted("arbiter.store.writes") == 1)
    patiently(lambda: sum(point.count for point in newest("rpc.server.call.duration").values()) == 32)
    patiently(lambda: sum(point.count for point in made()) == 31)
    assert all(sum(point.bucket_counts) == point.count and 0 < point.sum < 60 for point in made())
    served.stop()
    assert CANARY not in str(collector.metrics)
    assert ANN not in str(collector.metrics)


def test_log_records_carry_the_trace_that_they_were_made_in(
    serve: Serve, collector: Collector, patiently: Patiently
) -> None:
    environment = collector.environment(OTEL_LOGS_EXPORTER="otlp", OTEL_TRACES_EXPORTER="otlp")
    served = serve(environment, "--workers", "1")
    records = patiently(collector.records)
    assert {who["service.name"] for who, _ in records} == {"arbiter"}
    loaded = patiently(
        lambda: [record for _, record in collector.records() if "loaded snapshot" in record.body.string_value]
    )
    assert loaded[0].severity_text == "INFO"
    assert not loaded[0].trace_id
    served.stop()  # while there is somebody to export to: it would try for long


def test_a_collector_that_hangs_keeps_nobody_from_leaving(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never says a word
        served = serve(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
                **{f"OTEL_{signal}_EXPORTER": "otlp" for signal in ("METRICS", "TRACES", "LOGS")},
                "OTEL_TRACES_SAMPLER": "always_on",
            },
            "--workers",
            "1",
        )
        decide(served, ANN)
        assert served.stop() == 0
    log = served.log.read_text()
    assert "could not be exported within" in log
    assert "killed" not in log
