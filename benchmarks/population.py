"""Rules and people to measure with: many rules over eight attributes, and profiles of thirty.

Law: everything is drawn from a seed, and rules are real rule files that go through the real loader.

Two populations. *Broad* rules are met by one person in twenty-five or so: of thousands, hundreds match whoever comes.
*Narrow* ones are as a team owns thousands of them: each is for very few, and of 100,000 a person meets one or none.
"""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING, Any

from arbiter.ruleset.load import load_ruleset
from arbiter.snapshot import Snapshot
from benchmarks.conditions import Condition, PlainRule, files_of, point_lines, rule_lines

if TYPE_CHECKING:
    from arbiter.ruleset.rules import Ruleset

COUNTRIES = ("US", "CA", "DE", "FR", "GB", "JP", "BR", "IN")
CITIES = tuple(f"city-{number:02d}" for number in range(50))
CATEGORIES = tuple(f"category-{number:02d}" for number in range(60))
CAMPAIGNS = tuple(f"campaign-{number:02d}" for number in range(40))


def broad(count: int, seed: int = 1) -> list[PlainRule]:
    """`count` rules of two to four conditions."""
    draw = random.Random(seed)
    rules = []
    for number in range(count):
        conditions = tuple(_condition(draw, place) for place in draw.sample(range(8), draw.randint(2, 4)))
        rules.append(PlainRule(f"rule-{number:06d}", draw.randint(0, 1000), conditions))
    return rules


def narrow(count: int, seed: int = 1) -> list[PlainRule]:
    """`count` rules of four to six conditions, three of them on category, campaign and city."""
    draw = random.Random(seed)
    rules = []
    for number in range(count):
        conditions = [
            Condition("category", "==", (draw.choice(CATEGORIES),), 1 / 60),
            Condition("campaign", "==", (draw.choice(CAMPAIGNS),), 1 / 40),
            Condition("city", "in", tuple(draw.sample(CITIES, 2)), 2 / 50),
            *(_condition(draw, place) for place in draw.sample((0, 3, 4, 5, 6, 7), draw.randint(1, 3))),
        ]
        draw.shuffle(conditions)
        rules.append(PlainRule(f"rule-{number:06d}", draw.randint(0, 1000), tuple(conditions)))
    return rules


def profile(draw: random.Random) -> dict[str, Any]:
    """Thirty attributes: the eight that broad rules read, and twenty-two that they do not."""
    read: dict[str, Any] = {f"s{place}": draw.choice(COUNTRIES) for place in (0, 1, 2, 6)}
    read |= {f"n{place}": draw.randint(0, 1000) for place in (3, 4)}
    read |= {"n5": draw.random() * 100, "b7": draw.random() < 0.5}
    return read | {f"other_{place}": f"value {draw.randint(0, 9999)}" for place in range(22)}


def shopper(draw: random.Random) -> dict[str, Any]:
    """Thirty attributes: the nine that narrow rules read, and twenty-one that they do not."""
    person = profile(draw)
    del person["s1"], person["s2"], person["other_0"]
    chosen = {"category": draw.choice(CATEGORIES), "campaign": draw.choice(CAMPAIGNS), "city": draw.choice(CITIES)}
    return person | chosen


def shoppers(rules: list[PlainRule], count: int, seed: int = 7) -> list[dict[str, Any]]:
    """`count` people by turns: one at random, one whom some rule, each as likely, was written for."""
    draw = random.Random(seed)
    people = []
    for number in range(count):
        person = shopper(draw)
        if number % 2:
            for condition in draw.choice(rules).conditions:
                person[condition.name] = _passing(draw, condition)
        people.append(person)
    return people


# One person in eight.
SOME = f'profile.s0 == "{COUNTRIES[0]}"'


def rule_file(count: int, *, seed: int = 1, model: str = "", only: str = "") -> bytes:
    """A rule file with `count` broad rules. With `model`, an output such as ``models.repurchase.probability``, the best
    rule asks for it, so that every decision runs the model; with `only`, of those people alone for whom that holds.
    """
    lines = [*point_lines(), "rules:"]
    if model:
        lines += rule_lines("needs-model", 2000, [*([only] if only else ()), f"{model} >= 0.999"])
    for rule in broad(count - bool(model), seed):
        lines += rule_lines(rule.id, rule.priority, [condition.cel() for condition in rule.conditions])
    return "\n".join([*lines, ""]).encode()


def rule_set(files: dict[str, bytes]) -> Ruleset:
    """The rule set of rule files, read by the real loader."""
    loaded, found = load_ruleset(files, {})
    if loaded is None:
        raise SystemExit("\n".join(d.render() for d in found))
    return loaded


@cache
def narrow_snapshot(size: int) -> Snapshot:
    """The compiled narrow rules; made once a run, since 100,000 take long to load."""
    return Snapshot(rule_set(files_of(narrow(size))), {})


def _condition(draw: random.Random, place: int) -> Condition:
    if place < 3:
        return Condition(f"s{place}", "==", (draw.choice(COUNTRIES),), 1 / 8)
    if place < 5:
        edge = draw.randint(0, 1000)
        return Condition(f"n{place}", ">", (edge,), 1 - edge / 1000)
    if place < 6:
        limit = round(draw.random() * 100, 3)
        return Condition(f"n{place}", "<=", (limit,), limit / 100)
    if place < 7:
        return Condition(f"s{place}", "in", (draw.choice(COUNTRIES), draw.choice(COUNTRIES)), 1 / 4)
    return Condition(f"b{place}", "true", (), 1 / 2)


def _passing(draw: random.Random, condition: Condition) -> Any:
    """A value that passes; for the rare ``> 1000`` that none can pass, the edge itself."""
    match condition.test:
        case ">":
            return draw.randint(min(condition.values[0] + 1, 1000), 1000)
        case "<=":
            return condition.values[0] * draw.random()
        case "true":
            return True
        case _:
            return draw.choice(condition.values)
