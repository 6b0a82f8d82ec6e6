"""Deciding again what a log holds: as it was decided, and as another rule set would have.

Law: from a row alone, with its snapshot, its inputs and its clock; no store and no present time. Models run again,
unless they gave nothing then. A row is decided by a candidate only as far as the log tells what that reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.decision.assignment import Assigned, Assigners
from arbiter.decision.explain import judge_condition
from arbiter.decision.hashing import Drawn
from arbiter.decision.lots import evenly
from arbiter.decision.walk import Need, Walk
from arbiter.errors import ArbiterError
from arbiter.expr.tree import Name
from arbiter.expr.view import View
from arbiter.learning.logged import CERTAIN, lacking_of, won_of
from arbiter.profiles.features import FeatureSet
from arbiter.ruleset.branches import reads_of
from arbiter.ruleset.experiments.terms import OUTSIDE
from arbiter.ruleset.image import STORED
from arbiter.runtime.active import active_of
from arbiter.runtime.scoring import Scorer
from arbiter.telemetry.counters import Counters
from arbiter.types import Degradation, Lack, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arbiter.learning.logged import Head, Row, Won
    from arbiter.ruleset.compiled import Point
    from arbiter.ruleset.terms import Bandit
    from arbiter.runtime.active import Active
    from arbiter.snapshot import Snapshot
    from arbiter.types import Decision, Treatment

_PAGES: Final = 10_000  # whose decisions may still follow
_SNAPSHOTS: Final = 8  # that are open at once
# Parameters stand in the order of the authors in a snapshot that was made of files, and in another where it was opened.
_exactly: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_LACKS: Final = {lack.name.lower(): lack for lack in Lack}


class Told:
    """Draws from groups what a row says was drawn: the chances of then are not known any more. `asked` says that
    something was to be drawn, `unknown` that the row did not say what, and the lot decided, with equal chances.
    """

    def __init__(self, won: Iterable[Won]) -> None:
        self._drawn = {each.rule: each.lot for each in won if each.lot < CERTAIN}
        self.asked = self.unknown = False

    def __call__(self, point: str, bandit: Bandit, rules: tuple[str, ...], lot: float) -> tuple[int, float]:
        """As `decision.lots.Draws`."""
        self.asked = True
        for place, rule in enumerate(rules):
            if rule in self._drawn:
                return place, self._drawn[rule]
        self.unknown = True
        return evenly(point, bandit, rules, lot)


class Again:
    """Decides rows by one snapshot. Rows of a page must come in their order."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._features = FeatureSet(snapshot.frame.computed)
        self._scorer = Scorer(Counters())
        self._delivered: dict[str, tuple[Treatment, ...]] = {}
        self._actives: dict[tuple[str, ...], Active] = {}
        self.experiments = {each.name: each for each in snapshot.frame.experiments.each}
        self.assigners = Assigners(snapshot.frame.experiments, snapshot.symbols)

    def view(self, head: Head, row: Row) -> View:
        """What the decision saw, as far as this snapshot knows the names."""
        found: dict[str, dict[str, Any]] = {name: {} for name in STORED}
        for (root, name, key), value in zip(head.reads, row.values or (), strict=True):
            if value is not None:
                found[root][key or name] = value
        view = View(found["profile"], found["context"], found["features"], row.at, found["account"])
        view.managed = found["managed"]
        if self.experiments:
            view.experiments = Assigned(self.assigners, row.subject, self._variants(row))
        if self.snapshot.consent is not None:
            self.snapshot.consent.cover(view, row.granted)
        view.draws = Told(row.won)
        return view

    def _variants(self, row: Row) -> dict[str, str]:
        """What expressions read of experiments that the row tells and this snapshot has. All others are drawn anew."""
        said: dict[str, str] = {}
        for name, variant in row.variants.items():
            experiment = self.experiments.get(name)
            if experiment is not None and variant in (OUTSIDE, *experiment.variants):
                said |= experiment.read_as(variant)
        return said

    def decide(self, head: Head, row: Row, view: View, *, off: Iterable[str] = ()) -> Decision:
        """The decision; the rules `off` are switched off. Raises NotFound for a point that the snapshot has not."""
        active = self._active(row)
        point = active.snapshot.point(head.point)
        subject = Drawn(row.subject, row.shares)
        delivered = self._delivered.get(row.page, ()) if row.page else ()
        walk = Walk(
            point, view, subject, row.slots, delivered, row.horizon, lambda: row.changes, frozenset(off)
        )  # fmt: skip
        outcome = walk.advance()
        while isinstance(outcome, Need):
            self._scorer.score(active, outcome.models, view, None)
            outcome = walk.advance()
        if row.page:
            self._delivered[row.page] = (*delivered, *outcome.treatments)
            if len(self._delivered) > _PAGES:
                del self._delivered[next(iter(self._delivered))]
        if view.failed:
            lacking = tuple(sorted(Degradation(model, cause) for model, cause in view.failed.items()))
            outcome = msgspec.structs.replace(outcome, degraded=lacking)
        return outcome

    def as_it_was(self, head: Head, row: Row, view: View | None = None) -> Decision:
        """The decision under the circumstances of then: the same models gave nothing, the same rules were off. `view`
        is what it saw, and has then what models said.
        """
        return self.decide(head, row, self.seen(head, row, view), off=row.off)

    def seen(self, head: Head, row: Row, view: View | None = None) -> View:
        """What the decision saw, or `view`, the models that gave nothing then still giving nothing."""
        view = view or self.view(head, row)
        for model, cause in row.lacking:
            view.models[model] = {}
            view.failed = {**view.failed, model: _LACKS[cause]}
        return view

    def asked(self, model: str, view: View) -> Mapping[str, Any]:
        """What a model says in a view, whether the decision asked it or not; nothing where it gives nothing."""
        self._scorer.score(active_of(self.snapshot, self._features), (model,), view, None)
        return view.models[model]

    def decided_by(self, row: Row) -> Snapshot:
        """The snapshot, with the versions of models that were tried on the row's subject."""
        trials = tuple(name for name in row.trials if name in self.snapshot.trials)
        return self.snapshot.tried(trials) if trials else self.snapshot

    def _active(self, row: Row) -> Active:
        found = self._actives.get(row.trials)
        if found is None:
            found = self._actives[row.trials] = active_of(self.decided_by(row), self._features)
        return found


