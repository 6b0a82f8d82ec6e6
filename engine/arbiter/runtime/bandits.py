"""What bandits draw by: what was learned, read now and then, and the chances that follow from it.

Law: the shell between what is stored and Thompson sampling. A decision reads memory alone; once in a while one of them
looks whether anything was written, and reads all arms anew. What one decision draws by never changes under it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from arbiter.decision.lots import pick
from arbiter.learning.thompson import chances

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.profiles.arms import Arm, Learned
    from arbiter.ruleset.terms import Bandit

FRESH_S: Final = 1.0
"""Within so many seconds every worker draws by what any of them has learned."""
_OLD_S: Final = 60.0  # what was learned has decayed a little by then
_KNOWN: Final = 1_000  # sets of rules whose chances are kept


class Chances:
    """Draws by these arms as they weigh at `now` (µs). See `decision.lots.Draws`. Threads may ask at once."""

    def __init__(self, arms: Iterable[Arm], now: int) -> None:
        self._arms = {(arm.point, arm.group, arm.rule): arm for arm in arms}
        self._now = now
        self._known: dict[tuple[str, Bandit, tuple[str, ...]], tuple[float, ...]] = {}

    def __call__(self, point: str, bandit: Bandit, rules: tuple[str, ...], lot: float) -> tuple[int, float]:
        """The place of the rule that the lot falls on, and its chance."""
        return pick(self.of(point, bandit, rules), lot)

    def of(self, point: str, bandit: Bandit, rules: tuple[str, ...]) -> tuple[float, ...]:
        """The chance of each of several rules, if these are the ones to draw from."""
        key = (point, bandit, rules)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known = {}
            found = self._known[key] = chances([self.believed(point, bandit, rule) for rule in rules], bandit.floor)
        return found

    def believed(self, point: str, bandit: Bandit, rule: str) -> tuple[float, float]:
        """What is believed of a rule, the prior and what was learned: wins and losses."""
        arm = self._arms.get((point, bandit.name, rule))
        wins, losses = (0.0, 0.0) if arm is None else arm.weighed(self._now, bandit.half_life)
        return bandit.wins + wins, bandit.losses + losses


class Bandits:
    """The chances of now."""

    def __init__(self, learned: Learned) -> None:
        self._learned = learned
        self._state: tuple[int, int] | None = None
        self._looked = self._read = 0.0  # when, by the monotonic clock
        self._chances = Chances((), 0)

    def __call__(self) -> Chances:
        """What to draw by. Raises StoreError when what was learned has to be read, and cannot be."""
        now = time.monotonic()
        if self._state is None or now - self._looked >= FRESH_S:
            self._looked = now
            state = self._learned.state()
            if state != self._state or now - self._read >= _OLD_S:
                self._chances = Chances(self._learned.arms(), time.time_ns() // 1000)
                self._state, self._read = state, now
        return self._chances
