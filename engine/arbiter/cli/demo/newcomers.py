"""New customers: what they are shown after their first, second and third purchase.

Law: real baskets of customers who were kept back, bought now instead of then; every answer is checked against what the
example rules promise.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from arbiter.cli.demo.scene import NEXT_STEP, SCORES, only, scores, told
from arbiter.cli.demo.stage import require
from arbiter.cli.terminal import print_table
from arbiter.types import ExplainLevel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.text import Text

    from arbiter.cli.demo.scene import Scene
    from arbiter.types import Event

_BIG = 50.0
_LIKELY = 0.5
_LATER = timedelta(days=40)


def join(scene: Scene, newcomers: Mapping[str, Sequence[Event]]) -> None:
    """Let each newcomer buy three times, and ask for the next step after each."""
    rows: list[tuple[str | Text, ...]] = []
    for customer, purchases in newcomers.items():
        require(
            not scene.client.get_profile(customer).exists, f"customer {customer} is known before the first purchase"
        )
        for number, purchase in enumerate(purchases, start=1):
            bought = msgspec.structs.replace(purchase, at=time.time_ns() // 1000)
            require(scene.client.ingest_events([bought]).accepted == 1, "a purchase was not accepted")
            step, said = scene.ask(customer, NEXT_STEP, SCORES, explain=ExplainLevel.LOSERS)
            propensity = scores(said).propensity
            _check(only(step).rule_id, _promised(number, purchases[0].properties["amount"], propensity))
            amount = f"{purchase.properties['amount']:>6.2f}"
            rows.append(
                (
                    customer,
                    str(number),
                    amount,
                    f"{propensity:.2f}",
                    told(step),
                )
            )
            if number == 1 and len(rows) == 1:
                later = datetime.now(UTC) + _LATER
                (step,) = scene.ask(customer, NEXT_STEP, dry_run=True, at=later, explain=ExplainLevel.LOSERS)
                _check(only(step).rule_id, "onboarding-come-back")
                days = f"1, {_LATER.days} d on"
                rows.append((customer, days, "", "", told(step)))
    heads = ("customer", "purchase", "spent $", "p(again)", "is shown, by which rule, and why")
    print_table(heads, rows, prose=heads[-1:])
    scene.stage.done(
        f"{len(newcomers)} customers, {sum(map(len, newcomers.values()))} purchases: each decision saw the purchase "
        f"acknowledged just before it"
    )
    scene.stage.done(f"asked with the clock set {_LATER.days} days ahead, a dry run: the first is called back by then")


def _promised(purchase: int, first_amount: float, propensity: float) -> str:
    """The rule that the example rules promise after a purchase."""
    match purchase:
        case 1:
            return "onboarding-thank-a-big-start" if first_amount >= _BIG else "onboarding-rate-it"
        case 2:
            return "onboarding-alerts" if propensity >= _LIKELY else "onboarding-wish-list"
    return "onboarding-join-the-club"


def _check(given: str, promised: str) -> None:
    require(given == promised, f"`{given}` was given where the rules promise `{promised}`")
