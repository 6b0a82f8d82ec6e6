"""Looking on at decisions: what is asked for, and what is told, as plain values.

Law: no gRPC, no clock; both faces drive it, as they drive a stream of firings (`following`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.client import arguments
from arbiter.client.answers import read_answer
from arbiter.client.calls import Again, rpc
from arbiter.types import ExperimentOutcome, ExplainLevel, ModelOutcome, RuleOutcome, Treatment, from_micros
from arbiter.v1 import admin_pb2, decision_pb2
from arbiter.wire.values import read_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

_method = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name["WatchDecisions"]
WATCH_DECISIONS = rpc(_method, admin_pb2.WatchDecisionsRequest, admin_pb2.WatchDecisionsResponse, Again.ALWAYS)


class WatchedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that some worker made, without parameters and values, and with nothing that is personal.

    `id` names it in the decision log, and begins its decision id; `reference` is the subject there. `subject_id` is
    there where it was asked for by this id. `impersonal` says that the subject has not granted the purpose of the
    decision log: then all of these are empty, and `at` is to the minute. `explanation`, `explanation_text`, `models`
    and `standings` are empty unless asked for, and for one of very many rules.
    """

    decision: str
    id: str
    at: datetime
    reference: str
    subject_id: str
    treatments: tuple[Treatment, ...]
    snapshot: str
    canary: bool
    defaulted: bool
    degraded: tuple[str, ...]
    experiments: dict[str, str]
    explanation: tuple[RuleOutcome, ...]
    explanation_text: str
    models: tuple[ModelOutcome, ...]
    standings: tuple[ExperimentOutcome, ...]
    impersonal: bool


class Onlooking:
    """What is looked at. Raises InvalidRequest for what no request can hold."""

    def __init__(
        self,
        decisions: Sequence[str] = (),
        rules: Sequence[str] = (),
        subject_id: str = "",
        *,
        share: float = 1.0,
        most_per_second: int = 0,
        explain: ExplainLevel = ExplainLevel.NONE,
        explain_rules: Sequence[str] = (),
    ) -> None:
        self._request = admin_pb2.WatchDecisionsRequest(
            decisions=arguments.texts(decisions, "decisions"),
            rules=arguments.texts(rules, "rules"),
            subject_id=arguments.text(subject_id, "subject_id"),
            share=arguments.real(share, "share"),
            most_per_second=arguments.number(most_per_second, "most_per_second", arguments.UINT32),
            explain=arguments.explaining(explain, explain_rules),
        )
        self._before = 0
        self._now = 0

    @property
    def dropped(self) -> int:
        """The decisions that were too many, over all connections."""
        return self._before + self._now

    def request(self) -> admin_pb2.WatchDecisionsRequest:
        """What a stream is opened with."""
        self._before, self._now = self.dropped, 0  # each connection counts anew
        return self._request

    def read(self, response: admin_pb2.WatchDecisionsResponse) -> Iterator[WatchedDecision]:
        """Give the decisions of an answer."""
        self._now = response.dropped
        return map(_read, response.decisions)


class Onlooked:
    """How it goes with looking on, for who reads it."""

    def __init__(self, onlooking: Onlooking) -> None:
        self._onlooking = onlooking

    @property
    def dropped(self) -> int:
        """How many decisions were to be told and were too many."""
        return self._onlooking.dropped


def _read(message: admin_pb2.WatchedDecision) -> WatchedDecision:
    # What a decision and an answer share is read in one place.
    shared = read_answer(
        decision_pb2.Decision(
            decision=message.decision,
            treatments=message.treatments,
            defaulted=message.defaulted,
            degraded=message.degraded,
            explanation=message.explanation,
            experiments=message.experiments,
        ),
        message.snapshot,
        "",
    )
    return WatchedDecision(
        decision=message.decision,
        id=message.id,
        at=from_micros(read_timestamp(message.at)),
        reference=message.reference,
        subject_id=message.subject_id,
        treatments=shared.treatments,
        snapshot=message.snapshot,
        canary=message.canary,
        defaulted=message.defaulted,
        degraded=shared.degraded,
        experiments=shared.experiments,
        explanation=shared.explanation,
        explanation_text=shared.explanation_text,
        models=shared.models,
        standings=shared.standings,
        impersonal=message.impersonal,
    )
