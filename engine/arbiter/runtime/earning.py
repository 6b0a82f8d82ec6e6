"""What a candidate would have earned, from a log in which chance had a say.

Law: rows and what they earned in, estimates out. Of a decision it is known what came of what was delivered, and nothing
of what was not. So only those decisions are in an estimate at which all that the candidate might deliver might have
been delivered then, with chances that the log tells: which these are hangs on who was decided for, and not on what was
drawn.
"""

from __future__ import annotations

from array import array
from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from arbiter.learning.logged import CERTAIN
from arbiter.learning.offpolicy import Estimate, Log, NotEstimable, estimate, on_policy, overlap, overlap_p
from arbiter.learning.outcomemodel import FOLDS, crossfitted
from arbiter.runtime.chances import Chances, Course, TooMany, chances, chances_then, told
from arbiter.runtime.firsts import Firsts
from arbiter.runtime.replaying import delivered

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from numpy.typing import NDArray

    from arbiter.expr.view import View
    from arbiter.learning.logged import Head, Row
    from arbiter.learning.offpolicy import Way
    from arbiter.runtime.replaying import Again, OfThen

WAYS: Final[tuple[Way, ...]] = ("inverse_propensity", "self_normalized", "doubly_robust")
UNLIKELY: Final = 0.001
"""The p below which weights are too far from 1 to be of choices that could have been logged."""

_EQUAL: Final = 1e-9
NOTHING: Final = "none of its decisions could have come out so then"
SAME: Final = "it delivers what was delivered, as often as that was"
UNCHANGED: Final = "where it would deliver something else, that could not have been delivered then"
APART: Final = "what it delivers was delivered too seldom, or not as often as the log says"


