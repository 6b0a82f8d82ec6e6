"""What bandits have learned: shown, forgotten, and set back, by the calls of OutcomeService for operators.

Law: turns what the store and the present rules say into messages. That these calls are recorded is the audit log's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.errors import InvalidField
from arbiter.profiles.arms import SetBack
from arbiter.profiles.values import check_id
from arbiter.runtime.bandits import Chances
from arbiter.server.calls import Later, parse, parsed
from arbiter.v1 import outcome_pb2
from arbiter.wire.values import read_timestamp, write_timestamp

if TYPE_CHECKING:
    from arbiter.profiles.arms import Arm
    from arbiter.ruleset.terms import Bandit
    from arbiter.runtime.engine import Engine
    from arbiter.server.calls import Call, Work
    from arbiter.telemetry.counters import Counters


class BanditWork:
    """The calls over an engine's store."""

    def __init__(self, engine: Engine, counters: Counters) -> None:
        self._engine = engine
        self._counters = counters

    def works(self) -> dict[str, Work]:
        """Return the work of each RPC by name."""
        return {
            "GetBandits": parsed(outcome_pb2.GetBanditsRequest, self._get),
            "ResetBandit": self._reset,
            "RollbackBandit": self._rollback,
        }

    def _get(self, request: outcome_pb2.GetBanditsRequest, _call: Call) -> outcome_pb2.GetBanditsResponse:
        now, stored = self._engine.clock(), self._engine.store.learned.arms()
        learned = {(arm.point, arm.group, arm.rule): arm for arm in stored}
        chances = Chances(stored, now)
        shown: dict[tuple[str, str, str], outcome_pb2.BanditArm] = {}
        for point, bandit, rules in self._declared():
            for rule, chance in zip(rules, chances.of(point, bandit, rules), strict=True):
                key = (point, bandit.name, rule)
                shown[key] = _arm(key, learned.get(key), now, bandit.half_life, chance)
        for key in learned.keys() - shown.keys():
            shown[key] = _arm(key, learned[key], now, 0, 0.0)
        return outcome_pb2.GetBanditsResponse(
            arms=[
                arm
                for _, arm in sorted(shown.items())
                if request.group in {"", arm.group} and request.decision in {"", arm.decision}
            ]
        )

    def _declared(self) -> list[tuple[str, Bandit, tuple[str, ...]]]:
        """The groups of the present snapshot by decision point, with the rules of each."""
        snapshot = self._engine.snapshot
        found = []
        for point in [] if snapshot is None else snapshot.points.values():
            for bandit in point.bandits.values():
                rules = [rule.id for rule in point.all_rules if rule.group == bandit.name and rule.enabled]
                found.append((point.name, bandit, tuple(sorted(rules))))
        return found

    def _reset(self, content: bytes, _call: Call) -> Later:
        request = parse(outcome_pb2.ResetBanditRequest, content)
        check_id(request.group, "group")

        def finish(arms: list[Arm]) -> bytes:
            self._counters.store_writes += 1
            return outcome_pb2.ResetBanditResponse(arms=len(arms)).SerializeToString()

        return Later(self._engine.store.write(SetBack(request.group, request.decision)), finish)

    def _rollback(self, content: bytes, _call: Call) -> Later:
        request = parse(outcome_pb2.RollbackBanditRequest, content)
        check_id(request.group, "group")
        if not request.HasField("to"):
            raise InvalidField("to is missing: send the time that is to be gone back to", field="to")
        try:
            to = read_timestamp(request.to)
        except ValueError as error:
            raise InvalidField(f"to {error}", field="to") from None
        if to > self._engine.clock():
            raise InvalidField("to is still to come: send a time that has passed", field="to")

        def finish(arms: list[Arm]) -> bytes:
            self._counters.store_writes += 1
            return outcome_pb2.RollbackBanditResponse(arms=len(arms)).SerializeToString()

        return Later(self._engine.store.write(SetBack(request.group, request.decision, to)), finish)


def _arm(key: tuple[str, str, str], arm: Arm | None, now: int, half_life: int, chance: float) -> outcome_pb2.BanditArm:
    decision, group, rule = key
    message = outcome_pb2.BanditArm(decision=decision, group=group, rule_id=rule, probability=chance)
    if arm is not None:
        message.wins, message.losses = arm.weighed(now, half_life)
        message.written_at.CopyFrom(write_timestamp(arm.written))
    return message
