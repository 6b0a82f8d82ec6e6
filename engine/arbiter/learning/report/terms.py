"""What a report says, and what it is asked.

Law: data, as it is printed as JSON. Times are µs. Figures that nothing is known of are None or NaN, which JSON shows as
null.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# msgspec reads the fields' types at run time.
from arbiter.learning.effects import Difference, SampleRatio  # noqa: TC001
from arbiter.ruleset.terms import Metric  # noqa: TC001

Take = Literal["any", "count", "sum", "each"]
"""What is made of a unit's outcomes: whether there was one, how many, the sum of their values; or how many there were
for each decision at which the experiment mattered.
"""


State = Literal["broke", "kept", "open"]


class Design(msgspec.Struct, frozen=True):
    """An experiment as a snapshot has it: the weights of its variants in the order of their names, and what is split:
    ``subject`` or a path such as ``profile.team``.
    """

    weights: dict[str, float]
    by: str = "subject"


class Guard(msgspec.Struct, frozen=True):
    """A bound of what a variant may do: the difference of a figure to the control is at least `bound`, or at most where
    that is `most`.
    """

    outcome: str
    take: Take
    bound: float
    most: bool = False


class Question(msgspec.Struct, frozen=True):
    """What is asked of a log. `designs` are the experiments by snapshot and name, `rules` all rules by decision point,
    as far as they are known. An outcome counts when it came less than `within` µs after its decision, None for ever.
    `level` is that of the intervals. A rule reaches almost no one below the share `least` of a point's subjects, and
    somebody gets everything who gets the share `most` of a point's rules. `guards` are what no variant may break. Sizes
    of segments are told by spans of `every` µs, None for what suits the log. With `metrics` these stand in place of
    outcomes, with times of their own.
    """

    designs: dict[str, dict[str, Design]] = {}
    rules: dict[str, list[str]] = {}
    within: int | None = None
    level: float = 0.95
    least: float = 0.001
    most: float = 0.8
    guards: tuple[Guard, ...] = ()
    every: int | None = None
    metrics: tuple[Metric, ...] = ()

    def takes(self, outcome: str, *, valued: bool) -> tuple[Take, ...]:
        """What is made of an outcome, by whether there are values of it; of a metric what it says."""
        for metric in self.metrics:
            if metric.name == outcome:
                return (metric.take,)
        return ("any", "count", "sum", "each") if valued else ("any", "count", "each")


class Effect(msgspec.Struct, frozen=True):
    """What one variant does to one outcome, against the control."""

    outcome: str
    take: Take
    variant: str
    found: Difference


class Part(msgspec.Struct, frozen=True):
    """What an experiment does in one segment: to those units who were in it when it first mattered to them."""

    segment: str
    units: dict[str, int]
    effects: list[Effect]

    @property
    def leading(self) -> list[Effect]:
        """Of each outcome the first figure, which is the share with one, or a metric's own."""
        first: dict[str, Take] = {}
        return [each for each in self.effects if first.setdefault(each.outcome, each.take) == each.take]


class Guarded(msgspec.Struct, frozen=True):
    """How a variant keeps to a bound: it `broke` it when the whole interval of the difference lies beyond, it `kept` it
    when the whole interval does, and else it is `open`, as where nothing is known.
    """

    guard: Guard
    experiment: str
    variant: str
    state: State
    found: Difference | None


class Trial(msgspec.Struct, frozen=True):
    """An experiment: how many units it mattered to, by what they are split, and in how many decisions. `crossed` of
    them were seen in several variants, and count for the first; `unchecked` came by a snapshot of which the weights are
    not known, and are not in the sample ratio. `units` are all of them, by variant.
    """

    name: str
    by: str
    control: str
    units: dict[str, int]
    decisions: int
    crossed: int
    unchecked: int
    ratio: SampleRatio | None
    effects: list[Effect]
    parts: list[Part]


class Lost(msgspec.Struct, frozen=True):
    """How often a rule lost at a stage, and to which rule, empty where to none."""

    stage: str
    to: str
    times: int


class RuleFigures(msgspec.Struct, frozen=True):
    """A rule at its decision point; the empty id is the default. `won` are the decisions that delivered it, to so many
    `subjects`, `shown` those of which that was said, and `converted` those with an outcome of a name, by name.

    Of `looked` decisions it was noted, too, who lost; the rule was `eligible` in so many of them, None where there are
    none, and `lost` says to whom, most often first.
    """

    point: str
    rule: str
    won: int
    subjects: int
    shown: int
    converted: dict[str, int]
    looked: int
    eligible: int | None
    lost: list[Lost]


class RuleInSegment(msgspec.Struct, frozen=True):
    """A rule among the decisions for people in a segment, counted as for `RuleFigures`."""

    point: str
    rule: str
    segment: str
    won: int
    subjects: int
    shown: int
    converted: dict[str, int]
    looked: int
    eligible: int | None


class SegmentFigures(msgspec.Struct, frozen=True):
    """A segment over time. Of each span, which begins at `spans`, `known` are the subjects of which it is known whether
    they were in it, at their last decision then, and `inside` those who were. Between a span and the next one, of those
    seen in both: how many `stayed`, `left` and `came`.

    `stays` is the share of those inside who are so still in the next span, `comes` the share of those outside who are
    inside then; None where nobody was seen twice.
    """

    segment: str
    spans: list[int]
    known: list[int]
    inside: list[int]
    stayed: list[int]
    left: list[int]
    came: list[int]
    stays: float | None
    comes: float | None


class Reach(msgspec.Struct, frozen=True):
    """How far the rules of a decision point reach. `bare` are the subjects who never got anything but the default.

    `rare` are the rules that reach almost no one, `never` those that the log does not deliver once, of those known.
    `different` says how many subjects got so many different rules, `everything` how many got nearly all of `rules`;
    None where there are too few rules to say so. `heaviest` is the share of deliveries that the tenth of the subjects
    had who had most.
    """

    point: str
    decisions: int
    subjects: int
    bare: int
    rules: int
    rare: list[str]
    never: list[str]
    different: dict[int, int]
    everything: int | None
    heaviest: float | None


class Told(msgspec.Struct, frozen=True):
    """A report. `impersonal` decisions say nothing of whom they were for, and count for rules alone. `unjoined` are
    exposures and outcomes of decisions that the log does not hold. `first` and `last` are None for an empty log. With
    `metrics` whatever is told of an outcome is told of the metric of that name.
    """

    decisions: int
    subjects: int
    impersonal: int
    exposures: int
    outcomes: int
    unjoined: int
    first: int | None
    last: int | None
    level: float
    experiments: list[Trial]
    rules: list[RuleFigures]
    reach: list[Reach]
    guards: list[Guarded]
    segments: list[SegmentFigures]
    rules_by_segment: list[RuleInSegment]
    metrics: tuple[Metric, ...]

    @property
    def broken(self) -> list[Guarded]:
        """The bounds that a variant broke."""
        return [each for each in self.guards if each.state == "broke"]

    @property
    def mismatched(self) -> list[str]:
        """The experiments whose arms do not have the sizes that chance would give them."""
        return [each.name for each in self.experiments if each.ratio is not None and each.ratio.suspect]
