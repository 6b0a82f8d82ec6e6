"""What rules and triggers are both made of: parameters, and the dates between which something is on.

Law: frozen data, serialisable by msgspec, as in `rules`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# msgspec reads the fields' types at run time.
from arbiter.expr.tree import Expression  # noqa: TC001


class Template(msgspec.Struct, frozen=True, array_like=True, tag="t", gc=False):
    """A string with `${}` in it: literal text and expressions in turn. One lone expression keeps its type."""

    parts: tuple[str | Expression, ...]


class Items(msgspec.Struct, frozen=True, array_like=True, tag="i", gc=False):
    """A YAML list that holds a template somewhere below."""

    items: tuple[Param, ...]


class Fields(msgspec.Struct, frozen=True, array_like=True, tag="d", gc=False):
    """A YAML mapping that holds a template somewhere below."""

    fields: dict[str, Param]


class Plain(msgspec.Struct, frozen=True, array_like=True, tag="p", gc=False):
    """A constant: any YAML value without templates."""

    value: Any


Param = Template | Items | Fields | Plain


class SubjectZone(msgspec.Struct, frozen=True, gc=False):
    """Where a subject's time zone stands: an attribute of the profile, and the zone of who has none."""

    attribute: str
    default: str


class LocalDates(msgspec.Struct, frozen=True, gc=False):
    """The half-open range by each subject's own clock, in µs from 1970 on that clock; None is open."""

    start: int | None
    until: int | None
    zone: SubjectZone


class Cap(msgspec.Struct, frozen=True, gc=False):
    """How often a subject may be given something: `most` times in a period, 0 for no bound. `per` is it as it was
    written: a duration, of which `span` has the µs, or ``day`` and ``week`` of the subject's `zone`, or ``lifetime``.
    `on` is what counts; `strict` says that it is never more, whoever decides at once. For `cool_down` µs, `cooling` as
    it was written, after the last time it is not given again.
    """

    most: int
    per: str
    span: int
    on: str
    zone: SubjectZone | None = None
    cool_down: int = 0
    cooling: str = ""
    strict: bool = False


class SharedCap(msgspec.Struct, frozen=True, gc=False):
    """A cap that rules share: `by` what it holds them together (a key of the section ``caps``), and the `name` of what
    is capped. Of a channel `points` are its decision points.
    """

    by: str
    name: str
    cap: Cap
    points: tuple[str, ...] = ()


class Bandit(msgspec.Struct, frozen=True, gc=False):
    """A group of rules of which, at each decision point, one is drawn of those that pass every gate. A rule wins where
    `outcome` follows within so many µs of a decision that was shown; `metric` is what authors call that. `wins` and
    `losses` are believed of a rule beforehand. What was learned loses half of its weight in each `half_life` (µs), 0
    for never; a share of `floor` is drawn with equal chances.
    """

    name: str
    metric: str
    outcome: str
    within: int
    wins: float = 1.0
    losses: float = 1.0
    half_life: int = 0
    floor: float = 0.05
    position: str = ""


class Active(msgspec.Struct, frozen=True, gc=False):
    """The half-open range of µs since the epoch in which a rule is on; None is open. `zone` is where its dates were
    written for, and only to be shown.

    With `local` dates the range is the widest that these can mean anywhere, and they decide inside it.
    """

    start: int | None = None
    until: int | None = None
    zone: str = ""
    local: LocalDates | None = None


Taken = Literal["any", "count", "sum"]
"""What is made of the outcomes of a decision: whether there was one, how many, or the sum of their values."""


class Metric(msgspec.Struct, frozen=True, gc=False):
    """A number for each decision, made of those of its outcomes with the name `outcome` that came less than `within` µs
    after it, and not before it.
    """

    name: str
    outcome: str
    within: int
    take: Taken
    position: str = ""
