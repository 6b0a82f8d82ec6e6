"""With which probability a row could have come to what it came to, and to what else.

Law: from a row alone, as `replaying`. A row is decided again for each set of variants that chance might have given its
units, and for each rule that might have been drawn from a group; the probabilities of those are added up that deliver
the same: several variants may, and what one experiment does may hang on another. What follows on a page is left out by
who asks.

Of a group the row tells the chance of the rule that was drawn, and of no other. That is enough for whatever draws among
the same rules by what the same group has learned, and for nothing else (docs/decisions/0132).
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from arbiter.learning.logged import CERTAIN, won_of
from arbiter.runtime.replaying import delivered

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from arbiter.decision.assignment import Assigned
    from arbiter.expr.view import View
    from arbiter.learning.logged import Head, Row
    from arbiter.ruleset.experiments.terms import Experiment
    from arbiter.ruleset.terms import Bandit
    from arbiter.runtime.replaying import Again

    Shares = Mapping[str, float]
    _Given = tuple[bytes, tuple[str, ...]]

MOST: Final = 256
"""Ways that a decision might have gone, which are looked at."""


class TooMany(Exception):
    """There are more ways than `MOST`."""


class Lot(NamedTuple):
    """Which rule is drawn: `bandit` as far as it says what is believed of the `rules`."""

    bandit: Bandit
    rules: tuple[str, ...]


class Drawn(NamedTuple):
    """A rule that was drawn, with the floor of its group, of so many."""

    rule: str
    floor: float
    of: int

    def chance(self, best: float) -> float:
        """The chance of the rule, with the probability that it is the best."""
        return (1 - self.floor) * best + self.floor / self.of

    def best(self, chance: float) -> float:
        """The other way round."""
        return max(0.0, (chance - self.floor / self.of) / (1 - self.floor))


class Course(msgspec.Struct, frozen=True):
    """A way that a decision may go: what it delivers, as `replaying.delivered` has it, and by which rules. `odds` are
    those of its variants and of what is drawn with equal chances; `lots` what else is drawn, and `drawn` what was.
    """

    delivers: bytes
    rules: tuple[str, ...]
    odds: float
    lots: frozenset[Lot] = frozenset()
    drawn: tuple[Drawn, ...] = ()

    def chance(self, best: Mapping[str, float]) -> float:
        """Its probability, with those of rules that they are the best."""
        return self.odds * prod(each.chance(best[each.rule]) for each in self.drawn)


class Chances(msgspec.Struct, frozen=True):
    """The ways that a decision may go, their probabilities add up to 1. `units` are the units for which a variant is
    drawn, each with what it is a unit by.
    """

    courses: tuple[Course, ...]
    units: tuple[tuple[str, str], ...] = ()

    @property
    def all(self) -> frozenset[bytes]:
        """What might be delivered."""
        return frozenset(each.delivers for each in self.courses)

    @property
    def draws(self) -> bool:
        """Whether a rule is drawn with a chance that hangs on what was learned."""
        return any(each.lots for each in self.courses)

    def of(self, given: bytes, best: Mapping[str, float]) -> float:
        """The probability of what is delivered, with those of rules that they are the best."""
        return sum(each.chance(best) for each in self.courses if each.delivers == given)

    def best(self, row: Row, given: bytes) -> dict[str, float] | None:
        """By rule that the row drew from a group the probability that it is the best; None where it does not tell all,
        or did not come to what is `given` in any of these ways.
        """
        drawn = next((each.drawn for each in self.courses if each.delivers == given), None)
        lots = {each.rule: each.lot for each in row.won if each.lot < CERTAIN}
        if drawn is None or any(each.rule not in lots for each in drawn):
            return None
        return {each.rule: each.best(lots[each.rule]) for each in drawn}


def told(then: Chances, would: Chances) -> bool:
    """Whether rows tell both, what they came to among `then`: whichever that was, so that no row is left out for what
    was drawn. What is delivered must come of the same lots on all ways there, those of `would` of none but these.
    """
    lots: dict[bytes, frozenset[Lot]] = {}
    if any(lots.setdefault(each.delivers, each.lots) != each.lots for each in then.courses):
        return False
    return all(each.lots <= lots.get(each.delivers, each.lots) for each in would.courses)


def chances(
    again: Again,
    head: Head,
    row: Row,
    view: View,
    first: Mapping[str, Shares],
    *,
    fixed: Collection[str] = (),
    off: Iterable[str] = (),
) -> Chances:
    """What a snapshot might deliver, where the variants of the experiments `fixed` are as the view has them. `first`
    has by sticky experiment the shares by which the subject drew the variant that it was shown first.

    Raises TooMany; NotFound for a point that the snapshot has not.
    """
    names = [name for name in _drawn(again, head, view) if name not in fixed]
    return _added(_Grid(again, head, row, view, names, off), names, first)


def chances_then(
    again: Again, head: Head, row: Row, view: View, first: Mapping[str, Shares]
) -> tuple[Chances, tuple[str, ...]]:
    """What the snapshot of then might have delivered, and the experiments of which the variant was forced: those that
    matter, and of which the row does not say so. Raises TooMany.

    Whether one matters hangs on what was drawn from groups. It is sure where `told` of all that could have been, so
    where that is not so, nothing is taken for forced.
    """
    names = _drawn(again, head, view)
    grid = _Grid(again, head, row, view, names, row.off)
    if again.snapshot.point(head.point).bandits:
        everything = _added(grid, names, first)
        if not told(everything, everything):
            return everything, ()
    forced = tuple(name for name in names if name not in row.exposed and grid.matters(name))
    return _added(grid, [name for name in names if name not in forced], first), forced


class _Script:
    """Draws the rules at these places in turn, and then the first ones; notes what was drawn. `decision.lots.Draws`."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = places
        self.drawn: list[tuple[Bandit, tuple[str, ...], int]] = []

    def __call__(self, _point: str, bandit: Bandit, rules: tuple[str, ...], _lot: float) -> tuple[int, float]:
        number = len(self.drawn)
        place = self._places[number] if number < len(self._places) else 0
        self.drawn.append((bandit, rules, place))
        return place, 1 / len(rules)

    def next(self) -> list[int] | None:
        """The places to draw next, in the order of an odometer; None when this was the last."""
        places = [(place, len(rules)) for _, rules, place in self.drawn]
        while places and places[-1][0] + 1 == places[-1][1]:
            places.pop()
        return [*(place for place, _ in places[:-1]), places[-1][0] + 1] if places else None


