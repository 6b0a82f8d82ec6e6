"""OutcomeService: what was shown of decisions, and what happened then, as events of their subjects.

Law: turns messages into reports, for which the ids of decisions vouch: whose they are, and what was delivered. What
becomes of a report is the store's to judge; it is answered when it is on disk.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from arbiter.errors import InvalidField, LimitExceeded
from arbiter.learning import token
from arbiter.learning.token import Delivered
from arbiter.profiles.arms import Lesson
from arbiter.profiles.outcomes import Recorded, RecordReports, Report, id_of
from arbiter.profiles.values import check_id, check_name
from arbiter.ruleset.experiments.kept import shown_as
from arbiter.runtime.telling import rows_of
from arbiter.server.calls import Later, parse
from arbiter.types import EXPOSURE, OUTCOME, Event
from arbiter.v1 import outcome_pb2
from arbiter.wire.values import read_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future
    from typing import Any

    from arbiter.config.limits import Limits
    from arbiter.learning.token import Claim
    from arbiter.profiles.outcomes import Became
    from arbiter.runtime.engine import Engine
    from arbiter.runtime.recording import Recorder
    from arbiter.server.calls import Call, Work
    from arbiter.telemetry.counters import Counters

SERVICE = outcome_pb2.DESCRIPTOR.services_by_name["OutcomeService"].full_name
_RESULTS = {
    Recorded.ACCEPTED: outcome_pb2.REPORT_RESULT_ACCEPTED,
    Recorded.DUPLICATE: outcome_pb2.REPORT_RESULT_DUPLICATE,
    Recorded.EXPIRED: outcome_pb2.REPORT_RESULT_EXPIRED,
    Recorded.SUBJECT_ERASED: outcome_pb2.REPORT_RESULT_SUBJECT_ERASED,
}


class OutcomeService:
    """RecordExposures and RecordOutcomes over an engine's store."""

    def __init__(self, engine: Engine, limits: Limits, counters: Counters, recorder: Recorder | None = None) -> None:
        self._engine = engine
        self._store = engine.store
        self._limits = limits
        self._counters = counters
        self._recorder = recorder

    def works(self) -> dict[str, Work]:
        """Return the work of each RPC by name."""
        return {"RecordExposures": self._exposures, "RecordOutcomes": self._outcomes}

    def _exposures(self, content: bytes, _call: Call) -> Later:
        sent = parse(outcome_pb2.RecordExposuresRequest, content).exposures
        self._check_count(len(sent), "exposures")
        now = self._engine.clock()
        reports = [self._exposure(each, f"exposures[{place}]", now) for place, each in enumerate(sent)]
        spans = [len(each) for each in reports]

        def finish(found: list[Became]) -> bytes:
            self._counters.store_writes += 1
            results, start = [], 0
            for span in spans:
                # An exposure of all that was delivered is as new as the newest part of it.
                parts = [each.recorded for each in found[start : start + span]]
                results.append(min(parts, default=Recorded.DUPLICATE))
                start += span
            return outcome_pb2.RecordExposuresResponse(results=_written(results)).SerializeToString()

        flat = [report for each in reports for report in each]
        self._check_count(len(flat), "exposures")  # what one report names may be several
        return Later(self._write(flat, now), finish)

    def _outcomes(self, content: bytes, _call: Call) -> Later:
        sent = parse(outcome_pb2.RecordOutcomesRequest, content).outcomes
        self._check_count(len(sent), "outcomes")
        now = self._engine.clock()
        reports = [self._outcome(each, f"outcomes[{place}]", now) for place, each in enumerate(sent)]
        return Later(self._write(reports, now), self._recorded)

    def _recorded(self, found: list[Became]) -> bytes:
        self._counters.store_writes += 1
        results = _written([each.recorded for each in found])
        return outcome_pb2.RecordOutcomesResponse(results=results).SerializeToString()

    def _write(self, reports: Sequence[Report], now: int) -> Future[list[Became]]:
        """Have them recorded, and those that are new written down in the log of decisions, whoever waits for it."""
        recorder = self._recorder
        if recorder is None:
            return self._store.write(RecordReports(reports))

        def told(future: Future[list[Became]]) -> None:
            if not future.cancelled() and future.exception() is None:
                recorder.tell(rows_of(reports, future.result(), now))

        future = self._store.write(RecordReports(reports, recorder.asks(self._engine.current())))
        future.add_done_callback(told)
        return future

    def _exposure(self, sent: outcome_pb2.Exposure, field: str, now: int) -> list[Report]:
        claim = self._opened(sent.decision_id, field)
        if claim.unnamed and not sent.rule_id:
            raise InvalidField(
                f"{field}.rule_id is empty, and the decision delivered {claim.unnamed:,} treatments, too many for its "
                "id to name: report each that was shown by its rule",
                field=f"{field}.rule_id",
            )
        shown = [self._delivered(claim, sent.rule_id, field)] if sent.rule_id else claim.delivered
        if claim.kept and not shown:
            shown = [Delivered("", "")]  # with another variant there would be something
        at = _moment(sent, claim, field, now)
        key = _checked_key(sent.idempotency_key, field)
        variants = {shown_as(name): variant for name, variant in claim.kept}
        made = []
        for each in shown:
            said = {
                "decision": claim.number,
                "point": claim.point,
                "rule": each.rule,
                "action": each.action,
                "group": each.group,
                **variants,
            }
            lessons = self._lessons(claim, (each,), None, at)
            made.append(self._report(claim, EXPOSURE, at, said, key, field, lessons))
        return made

    def _outcome(self, sent: outcome_pb2.Outcome, field: str, now: int) -> Report:
        claim = self._opened(sent.decision_id, field)
        check_name(sent.name, f"{field}.name")
        due = (self._delivered(claim, sent.rule_id, field),) if sent.rule_id else claim.delivered
        said: dict[str, Any] = {
            "decision": claim.number,
            "point": claim.point,
            "rule": sent.rule_id,
            "name": sent.name,
        }
        if sent.HasField("value"):
            if not math.isfinite(sent.value):
                raise InvalidField(
                    f"{field}.value is {sent.value}, and amounts must be finite: leave it out where none is known",
                    field=f"{field}.value",
                )
            said["value"] = sent.value
        key = _checked_key(sent.idempotency_key, field)
        at = _moment(sent, claim, field, now)
        return self._report(claim, OUTCOME, at, said, key, field, self._lessons(claim, due, sent.name, at))

    def _opened(self, text: str, field: str) -> Claim:
        return token.opened(self._store.keys.proof, text, f"{field}.decision_id")

    def _delivered(self, claim: Claim, rule: str, field: str) -> Delivered:
        """What a rule gave. Raises InvalidField for one that was not delivered."""
        for each in claim.delivered:
            if each.rule == rule:
                return each
        if claim.may_have_given(rule):
            # What the rule does, its id is too short to say: the rule itself does, unless it is gone.
            snapshots, now = self._engine.snapshots, self._engine.snapshot
            point = now and snapshots.get(claim.snapshot, now).points.get(claim.point)
            found = point.named(rule) if point else None
            return Delivered(rule, found.then.action, found.group) if found else Delivered(rule, "")
        given: Sequence[str] = [f"`{each.rule}`" for each in claim.delivered if each.rule]
        unnamed = f"{claim.unnamed:,} treatments of other rules" if claim.unnamed else "nothing of a rule"
        raise InvalidField(
            f"{field}.rule_id is `{rule[:64]}`, and the decision delivered {', '.join(given) or unnamed}: name one of "
            "those, or leave it out for the decision as a whole",
            field=f"{field}.rule_id",
        )

    def _lessons(
        self, claim: Claim, delivered: Iterable[Delivered], outcome: str | None, at: int
    ) -> tuple[Lesson, ...]:
        """What bandits learn of an outcome, None for an exposure: as the rules say now that the decision was made by,
        or the present ones where these are gone.
        """
        snapshots, snapshot = self._engine.snapshots, self._engine.snapshot
        point = None if snapshot is None else snapshots.get(claim.snapshot, snapshot).points.get(claim.point)
        bandits = {} if point is None else point.bandits
        return tuple(
            Lesson(
                claim.point, each.group, each.rule, claim.number, claim.at, bandit.within, bandit.half_life,
                outcome is not None,
            )
            for each in delivered
            if (bandit := bandits.get(each.group)) is not None
            and (outcome is None or (outcome == bandit.outcome and at - claim.at < bandit.within))
        )  # fmt: skip

    def _report(
        self, claim: Claim, kind: str, at: int, said: dict[str, Any], key: str, field: str, lessons: tuple[Lesson, ...]
    ) -> Report:
        event = Event(id_of(kind, claim.number, said["rule"], said.get("name", ""), key), "", kind, at, said)
        return Report(self._store.keys.of_asked(claim.subject), claim.at, claim.snapshot, event, field, lessons)

    def _check_count(self, count: int, field: str) -> None:
        allowed = self._limits.batch_events
        if count > allowed:
            raise LimitExceeded(
                f"{field} holds {count:,} reports, and `batch_events` allows {allowed:,}: split the batch",
                field=field,
                reason="batch_events",
            )


def _moment(sent: outcome_pb2.Exposure | outcome_pb2.Outcome, claim: Claim, field: str, now: int) -> int:
    """When it happened: not before the decision, whatever the caller's clock says."""
    if sent.HasField("at"):
        try:
            now = read_timestamp(sent.at)
        except ValueError as error:
            raise InvalidField(f"{field}.at {error}", field=f"{field}.at") from None
    return max(now, claim.at)


def _written(found: Sequence[Recorded]) -> list[outcome_pb2.ReportResult.ValueType]:
    return [_RESULTS[each] for each in found]


def _checked_key(key: str, field: str) -> str:
    if key:
        check_id(key, f"{field}.idempotency_key")
    return key
