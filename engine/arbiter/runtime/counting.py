"""Decisions that count: those that gave what a cap counts when it is decided.

Law: a count is an event of the subject, ``arbiter.decision``, in its log like any other. What no strict cap holds for
is counted behind its answer; a decision that a strict cap holds for is made, and counted, inside one write transaction,
and so no other comes between, on whatever worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.profiles import records
from arbiter.profiles.ingesting import IngestEvents
from arbiter.profiles.outcomes import id_of
from arbiter.profiles.reading import ACCOUNT, member_of
from arbiter.profiles.subjects import is_right, unknown
from arbiter.types import DECISION, Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.profiles.features import FeatureSet
    from arbiter.profiles.group import Group
    from arbiter.profiles.ingesting import Entry
    from arbiter.profiles.keys import Keys
    from arbiter.profiles.records import Profile
    from arbiter.runtime.active import Active
    from arbiter.runtime.engine import Engine, Seen
    from arbiter.types import Decision, Request


class Decided:
    """A decision that a strict cap may hold for: made again on what its transaction sees, and counted in that.
    Answered with the decisions and what they saw. `numbers` are those of the decisions.
    """

    weight = 1

    def __init__(self, engine: Engine, request: Request, active: Active, numbers: Sequence[str]) -> None:
        self._engine = engine
        self._request = request
        self._active = active
        self._numbers = numbers
        self._key = engine.store.keys.subject(request.subject_id)

    def apply(self, group: Group) -> tuple[tuple[Decision, ...], list[Seen]]:
        """Decide and count. Raises LimitExceeded, InvalidField for a decision that is dated out of bounds."""
        group.check_quota()
        seen: list[Seen] = []
        request, keys = self._request, self._engine.store.keys
        profile = member_in(group, group.resolve(self._key), request.now, keys, self._active.features)
        decisions = self._engine.decide_on(profile, request, self._active, seen)
        found = entries_of(self._key, request.now, decisions, self._numbers)
        if found:
            IngestEvents(found).apply(group)
        return decisions, seen


def counting(decisions: Iterable[Decision]) -> bool:
    """Whether any of them gave something that a cap counts when it is decided."""
    return any(treatment.takes for decision in decisions for treatment in decision.treatments)


def strict(decisions: Iterable[Decision]) -> bool:
    """Whether a strict cap holds for anything that they gave."""
    return any(treatment.strict for decision in decisions for treatment in decision.treatments)


def entries_of(key: bytes, at: int, decisions: Iterable[Decision], numbers: Iterable[str]) -> list[Entry]:
    """The events that count what decisions at `at` (µs) gave the subject with this key."""
    found: list[Entry] = []
    for decision, number in zip(decisions, numbers, strict=True):
        for treatment in decision.treatments:
            if treatment.takes:
                rule = treatment.rule_id
                said = {
                    "decision": number,
                    "point": decision.point,
                    "rule": rule,
                    "action": treatment.action,
                    "group": treatment.group,
                }
                event = Event(id_of(DECISION, number, rule), "", DECISION, at, said)
                found.append((key, records.seen_key(key, event.id), event, records.encode(event), b""))
    return found


def member_in(group: Group, key: bytes, at: int, keys: Keys, features: FeatureSet) -> Profile:
    """The subject with this key, beside its account, as it is in a transaction at `at` (µs)."""
    profile = _profile_in(group, key, at)
    account = profile.attributes.get(ACCOUNT)
    if account.__class__ is not str:
        return member_of(profile, unknown(features))
    return member_of(profile, _profile_in(group, keys.account(account), at))


def _profile_in(group: Group, key: bytes, at: int) -> Profile:
    opened = group.open(key)
    if opened.changed:  # what was logged of it in this transaction counts too
        group.let_go(key)
        opened = group.open(key)
    if is_right(opened.profile, group.features, at):
        return opened.profile
    return opened.subject.as_of(opened.profile, group.features, at)
