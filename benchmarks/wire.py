"""What the gRPC face adds to a decision: protobuf in, values, protobuf out. The transport itself is not in it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec

from arbiter.config.limits import Limits
from arbiter.profiles.store import Store
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime.engine import Engine
from arbiter.server.decisions import DecisionService
from arbiter.server.reading import ValueReader
from arbiter.server.requests import RequestReader
from arbiter.snapshot import Snapshot
from arbiter.telemetry.counters import Counters
from arbiter.v1 import decision_pb2
from arbiter.wire.values import write_entries, write_values
from benchmarks.measure import alternate

RULES = b"""
decisions:
  constant: {slots: 1, order: [priority]}
  rendered: {slots: 1, order: [priority]}
  page: {slots: 1, order: [priority]}
rules:
  - {id: a, decision: constant, priority: 1, when: "true", then: {action: show, params: {banner: a, size: 3}}}
  - {id: b, decision: rendered, priority: 1, when: "true", then: {action: show, params: {banner: "${context.device}"}}}
  - {id: c, decision: page, priority: 1, when: "true", then: {action: show, params: {banner: c, size: 3}}}
"""
CONTEXT = {"device": "ios", "page": "/home", "items": 3, "total": 99.5, "member": True, "language": "en"}
BATCH = 100


def run() -> dict[str, Any]:
    """µs of each part, and of whole calls beyond the engine's own share; the ratio of both ways to send a context."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder)) as store:
        engine = _engine(store)
        service = DecisionService(engine, Limits(), Counters())
        took = alternate({**_calls(service, engine), **_parts(engine)})
    return {
        "beyond_engine_us": {
            name.removeprefix("decide "): took[name] - took[name.replace("decide", "engine")]
            for name in took
            if name.startswith("decide ")
        },
        "parts_us": {
            name: value for name, value in took.items() if name.split()[0] not in {"decide", "engine", "batch"}
        },
        "batch_us_per_decision": took["batch"] / BATCH,
        "ratios": {"context_map_over_json": took["read context map"] / took["read context_json"]},
    }


def _engine(store: Store) -> Engine:
    ruleset, mistakes = load_ruleset({"bench.yaml": RULES}, {})
    if ruleset is None:
        raise SystemExit("\n".join(mistake.render() for mistake in mistakes))
    engine = Engine(store)
    engine.activate(Snapshot(ruleset, {}))
    return engine


def _request(**fields: Any) -> bytes:
    return decision_pb2.DecideRequest(**({"subject_id": "customer-12345"} | fields)).SerializeToString()


def _calls(service: DecisionService, engine: Engine) -> dict[str, Any]:
    """Whole calls, each beside the same decision asked of the engine itself."""
    as_json, as_map = msgspec.json.encode(CONTEXT), write_values(CONTEXT)
    asked = {
        "no context": _request(decision="constant"),
        "json": _request(decision="constant", context_json=as_json),
        "map": _request(decision="constant", context=as_map),
        "json, rendered": _request(decision="rendered", context_json=as_json),
        "json, page of 3": _request(decisions=["constant", "rendered", "page"], context_json=as_json),
    }
    reader, decide, now = RequestReader(Limits()), engine.decide, engine.clock()
    calls: dict[str, Any] = {}
    for name, content in asked.items():
        request = reader.read(decision_pb2.DecideRequest.FromString(content), now)
        calls[f"decide {name}"] = lambda content=content: service.decide(content)
        calls[f"engine {name}"] = lambda request=request: decide(request)
    single = decision_pb2.DecideRequest.FromString(asked["json"])
    batch = decision_pb2.DecideBatchRequest(requests=[single] * BATCH).SerializeToString()
    calls["batch"] = lambda: service.decide_batch(batch)
    return calls


def _parts(engine: Engine) -> dict[str, Any]:
    """The steps of a call, each alone."""
    as_json, as_map = msgspec.json.encode(CONTEXT), write_values(CONTEXT)
    with_json, with_map = _request(decision="constant", context_json=as_json), _request(decision="x", context=as_map)
    parse = decision_pb2.DecideRequest.FromString
    parsed, mapped = parse(with_json), parse(with_map)
    bare = parse(_request(decision="constant"))
    values, requests, now = ValueReader(Limits()), RequestReader(Limits()), engine.clock()
    return {
        "parse request, json": lambda: parse(with_json),
        "parse request, map": lambda: parse(with_map),
        "read fields, no context": lambda: requests.read(bare, now),
        "read context_json": lambda: values.json_object(parsed.context_json, "context_json"),
        "read context map": lambda: values.entries(mapped.context, "context"),
        "write params": lambda: write_entries(decision_pb2.Treatment().params, {"banner": "bestsellers", "size": 3}),
        "write what differs per call": lambda: decision_pb2.DecideResponse(decision_id="x" * 30).SerializeToString(),
    }
