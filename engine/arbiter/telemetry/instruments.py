"""The one list of what Arbiter measures: names, units, and how each figure is read from `Counters`.

Law: OpenTelemetry and Prometheus are both fed from this list, so a name cannot mean two things. Names and units follow
OpenTelemetry's semantic conventions where there is one (rpc.*, process.*, cpython.*, error.type), and are `arbiter.*`
elsewhere; docs/telemetry.md explains each. Nothing here knows an exporter.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from arbiter.telemetry import process, recorded, stored, triggered
from arbiter.telemetry.instrument import Instrument, by, capped, model, one, pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arbiter.telemetry.counters import Counters
    from arbiter.telemetry.instrument import Origin, Point, Reading

_MICROS = 1_000_000
_NANOS = 1_000_000_000


def of(origin: Origin) -> list[Instrument]:
    """Return the instruments that a process of this kind has."""
    return [each for each in INSTRUMENTS if each.origin in {origin, "all"}]


def read(counters: Counters, origin: Origin) -> Reading:
    """Return what has been counted until now."""
    counters.refresh()
    return {each.name: list(each.read(counters)) for each in of(origin)}


def _calls(counters: Counters) -> Iterable[Point]:
    for (path, status), durations in dict(counters.calls).items():
        yield ("grpc", path.removeprefix("/"), status, status if status in FAULTS else ""), durations.counts()


def _age(since: Callable[[Counters], int]) -> Callable[[Counters], Iterable[Point]]:
    def points(counters: Counters) -> Iterable[Point]:
        micros = since(counters)
        return [((), max(0.0, time.time() - micros / _MICROS))] if micros else []

    return points


def _cache(counters: Counters) -> Iterable[Point]:
    yield ("treatments", "miss"), counters.rendered
    yield ("treatments", "hit"), counters.reused
    yield ("features", "miss"), counters.store.computed
    yield ("features", "hit"), counters.store.reads - counters.store.computed


def _serving(counters: Counters) -> Iterable[Point]:
    for part, digest in (("current", counters.snapshot_digest), ("canary", counters.canary_digest)):
        if digest:
            yield (digest, part), 1


# The status codes that are the server's fault, by the conventions for gRPC.
FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

_POINT = ("arbiter.decision.point",)
_RULE = ("arbiter.rule.id",)
_MODEL = ("arbiter.model.name", "arbiter.model.version")
_OUTCOME = ("arbiter.outcome",)

INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument(
        "rpc.server.call.duration",
        "histogram",
        "s",
        "How long calls took, from their message to their answer.",
        _calls,
        ("rpc.system.name", "rpc.method", "rpc.status_code", "error.type"),
    ),
    Instrument("arbiter.calls.active", "updown", "{call}", "Calls under way.", one(lambda c: c.active)),
    Instrument(
        "arbiter.decide.streams",
        "updown",
        "{stream}",
        "Streams of DecideStream that are open; each of their requests is counted as a call of Decide.",
        one(lambda c: c.decide_streams),
    ),
    Instrument(
        "arbiter.calls.shed",
        "counter",
        "{call}",
        "Calls refused because the server was full, by what was full.",
        by(lambda c: c.shed),
        ("arbiter.shed.reason",),
    ),
    Instrument(
        "arbiter.errors", "counter", "{call}", "Calls refused or failed.", by(lambda c: c.errors), ("error.type",)
    ),
    Instrument("arbiter.decisions", "counter", "{decision}", "Decisions made.", by(lambda c: c.decisions), _POINT),
    Instrument(
        "arbiter.decisions.defaulted",
        "counter",
        "{decision}",
        "Decisions that no rule won.",
        by(lambda c: c.defaulted),
        _POINT,
    ),
    Instrument(
        "arbiter.decisions.canary",
        "counter",
        "{decision}",
        "Decisions that a canary made.",
        by(lambda c: c.canary_decisions),
        _POINT,
    ),
    Instrument(
        "arbiter.decisions.degraded",
        "counter",
        "{decision}",
        "Decisions that went without a model: its outputs were unknown.",
        pair(lambda c: c.degraded),
        ("arbiter.model.name", "arbiter.cause"),
    ),
    Instrument(
        "arbiter.decision.duration",
        "histogram",
        "s",
        "How long calls of Decide took to decide; a page counts at each of its decision points.",
        by(lambda c: {point: each.counts() for point, each in dict(c.durations).items()}),
        _POINT,
    ),
    Instrument(
        "arbiter.snapshot.decisions",
        "counter",
        "{decision}",
        "Decisions made by each of the newest snapshots.",
        by(lambda c: c.by_snapshot),
        ("arbiter.snapshot.digest",),
    ),
    Instrument(
        "arbiter.rule.wins",
        "counter",
        "{treatment}",
        "Treatments delivered for a rule.",
        capped(lambda c: c.wins),
        _RULE,
    ),
    Instrument(
        "arbiter.decisions.sampled",
        "counter",
        "{decision}",
        "Decisions that were looked into; the figures on rules below are of these alone.",
        by(lambda c: c.sampled),
        _POINT,
    ),
    Instrument(
        "arbiter.rule.matches",
        "counter",
        "{decision}",
        "Sampled decisions in which the rule's condition was true, whether it won or not.",
        capped(lambda c: c.matches),
        _RULE,
    ),
    Instrument(
        "arbiter.rule.outcomes",
        "counter",
        "{rule}",
        "Conditions of rules that were looked into: true, false or unknown.",
        pair(lambda c: c.outcomes),
        (*_POINT, "arbiter.rule.outcome"),
    ),
    Instrument(
        "arbiter.rule.unknowns",
        "counter",
        "{rule}",
        "Rules that were looked into and unknown, by the name that was missing.",
        capped(lambda c: c.unknowns),
        ("arbiter.missing.name",),
    ),
    Instrument("arbiter.model.runs", "counter", "{run}", "Runs of a model.", model(lambda m: m.runs), _MODEL),
    Instrument("arbiter.model.rows", "counter", "{row}", "Rows that a model scored.", model(lambda m: m.rows), _MODEL),
    Instrument(
        "arbiter.model.time",
        "counter",
        "s",
        "Time in a model: an equal share where several ran as one.",
        model(lambda m: m.time / _NANOS),
        _MODEL,
    ),
    Instrument(
        "arbiter.model.failures",
        "counter",
        "{run}",
        "Runs of a model that failed.",
        model(lambda m: m.failures),
        _MODEL,
    ),
    Instrument(
        "arbiter.model.values",
        "counter",
        "{value}",
        "What models read and said where decisions were looked into, by the bin of training that it falls into.",
        lambda c: list(dict(c.model_values).items()),
        (*_MODEL, "arbiter.model.field", "arbiter.model.bin"),
    ),
    Instrument(
        "arbiter.model.drift",
        "gauge",
        "",
        "The population stability index of a model's input or output: the last thousand looked into, of all workers.",
        lambda c: list(dict(c.model_drift).items()),
        (*_MODEL, "arbiter.model.field"),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.model.alarms",
        "gauge",
        "{alarm}",
        "Ways in which these are no longer as they were at training: shifted, missing, out of range.",
        lambda c: list(dict(c.model_alarms).items()),
        (*_MODEL, "arbiter.model.field"),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.cache.lookups",
        "counter",
        "{lookup}",
        "Treatments found serialised or not, and profiles found with feature values that were right or not.",
        _cache,
        ("arbiter.cache.name", "arbiter.cache.outcome"),
    ),
    *stored.INSTRUMENTS,
    *recorded.INSTRUMENTS,
    Instrument(
        "arbiter.consumer.messages",
        "counter",
        "{message}",
        "Messages of Kafka's topics, by what became of them: accepted, duplicate, erased, rejected, missed.",
        by(lambda c: c.consumed),
        _OUTCOME,
    ),
    Instrument(
        "arbiter.consumer.lag",
        "gauge",
        "{message}",
        "Messages that are there and not read.",
        pair(lambda c: c.consumer_lags),
        ("messaging.destination.name", "messaging.destination.partition.id"),
    ),
    Instrument(
        "arbiter.consumer.errors",
        "counter",
        "{error}",
        "What went wrong between Kafka and the store; status has the last in words.",
        by(lambda c: c.consumer_errors),
        ("error.type",),
    ),
    Instrument(
        "arbiter.consumer.paused",
        "gauge",
        "",
        "1 while reading waits for room in the store, by the limit that is full.",
        lambda c: [((c.consumer_paused,), 1)] if c.consumer_paused else [],
        ("arbiter.cause",),
    ),
    Instrument(
        "arbiter.consumer.restarts",
        "counter",
        "{restart}",
        "Consumers that died.",
        one(lambda c: c.consumer_restarts),
        origin="supervisor",
    ),
    *triggered.INSTRUMENTS,
    Instrument(
        "arbiter.reloads",
        "counter",
        "{reload}",
        "Attempts to load rules and models.",
        lambda c: [(("ok",), c.reloads_ok), (("failed",), c.reloads_failed)],
        _OUTCOME,
        "supervisor",
    ),
    Instrument(
        "arbiter.reload.last_ok",
        "gauge",
        "",
        "1 when the last attempt to load succeeded, 0 when the files hold errors or could not be loaded.",
        one(lambda c: int(c.last_reload_ok)),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.reload.age",
        "gauge",
        "s",
        "Time since the last attempt to load.",
        _age(lambda c: c.last_reload_at),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.reload.mistakes",
        "gauge",
        "{mistake}",
        "Mistakes that the last attempt to load found; error.type says whose: the author's, or an exception of ours.",
        lambda c: [((c.last_reload_fault,), c.last_reload_mistakes)] if c.last_reload_mistakes else [],
        ("error.type",),
        "supervisor",
    ),
    Instrument(
        "arbiter.snapshot.age",
        "gauge",
        "s",
        "Time since the snapshot became current.",
        _age(lambda c: c.snapshot_at),
        origin="all",
        joined="each",
    ),
    Instrument(
        "arbiter.snapshot.info",
        "gauge",
        "",
        "1 for each snapshot that decides: the current one, and a canary's.",
        _serving,
        ("arbiter.snapshot.digest", "arbiter.snapshot.part"),
        origin="all",
        joined="each",
    ),
    Instrument(
        "arbiter.snapshot.held",
        "gauge",
        "",
        "1 while an operator's rollback or promotion stands in place of the files.",
        one(lambda c: int(c.snapshot_held)),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.canary.percent",
        "gauge",
        "%",
        "The canary's share of subjects, 0 without one.",
        one(lambda c: c.canary_percent),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.overrides",
        "gauge",
        "{override}",
        "Rules and models switched off.",
        one(lambda c: c.overrides),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.worker.restarts",
        "counter",
        "{restart}",
        "Workers that died.",
        one(lambda c: c.worker_restarts),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.workers.serving",
        "gauge",
        "{worker}",
        "Workers that answer calls.",
        one(lambda c: c.workers_serving),
        origin="supervisor",
    ),
    *process.INSTRUMENTS,
)
