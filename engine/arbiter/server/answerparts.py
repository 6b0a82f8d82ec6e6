"""The serialised parts that answers of one snapshot share, and by which they are put together.

Law: made when they are first needed, and kept as long as the snapshot is served; nothing of a subject stands in them.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from arbiter.learning import token
from arbiter.types import Reason
from arbiter.v1 import decision_pb2
from arbiter.wire.values import write_entries

if TYPE_CHECKING:
    from arbiter.profiles.keys import Keys
    from arbiter.snapshot import Snapshot
    from arbiter.telemetry.counters import Counters
    from arbiter.types import Decision, Treatment
    from arbiter.v1 import admin_pb2

_DecideResponse = decision_pb2.DecideResponse
_KEPT = 50_000  # names of rules, in statements that are kept
_REASONS = {Reason.WON: decision_pb2.REASON_RULE, Reason.DEFAULT: decision_pb2.REASON_DEFAULT}


class Parts:
    """The serialised parts that answers of one snapshot share. Threads may fill it at once: entries are equal.

    It does not keep the snapshot: one that has been replaced goes when its last call ends.
    """

    def __init__(self, snapshot: Snapshot, counters: Counters, keys: Keys) -> None:
        self.of = weakref.ref(snapshot)
        self.name = snapshot.digest
        self._keys = keys
        self._sticky = frozenset(each.name for each in snapshot.frame.experiments.each if each.sticky)
        self._statements: dict[tuple[str, ...], token.Stated] = {}
        self._kept = 0
        self._counters = counters
        self.digest = _DecideResponse(snapshot=snapshot.digest).SerializeToString()
        self.points = {name: _DecideResponse(decision=name).SerializeToString() for name in snapshot.points}
        # By rule (by point for a default), so there are never more than rules. A hit is the very same object: one
        # with constant parameters. A rendered one is new each time; it takes the place of the last.
        self._treatments: dict[str, tuple[Treatment, bytes]] = {}

    def statement(self, decision: Decision, snapshot: Snapshot) -> token.Stated:
        """What decisions that gave the same say in their ids."""
        treatments = decision.treatments
        if len(treatments) == 1:
            key: tuple[str, ...] = (decision.point, treatments[0].rule_id)
        else:
            key = (decision.point, *[each.rule_id for each in treatments])
        kept: tuple[tuple[str, str], ...] = ()
        if decision.experiments and self._sticky:
            kept = tuple(each for each in decision.experiments.items() if each[0] in self._sticky)
            key += tuple(f"{name}={variant}" for name, variant in kept)
        known = self._statements.get(key)
        if known is None:
            self._kept += len(key)
            if self._kept > _KEPT:
                self._statements, self._kept = {}, len(key)
            groups = snapshot.points[decision.point].groups
            delivered = tuple(
                token.Delivered(each.rule_id, each.action, groups.get(each.rule_id, "")) for each in treatments
            )
            proof = self._keys.proof
            most = token.room(self._keys.asked_bytes, proof)
            known = self._statements[key] = token.stated(proof, decision.point, self.name, delivered, most, kept)
        return known

    def treatment(self, treatment: Treatment, point: str) -> bytes:
        """A DecideResponse that holds the treatment alone."""
        key = treatment.rule_id or point
        known = self._treatments.get(key)
        if known is not None and known[0] is treatment:
            self._counters.reused += 1
            return known[1]
        self._counters.rendered += 1
        content = _serialise(treatment)
        self._treatments[key] = treatment, content
        return content


def _serialise(treatment: Treatment) -> bytes:
    """Return a DecideResponse that holds the treatment alone."""
    response = _DecideResponse()
    write_treatment(response, treatment)
    return response.SerializeToString()


def write_treatment(response: decision_pb2.DecideResponse | admin_pb2.WatchedDecision, treatment: Treatment) -> None:
    """Add a treatment to an answer."""
    message = response.treatments.add(
        rule_id=treatment.rule_id,
        action=treatment.action,
        priority=treatment.priority,
        value=treatment.value,
        reason=_REASONS[treatment.reason],
        variant=treatment.variant,
    )
    write_entries(message.params, treatment.params)


def varint(number: int) -> bytes:
    """Return a length as protobuf writes it: seven bits a byte, the lowest first."""
    written = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
