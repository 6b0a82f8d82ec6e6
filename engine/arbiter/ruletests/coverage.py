"""Which rules and triggers the tests exercise.

Law: pure counting over explained results. A rule is exercised when it won somewhere; a rule that never won may at
least have been eligible, or judged, and each of the three says something else to its author. A trigger is exercised
when it fired; one that did not may at least have been complete. What is disabled does not count.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from arbiter.types import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from arbiter.ruleset.rules import Rule
    from arbiter.ruleset.triggers import Trigger
    from arbiter.ruletests.run import Result


class Reach(enum.IntEnum):
    """How far a rule got, at best. A trigger was asked where a test is about triggers, eligible when its pattern was
    complete, and won when it fired.
    """

    UNASKED = 0
    JUDGED = 1
    ELIGIBLE = 2
    WON = 3


_NOT_ELIGIBLE = frozenset(
    {Reason.FAILED, Reason.UNKNOWN, Reason.INACTIVE, Reason.ROLLED_OUT_OF, Reason.DISABLED, Reason.CAPPED}
)


class Covered(msgspec.Struct, frozen=True):
    """How far one rule got, or one `trigger`. `position` is ``file:line:column``, the file below the rules
    directory.
    """

    rule_id: str
    position: str
    reach: Reach
    trigger: bool = False

    @property
    def file(self) -> str:
        """The file that holds the rule."""
        return self.position.split(":", 1)[0]


class Coverage:
    """Counts results; `rules` and `triggers` are those of the whole set."""

    def __init__(self, rules: Sequence[Rule], triggers: Sequence[Trigger] = ()) -> None:
        self._positions = {rule.id: rule.position for rule in rules if rule.enabled}
        self._decisions = {rule.id: rule.decision for rule in rules if rule.enabled}
        self._reach: dict[str, Reach] = {}
        self._asked: set[str] = set()
        self._triggers = {trigger.id: trigger.position for trigger in triggers if trigger.enabled}
        self._fired = dict.fromkeys(self._triggers, Reach.UNASKED)

    def add(self, result: Result) -> None:
        """Take in a result that tells of every rule that matched."""
        for decision in result.decisions:
            self._asked.add(decision.point)
            for outcome in decision.explanation:
                known = self._reach.get(outcome.rule_id, Reach.UNASKED)
                self._reach[outcome.rule_id] = max(known, _reach_of(outcome.reason))
        if result.course is not None:
            self._reach_triggers(dict.fromkeys(self._fired, Reach.JUDGED))
            self._reach_triggers({passed.trigger: Reach.ELIGIBLE for passed in result.course.passed})
            self._reach_triggers({fired.trigger: Reach.WON for fired in result.course.fired})

    def _reach_triggers(self, reached: Mapping[str, Reach]) -> None:
        self._fired |= {name: max(reach, self._fired[name]) for name, reach in reached.items()}

    def rules(self) -> list[Covered]:
        """Every rule and every trigger, by its place."""
        triggers = [Covered(name, self._triggers[name], reach, trigger=True) for name, reach in self._fired.items()]
        return sorted([*map(self._covered, self._positions), *triggers], key=_place)

    def _covered(self, rule: str) -> Covered:
        least = Reach.JUDGED if self._decisions[rule] in self._asked else Reach.UNASKED
        return Covered(rule, self._positions[rule], max(least, self._reach.get(rule, least)))


def percent(rules: Iterable[Covered]) -> float:
    """The share of rules that won and triggers that fired, in percent; of none it is 100."""
    reaches = [covered.reach for covered in rules]
    return 100.0 * sum(reach is Reach.WON for reach in reaches) / len(reaches) if reaches else 100.0


def _reach_of(reason: Reason) -> Reach:
    if reason is Reason.WON:
        return Reach.WON
    return Reach.JUDGED if reason in _NOT_ELIGIBLE else Reach.ELIGIBLE


def _place(covered: Covered) -> tuple[str, int, str]:
    file, _, rest = covered.position.partition(":")
    line = rest.split(":", 1)[0]
    return file, int(line) if line.isdigit() else 0, covered.rule_id