class OfThen:
    """Decides rows by the snapshots that `opened` gives by their digests, and which it raises StoreError for when they
    are gone.
    """

    def __init__(self, opened: Callable[[str], Snapshot]) -> None:
        self._opened = opened
        self._again: dict[str, Again | None] = {}

    def of(self, digest: str) -> Again | None:
        """What decides by that snapshot; None where it is gone."""
        if digest not in self._again:
            if len(self._again) >= _SNAPSHOTS:
                del self._again[next(iter(self._again))]
            try:
                self._again[digest] = Again(self._opened(digest))
            except ArbiterError:
                self._again[digest] = None
        return self._again[digest]


class Unlogged:
    """What a candidate reads at a point that rows with a head do not hold: the names, the rules that read them, and the
    salts and experiments that rows may lack.
    """

    def __init__(self, point: Point, head: Head) -> None:
        known = {(root, key or name) for root, name, key in head.reads}
        symbols = point.symbols.features
        self.names = tuple(
            f"{root}.{name}"
            for root, name in point.reads
            if (root, symbols[name].key if root == "features" else name) not in known
        )
        self.salts = point.salts
        self.experiments = point.experiments
        missing = frozenset(self.names)
        self._rules = [
            rule for rule in point.all_rules if rule.enabled and missing & point.names_of(rule)
        ] if missing else []  # fmt: skip
        self._point = point
        self._missing = missing

    def open(self, view: View) -> bool:
        """Whether a rule might have been let in for a value that the log does not hold."""
        for rule in self._rules:
            failed = judge_condition(rule, self._point, view)
            if failed is None or (failed.reason is Reason.UNKNOWN and self._missing.intersection(failed.missing)):
                return True
        return False


def outcome_of(decision: Decision) -> bytes:
    """What a decision came to, each value exactly: equal for equal ones."""
    return _exactly((won_of(decision), decision.defaulted, decision.valid_until, lacking_of(decision)))


def logged_outcome(row: Row) -> bytes:
    """The same of a row. With which probability it came to that is another question."""
    won = [msgspec.structs.replace(each, propensity=CERTAIN) for each in row.won]
    return _exactly((won, row.defaulted, row.valid_until, row.lacking))


def delivered(won: Iterable[Won]) -> bytes:
    """What was delivered, whatever rule it came from: equal for equal treatments, in order."""
    return _exactly([(each.rule, each.action, each.params) for each in won])


def segment_reads(snapshot: Snapshot, segment: str) -> frozenset[tuple[str, str]]:
    """What a segment hangs on, as rows name it; a model that it reads is in no row, nor is the clock asked for."""
    symbols = snapshot.symbols
    paths = reads_of([Name(("segments", segment))], symbols)
    return frozenset(
        (path[0], symbols.features[path[1]].key if path[0] == "features" else path[1])
        for path in paths
        if path != ("now",)
    )
