"""One decision point, made ready for every check: its rules in order, as boxes, with who beats whom.

Law: puts the parts together, each made when first needed, and says what stands against a rule. What of it is worth
saying, and how, is the checks' business.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from arbiter.lint.cover import Cover, Covered, Exhausted, Left
from arbiter.lint.masks import Masks
from arbiter.lint.order import Gift, Ranks, Rivals, limited
from arbiter.lint.space import Space, Trees, empty

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.lint.domains import Allowed
    from arbiter.lint.space import Box
    from arbiter.ruleset.rules import DecisionPoint, Rule
    from arbiter.snapshot import Snapshot

_MINDED = 32


class Given(msgspec.Struct, frozen=True):
    """What all decision points share: the snapshot, its trees, what names can hold, and the moment of examples (µs)."""

    snapshot: Snapshot
    trees: Trees
    allowed: Mapping[tuple[str, ...], Allowed]
    now: int


class Contest:
    """The rules of one decision point. `elsewhere` is what other points may give on the same page."""

    def __init__(self, given: Given, point: DecisionPoint, rules: Iterable[Rule], elsewhere: set[Gift]) -> None:
        self.given = given
        self.point = point
        self.ranks = Ranks(point, rules, given.trees)
        self.rules = self.ranks.rules
        self.space = Space(self.rules, given.trees, given.allowed, given.now)
        self.rivals = Rivals(self.space, self.ranks, elsewhere)

    @cached_property
    def cover(self) -> Cover:
        """The search among the boxes of rules that certainly take a slot."""
        boxes = self.rivals.boxes
        masks = Masks(boxes, [domain.usual for domain in self.space.domains])
        return Cover(self.space, boxes, masks, [self.rivals.conflicts[way.rule] for way in self.rivals.ways])

    @cached_property
    def rolled_out(self) -> list[Rule]:
        """The first rules, as many as examples can mind, whose rollouts leave somebody out."""
        return [rule for rule in self.rules if limited(rule)][:_MINDED]

    def matchable(self, number: int) -> bool:
        """Whether somebody meets the rule's condition and dates, and is in its rollout."""
        rollout = self.rules[number].rollout
        return any(way.possible for way in self.space.ways[number]) and (rollout is None or rollout.percent > 0)

    def beaten(self, number: int) -> frozenset[int] | None:
        """The rules that together leave this one nothing to win, empty when it never renders; None when it may win."""
        found: set[int] = set()
        for way in self.space.ways[number]:
            if not way.possible or empty(way.box):
                continue
            outcome = self.left_of(way.box, number)
            if not isinstance(outcome, Covered):
                return None
            found |= {self.rivals.ways[bit].rule for bit in outcome.by}
        return frozenset(found)

    def left_of(self, box: Box, number: int) -> Left | Covered | Exhausted:
        """What rules that come before rule `number` leave to it of a box."""
        return self.cover.search(box, self.rivals.before(number), self.rivals.blocking(number), self.point.slots)
