"""From a DecideRequest to a Request, with every check that needs no snapshot.

Law: runs on every decision, so the common fields are read once and in the cheapest way; each message names its field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.server.reading import ValueReader
from arbiter.types import ExplainLevel, Request
from arbiter.v1 import decision_pb2
from arbiter.wire.values import read_timestamp

if TYPE_CHECKING:
    from arbiter.config.limits import Limits

_LEVELS = {
    decision_pb2.EXPLAIN_LEVEL_UNSPECIFIED: ExplainLevel.ALL,
    decision_pb2.EXPLAIN_LEVEL_WINNERS: ExplainLevel.WINNERS,
    decision_pb2.EXPLAIN_LEVEL_LOSERS: ExplainLevel.LOSERS,
    decision_pb2.EXPLAIN_LEVEL_ALL: ExplainLevel.ALL,
}


class RequestReader:
    """Reads requests under limits. Raises InvalidField, LimitExceeded."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # A character is at most four bytes: most ids and names are measured without being encoded.
        self._short = limits.id_bytes // 4
        self._values = ValueReader(limits)

    def read(self, request: decision_pb2.DecideRequest, now: int) -> Request:
        """Return what is asked. `now` is the server's clock in µs, by which requests without `at` are decided."""
        subject_id = request.subject_id
        short = self._short
        if not subject_id or len(subject_id) > short:
            self.check_id(subject_id, "subject_id")
        context = {}
        entries = request.context
        if entries:
            context = self._values.entries(entries, "context")
        content = request.context_json
        if content:
            if entries:
                raise InvalidField("context_json and context are both given: send one of them", field="context_json")
            context = self._values.json_object(content, "context_json")
        decision = request.decision
        if len(decision) > short:
            self.check_id(decision, "decision")
        decisions = (decision,) if decision and not request.decisions else self._page(request)
        slots = request.slots
        if slots > self._limits.slots:
            raise InvalidField(
                f"slots is {slots}, and `slots` allows {self._limits.slots}: send 0 for as many as the point has",
                field="slots",
                reason="slots",
            )
        if request.HasField("at"):
            now = self._clock(request)
        request_id = request.request_id
        if request_id:
            self.check_id(request_id, "request_id")
        if request.HasField("explain"):
            level, rules = self.explaining(request.explain)
            return Request(subject_id, decisions, now, context, slots, level, rules)
        return Request(subject_id, decisions, now, context, slots)

    def check_id(self, value: str, field: str) -> None:
        """Raise InvalidField unless `value` is 1 to `id_bytes` bytes of UTF-8."""
        size, allowed = len(value.encode()), self._limits.id_bytes
        if not size:
            raise InvalidField(f"{field} is empty: send 1 to {allowed} bytes of UTF-8", field=field)
        if size > allowed:
            raise InvalidField(
                f"{field} has {size:,} bytes, and `id_bytes` allows {allowed}: shorten it",
                field=field,
                reason="id_bytes",
            )

    def _page(self, request: decision_pb2.DecideRequest) -> tuple[str, ...]:
        names = tuple(request.decisions)
        if request.decision:
            raise InvalidField(
                "decision and decisions are both given: send `decision` for one, `decisions` for a page",
                field="decisions",
            )
        if not names:
            raise InvalidField(
                "decision is empty: name the decision point, or several in `decisions`", field="decision"
            )
        if len(names) > self._limits.decisions:
            raise LimitExceeded(
                f"decisions names {len(names)} points, and `decisions` allows {self._limits.decisions}: send fewer",
                field="decisions",
                reason="decisions",
            )
        for place, name in enumerate(names):
            if not name or name in names[:place]:
                what = "repeats an earlier one: name each point once" if name else "is empty: name a decision point"
                raise InvalidField(f"decisions[{place}] {what}", field=f"decisions[{place}]")
            self.check_id(name, f"decisions[{place}]")
        return names

    def _clock(self, request: decision_pb2.DecideRequest) -> int:
        if not request.dry_run:
            raise InvalidField("at is given without dry_run: set `dry_run`, or leave `at` out", field="at")
        try:
            return read_timestamp(request.at)
        except ValueError as error:
            raise InvalidField(f"at {error}", field="at") from None

    def explaining(self, options: decision_pb2.ExplainOptions) -> tuple[ExplainLevel, tuple[str, ...]]:
        """Return the level and the rules of what is to be explained. Raises CallerError."""
        level = _LEVELS.get(options.level)
        if level is None:
            known = ", ".join(sorted(decision_pb2.ExplainLevel.keys()))
            raise InvalidField(f"explain.level is {options.level}: use one of {known}", field="explain.level")
        rules = tuple(options.rules)
        if len(rules) > self._limits.explain_rules:
            raise LimitExceeded(
                f"explain.rules has {len(rules)} ids, `explain_rules` allows {self._limits.explain_rules}: send fewer",
                field="explain.rules",
                reason="explain_rules",
            )
        for place, rule in enumerate(rules):
            self.check_id(rule, f"explain.rules[{place}]")
        return level, rules
