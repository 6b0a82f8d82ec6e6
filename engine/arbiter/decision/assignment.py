"""Who is in which variant of which experiment: a function of the experiment, the unit and what the view shows.

Law: pure. An experiment is looked at when something reads it, once a decision. Nobody is asked where a subject was
before: equal experiments, units and clocks give equal variants, on every worker and after every restart.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import msgspec

from arbiter.decision.dates import in_time, outside
from arbiter.decision.drawing import PLACES, Kept, bounds, drawer, place_of
from arbiter.decision.hashing import share
from arbiter.expr.compile import truth_function, value_function
from arbiter.expr.ops import FAILURES
from arbiter.expr.tree import Name
from arbiter.ruleset.experiments.kept import kept_name
from arbiter.ruleset.experiments.terms import OUTSIDE
from arbiter.ruleset.render import text
from arbiter.types import ExperimentOutcome, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.experiments.terms import Experiment, Experiments, Holdout


class Assignment(msgspec.Struct, frozen=True):
    """What an experiment is for a unit: `values` has what expressions read, by the path behind ``experiments``."""

    variant: str
    standing: Standing
    values: Mapping[str, str]


class Assigner:
    """One experiment, ready to say who is in it. `off` switches it off; `held` says of a view and a subject's id
    whether it is in the holdout of all. `others` are all experiments, among which a sticky one finds its layer.
    """

    def __init__(
        self,
        experiment: Experiment,
        symbols: Symbols,
        held: Callable[[View, str], bool] | None,
        others: Iterable[Experiment] = (),
        *,
        off: bool = False,
    ) -> None:
        self.experiment = experiment
        self.unit = unit_of(experiment.by, symbols)
        read_as = experiment.read_as
        self.shares = shares = experiment.shares
        self.others = {
            variant: [(read_as(each), shares[each]) for each in experiment.drawable if each != variant]
            for variant in experiment.variants
        }
        """By variant what expressions would read of each other one that might have been drawn, and its share."""
        drawn = {each: Assignment(each, Standing.DRAWN, read_as(each)) for each in experiment.drawable}
        out = {each: Assignment(OUTSIDE, each, read_as(OUTSIDE)) for each in Standing}
        forced = {
            unit: Assignment(variant, Standing.FORCED, read_as(variant)) for unit, variant in experiment.forced.items()
        }
        conditions = [(expression.root, True) for expression in experiment.when]
        targeted = truth_function(conditions, symbols, f"targeting of {experiment.name}") if conditions else None
        stay = {each: Assignment(each, Standing.KEPT, read_as(each)) for each in experiment.drawable}
        key = symbols.features[kept_name(experiment.name)].key if experiment.sticky else ""
        kept = Kept(key, stay, taker(experiment, others)) if experiment.sticky else None
        self.assign: Callable[[View, str], Assignment] = drawer(
            experiment, drawn, out, forced, self.unit, targeted, held, kept, off=off
        )
        """What the experiment is for a view and a subject's id."""


class Assigners:
    """All experiments of a rule set, ready. `off` are the names of those that are switched off, with words for it."""

    def __init__(self, declared: Experiments, symbols: Symbols, off: Mapping[str, str] | None = None) -> None:
        self.off = off or {}
        held = None if declared.holdout is None else holder(declared.holdout, symbols)
        self.each = {
            each.name: Assigner(each, symbols, held, declared.each, off=each.name in self.off) for each in declared.each
        }  # fmt: skip


class Said:
    """Experiments that are as they are said to be, by the path behind ``experiments``; outside of all others."""

    __slots__ = ("_said",)

    def __init__(self, said: Mapping[str, str]) -> None:
        self._said = said

    def of(self, name: str, _view: View) -> str:
        """What ``experiments.NAME`` is."""
        return self._said.get(name, OUTSIDE)


