"""Whom a rule would reach, in numbers: what `reaching` counts and who prints it reads.

Law: data only, and nothing of subjects but the examples that were asked for.
"""

from __future__ import annotations

import msgspec


class Condition(msgspec.Struct):
    """What became of a part of the condition: of those whom no part before it sent away, for how many it is true, false
    and unknown. Whoever it is unknown for goes on, since a later part may be false.
    """

    text: str
    true: int = 0
    false: int = 0
    unknown: int = 0


class Missing(msgspec.Struct, frozen=True):
    """For how many the condition is unknown for lack of a name, for `denied` of them since consent hides it. The name
    is empty for values that are there and that the condition can do nothing with.
    """

    name: str
    profiles: int
    denied: int


class Lost(msgspec.Struct, frozen=True):
    """To which rule how many are lost, and how: `reason` is that of an explanation."""

    rule: str
    reason: str
    profiles: int


class Variant(msgspec.Struct, frozen=True):
    """How many are in a variant of an experiment, empty for outside, for how many the condition holds there, how many
    are eligible, and how many are shown the rule.
    """

    experiment: str
    variant: str
    profiles: int
    holds: int
    eligible: int
    shown: int


class Example(msgspec.Struct, frozen=True):
    """A subject, by its id where the store keeps it, else by its name in logs; `detail` is what it lacks, or which
    rule it is lost to.
    """

    subject: str
    known: bool
    reason: str
    detail: str


class Audience(msgspec.Struct, frozen=True):
    """Whom a rule would reach. `profiles` were looked at, of a store of some `records`; all of them where `whole`.

    `outcomes` has by reason what became of them, each once; `eligible` passed every gate and compete, `shown` is for
    how many the rule wins. `ids` is of how many the store keeps the id; `by_id` says that something here hashes ids.
    `lacking` are names of the context that the rule reads and that were not given, `lacking_beside` those that others
    at the decision point read.
    """

    rule: str
    decision: str
    position: str
    enabled: bool
    snapshot: str
    at: int
    profiles: int
    records: int
    whole: bool
    consent: tuple[str, ...]
    conditions: tuple[Condition, ...]
    holds: int
    eligible: int
    shown: int
    outcomes: dict[str, int]
    missing: tuple[Missing, ...]
    lost: tuple[Lost, ...]
    variants: tuple[Variant, ...]
    degraded: dict[str, int]
    ids: int
    by_id: bool
    lacking: tuple[str, ...]
    lacking_beside: tuple[str, ...]
    examples: tuple[Example, ...]
