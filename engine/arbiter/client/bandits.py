"""The methods that show what bandits have learned, and set it back.

Law: as `methods`, of which they are a part: each builds a `Call` and runs nothing.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - a field's type at run time

import msgspec

from arbiter.client import arguments
from arbiter.client.calls import Again, Call, Method, rpc
from arbiter.types import from_micros
from arbiter.v1 import outcome_pb2
from arbiter.wire.values import read_timestamp

_outcomes = outcome_pb2.DESCRIPTOR.services_by_name["OutcomeService"].methods_by_name

GET_BANDITS = rpc(_outcomes["GetBandits"], outcome_pb2.GetBanditsRequest, outcome_pb2.GetBanditsResponse, Again.ALWAYS)
# What was learned in between would be forgotten, too.
RESET_BANDIT = rpc(
    _outcomes["ResetBandit"], outcome_pb2.ResetBanditRequest, outcome_pb2.ResetBanditResponse, Again.NEVER
)
ROLLBACK_BANDIT = rpc(
    _outcomes["RollbackBandit"], outcome_pb2.RollbackBanditRequest, outcome_pb2.RollbackBanditResponse, Again.NEVER
)


class BanditArm(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned of a rule at a decision point: how often it won and lost, as that weighs now, the prior left
    out; and with which probability it would be drawn, were all of its group eligible. `written` is None for never.
    """

    decision: str
    group: str
    rule_id: str
    wins: float
    losses: float
    probability: float
    written: datetime | None = None


class BanditMethods:
    """The part of `Methods` that is about bandits."""

    @Method
    def bandits(
        self, group: str = "", *, decision: str = "", timeout: float | None = None
    ) -> Call[tuple[BanditArm, ...]]:
        """Return what groups of rules have learned, by decision point, group and rule."""
        message = outcome_pb2.GetBanditsRequest(
            group=arguments.text(group, "group"), decision=arguments.text(decision, "decision")
        )
        return GET_BANDITS.call(message, _arms, timeout)

    @Method
    def reset_bandit(
        self, group: str, *, decision: str = "", reason: str = "", timeout: float | None = None
    ) -> Call[int]:
        """Have a group forget what it learned, at one decision point or at all; return how many arms did."""
        message = outcome_pb2.ResetBanditRequest(
            group=arguments.text(group, "group"),
            decision=arguments.text(decision, "decision"),
            reason=arguments.text(reason, "reason"),
        )
        return RESET_BANDIT.call(message, _count, timeout)

    @Method
    def rollback_bandit(
        self, group: str, to: datetime, *, decision: str = "", reason: str = "", timeout: float | None = None
    ) -> Call[int]:
        """Set what a group learned back to what it was at a time; return how many arms were."""
        message = outcome_pb2.RollbackBanditRequest(
            group=arguments.text(group, "group"),
            decision=arguments.text(decision, "decision"),
            to=arguments.moment(to, "to"),
            reason=arguments.text(reason, "reason"),
        )
        return ROLLBACK_BANDIT.call(message, _count, timeout)


def _arms(response: outcome_pb2.GetBanditsResponse) -> tuple[BanditArm, ...]:
    return tuple(
        BanditArm(
            decision=each.decision,
            group=each.group,
            rule_id=each.rule_id,
            wins=each.wins,
            losses=each.losses,
            probability=each.probability,
            written=from_micros(read_timestamp(each.written_at)) if each.HasField("written_at") else None,
        )
        for each in response.arms
    )


def _count(response: outcome_pb2.ResetBanditResponse | outcome_pb2.RollbackBanditResponse) -> int:
    return response.arms