class Assigned:
    """What the experiments are for one subject, each looked at when it is first read.

    `said` are values that stand in for what would be drawn, by the path behind ``experiments``.
    """

    __slots__ = ("_all", "_known", "_subject")

    def __init__(self, assigners: Assigners, subject_id: str, said: Mapping[str, str] | None = None) -> None:
        self._all = assigners
        self._subject = subject_id
        self._known: dict[str, str] = dict(said) if said else {}

    def of(self, name: str, view: View) -> str:
        """What ``experiments.NAME`` is."""
        found = self._known.get(name)
        if found is None:
            self._known.update(self._all.each[name.partition(".")[0]].assign(view, self._subject).values)
            found = self._known[name]
        return found

    def assignment(self, name: str, view: View) -> Assignment:
        """How the subject stands with an experiment, what was said not counted."""
        return self._all.each[name].assign(view, self._subject)

    def but(self, values: Mapping[str, str]) -> Assigned:
        """The same where these are what an experiment is."""
        other = Assigned(self._all, self._subject, self._known)
        other._known.update(values)
        return other

    def others(self, name: str, variant: str) -> Sequence[tuple[Mapping[str, str], float]]:
        """What expressions would read of the other variants that the subject might have drawn, each with its share."""
        return self._all.each[name].others[variant]

    def share(self, name: str, variant: str) -> float:
        """The share of an experiment's units that chance gives a variant."""
        return self._all.each[name].shares[variant]

    def outcome(self, name: str, view: View) -> ExperimentOutcome:
        """How the subject stands with an experiment, in words."""
        assigner = self._all.each[name]
        assignment = assigner.assign(view, self._subject)
        variant, standing = self.of(name, view), assignment.standing
        if variant != assignment.variant:
            return ExperimentOutcome(name, variant, Standing.SAID)
        if standing is Standing.TRAFFIC:
            return self._beyond(assigner, view)
        return ExperimentOutcome(name, variant, standing, self._detail(assigner.experiment, standing, view))

    def _detail(self, experiment: Experiment, standing: Standing, view: View) -> str:
        match standing:
            case Standing.INACTIVE:
                return outside(experiment.active, view)
            case Standing.OVERRIDDEN:
                return self._all.off[experiment.name]
            case Standing.UNIT:
                return f"{experiment.by} is missing, or no text"
            case Standing.HOLDOUT:
                return "in the holdout of all experiments"
            case Standing.TARGETING:
                return "not true: " + " && ".join(expression.source for expression in experiment.when)
        return ""

    def _beyond(self, assigner: Assigner, view: View) -> ExperimentOutcome:
        """Why a place of the layer is not the experiment's: it is in the layer's holdout, another has it, or nobody."""
        experiment = assigner.experiment
        unit = self._subject if assigner.unit is None else assigner.unit(view)
        place = place_of(experiment.layer_salt, unit or "")
        if place >= _end(experiment):
            said = f"in the holdout of layer `{experiment.layer}`, {experiment.layer_holdout:g} of it"
            return ExperimentOutcome(experiment.name, OUTSIDE, Standing.HOLDOUT, said)
        for other in (each.experiment for each in self._all.each.values() if experiment.layer):
            if other.layer == experiment.layer and other.enabled and _has(other, place, view.clock):
                said = f"this part of layer `{experiment.layer}` is `{other.name}`'s"
                return ExperimentOutcome(experiment.name, OUTSIDE, Standing.LAYER, said)
        said = f"outside its traffic of {traffic_at(experiment, view.clock):g}"
        return ExperimentOutcome(experiment.name, OUTSIDE, Standing.TRAFFIC, said)


def traffic_at(experiment: Experiment, clock: int) -> float:
    """The share of its layer that an experiment has at `clock` (µs)."""
    begun = [step.traffic for step in experiment.steps if step.start is None or clock >= step.start]
    return begun[-1] if begun else 0.0


def taker(experiment: Experiment, declared: Iterable[Experiment]) -> Callable[[str, View], bool]:
    """What says of a subject's id whether another experiment of the layer has its place, or the layer's holdout."""
    if not experiment.layer:
        return lambda _subject_id, _view: False
    others = [
        each for each in declared if each.layer == experiment.layer and each.enabled and each.name != experiment.name
    ]
    end = _end(experiment)

    def taken(subject_id: str, view: View) -> bool:
        place = place_of(experiment.layer_salt, subject_id)
        return place >= end or any(
            _has(each, place, view.clock) and (each.active is None or in_time(each.active, view)) for each in others
        )

    return taken


def _end(experiment: Experiment) -> int:
    """Where (in 2^-53) the places of its layer end, and the layer's holdout begins."""
    return ceil((1 - experiment.layer_holdout) * PLACES)


def _has(experiment: Experiment, place: int, clock: int) -> bool:
    first, end = bounds(experiment.offset, traffic_at(experiment, clock))
    return first <= place < end


def unit_of(by: str, symbols: Symbols) -> Callable[[View], str | None] | None:
    """What gives the text that is split, None where it is missing or no text; None where it is the subject's id."""
    if by == "subject":
        return None
    value = value_function(Name(tuple(by.split("."))), symbols, f"unit {by}")

    def unit(view: View) -> str | None:
        try:
            return text(value(view))
        except FAILURES:
            return None

    return unit


def holder(holdout: Holdout, symbols: Symbols) -> Callable[[View, str], bool]:
    """What says whether a subject is in the holdout of all experiments. One whose unit is missing is not."""
    unit_in = unit_of(holdout.by, symbols)

    def held(view: View, subject_id: str) -> bool:
        unit = subject_id if unit_in is None else unit_in(view)
        return unit is not None and share(holdout.salt, unit) < holdout.share

    return held
