"""What the log of decisions tells of itself, as instruments.

Law: pure, as `instruments`, of whose one list these are a part. Workers say what they wrote, the supervisor what the
process beside them makes of it.
"""

from __future__ import annotations

from arbiter.telemetry.instrument import Instrument, by, one

INSTRUMENTS = (
    Instrument(
        "arbiter.decision_log.rows",
        "counter",
        "{row}",
        "Rows written down: decisions, exposures, outcomes.",
        one(lambda c: c.log_rows),
    ),
    Instrument(
        "arbiter.decision_log.dropped",
        "counter",
        "{row}",
        "Rows that were not written down: too much waited (full), or their subjects got no reference.",
        by(lambda c: c.log_dropped),
        ("arbiter.cause",),
    ),
    Instrument(
        "arbiter.decision_log.stopped",
        "gauge",
        "",
        "1 while something keeps decisions from being written down, their log from being kept, or guardrails from "
        "being looked at.",
        one(lambda c: int(bool(c.log_error))),
        origin="all",
        joined="most",
    ),
    Instrument(
        "arbiter.decision_log.kept",
        "counter",
        "{row}",
        "Rows of which Parquet was made.",
        one(lambda c: c.log_kept),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.decision_log.lag",
        "gauge",
        "s",
        "How old the oldest rows are of which no Parquet was made yet.",
        one(lambda c: c.log_lag_s),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.decision_log.size",
        "gauge",
        "By",
        "What the log of decisions takes on its disk.",
        one(lambda c: c.log_size),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.decision_log.restarts",
        "counter",
        "{restart}",
        "Processes beside the log of decisions that died.",
        one(lambda c: c.log_restarts),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.guardrail.looks",
        "counter",
        "{look}",
        "Looks at the guardrails of experiments.",
        one(lambda c: c.guardrail_looks),
        origin="supervisor",
    ),
    Instrument(
        "arbiter.guardrail.pauses",
        "counter",
        "{pause}",
        "Experiments that paused themselves, since a guardrail broke.",
        one(lambda c: c.guardrail_pauses),
        origin="supervisor",
    ),
)
