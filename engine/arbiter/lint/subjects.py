"""Subjects that show a finding: from a point of the space to values, and to what is really decided with them.

Law: pure. Everything here goes through `Walk`: what a finding says of a subject was decided, not inferred.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.decision.assignment import Said
from arbiter.decision.hashing import share
from arbiter.decision.walk import Need, Walk
from arbiter.decision.wording import shown
from arbiter.expr.view import View
from arbiter.lint.domains import LISTED, MISSING, UNNAMED, Domain
from arbiter.lint.order import limited
from arbiter.ruleset.branches import NOW
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.lint.masks import Point
    from arbiter.lint.space import Space
    from arbiter.ruleset.rules import Rule
    from arbiter.snapshot import Snapshot

_IDS: Final = 1_000
_FULL: Final = 100


class Subject(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody at some moment. `now` is µs, None where it does not matter; `models` are outputs, and `experiments`
    variants, taken as given; `managed` has the managed segments that they are in.

    `dated` says that the moment matters.
    """

    id: str
    now: int
    profile: dict[str, Any] = {}
    account: dict[str, Any] = {}
    context: dict[str, Any] = {}
    features: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {}
    managed: dict[str, bool] = {}
    experiments: dict[str, str] = {}
    dated: bool = False
    named: bool = False

    def text(self) -> str:
        """The subject as people read it."""
        sections = ("profile", "account", "context", "features", "experiments")
        values = {f"{root}.{name}": value for root in sections for name, value in getattr(self, root).items()}
        values |= {f"models.{m}.{name}": value for m, found in self.models.items() for name, value in found.items()}
        values |= {f"segments.{name}": value for name, value in self.managed.items()}
        if self.dated:
            values["now"] = from_micros(self.now)
        parts = [f"{name} = {shown(value)}" for name, value in sorted(values.items())]
        parts += [f"subject {self.id}"] * self.named
        return ", ".join(parts) or "somebody of whom nothing is known"

    def fields(self) -> dict[str, Any]:
        """The subject for JSON."""
        found: dict[str, Any] = {"subject_id": self.id} if self.named else {}
        for root in ("profile", "account", "context", "features", "models", "experiments"):
            found |= {root: values} if (values := getattr(self, root)) else {}
        found |= {"segments": self.managed} if self.managed else {}
        return found | {"now": from_micros(self.now)}


def subject_at(space: Space, point: Point, rolled: Iterable[Rule] = (), beside: Iterable[Rule] = ()) -> Subject:
    """A subject at a point of the space, inside the rollouts of `rolled`, outside those of `beside` where it can be."""
    roots = ("profile", "account", "context", "features", "managed")
    found: dict[str, dict[str, Any]] = {root: {} for root in roots}
    models: dict[str, dict[str, Any]] = {}
    experiments: dict[str, str] = {}
    lists: dict[tuple[str, ...], list[Any]] = {}
    now, dated = space.now, False
    for number, domain in enumerate(space.domains):
        cell = point.get(number, domain.usual)
        element = space.element(number)
        if element is not None:
            lists.setdefault(element[0], []).extend([element[1]] if cell == 0 else [])
            continue
        if not isinstance(domain, Domain):
            continue
        value, path = domain.cells[cell], space.paths[number]
        if value is MISSING or (number not in point and path != NOW and domain.missing):
            continue
        if value is UNNAMED:
            value = domain.spare
        if path == NOW:
            now, dated = value, number in point
        elif value is LISTED:
            found[path[0]][path[1]] = lists.setdefault(path, [])
        elif "." in path[1]:
            _taken(path[1], value, models, experiments)
        elif number in point:
            found[path[0]][path[1]] = value
    inside = _limits(rolled)
    identity = _somebody(inside, _limits(beside) - inside)
    return Subject(
        identity, now, **found, models=models, experiments=experiments, dated=dated, named=bool(inside)
    )  # fmt: skip


def _taken(name: str, value: Any, models: dict[str, dict[str, Any]], experiments: dict[str, str]) -> None:
    """Note a model's output or an experiment's variant that is taken as given, by its name in a space."""
    root, _, rest = name.partition(".")
    if root == "experiments":
        experiments[rest] = value
    else:
        model, _, output = rest.partition(".")
        models.setdefault(model, {})[output] = value


def _limits(rules: Iterable[Rule]) -> frozenset[tuple[str, float]]:
    """Salt and percentage of the rollouts that go by subject and leave somebody out."""
    found = ((rule, rule.rollout) for rule in rules)
    return frozenset(
        (rollout.salt, rollout.percent)
        for rule, rollout in found
        if rollout is not None and rollout.by == "subject" and limited(rule)
    )


@lru_cache(maxsize=4_096)
def _somebody(inside: frozenset[tuple[str, float]], outside: frozenset[tuple[str, float]]) -> str:
    """The id of a subject inside some rollouts, and outside as many others as can be."""
    if not inside and not outside:
        return "s0"
    best, most = "s0", -1
    for number in range(_IDS):
        name = f"s{number}"
        if all(share(salt, name) * _FULL < percent for salt, percent in inside):
            kept = sum(share(salt, name) * _FULL >= percent for salt, percent in outside)
            if kept > most:
                best, most = name, kept
            if kept == len(outside):
                break
    return best


def view_of(snapshot: Snapshot, subject: Subject) -> View:
    """What expressions see of a subject, who has consented to all. What nobody gave is what the store has: counts, sums
    and decays are 0, attributes their defaults. What consent is needed for is missing then, as for who gave none.
    """
    features: dict[str, Any] = {}
    for feature in snapshot.ruleset.features:
        value = subject.features.get(feature.name)
        if value is None and feature.aggregate in {"count", "sum", "decay"} and not feature.purposes:
            value = 0.0 if feature.type == "double" else 0
        if value is not None:
            features[feature.key] = snapshot.symbols.features[feature.name].stored(value, subject.now)
    frame = snapshot.frame
    profile = frame.defaults_of("profile") | subject.profile
    account = frame.defaults_of("account") | subject.account
    view = View(profile, subject.context, features, subject.now, account)
    view.models = dict(subject.models)
    view.managed = subject.managed
    view.experiments = Said(subject.experiments)
    if snapshot.consent is not None:
        snapshot.consent.cover(view, snapshot.frame.purposes)
    return view


def winners(
    snapshot: Snapshot, point: str, subject: Subject, slots: int = 0, off: frozenset[str] = frozenset()
) -> Sequence[str]:
    """The ids of the rules whose treatments are really delivered, best first. Models that nobody gave are unknown."""
    view = view_of(snapshot, subject)
    walk = Walk(snapshot.points[point], view, subject.id, slots, off=off)
    while isinstance(outcome := walk.advance(), Need):
        view.models |= {model: {} for model in outcome.models}
    return [treatment.rule_id for treatment in outcome.treatments if treatment.rule_id]
