"""The methods that report what became of decisions.

Law: as `methods`, of which they are a part: each builds a `Call` and runs nothing.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from arbiter.client import arguments
from arbiter.client.calls import Again, Call, Method, rpc
from arbiter.v1 import outcome_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

_outcomes = outcome_pb2.DESCRIPTOR.services_by_name["OutcomeService"].methods_by_name

# What is there already is a duplicate.
RECORD_EXPOSURES = rpc(
    _outcomes["RecordExposures"], outcome_pb2.RecordExposuresRequest, outcome_pb2.RecordExposuresResponse, Again.ALWAYS
)
RECORD_OUTCOMES = rpc(
    _outcomes["RecordOutcomes"], outcome_pb2.RecordOutcomesRequest, outcome_pb2.RecordOutcomesResponse, Again.ALWAYS
)


class ReportResult(enum.StrEnum):
    """What became of a report: recorded; recorded before; its decision is too old; its subject was erased since."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    SUBJECT_ERASED = "subject_erased"


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """That what a decision delivered was shown: that of `rule_id`, or without it all. `at` is None for now.

    Another `idempotency_key` makes another showing of it.
    """

    decision_id: str
    rule_id: str = ""
    at: datetime | None = None
    idempotency_key: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What happened after a decision, due to what `rule_id` delivered, or without it to all. `at` is None for now.

    Another `idempotency_key` makes another outcome of that name: the number of an order, say.
    """

    decision_id: str
    name: str
    rule_id: str = ""
    value: float | None = None
    at: datetime | None = None
    idempotency_key: str = ""


class OutcomeMethods:
    """The part of `Methods` that is about what became of decisions."""

    @Method
    def record_exposures(
        self, exposures: Iterable[Exposure], *, timeout: float | None = None
    ) -> Call[tuple[ReportResult, ...]]:
        """Record what was shown; return what became of each report once all are on disk. May be repeated."""
        message = outcome_pb2.RecordExposuresRequest(
            exposures=[_exposure(each, f"exposures[{place}]") for place, each in enumerate(exposures)]
        )
        return RECORD_EXPOSURES.call(message, _results, timeout)

    @Method
    def record_outcomes(
        self, outcomes: Iterable[Outcome], *, timeout: float | None = None
    ) -> Call[tuple[ReportResult, ...]]:
        """Record what happened; return what became of each report once all are on disk. May be repeated."""
        message = outcome_pb2.RecordOutcomesRequest(
            outcomes=[_outcome(each, f"outcomes[{place}]") for place, each in enumerate(outcomes)]
        )
        return RECORD_OUTCOMES.call(message, _results, timeout)


def _exposure(given: Exposure, field: str) -> outcome_pb2.Exposure:
    return outcome_pb2.Exposure(
        decision_id=arguments.text(given.decision_id, f"{field}.decision_id"),
        rule_id=arguments.text(given.rule_id, f"{field}.rule_id"),
        at=None if given.at is None else arguments.moment(given.at, f"{field}.at"),
        idempotency_key=arguments.text(given.idempotency_key, f"{field}.idempotency_key"),
    )


def _outcome(given: Outcome, field: str) -> outcome_pb2.Outcome:
    return outcome_pb2.Outcome(
        decision_id=arguments.text(given.decision_id, f"{field}.decision_id"),
        name=arguments.text(given.name, f"{field}.name"),
        rule_id=arguments.text(given.rule_id, f"{field}.rule_id"),
        value=None if given.value is None else arguments.real(given.value, f"{field}.value"),
        at=None if given.at is None else arguments.moment(given.at, f"{field}.at"),
        idempotency_key=arguments.text(given.idempotency_key, f"{field}.idempotency_key"),
    )


def _results(
    response: outcome_pb2.RecordExposuresResponse | outcome_pb2.RecordOutcomesResponse,
) -> tuple[ReportResult, ...]:
    prefix = "REPORT_RESULT_"
    names = (outcome_pb2.ReportResult.Name(each) for each in response.results)
    return tuple(ReportResult(name.removeprefix(prefix).lower()) for name in names)
