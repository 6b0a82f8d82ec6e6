"""A population that is hard on an index: every form of condition that it takes, on many values, and arithmetic.

Law: drawn from a seed, as in `population`. Every rule holds one condition on one of tens of thousands of strings or on
few of a hundred thousand numbers, as rules of a big set do, and one to three of any form.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from benchmarks.conditions import rule_lines

if TYPE_CHECKING:
    from collections.abc import Callable

STRINGS = 30_000
NUMBERS = 100_000
TAGS = 400
COUNTRIES = 60
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
DAYS = 3_000


def hard(count: int, seed: int = 1) -> list[list[str]]:
    """`count` rules as lines of a rule file."""
    draw = random.Random(seed)
    rules = []
    for number in range(count):
        conditions = [_selective(draw), *(draw.choice(_FORMS)(draw) for _ in range(draw.randint(1, 3)))]
        rules.append(rule_lines(f"rule-{number:06d}", draw.randint(0, 1000), conditions))
    return rules


def customer(draw: random.Random) -> dict[str, Any]:
    """What hard rules read; a fifth of the optional attributes are missing."""
    person: dict[str, Any] = {
        "account": _string(draw), "product": _string(draw), "email": f"{_letters(draw)}@{_letters(draw)}",
        "points": draw.randrange(NUMBERS), "spend": draw.random() * 1000, "age": draw.randint(18, 90),
        "country": f"c{draw.randrange(COUNTRIES)}", "language": f"l{draw.randrange(20)}",
        "tags": [f"tag-{draw.randrange(TAGS)}" for _ in range(draw.randint(0, 8))],
        "joined": FIRST + timedelta(days=draw.random() * DAYS),
    }  # fmt: skip
    optional = {
        "member": draw.random() < 0.5, "opted_in": draw.random() < 0.7, "visits": draw.randrange(NUMBERS),
        "last_seen": FIRST + timedelta(days=draw.random() * DAYS), "coupon": _string(draw),
    }  # fmt: skip
    return person | {name: value for name, value in optional.items() if draw.random() < 0.8}


def customers(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """`count` people."""
    draw = random.Random(seed)
    return [customer(draw) for _ in range(count)]


def _selective(draw: random.Random) -> str:
    low = draw.randrange(NUMBERS)
    return draw.choice(
        (
            f'profile.account == "{_string(draw)}"',
            f"profile.product in [{', '.join(_quoted(draw) for _ in range(draw.randint(2, 8)))}]",
            f"profile.points >= {low} && profile.points < {low + draw.randint(5, 200)}",
            f'profile.coupon == "{_string(draw)}" || profile.account == "{_string(draw)}"',
            f'profile.email.startsWith("{_letters(draw)}")',
        )
    )


def _string(draw: random.Random) -> str:
    return f"key-{draw.randrange(STRINGS):05d}"


def _quoted(draw: random.Random) -> str:
    return f'"{_string(draw)}"'


def _letters(draw: random.Random) -> str:
    return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=3))


def _moment(draw: random.Random) -> str:
    moment = FIRST + timedelta(minutes=draw.randrange(DAYS * 1440))
    return f'timestamp("{moment:%Y-%m-%dT%H:%M:%SZ}")'


_FORMS: tuple[Callable[[random.Random], str], ...] = (
    lambda draw: f"profile.points > {draw.randrange(NUMBERS)}",
    lambda draw: f"profile.visits <= {draw.randrange(NUMBERS)}",
    lambda draw: f"profile.spend < {draw.random() * 1000:.4f}",
    lambda draw: f"profile.age >= {draw.randint(18, 60)} && profile.age < {draw.randint(61, 90)}",
    lambda draw: f"profile.joined < {_moment(draw)}",
    lambda draw: f"profile.last_seen >= {_moment(draw)}",
    lambda draw: f'profile.country != "c{draw.randrange(COUNTRIES)}"',
    lambda draw: f'!(profile.language == "l{draw.randrange(20)}")',
    lambda draw: f'!(profile.country in ["c{draw.randrange(COUNTRIES)}", "c{draw.randrange(COUNTRIES)}"])',
    lambda draw: f"profile.account != {_quoted(draw)}",
    lambda draw: draw.choice(("profile.member", "!profile.opted_in", "has(profile.coupon)", "!has(profile.visits)")),
    lambda draw: f'"tag-{draw.randrange(TAGS)}" in profile.tags',
    lambda draw: f'!("tag-{draw.randrange(TAGS)}" in profile.tags)',
    lambda draw: f"profile.spend < {draw.random() * 300:.4f} || profile.spend > {300 + draw.random() * 700:.4f}",
    lambda draw: f'profile.member || profile.country == "c{draw.randrange(COUNTRIES)}"',
    lambda draw: f"profile.spend / (profile.age + 1) > {draw.random() * 20:.3f}",
)
