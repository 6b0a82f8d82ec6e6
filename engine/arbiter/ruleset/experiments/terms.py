"""What an experiment is once it has been read: frozen data, without a subject.

Law: serialisable by msgspec, as in `rules`. Who is in an experiment is for `decision.assignment` to say.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import msgspec

# msgspec reads the fields' types at run time.
from arbiter.expr.tree import AnyNode, Expression, Name
from arbiter.ruleset.terms import Active  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTSIDE = ""
"""What `experiments.E` is for who is not in E."""
JOINT = "+"
"""What stands between the levels of several factors in the name of a variant."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """From `start` on (µs since the epoch, None: always) the experiment has `traffic`, a share of its layer."""

    start: int | None
    traffic: float


class Factor(msgspec.Struct, frozen=True, gc=False):
    """What is drawn: one of the levels, each with its weight, sorted by name. A plain experiment has one factor without
    a name, whose levels are its variants.
    """

    name: str
    levels: tuple[tuple[str, float], ...]


class Layer(msgspec.Struct, frozen=True, gc=False):
    """Experiments of which a unit is in one at most. `holdout` is the share of units that are in none."""

    name: str
    salt: str
    holdout: float = 0.0
    position: str = ""


class Holdout(msgspec.Struct, frozen=True, gc=False):
    """The share of units, by `by` and `salt`, that are in no experiment of any layer."""

    share: float
    by: str
    salt: str


class Guardrail(msgspec.Struct, frozen=True, gc=False):
    """What no variant may do to a metric: the difference of its figure to the control's is `at_least` this, or
    `at_most`, whichever is given. It is broken when that is so with this `confidence`, however often one looks.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    confidence: float = 0.95


class Experiment(msgspec.Struct, frozen=True, gc=False):
    """An experiment. It has the places from `offset` on of its layer, as many as its `traffic` at the time says: the
    steps, of which the first that is open has begun.

    `layer` is empty where it stands alone, and then `layer_salt` is its own; `layer_holdout` is the layer's. `by` is
    what is split: ``subject`` or a name such as ``profile.team``. `when` is a conjunction (empty: everybody).
    `forced` gives units their variants, whatever is drawn. A `sticky` one, of subjects, keeps who was shown a variant
    in it, whatever weights and traffic become. When a variant breaks one of the `guardrails`, it is to pause.
    """

    name: str
    decisions: tuple[str, ...]
    factors: tuple[Factor, ...]
    salt: str
    layer: str = ""
    layer_salt: str = ""
    layer_holdout: float = 0.0
    offset: float = 0.0
    steps: tuple[Step, ...] = (Step(None, 1.0),)
    by: str = "subject"
    when: tuple[Expression, ...] = ()
    forced: dict[str, str] = {}
    sticky: bool = False
    guardrails: tuple[Guardrail, ...] = ()
    active: Active | None = None
    enabled: bool = True
    position: str = ""

    @property
    def variants(self) -> tuple[str, ...]:
        """Every variant, in the order of names; of several factors each combination of levels."""
        levels = [[name for name, _ in factor.levels] for factor in self.factors]
        return tuple(JOINT.join(each) for each in product(*levels))

    @property
    def drawable(self) -> tuple[str, ...]:
        """The variants that chance can give: those of which no part has the weight 0."""
        levels = [[name for name, weight in factor.levels if weight] for factor in self.factors]
        return tuple(JOINT.join(each) for each in product(*levels))

    @property
    def shares(self) -> dict[str, float]:
        """By variant the share of its units that chance gives it."""
        found: dict[str, float] = {"": 1.0}
        for factor in self.factors:
            whole = sum(weight for _, weight in factor.levels)
            found = {
                f"{variant}{JOINT}{level}" if variant else level: share * weight / whole
                for variant, share in found.items()
                for level, weight in factor.levels
            }
        return found

    @property
    def widest(self) -> float:
        """The most traffic that it ever has."""
        return max(step.traffic for step in self.steps)

    @property
    def edges(self) -> tuple[int, ...]:
        """The µs at which it takes another share."""
        return tuple(step.start for step in self.steps if step.start is not None)

    @property
    def reads(self) -> tuple[AnyNode, ...]:
        """What must be read to say who is in it."""
        unit: tuple[AnyNode, ...] = () if self.by == "subject" else (Name(tuple(self.by.split("."))),)
        return (*(expression.root for expression in self.when), *unit)

    def read_as(self, variant: str) -> dict[str, str]:
        """What expressions read of who is in a variant, or outside, by the path behind ``experiments``."""
        levels = variant.split(JOINT) if variant else [OUTSIDE] * len(self.factors)
        named = ((factor.name, level) for factor, level in zip(self.factors, levels, strict=True) if factor.name)
        return {self.name: variant} | {f"{self.name}.{name}": level for name, level in named}

    def values(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """What expressions can read of it behind `experiments`, and what that can be."""
        yield self.name, (OUTSIDE, *self.variants)
        for factor in self.factors:
            if factor.name:
                yield f"{self.name}.{factor.name}", (OUTSIDE, *(level for level, _ in factor.levels))


class Experiments(msgspec.Struct, frozen=True, gc=False):
    """All that rule files say of experiments, sorted by name."""

    each: tuple[Experiment, ...] = ()
    layers: tuple[Layer, ...] = ()
    holdout: Holdout | None = None

    @property
    def reads(self) -> dict[str, tuple[AnyNode, ...]]:
        """By experiment what must be read to say who is in it."""
        unit: tuple[AnyNode, ...] = ()
        if self.holdout is not None and self.holdout.by != "subject":
            unit = (Name(tuple(self.holdout.by.split("."))),)
        return {each.name: (*each.reads, *unit) for each in self.each}


def together(one: Experiment, other: Experiment) -> bool:
    """Whether there is a time at which both are on."""
    a, b = one.active, other.active
    return not (
        (a and b and a.until is not None and b.start is not None and a.until <= b.start)
        or (a and b and b.until is not None and a.start is not None and b.until <= a.start)
    )
