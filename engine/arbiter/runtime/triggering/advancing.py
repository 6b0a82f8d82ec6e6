"""An evaluation as it is written: firings, what they did, states, and how far it came, in one transaction.

Law: all of it or nothing. What it rests on must be as it was: where a subject of which something is to be written was
erased, linked or moved meanwhile, or the log has grown where the evaluation speaks of its end, nothing is written and
it is evaluated anew.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import ArbiterError
from arbiter.profiles.pending import put_state, states_of
from arbiter.profiles.reached import Reached, put_reached, read_reached
from arbiter.runtime.triggering.acting import Firing

if TYPE_CHECKING:
    from arbiter.profiles.group import Group
    from arbiter.profiles.reached import Pattern
    from arbiter.runtime.triggering.evaluating import Evaluation, Seen
    from arbiter.runtime.triggering.running import Running


class Overtaken(ArbiterError):
    """What an evaluation read has changed since."""


class Advanced(msgspec.Struct, frozen=True):
    """What was written: how far it came, firings by trigger, and those passed over, by why."""

    reached: Reached
    fired: Counter[str]
    passed: Counter[str]


class Advance:
    """Write an evaluation. Answered with `Advanced`. Raises Overtaken, and LimitExceeded while the store is full."""

    weight = 500

    def __init__(self, running: Running, evaluation: Evaluation) -> None:
        self._running = running
        self._evaluation = evaluation

    def apply(self, group: Group) -> Advanced:
        """Check, fire, write."""
        evaluation, fired, passed = self._evaluation, Counter[str](), Counter[str]()
        again: set[bytes] = set()
        self._check(group)
        if evaluation.ready:
            group.check_quota()
        for key, occurrence in evaluation.ready:
            evaluation.courtesy.offer()
            seen = evaluation.subjects[key]
            try:
                why = Firing(self._running, group, key, seen.state, occurrence).take()
            except ArbiterError as error:  # as it is, it would leave what was put before
                raise RuntimeError(f"trigger `{occurrence.trigger.id}` cannot fire: {error}") from error
            if why:
                passed[why] += 1
            else:
                fired[occurrence.trigger.id] += 1
                seen.changed = True
                again.add(key)
        for key in again:
            evaluation.subjects[key].write()
        for key, seen in evaluation.subjects.items():
            if seen.changed:
                evaluation.courtesy.offer()
                put_state(group.environment, group.txn, key, seen.written, seen.due)
        reached = msgspec.structs.replace(evaluation.before, position=evaluation.position)
        put_reached(group.environment, group.txn, reached)
        group.wrote = True
        return Advanced(reached, fired, passed)

    def _check(self, group: Group) -> None:
        evaluation, stored = self._evaluation, read_reached(group.environment, group.txn)
        if stored.since != evaluation.before.since or stored.position > evaluation.before.position:
            raise Overtaken("another process looks at the log for triggers")
        if evaluation.quiet and group.position != evaluation.position:
            raise Overtaken("the log goes on")
        # Of whom nothing is written, what was read may have changed: then they were looked at before it did.
        ready = {key for key, _ in evaluation.ready}
        written = ((key, seen) for key, seen in evaluation.subjects.items() if seen.changed or key in ready)
        if not all(self._is_as_it_was(group, key, seen) for key, seen in written):
            raise Overtaken("a subject was erased, linked or moved")

    @staticmethod
    def _is_as_it_was(group: Group, key: bytes, seen: Seen) -> bool:
        environment, txn = group.environment, group.txn
        if seen.position and txn.get(seen.position.to_bytes(8, "big"), None, environment.whose) != key:
            return False
        return states_of(environment, txn, key) == seen.raw


class Adopt:
    """Look at events for these patterns from now on, and for no others. Answered with how far that has come.

    A pattern that was looked for goes on where it is; a new one begins with what is logged after this.
    """

    weight = 1

    def __init__(self, patterns: list[Pattern]) -> None:
        self._patterns = patterns

    def apply(self, group: Group) -> Reached:
        """Write it down."""
        stored = read_reached(group.environment, group.txn)
        known, end = stored.patterns, group.position
        since = {trigger: (pattern, known.get((trigger, pattern), end)) for trigger, pattern in self._patterns}
        reached = Reached(stored.position if known.keys() & set(self._patterns) else end, since)
        if reached != stored:
            put_reached(group.environment, group.txn, reached)
            group.wrote = True
        return reached
