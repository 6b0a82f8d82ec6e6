"""What other versions of models say of the decisions of a log, beside those that are live under the same rules.

Law: both decide each row again, from the same inputs, so that what differs comes of the versions alone. Compared are
the rows for which one of the two asked the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.expr.syntax import walk
from arbiter.expr.tree import Call, Const, Name
from arbiter.learning.apart import TESTS, Answers, OutputApart
from arbiter.learning.logged import won_of
from arbiter.runtime.replaying import Again, delivered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arbiter.expr.tree import AnyNode
    from arbiter.expr.view import View
    from arbiter.learning.logged import Head, Row
    from arbiter.snapshot import Snapshot
    from arbiter.types import Decision

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


class VersionApart(msgspec.Struct, frozen=True, kw_only=True):
    """A model, its live version and the one that is tried in the shadow: in how many decisions one of the two was
    `asked`, in how many of these what is delivered is another for the versions (of all that are tried) alone, how many
    only one of both could score, `lost` those of the new one and `gained` those of the old; and each output.
    """

    model: str
    live: int
    tried: int
    asked: int
    flipped: int
    lost: int
    gained: int
    outputs: list[OutputApart]


class _Pair:
    """One model's two versions, and what both said."""

    def __init__(self, name: str, live: Snapshot, tried: Snapshot) -> None:
        self.name = name
        self._versions = live.models[name].version, tried.models[name].version
        tests = _tests(tried, name)
        both = [each for each in tried.models[name].outputs if each in live.models[name].outputs]
        self._outputs = {each: Answers(each, tests.get(each, ())) for each in both}
        self._asked = self._flipped = self._lost = self._gained = 0

    def add(self, live: Again, before: View, tried: Again, after: View, *, flipped: bool) -> None:
        """A decision that both made."""
        if self.name not in before.models and self.name not in after.models:
            return
        said, says = live.asked(self.name, before), tried.asked(self.name, after)
        self._asked += 1
        self._flipped += flipped
        self._lost += bool(said) and not says
        self._gained += bool(says) and not said
        for name, answers in self._outputs.items():
            if name in said and name in says:
                answers.add(said[name], says[name])

    def found(self) -> VersionApart:
        live, tried = self._versions
        return VersionApart(
            model=self.name, live=live, tried=tried, asked=self._asked, flipped=self._flipped, lost=self._lost,
            gained=self._gained, outputs=[each.found() for each in self._outputs.values()],
        )  # fmt: skip


class Shadowed:
    """Compares a candidate with `live`, the same rules with the live versions of the models `names`."""

    def __init__(self, live: Snapshot, names: Iterable[str]) -> None:
        self._live = Again(live)
        self._names = tuple(names)
        self._pairs: list[_Pair] = []

    def add(self, again: Again, head: Head, row: Row, view: View, decision: Decision, *, known: bool) -> None:
        """A row that the candidate decided; where not all is `known` that it reads, nothing is compared."""
        before = self._live.view(head, row)
        was = self._live.decide(head, row, before)
        if not known:
            return
        if not self._pairs:
            self._pairs = [_Pair(name, self._live.snapshot, again.snapshot) for name in self._names]
        flipped = delivered(won_of(was)) != delivered(won_of(decision))
        for pair in self._pairs:
            pair.add(self._live, before, again, view, flipped=flipped)

    def found(self) -> list[VersionApart]:
        """What came of it until now, by model."""
        return [each.found() for each in self._pairs]


def _tests(snapshot: Snapshot, model: str) -> dict[str, set[tuple[str, float]]]:
    """The numbers with which conditions of rules, and segments, compare the outputs of a model, by output."""
    found: dict[str, set[tuple[str, float]]] = {}
    for tree in _conditions(snapshot, model):
        for node in walk(tree):
            if not isinstance(node, Call) or (sign := node.function.strip("_")) not in TESTS:
                continue
            left, right = node.args
            for named, other, way in ((left, right, sign), (right, left, _FLIPPED[sign])):
                number = other.value if isinstance(other, Const) and other.kind in {"int", "double"} else None
                if isinstance(named, Name) and named.path[:2] == ("models", model) and number is not None:
                    found.setdefault(named.path[2], set()).add((way, float(number)))
    return found


def _conditions(snapshot: Snapshot, model: str) -> Iterator[AnyNode]:
    for point in snapshot.points:
        for rule in snapshot.point(point).all_rules:
            for each in rule.when:
                if any(name[:2] == ("models", model) for name in each.names):
                    yield each.root
    yield from snapshot.symbols.segments.values()
