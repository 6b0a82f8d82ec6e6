"""What a rule set is, once it has been read and found right.

Law: frozen data, serialisable by msgspec; this is what a snapshot stores and what workers load. No YAML, no parsing, no
evaluation. Expressions are trees whose names have been checked. Everything is in a canonical order (sorted by id or
name), so that equal sets encode to equal bytes. Nothing holds itself, so the collector need not look at it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# msgspec reads the fields' types at run time.
from arbiter.expr.tree import Expression  # noqa: TC001
from arbiter.ruleset.experiments.terms import Experiments
from arbiter.ruleset.terms import Active, Bandit, Cap, Metric, Param, SharedCap  # noqa: TC001
from arbiter.ruleset.triggers import Trigger  # noqa: TC001

Aggregate = Literal[
    "count", "sum", "since", "distinct", "first", "last", "min", "max", "mean", "decay", "ratio", "tally"
]
OrderKey = Literal["priority", "value", "recency", "specificity"]
HitPolicy = Literal["unique", "first", "priority", "any"]
# What becomes of an attribute that two ids of one subject both have, when they are linked.
Merge = Literal["keep", "take", "newest", "oldest", "sum", "max", "min", "union"]
DYNAMIC_KEYS: frozenset[OrderKey] = frozenset({"value", "recency"})


class Effect(msgspec.Struct, frozen=True, gc=False):
    """What a rule does when it wins: an action with its parameters."""

    action: str
    params: dict[str, Param]


class Rollout(msgspec.Struct, frozen=True, gc=False):
    """The share of subjects, in percent, for whom a rule is on: stable by `salt`. `by` is ``subject`` or a name such
    as ``profile.team``.
    """

    percent: float
    by: str
    salt: str


class Rule(msgspec.Struct, frozen=True, gc=False):
    """Condition, priority, action. `when` is a conjunction (empty: always), `specificity` counts its conjuncts.
    `position` is ``file:line:column`` of its id.

    A row of a decision table is a rule with the table's id in `table` and its number, from 1, in `row`. Of rows that
    are equal on every order key the first is the best; of the rows of one table at most one wins.
    `requires_consent` are the purposes, sorted, without which the subject's consent keeps it out. `cap` is its own,
    `caps` are those that it shares with other rules.
    """

    id: str
    decision: str
    priority: int
    when: tuple[Expression, ...]
    then: Effect
    value: Expression | None = None
    group: str = ""
    rollout: Rollout | None = None
    active: Active | None = None
    tags: tuple[str, ...] = ()
    enabled: bool = True
    position: str = ""
    specificity: int = 0
    table: str = ""
    row: int = 0
    requires_consent: tuple[str, ...] = ()
    cap: Cap | None = None
    caps: tuple[SharedCap, ...] = ()


class DecisionPoint(msgspec.Struct, frozen=True, gc=False):
    """Where a decision is asked. `order` ends, always, on the rule id. `channel` names what it shares caps with; empty
    for its own name.
    """

    name: str
    slots: int
    order: tuple[OrderKey, ...]
    default: Effect | None
    position: str = ""
    channel: str = ""


class Segment(msgspec.Struct, frozen=True, gc=False):
    """A named condition. Of a `managed` segment, which triggers and callers enter and leave, it is that the subject's
    profile holds its name: ``has(managed.NAME)``.
    """

    name: str
    condition: Expression
    position: str = ""
    managed: bool = False


class Feature(msgspec.Struct, frozen=True, gc=False):
    """A typed value computed from a subject's events.

    `window` is in µs, None for all time; `unit` is the µs that one unit of ``since`` lasts, `half_life` the µs in
    which ``decay`` halves. `key` is the first 8 characters of the URL-safe base64 of the BLAKE2b of the definition:
    stores keep values under it. `property` is empty for ``count`` and ``since``, and for a ``decay`` of events. `where`
    reads names ``("event", PROPERTY)``. `type` is the declared type of its value. A ``ratio`` is of two features, of
    which it has names (`of`) and keys (`parts`), and of no event. `purposes`, sorted, are its own and those of all that
    it is computed from. A ``tally``, which no file declares, has by the values of its property the newest times of the
    events, oldest first: as many of each value as `keep` says, and none of others; where `marks` names a property, of
    as many times each with all that it had then. Without a property it has those of all, by the name "".
    """

    name: str
    aggregate: Aggregate
    event: str
    property: str
    window: int | None
    where: Expression | None
    unit: int
    key: str
    type: str
    position: str = ""
    half_life: int = 0
    of: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    keep: dict[str, int] = {}
    marks: str = ""


class TableInput(msgspec.Struct, frozen=True, gc=False):
    """A condition column: its name, the expression that its cells test, and what that can be beyond its type: only
    `values`, if there are some, and no number below `lowest`.
    """

    name: str
    expression: Expression
    values: tuple[Any, ...] = ()
    lowest: int | None = None


class DecisionTable(msgspec.Struct, frozen=True, gc=False):
    """What the rows of a table have in common; the rows are the rules whose `table` is its id. `guard` is the
    condition that stands before every row.
    """

    id: str
    decision: str
    hit_policy: HitPolicy
    inputs: tuple[TableInput, ...]
    guard: tuple[Expression, ...] = ()
    gaps_allowed: bool = False
    position: str = ""


class Ruleset(msgspec.Struct, frozen=True, gc=False):
    """Everything that the rule files say. Tuples are sorted by name or id.

    `profile_types` are the declared types of a subject's attributes, `account_types` of an account's, `context_types`
    of what is sent; empty when nothing is declared. `personal` are the dotted names of attributes and features whose
    values are declared personal; `values` are the only ones of those that list some, as ``profile.NAME`` or
    ``events.TYPE.NAME``; `defaults` stand for attributes that are absent, as ``profile.NAME`` or ``account.NAME``.
    `purposes` are what consent is given for; `bound` are the dotted names that have a value only with consent to all of
    their purposes.
    `profile_merges` are the declared ways to merge a subject's attributes; `max_items` bound stored lists, as
    ``profile.NAME`` or ``account.NAME``. `triggers` are rules over time. `tallies` count for the caps of rules, of
    which `caps` are those that they share, and keep the first variants of sticky experiments. `metrics` say what
    decisions bring about, `bandits` are the groups of rules that learn from one.
    """

    decisions: tuple[DecisionPoint, ...]
    rules: tuple[Rule, ...]
    segments: tuple[Segment, ...]
    features: tuple[Feature, ...]
    profile_types: dict[str, str] = {}
    context_types: dict[str, str] = {}
    event_types: dict[str, dict[str, str]] = {}
    tables: tuple[DecisionTable, ...] = ()
    personal: tuple[str, ...] = ()
    account_types: dict[str, str] = {}
    values: dict[str, tuple[Any, ...]] = {}
    defaults: dict[str, Any] = {}
    purposes: tuple[str, ...] = ()
    bound: dict[str, tuple[str, ...]] = {}
    profile_merges: dict[str, Merge] = {}
    max_items: dict[str, int] = {}
    experiments: Experiments = Experiments()
    triggers: tuple[Trigger, ...] = ()
    tallies: tuple[Feature, ...] = ()
    metrics: tuple[Metric, ...] = ()
    caps: tuple[SharedCap, ...] = ()
    bandits: tuple[Bandit, ...] = ()

    @property
    def computed(self) -> tuple[Feature, ...]:
        """All that stores compute from events: the declared features, and the tallies."""
        return (*self.features, *self.tallies)

    @property
    def managed(self) -> tuple[str, ...]:
        """The names of the managed segments, sorted."""
        return tuple(segment.name for segment in self.segments if segment.managed)

    def defaults_of(self, root: str) -> dict[str, Any]:
        """By name what stands for absent attributes of ``profile`` or ``account``."""
        return {path[len(root) + 1 :]: value for path, value in self.defaults.items() if path.startswith(f"{root}.")}