class Earned(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate would have earned at one decision point, a decision.

    Of `decisions` those are `unsupported` at which it might deliver what could not have been delivered then. All else
    is of the others: they earned `mean`, between `low` and `high`, and are of so many `units`. For `assumed` of them
    the snapshot of then is gone: what else could have been delivered is taken to be what the candidate delivers.
    `early` are those of subjects who were shown a variant that they keep before all that the log has of them: they are
    taken to have drawn it by the weights of the decision. `weight` is the mean of the weights, near 1 where all is
    well. `estimates` is empty where there is none, and `why` says why not.
    """

    point: str
    decisions: int
    unsupported: int
    assumed: int
    early: int
    units: int
    mean: float
    low: float
    high: float
    weight: float
    estimates: list[Estimate]
    why: str = ""


class Earning:
    """Adds up what rows earned, and how likely a candidate would have done the same. `rewards` are by the ids of
    decisions, 0 for all others; intervals have the `level`.
    """

    def __init__(self, past: OfThen, rewards: Mapping[str, float], level: float) -> None:
        self._past = past
        self._rewards = rewards
        self.level = level
        self._points: dict[str, _Rows] = {}
        self._firsts = Firsts()
        self.left_out: Counter[str] = Counter()

    def add(self, head: Head, row: Row, candidate: Again, view: View) -> None:
        """Add a row; `view` is what the candidate sees. Raises NotFound for a point that it has not."""
        again = self._past.of(head.snapshot)
        seen: View | None = None
        first: dict[str, Mapping[str, float]] = {}
        early = False
        if again is not None:
            seen = again.seen(head, row)
            first, early = self._firsts.of(again, head.snapshot, row, seen)
        if row.place:
            self.left_out["later on a page"] += 1
            return
        given = delivered(row.won)
        try:
            forced: tuple[str, ...] = ()
            if again is None or seen is None:
                then = _as_logged(row, given)
            else:
                then, forced = chances_then(again, head, row, seen, first)
            would = chances(candidate, head, row, view, first, fixed=forced)
        except TooMany:
            self.left_out["too many variants and rules that might have been drawn"] += 1
            return
        if not told(then, would) or (again is None and would.draws):
            self.left_out["chances of a group that the log does not tell"] += 1
            return
        best = then.best(row, given)
        if best is None:
            self.left_out["not decided the same again"] += 1
            return
        rows = self._points.setdefault(head.point, _Rows())
        # Without its snapshot it is known of a row whether chance had a say, and not what else could have been.
        open_ = again is None and then.of(given, best) < 1
        if open_ or would.all <= then.all:
            rows.assumed += open_
            rows.early += early
            rows.add(row, self._rewards.get(row.id, 0.0), given, then, would, best)
        else:
            rows.unsupported += 1

    def result(self) -> list[Earned]:
        """What came of it, by decision point."""
        return [rows.earned(point, self.level) for point, rows in sorted(self._points.items())]


def _as_logged(row: Row, given: bytes) -> Chances:
    """What the row itself says of the chances of then."""
    propensity = row.won[0].propensity / row.won[0].lot if row.won else CERTAIN
    rules = tuple(each.rule for each in row.won)
    return Chances((Course(given, rules, propensity * prod(each.lot for each in row.won)),))


class _Rows:
    """The rows of one decision point that are in its estimate, and how many are not."""

    def __init__(self) -> None:
        self.unsupported = self.assumed = self.early = 0
        self._rewards, self._logged, self._chosen = array("d"), array("d"), array("d")
        self._arms = array("q")
        # What the candidate might have delivered: the number of the row, the choice, the probability.
        self._of, self._might, self._odds = array("q"), array("q"), array("d")
        self._numbers: dict[tuple[str, ...], int] = {}
        self._units = _Units()

    def add(
        self, row: Row, reward: float, given: bytes, then: Chances, would: Chances, best: Mapping[str, float]
    ) -> None:
        number, logged = len(self._rewards), then.of(given, best)
        self._rewards.append(reward)
        self._logged.append(logged)
        self._chosen.append(min(would.of(given, best), 1.0))
        self._arms.append(self._number(tuple(each.rule for each in row.won)))
        for course in would.courses:
            odds = course.odds
            if course.lots:
                # Of all that might be drawn the chance of this one is known. Weighted for that it stands for them.
                odds = course.chance(best) / logged if course.delivers == given else 0.0
            self._of.append(number)
            self._might.append(self._number(course.rules))
            self._odds.append(odds)
        own: list[Hashable] = [("subject", row.subject)] if row.subject else []
        self._units.join([*own, *then.units, *would.units])

    def _number(self, rules: tuple[str, ...]) -> int:
        return self._numbers.setdefault(rules, len(self._numbers))

    def earned(self, point: str, level: float) -> Earned:
        decisions = len(self._rewards) + self.unsupported
        if not self._rewards:
            nan = float("nan")
            return Earned(
                point=point, decisions=decisions, unsupported=self.unsupported, assumed=0, early=0, units=0, mean=nan,
                low=nan, high=nan, weight=nan, estimates=[], why=NOTHING,
            )  # fmt: skip
        log = self._log()
        assert log.units is not None  # noqa: S101 - made with them
        mean, low, high = on_policy(log.rewards, units=log.units, level=level)
        estimates, why = self._estimates(log, level)
        return Earned(
            point=point, decisions=decisions, unsupported=self.unsupported, assumed=self.assumed,
            early=self.early, units=int(log.units.max()) + 1, mean=mean, low=low, high=high, weight=overlap(log),
            estimates=estimates, why=why,
        )  # fmt: skip

    def _estimates(self, log: Log, level: float) -> tuple[list[Estimate], str]:
        if not np.any(np.abs(log.chosen - log.logged) > _EQUAL):
            return [], UNCHANGED if self.unsupported else SAME
        if overlap_p(log) < UNLIKELY:
            return [], APART
        try:
            return [estimate(log, way, level=level) for way in WAYS], ""
        except NotEstimable:
            return [], APART

    def _log(self) -> Log:
        """The rows, each with what its choice, and the candidate's, are expected to earn by what other units did."""
        units = self._units.numbers()
        arms, rewards = np.asarray(self._arms), np.asarray(self._rewards)
        model = crossfitted(arms, rewards, units, len(self._numbers))
        of, might = np.asarray(self._of), np.asarray(self._might)
        fold = units % FOLDS
        expected = np.asarray(self._odds) * model[fold[of], might]
        return Log(
            rewards,
            np.minimum(np.asarray(self._logged), 1.0),
            np.asarray(self._chosen),
            model[fold, arms],
            np.bincount(of, expected, len(rewards)).astype(np.float64),
            units,
        )


class _Units:
    """Which rows may hang together: those that share a subject, or a unit for which a variant was drawn, and all that
    hang together with these (union-find: Tarjan, JACM 22, 1975).
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._above = array("q")
        self._rows = array("q")

    def join(self, names: list[Hashable]) -> None:
        """Add a row of all these; one without any hangs on no other."""
        tops = [self._top(self._of(name)) for name in names] or [self._new()]
        for each in tops:
            self._above[each] = tops[0]
        self._rows.append(tops[0])

    def numbers(self) -> NDArray[np.int64]:
        """By row the number of what it hangs together with, from 0."""
        tops = np.fromiter(map(self._top, self._rows), np.int64, len(self._rows))
        return np.unique(tops, return_inverse=True)[1].astype(np.int64)

    def _of(self, name: Hashable) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = self._new()
        return number

    def _new(self) -> int:
        self._above.append(len(self._above))
        return len(self._above) - 1

    def _top(self, number: int) -> int:
        above = self._above
        while above[number] != number:
            above[number] = above[above[number]]
            number = above[number]
        return number
