"""How a server is, out of its answer: its processes, its store, its consumer, its triggers.

Law: messages in, plain data out; as in `answers`, nothing of gRPC is known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.client.answers import read_status
from arbiter.serving import (
    ConsumerFigures,
    ConsumerInfo,
    LogFigures,
    Phase,
    ServerInfo,
    StoreSize,
    TriggerFigures,
    TriggerInfo,
    WorkerFigures,
    WorkerInfo,
)
from arbiter.wire.numbers import PHASES
from arbiter.wire.values import read_timestamp

if TYPE_CHECKING:
    from arbiter.v1 import admin_pb2

_PHASES: dict[int, Phase] = {number: phase for phase, number in PHASES.items()}


def read_server(response: admin_pb2.GetStatusResponse) -> ServerInfo:
    """Return how a server is."""
    started_at = read_timestamp(response.started_at)
    return ServerInfo(
        version=response.version,
        at=started_at + response.uptime.ToMicroseconds(),
        started_at=started_at,
        draining=response.draining,
        workers=tuple(
            WorkerInfo(
                number=each.worker,
                pid=each.pid,
                phase=_PHASES[each.phase],
                digest=each.digest,
                restarts=each.restarts,
                since=read_timestamp(each.since),
                figures=_figures(each.figures) if each.HasField("figures") else None,
            )
            for each in response.workers
        ),
        status=read_status(response.state),
        store=_store(response.store) if response.HasField("store") else None,
        consumer=_consumer(response.consumer) if response.HasField("consumer") else None,
        triggers=_triggers(response.triggers) if response.HasField("triggers") else None,
        decision_log=_decision_log(response.decision_log) if response.HasField("decision_log") else None,
    )


def _triggers(message: admin_pb2.TriggerProcess) -> TriggerInfo:
    said = message.figures
    figures = TriggerFigures(
        triggers=said.triggers,
        position=said.position,
        lag=said.lag,
        lag_seconds=said.delay.ToMicroseconds() / 1e6,
        firings=said.firings,
        passed=said.passed,
        set_aside=said.set_aside,
    )
    return TriggerInfo(
        pid=message.pid,
        phase=_PHASES[message.phase],
        digest=message.digest,
        restarts=message.restarts,
        since=read_timestamp(message.since),
        figures=figures if message.HasField("figures") else None,
    )


def _decision_log(message: admin_pb2.DecisionLog) -> LogFigures:
    return LogFigures(
        written=message.written,
        dropped=message.dropped,
        kept=message.kept,
        size=message.size_bytes,
        lag_s=message.lag.ToMicroseconds() / 1e6,
        error=message.error,
    )


def _consumer(message: admin_pb2.Consumer) -> ConsumerInfo:
    said = message.figures
    figures = ConsumerFigures(
        partitions=said.partitions,
        lag=said.lag,
        accepted=said.accepted,
        duplicates=said.duplicates,
        erased=said.erased,
        rejected=said.rejected,
        missed=said.missed,
        paused=said.paused,
        last_error=said.last_error,
        last_error_at=read_timestamp(said.last_error_at),
    )
    return ConsumerInfo(
        pid=message.pid,
        phase=_PHASES[message.phase],
        digest=message.digest,
        restarts=message.restarts,
        since=read_timestamp(message.since),
        figures=figures if message.HasField("figures") else None,
    )


def _figures(message: admin_pb2.WorkerFigures) -> WorkerFigures:
    return WorkerFigures(
        calls=message.calls if message.HasField("calls") else None, writes=message.writes, shed=dict(message.shed)
    )


def _store(message: admin_pb2.StoreSize) -> StoreSize:
    return StoreSize(
        used=message.used_bytes,
        quota=message.quota_bytes,
        rebuilding=tuple(message.rebuilding),
        left=message.profiles_left,
        previous_ids=message.previous_ids,
    )
