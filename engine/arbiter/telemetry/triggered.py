"""What triggers tell of themselves, as instruments.

Law: pure, as `instruments`, of whose one list these are a part.
"""

from __future__ import annotations

from arbiter.telemetry.instrument import Instrument, by, capped, one

_NANOS = 1_000_000_000

INSTRUMENTS = (
    Instrument(
        "arbiter.trigger.events",
        "counter",
        "{event}",
        "Events of the log that triggers looked at.",
        one(lambda c: c.trigger_events),
    ),
    Instrument(
        "arbiter.trigger.firings",
        "counter",
        "{firing}",
        "Firings of triggers.",
        capped(lambda c: c.trigger_firings),
        ("arbiter.trigger.id",),
    ),
    Instrument(
        "arbiter.trigger.passed",
        "counter",
        "{firing}",
        "Patterns that were complete and did not fire, by what kept them from it.",
        by(lambda c: c.trigger_passed),
        ("arbiter.cause",),
    ),
    Instrument(
        "arbiter.trigger.time",
        "counter",
        "s",
        "Time in which triggers were evaluated, that of writing what came of it left out.",
        one(lambda c: c.trigger_time / _NANOS),
    ),
    Instrument(
        "arbiter.trigger.lag",
        "gauge",
        "{event}",
        "Events of the log that triggers have not looked at.",
        one(lambda c: c.trigger_lag),
        joined="most",
    ),
    Instrument(
        "arbiter.trigger.delay",
        "gauge",
        "s",
        "For how long the oldest event that triggers have not looked at has been in the log.",
        one(lambda c: c.trigger_delay),
        joined="most",
    ),
    Instrument(
        "arbiter.trigger.set_aside",
        "counter",
        "{error}",
        "What went wrong in triggers and was set aside; status has the last in words.",
        by(lambda c: c.trigger_set_aside),
        ("error.type",),
    ),
    Instrument(
        "arbiter.trigger.restarts",
        "counter",
        "{restart}",
        "Trigger processes that died, or hung and were ended.",
        one(lambda c: c.trigger_restarts),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.trigger.followers",
        "updown",
        "{stream}",
        "Streams of Subscribe that are open.",
        one(lambda c: c.followers),
    ),
    Instrument(
        "arbiter.trigger.told",
        "counter",
        "{firing}",
        "Firings that were sent over streams of Subscribe.",
        one(lambda c: c.firings_told),
    ),
)
