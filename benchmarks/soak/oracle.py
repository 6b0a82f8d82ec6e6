"""The oracle: decisions by cel-cpp, rule by rule and in order, from sources and a ledger.

Law: slow and obvious; nothing of Arbiter's own reading, index, compiled forms, walk or store is used, only its door to
cel-cpp. What cel-cpp answers with an error is unknown. Arbitration is written here anew, as docs/rules.md tells it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from arbiter.expr import cel

if TYPE_CHECKING:
    from benchmarks.soak.ledger import Subject
    from benchmarks.soak.world import Rule, World

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CEL = cel.Environment(
    {"profile": "dyn", "context": "dyn", "features": "dyn", "models": "dyn", "now": "timestamp"}
)  # fmt: skip
_SEGMENT = re.compile(r"segments\.(\w+)")
_HOLE = re.compile(r"\$\{(.*?)\}")
_NO_SLOTS_LEFT = "lost"


class Given(NamedTuple):
    """A treatment, in plain values. The default has no rule."""

    rule: str
    params: tuple[tuple[str, Any], ...]
    priority: int
    value: float | None


class Verdict(NamedTuple):
    """A decision: what is given, whether by default, and what became of each rule."""

    given: tuple[Given, ...]
    defaulted: bool
    outcomes: dict[str, str]


@lru_cache(maxsize=8192)
def _program(source: str) -> cel.Program:
    return _CEL.program(source)


class Seen:
    """What expressions see of one subject at one clock: a decision's view, made the slow way."""

    def __init__(self, world: World, subject: Subject, context: dict[str, Any], now: int) -> None:
        self.world = world
        self.subject = subject
        features = subject.features(world, now)
        models: dict[str, Any] = {}
        if "points" in subject.attributes:
            orders, points = world.weights
            models["worth"] = {
                "score": float(orders * features["orders_all"] + points * subject.attributes["points"])
            }  # fmt: skip
        moment = _EPOCH + timedelta(microseconds=now)
        self.features = features
        self._data = {
            "profile": subject.attributes, "context": context, "features": features, "models": models, "now": moment,
        }  # fmt: skip

    def value(self, source: str) -> Any:
        """What cel-cpp says; None for unknown."""
        whole = _SEGMENT.sub(lambda found: f"({self.world.segments[found[1]]})", source)
        try:
            return _program(whole).evaluate(self._data)
        except cel.CelFailure:
            return None

    def truth(self, source: str) -> bool | None:
        """Whether it holds; None for unknown."""
        value = self.value(source)
        return value if isinstance(value, bool) else None

    def segments(self) -> dict[str, bool | None]:
        """Whether the subject is in each."""
        return {name: self.truth(source) for name, source in self.world.segments.items()}

    def rendered(self, params: dict[str, Any]) -> tuple[tuple[str, Any], ...] | None:
        """The parameters; None when one cannot be had."""
        made = []
        for name, text in params.items():
            if not isinstance(text, str):
                made.append((name, text))
                continue
            holes = {source: self.value(source) for source in _HOLE.findall(text)}
            if None in holes.values():
                return None
            whole = _HOLE.fullmatch(text)
            written = _HOLE.sub(lambda found: str(holes[found[1]]), text)  # noqa: B023 - used within this turn
            made.append((name, holes[whole[1]] if whole else written))
        return tuple(sorted(made))

    def decide(self, name: str, slots: int = 0, before: tuple[Given, ...] = ()) -> Verdict:
        """The decision at one point, after what earlier ones of the page gave."""
        point = self.world.points[name]
        outcomes: dict[str, str] = {}
        ranked = []
        for rule in self.world.by_point[name]:
            truths = [self.truth(source) for source in rule.when]
            if False in truths:
                outcomes[rule.id] = "failed"
            elif None in truths:
                outcomes[rule.id] = "unknown"
            elif not self._included(rule):
                outcomes[rule.id] = "rollout"
            else:
                value = self.value(rule.value) if rule.value and "value" in point.order else None
                ranked.append((rule, None if value is None else float(value)))
        ranked.sort(key=lambda each: _place(point.order, *each))
        room = min(slots or point.slots, point.slots)
        given: list[Given] = []
        groups: set[str] = set()
        for rule, value in ranked:
            outcomes[rule.id] = self._try(rule, value, room, given, groups, before)
        if given:
            return Verdict(tuple(given), defaulted=False, outcomes=outcomes)
        return Verdict((Given("", tuple(sorted(point.default.items())), 0, None),), defaulted=True, outcomes=outcomes)

    def _try(
        self,
        rule: Rule,
        value: float | None,
        room: int,
        given: list[Given],
        groups: set[str],
        before: tuple[Given, ...],
    ) -> str:
        if len(given) >= room:
            return _NO_SLOTS_LEFT
        if rule.group in groups:
            return "group"
        params = self.rendered(rule.params)
        if params is None:
            return "render_failed"
        if any(each.params == params for each in (*given, *before)):
            return "duplicate"
        given.append(Given(rule.id, params, rule.priority, value))
        if rule.group:
            groups.add(rule.group)
        return "won"

    def _included(self, rule: Rule) -> bool:
        return rule.rollout == 100 or 100 * share(rule.id, self.subject.id) < rule.rollout


def share(salt: str, unit: str) -> float:
    """Where a subject stands in [0, 1), as docs/hashing.md publishes it."""
    digest = blake2b(f"{salt}\0{unit}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _place(order: tuple[str, ...], rule: Rule, value: float | None) -> tuple[Any, ...]:
    keys: list[Any] = []
    for key in order:
        keys += [-rule.priority] if key == "priority" else [value is None, -(value or 0.0)]
    return (*keys, rule.id)