class _Grid:
    """What is delivered by set of variants, each decided when it is first asked for. `own` are those of the view."""

    def __init__(
        self, again: Again, head: Head, row: Row, view: View, names: Sequence[str], off: Iterable[str]
    ) -> None:
        assigned: Assigned = view.experiments
        self.again = again
        self.view = view
        self.own = {name: assigned.of(name, view) for name in names}
        self._known: dict[tuple[str, ...], tuple[Course, ...]] = {}
        self._ways = 0
        alone = msgspec.structs.replace(row, page="")
        self._decide: Callable[[View], _Given] = lambda view: _given(again, head, alone, view, off)

    def of(self, variants: dict[str, str]) -> tuple[Course, ...]:
        """How it may go where these are drawn, and the others are as they are."""
        key = tuple((self.own | variants).values())
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = tuple(self._courses(variants))
        return found

    def matters(self, name: str) -> bool:
        """Whether another variant of this experiment alone would deliver something else, the same rules being drawn."""
        own = self._as_told({})
        return any(self._as_told({name: variant}) != own for variant in self.again.experiments[name].drawable)

    def _as_told(self, variants: dict[str, str]) -> bytes:
        courses = self.of(variants)
        return self._decide(self._view(variants))[0] if len(courses) > 1 else courses[0].delivers

    def _view(self, variants: dict[str, str]) -> View:
        """A view of one's own, that draws as the grid's does."""
        said: dict[str, str] = {}
        for name, variant in (self.own | variants).items():
            said |= self.again.experiments[name].read_as(variant)
        experiments = self.view.experiments
        return self.view.elsewhere(experiments.but(said) if said else experiments)

    def _courses(self, variants: dict[str, str]) -> Iterator[Course]:
        places: list[int] | None = []
        while places is not None:
            self._ways += 1
            if self._ways > MOST:
                raise TooMany
            view, script = self._view(variants), _Script(places)
            view.draws = script
            delivers, rules = self._decide(view)
            odds, lots, drawn = 1.0, [], []
            for bandit, among, place in script.drawn:
                if bandit.floor < 1:
                    lots.append(Lot(_believes(bandit), among))
                    drawn.append(Drawn(among[place], bandit.floor, len(among)))
                else:
                    odds /= len(among)
            yield Course(delivers, rules, odds, frozenset(lots), tuple(drawn))
            places = script.next()


def _given(again: Again, head: Head, row: Row, view: View, off: Iterable[str]) -> _Given:
    """What is delivered, and by which rules."""
    decision = again.decide(head, row, view, off=off)
    return delivered(won_of(decision)), tuple(each.rule_id for each in decision.treatments)


def _believes(bandit: Bandit) -> Bandit:
    """A group without what does not change what it believes of its rules."""
    return msgspec.structs.replace(bandit, metric="", floor=0.0, position="")


def _drawn(again: Again, head: Head, view: View) -> list[str]:
    """The experiments of a point that the view is in."""
    names = again.snapshot.point(head.point).experiments
    return [name for name in names if view.experiments.of(name, view)]


def _added(grid: _Grid, names: Sequence[str], first: Mapping[str, Shares]) -> Chances:
    """What is delivered over all sets of variants of the experiments `names`."""
    experiments = [grid.again.experiments[name] for name in names]
    if prod(len(each.drawable) for each in experiments) > MOST:
        raise TooMany
    found: dict[tuple[bytes, frozenset[Lot]], Course] = {}
    shares = [_shares(each, first) for each in experiments]
    for variants in product(*shares):
        odds = prod(own[each] for own, each in zip(shares, variants, strict=True))
        for course in grid.of(dict(zip(names, variants, strict=True))):
            key = course.delivers, course.lots
            before = found[key].odds if key in found else 0.0
            found[key] = msgspec.structs.replace(course, odds=before + odds * course.odds)
    units = []
    for each in experiments:
        unit = grid.again.assigners.each[each.name].unit
        if unit is not None:
            units.append((each.by, unit(grid.view) or ""))
    return Chances(tuple(found.values()), tuple(units))


def _shares(experiment: Experiment, first: Mapping[str, Shares]) -> dict[str, float]:
    """By variant that the unit might have its share; of one that is kept by what it was drawn by, and where that is
    closed here by the weights of here.
    """
    now = {variant: experiment.shares[variant] for variant in experiment.drawable}
    kept = first.get(experiment.name) if experiment.sticky else None
    if kept is None:
        return now
    closed = sum(share for variant, share in kept.items() if variant not in now)
    mixed = {variant: kept.get(variant, 0.0) + closed * share for variant, share in now.items()}
    return {variant: share for variant, share in mixed.items() if share}
