"""The server: services, health and reflection on one port.

Law: puts the parts together and owns their start and end. What a call does stands in the services.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Literal

import grpc
import msgspec
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from arbiter.errors import ArbiterError
from arbiter.runtime.address import ListenError
from arbiter.server import admin, bandits, decisions, health, outcomes, privacy, profiles, triggers
from arbiter.server.calls import Entry, Rpc
from arbiter.server.grpcio import missing, only_lost
from arbiter.server.guard import Guard
from arbiter.server.inline import InlineLoop
from arbiter.server.lookout import Lookout
from arbiter.server.onlooking import DecisionWatch
from arbiter.server.pipelined import DecideStreams
from arbiter.server.requests import RequestReader
from arbiter.server.settings import FaceSettings
from arbiter.server.stock import Door, Pool, handler
from arbiter.server.streams import Streams

if TYPE_CHECKING:
    from arbiter.config.limits import Limits
    from arbiter.config.options import Transport
    from arbiter.runtime.settings import Backing
    from arbiter.server.calls import Work
    from arbiter.server.gate import Gate

_log = logging.getLogger("arbiter.server")
_UNBOUNDED = 2**31 - 1  # what is under way is bounded by connections, and by the calls on each
_HANDSHAKE_MS = 10_000  # for who connects and says nothing; grpc's own is two minutes

# The methods that the inline transport answers itself, if it is there: what services call in masses.
INLINE = {
    decisions.SERVICE: frozenset({"Decide", "DecideBatch"}),
    profiles.SERVICE: frozenset({"UpdateProfile", "IngestEvents", "SetConsent"}),
    outcomes.SERVICE: frozenset({"RecordExposures", "RecordOutcomes"}),
}
# How long a server that stops goes on answering after it has said NOT_SERVING.
FAREWELL_S = 0.25
_LOOK_S = 0.05  # how often it looks, then, whether it waits for nothing any more


class TransportError(ArbiterError):
    """The transport that was asked for cannot be had."""


class Server:
    """A server that runs. `port` is the one that it listens on, `transport` what answers (inline or stock)."""

    def __init__(
        self,
        backing: Backing,
        listen: str,
        settings: FaceSettings | None = None,
        gate: Gate | None = None,
        socket: str = "",
    ) -> None:
        """Bind ``HOST:PORT`` (port 0: any free one), and ``unix:PATH`` as `socket`, and answer from now on.

        `gate` is asked in place of the one that the settings make. Raises ListenError, TransportError, and AuditFailed,
        AuthorError and UnusableFile for the files that the settings name.
        """
        settings = settings or FaceSettings()
        self._guard = guard = Guard(settings, backing.engine.store.pseudonym)
        gate = gate or guard.gate
        counters = backing.counters
        limits = settings.limits
        stored = profiles.ProfileService(backing.engine, limits, counters)
        triggering = triggers.TriggerService(backing.engine, limits, counters)
        deciding = decisions.DecisionService(backing.engine, limits, counters, backing.recorder)
        self._lookout = Lookout(backing, RequestReader(limits), deciding.note_to)
        services: dict[str, dict[str, Work]] = {
            decisions.SERVICE: deciding.works(),
            profiles.SERVICE: {**stored.works(), **privacy.Privacy(backing.engine, limits, counters).works()},
            outcomes.SERVICE: {
                **outcomes.OutcomeService(backing.engine, limits, counters, backing.recorder).works(),
                **bandits.BanditWork(backing.engine, counters).works(),
            },
            triggers.SERVICE: triggering.works(),
            admin.SERVICE: admin.AdminService(backing.admin, limits).works(),
        }
        rpcs = {
            (service, name): Rpc(
                path := f"/{service}/{name}", guard.recorded(path, work), gate, counters, backing.observer
            )
            for service, works in services.items()
            for name, work in works.items()
        }
        self._pool = Pool(settings.threads)
        by_path = {rpc.path: rpc for rpc in rpcs.values()}
        streams = self._streaming(backing, guard, gate, limits, rpcs[decisions.SERVICE, "Decide"], stored, triggering)
        self._door = Door(
            by_path,
            gate,
            self._pool,
            limits.concurrent_calls,
            open_to_all=(health.SERVICE,),
            streams=[f"/{service}/{name}" for service, kinds in streams.items() for name in kinds],
        )
        self._server = grpc.server(
            self._pool,
            interceptors=[self._door],
            options=(
                ("grpc.so_reuseport", int(settings.reuse_port)),
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", limits.connection_calls),
                # It would refuse calls of a client that keeps to this, while it still cleans up after others.
                ("grpc.http.overload_protection", 0),
                # grpc drops calls that wait for us to take them, by lot, from a thousand on, and does not say why.
                ("grpc.server.max_pending_requests", _UNBOUNDED),
                ("grpc.server.max_pending_requests_hard_limit", _UNBOUNDED),
                ("grpc.max_metadata_size", limits.metadata_bytes),
                ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
                ("grpc.max_allowed_incoming_connections", limits.connections),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
                *_aging(settings),
            ),
        )
        self.transport = _chosen(settings.transport, self._server)
        inline = INLINE if self.transport == "inline" else {}
        for service, works in services.items():
            handlers = {
                name: handler(rpcs[service, name]) for name in works if name not in inline.get(service, frozenset())
            } | streams.get(service, {})
            # Registered methods are matched in C; the generic handler answers where a channel does not use them.
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
            self._server.add_registered_method_handlers(service, handlers)  # type: ignore[attr-defined] # newer than the stubs
        self._health = health.Health(services, guarded=gate is not None)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*services, health.SERVICE, reflection.SERVICE_NAME), self._server)
        try:
            self.port = guard.bind(self._server, listen)
            if socket:
                self._server.add_insecure_port(socket)
        except RuntimeError as error:
            self._end_threads()
            raise ListenError(f"cannot listen on {' and '.join(filter(None, (listen, socket)))}: {error}") from error
        if inline:
            answered = [rpcs[service, name] for service, names in inline.items() for name in sorted(names)]
            InlineLoop(self._server, answered, self._pool, limits.concurrent_calls, backing.observer).start()
        else:
            self._server.start()
        guard.start()
        backing.admin.watch(self._health.update)
        self._lookout.open(backing.admin.onlookers)

    def _streaming(
        self,
        backing: Backing,
        guard: Guard,
        gate: Gate | None,
        limits: Limits,
        decide: Rpc,
        stored: profiles.ProfileService,
        triggering: triggers.TriggerService,
    ) -> dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]:
        """What answers the methods that are streams, by service and name."""
        counters = backing.counters
        pipeline, ingest, follow, watch = (
            Entry(f"/{service}/{name}", gate, counters, backing.observer)
            for service, name in (
                (decisions.SERVICE, "DecideStream"),
                (profiles.SERVICE, "IngestStream"),
                (triggers.SERVICE, "Subscribe"),
                (admin.SERVICE, "WatchDecisions"),
            )
        )
        pipelining = Streams(limits.decide_streams, "decide_streams", "call Decide")
        ingesting = Streams(limits.ingest_streams, "ingest_streams", "send batches")
        following = Streams(limits.followers, "followers", "follow with fewer streams")
        watching = Streams(limits.watchers, "watchers", "look on with fewer streams")
        self._streams = (pipelining, ingesting, following, watching)
        piped = DecideStreams(decide, self._pool, limits.concurrent_calls, counters)
        seeing = DecisionWatch(backing.admin, limits, RequestReader(limits))
        return {
            decisions.SERVICE: {"DecideStream": pipelining.answering(pipeline, piped.open)},
            profiles.SERVICE: {"IngestStream": ingesting.answering(ingest, stored.stream().open)},
            triggers.SERVICE: {"Subscribe": following.telling(follow, triggering.opens(guard.recorded, follow.path))},
            admin.SERVICE: {"WatchDecisions": watching.telling(watch, seeing.opens(guard.recorded, watch.path))},
        }

    def stop(self, grace: float) -> None:
        """Say NOT_SERVING, a moment later take no new calls, give those begun `grace` seconds; return at the end."""
        self._health.enter_graceful_shutdown()
        # Who watches health sends nothing more by the time that calls on the wire would be cut off
        # (docs/decisions/0040).
        time.sleep(min(grace, FAREWELL_S))
        for each in self._streams:
            each.close()
        ended = self._server.stop(grace)
        while not ended.wait(_LOOK_S):
            if only_lost(self._server):
                self._server.stop(None)
        self._end_threads()

    def _end_threads(self) -> None:
        self._lookout.close()
        self._pool.shutdown()
        for each in self._streams:
            each.shutdown()
        self._door.close()
        self._guard.stop()


def _aging(settings: FaceSettings) -> list[tuple[str, int]]:
    """What has grpc tell connections to go when they are old, each at a moment of its own, a tenth around the age."""
    if not settings.connection_age:
        return []
    return [
        ("grpc.max_connection_age_ms", max(1, round(settings.connection_age * 1000))),
        ("grpc.max_connection_age_grace_ms", round(settings.connection_grace * 1000)),
    ]


def _chosen(wanted: Transport, server: grpc.Server) -> Literal["inline", "stock"]:
    """The transport that can be had. Raises TransportError when that is not what was asked for."""
    if wanted == "stock":
        return "stock"
    lacking = missing(server)
    if not lacking:
        return "inline"
    said = f"grpcio {grpc.__version__} is not what the inline transport was made for: {lacking}"
    if wanted == "inline":
        raise TransportError(f"{said}; use `--transport auto` or `--transport stock`")
    _log.warning("%s; calls are answered by the stock transport, which is slower", said)
    return "stock"


def open_face(backing: Backing, listen: str, settings: bytes, socket: str = "") -> Server:
    """Open a worker's server: `settings` are encoded FaceSettings, empty for the defaults. Workers share the port.

    `socket` is this worker's own, ``unix:PATH``.
    """
    chosen = msgspec.msgpack.decode(settings, type=FaceSettings) if settings else FaceSettings()
    return Server(backing, listen, msgspec.structs.replace(chosen, reuse_port=True), socket=socket)
