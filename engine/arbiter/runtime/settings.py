"""What a supervisor and its workers need to know to run.

Law: plain data that passes to another process. No defaults that depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import msgspec

# Fields' types at run time.
from arbiter.config.limits import Limits as AllLimits
from arbiter.config.options import DecisionLog, Events, Kafka, LogLevel, Profiles, Telemetry, Triggers
from arbiter.errors import ArbiterError
from arbiter.profiles.values import Limits
from arbiter.runtime.admin import Admin
from arbiter.runtime.engine import Engine  # noqa: TC001
from arbiter.runtime.recording import Recorder  # noqa: TC001
from arbiter.telemetry.counters import Counters  # noqa: TC001
from arbiter.telemetry.observer import Observer  # noqa: TC001

_SECOND = 1_000_000
_HOUR = 3600 * _SECOND
_DAY = 24 * _HOUR


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to serve: each field is an option of the same name, but `face`. `listen`, `admin` and `metrics` are
    ``HOST:PORT``, port 0 for any free one; `grace` is seconds.

    `admin` is where the supervisor answers itself, `sockets` the directory where each worker also listens on a socket
    of its own; both are ``""`` for none. `snapshots` bounds those that can be rolled back to. With `require_tests` a
    set whose own tests fail is not loaded. `face` is passed on, unread, to whatever opens the workers' server: its own
    settings, encoded.
    """

    rules: str
    models: str = ""
    data: str
    listen: str
    admin: str = ""
    metrics: str = ""
    sockets: str = ""
    workers: int = 1
    grace: float = 10.0
    snapshots: int = 50
    require_tests: bool = False
    log_level: LogLevel = "info"
    telemetry: Telemetry = Telemetry()
    events: Events = Events()
    profiles: Profiles = Profiles()
    kafka: Kafka = Kafka()
    triggers: Triggers = Triggers()
    decision_log: DecisionLog = DecisionLog()
    limits: AllLimits = AllLimits()
    face: bytes = b""

    @property
    def rules_directory(self) -> Path:
        """Where the rule files are."""
        return Path(self.rules)

    @property
    def models_directory(self) -> Path | None:
        """Where the model folders are; None for no models."""
        return Path(self.models) if self.models else None

    @property
    def data_directory(self) -> Path:
        """Where all is that outlives the process."""
        return Path(self.data)

    @property
    def store_directory(self) -> Path:
        """Where profiles and events are."""
        return Path(self.data, "store")

    @property
    def store_limits(self) -> Limits:
        """What the store takes, how long it keeps it, and how much of it."""
        events, profiles, limits = self.events, self.profiles, self.limits
        return Limits(
            record_bytes=limits.record_bytes,
            event_bytes=limits.event_bytes,
            batch_events=limits.batch_events,
            list_items=limits.list_items,
            map_entries=limits.map_entries,
            value_depth=limits.value_depth,
            write_queue=limits.write_queue,
            link_events=limits.link_events,
            aliases=limits.aliases,
            consent_purposes=limits.consent_purposes,
            late=_micros(events.late_days, _DAY),
            ahead=round(events.ahead_seconds * _SECOND),
            keep_for=_micros(events.keep_days, _DAY),
            keep_events=events.keep_count or None,
            inactive=_micros(profiles.inactive_days, _DAY),
            versions=profiles.versions,
            idempotency=round(profiles.idempotency_hours * _HOUR),
            consent_history=profiles.consent_history,
            keep_firings=_micros(self.triggers.keep_days, _DAY),
        )

    @property
    def triggers_file(self) -> Path:
        """What says at which event the process that runs triggers works."""
        return Path(self.data, "triggers.at")

    @property
    def snapshots_directory(self) -> Path:
        """Where snapshots are."""
        return Path(self.data, "snapshots")


def _micros(number: float, unit: int) -> int | None:
    """A number of units in µs; None for 0, which sets no bound."""
    return round(number * unit) if number else None


class Face(Protocol):
    """A server that answers callers."""

    def stop(self, grace: float) -> None:
        """Take no new calls, wait up to `grace` seconds for those begun, return when all have ended."""


class AdminFace(Face, Protocol):
    """A server that answers health and administration. `address` is where."""

    address: str


class Backing(msgspec.Struct, frozen=True):
    """What a server is opened over. `observer` follows its calls, `recorder` writes decisions down; without one nobody
    does. `purpose` is that of the decision log, see `Recorder`.
    """

    engine: Engine
    admin: Admin
    counters: Counters
    observer: Observer | None = None
    recorder: Recorder | None = None
    purpose: str = ""


# A function of a module, since another process finds it by its name: opens a server on an address, and on a second one
# (``unix:PATH``, ``""`` for none), and starts it.
OpenFace = Callable[[Backing, str, bytes, str], Face]
# Opens a server on ``HOST:PORT`` that answers health and administration and nothing else.
OpenAdmin = Callable[[Admin, str, bytes], AdminFace]
# Makes a line of the audit log of an experiment that paused itself: takes the face's settings, encoded, the name, why,
# and the error that kept it from that, if any.
NoteOrder = Callable[[bytes, str, str, ArbiterError | None], None]
# A function of a module: the entry of a process beside the workers, which takes its pipe, a number, and the settings,
# encoded.
RunBeside = Callable[[Connection, int, bytes], None]
