"""Rules and people to measure with: many rules over eight attributes, and profiles of thirty.

Law: everything is drawn from a seed, and rules are real rule files that go through the real loader.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from arbiter.ruleset.load import load_ruleset

if TYPE_CHECKING:
    from arbiter.ruleset.rules import Ruleset

COUNTRIES = ("US", "CA", "DE", "FR", "GB", "JP", "BR", "IN")
POINT = "bench.point"


def rule_file(count: int, *, seed: int = 1, model: str = "") -> bytes:
    """A rule file with `count` rules of two to four conditions. With `model`, an output such as
    ``models.repurchase.probability``, the best rule asks for it, so that every decision runs the model.
    """
    draw = random.Random(seed)
    lines = [
        f"decisions:\n  {POINT}:\n    slots: 1\n    order: [priority]",
        "    default: {action: show, params: {offer: none}}\nrules:",
    ]
    if model:
        lines += _rule("needs-model", 2000, [f"{model} >= 0.999"])
    for number in range(count - bool(model)):
        conditions = [_condition(draw, place) for place in draw.sample(range(8), draw.randint(2, 4))]
        lines += _rule(f"rule-{number:06d}", draw.randint(0, 1000), conditions)
    return "\n".join([*lines, ""]).encode()


def rule_set(count: int, *, seed: int = 1, model: str = "", models: dict[str, dict[str, str]] | None = None) -> Ruleset:
    """The rule set of `rule_file`, read by the real loader. `models` maps models to outputs and their types."""
    files = {"bench.yaml": rule_file(count, seed=seed, model=model)}
    loaded, found = load_ruleset(files, models or {})
    if loaded is None:
        raise SystemExit("\n".join(d.render() for d in found))
    return loaded


def profile(draw: random.Random) -> dict[str, Any]:
    """Thirty attributes: the eight that rules read, and twenty-two that they do not."""
    read: dict[str, Any] = {f"s{place}": draw.choice(COUNTRIES) for place in (0, 1, 2, 6)}
    read |= {f"n{place}": draw.randint(0, 1000) for place in (3, 4)}
    read |= {"n5": draw.random() * 100, "b7": draw.random() < 0.5}
    return read | {f"other_{place}": f"value {draw.randint(0, 9999)}" for place in range(22)}


def _rule(name: str, priority: int, conditions: list[str]) -> list[str]:
    return [
        f"  - id: {name}\n    decision: {POINT}\n    priority: {priority}\n    when:",
        *(f"      - '{condition}'" for condition in conditions),
        f"    then: {{action: show, params: {{offer: {name}}}}}",
    ]


def _condition(draw: random.Random, place: int) -> str:
    if place < 3:
        return f'profile.s{place} == "{draw.choice(COUNTRIES)}"'
    if place < 5:
        return f"profile.n{place} > {draw.randint(0, 1000)}"
    if place < 6:
        return f"profile.n{place} <= {draw.random() * 100:.3f}"
    if place < 7:
        return f'profile.s{place} in ["{draw.choice(COUNTRIES)}", "{draw.choice(COUNTRIES)}"]'
    return f"profile.b{place}"
