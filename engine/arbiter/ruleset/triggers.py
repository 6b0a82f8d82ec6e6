"""What a trigger is, once it has been read and found right: a pattern over a subject's events, and what is done.

Law: frozen data, serialisable by msgspec, as in `rules`. What a pattern means over time is for `arbiter.triggers`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# msgspec reads the fields' types at run time.
from arbiter.expr.tree import Expression  # noqa: TC001
from arbiter.ruleset.terms import Active, Param  # noqa: TC001

Pattern = Literal["after", "sequence", "count", "any", "all"]
Again = Literal["every", "once", "per"]


class Join(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """That property `own` of a step's event equals property `other` of the event of the step named `label`."""

    own: str
    label: str
    other: str


class Step(msgspec.Struct, frozen=True, gc=False):
    """An event that a pattern waits for: of one of the types `events`, or of any where that is empty.

    `where` is its condition as it was written. It is the conjunction of `own`, which reads names ``("event",
    PROPERTY)`` alone, of `joins`, and of `across`, which reads ``(LABEL, PROPERTY)`` too; each of these may be nothing.
    The parts have the source of the whole, so that their spans agree. `label` is what the event is called in conditions
    behind it, empty where it has no name. `within` is the µs since the event of the step before, half-open; of an
    ``unless`` since the pattern was complete.
    """

    label: str
    events: tuple[str, ...]
    where: Expression | None = None
    own: Expression | None = None
    joins: tuple[Join, ...] = ()
    across: Expression | None = None
    within: int | None = None


class Repeat(msgspec.Struct, frozen=True, gc=False):
    """How often a trigger fires for a subject. `period` is the µs of ``per``, else 0."""

    kind: Again = "every"
    period: int = 0


class Set(msgspec.Struct, frozen=True, array_like=True, tag="set", gc=False):
    """Attributes of the subject are given values, by name."""

    values: dict[str, Param]


class Unset(msgspec.Struct, frozen=True, array_like=True, tag="unset", gc=False):
    """Attributes of the subject are taken away."""

    names: tuple[str, ...]


class Increment(msgspec.Struct, frozen=True, array_like=True, tag="increment", gc=False):
    """Numbers are added to attributes of the subject, by name."""

    values: dict[str, Param]


class EnterSegment(msgspec.Struct, frozen=True, array_like=True, tag="enter", gc=False):
    """The subject enters managed segments."""

    segments: tuple[str, ...]


class LeaveSegment(msgspec.Struct, frozen=True, array_like=True, tag="leave", gc=False):
    """The subject leaves managed segments."""

    segments: tuple[str, ...]


class Emit(msgspec.Struct, frozen=True, array_like=True, tag="emit", gc=False):
    """An event of the subject happens, which triggers see in turn."""

    event: str
    properties: dict[str, Param]


class Decide(msgspec.Struct, frozen=True, array_like=True, tag="decide", gc=False):
    """A decision is made at a decision point, and pushed. `context` is what a request would send."""

    decision: str
    context: dict[str, Param]


Act = Set | Unset | Increment | EnterSegment | LeaveSegment | Emit | Decide


class Trigger(msgspec.Struct, frozen=True, gc=False):
    """A pattern, when it may fire, and what it does. `position` is ``file:line:column`` of its id.

    `after` and `count` have one step. `within` is the µs from the first event to the last, half-open, None for any
    time. `times` and `by` (a property, empty for none) are of ``count``. `unless` is an event, within its own `within`
    after the pattern was complete, that keeps it from firing. `when` is a conjunction, judged as it fires, on the
    subject and on the labels. `purposes` are those, sorted, without consent to all of which it does not fire. `then`
    has each kind of act at most once, in the order of `Act`.

    `key` is the digest of the pattern, 12 hexadecimal characters: what is under way of a pattern is kept by id and key.
    """

    id: str
    kind: Pattern
    steps: tuple[Step, ...]
    then: tuple[Act, ...]
    key: str
    within: int | None = None
    times: int = 0
    by: str = ""
    unless: Step | None = None
    when: tuple[Expression, ...] = ()
    repeat: Repeat = Repeat()
    priority: int = 0
    active: Active | None = None
    purposes: tuple[str, ...] = ()
    enabled: bool = True
    tags: tuple[str, ...] = ()
    position: str = ""
