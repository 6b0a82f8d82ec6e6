"""What triggers run by: those of one snapshot, open, and the engine that decides by it.

Law: frozen, and replaced whole when rules change; only the machine has a state, of its own making.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.profiles.keys import Keys  # noqa: TC001

# Fields' types at run time.
from arbiter.ruleset.triggering import OpenTrigger  # noqa: TC001
from arbiter.runtime.active import Active  # noqa: TC001
from arbiter.runtime.engine import Engine  # noqa: TC001
from arbiter.triggers.cage import Cage
from arbiter.triggers.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.profiles.reached import Reached
    from arbiter.triggers.cage import Shape


class Rules(msgspec.Struct, frozen=True):
    """The triggers of the snapshot with this digest, and `active`, what decisions see of it. `late` is in µs, `chain`
    bounds the firings that lead to one another.
    """

    digest: str
    active: Active
    triggers: tuple[OpenTrigger, ...]
    engine: Engine
    keys: Keys
    late: int
    chain: int

    def run(self, reached: Reached) -> Running:
        """Have them ready to look at events, each from where it has come."""
        since = {pattern: position + 1 for pattern, position in reached.patterns.items()}
        machine = Machine(self.triggers, late=self.late, since=since, cage=_opened)
        return Running(self, machine, {each.trigger.id: each for each in self.triggers})


def _opened(shapes: Sequence[Shape]) -> Cage:
    """A cage that is ready: what it does for an event is that event's, and nothing of its making."""
    cage = Cage(shapes)
    cage.open()
    return cage


class Running(msgspec.Struct):
    """Triggers that run, by id."""

    rules: Rules
    machine: Machine
    by_id: dict[str, OpenTrigger]
    _cancelled: int = 0

    def cancelled(self) -> int:
        """How many occurrences were kept from firing by an ``unless`` since this was last asked."""
        before, self._cancelled = self._cancelled, self.machine.cancelled
        return self._cancelled - before
