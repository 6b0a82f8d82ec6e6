"""Deciding for the shop's customers: who gets what, and why.

Law: asks, tables, and checks that what was answered hangs together.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.cli.answers import print_explanation
from arbiter.cli.demo.plot import DEFAULT
from arbiter.cli.demo.scene import BANNER, SCORES, Scores, gets, only, scores, told
from arbiter.cli.demo.stage import StepFailed, require
from arbiter.cli.remote import answer_of
from arbiter.cli.terminal import print_table
from arbiter.decision.wording import shown
from arbiter.types import ExplainLevel, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arbiter.cli.demo.scene import Scene
    from arbiter.client import Answer
    from arbiter.types import Treatment

_ASKED, _ASKED_QUICKLY = 600, 150
_DEVICES = ("web", "ios", "android")
_CART_EVERY = 5
_ROWS = 12
_SEED = 39  # of the choice of customers, so that each run tells of the same ones
_BY_NAME = "win-back-by-name"
_NAME = "Ada"
_LOST = {Reason.LOST_SLOT, Reason.LOST_GROUP}


class Asked(msgspec.Struct, frozen=True):
    """A customer, what was sent with the request, what the models say, and what was given."""

    customer: str
    context: dict[str, Any]
    scores: Scores
    given: Treatment


def ask_many(scene: Scene, customers: Sequence[str]) -> list[Asked]:
    """Ask for a few hundred customers' banners, each a page with what the models say."""
    wanted = _ASKED_QUICKLY if scene.quick else _ASKED
    chosen = random.Random(_SEED).sample(list(customers), min(wanted, len(customers)))  # noqa: S311 - no secret
    asked = []
    with scene.stage.progress() as bar:
        task = bar.add_task("decisions", total=len(chosen), rate="")
        for number, customer in enumerate(chosen):
            context: dict[str, Any] = {"device": _DEVICES[number % len(_DEVICES)]}
            if number % _CART_EVERY == 0:
                context["cart_value"] = 28.5
            banner, said = scene.ask(customer, BANNER, SCORES, context=context)
            asked.append(Asked(customer, context, scores(said), only(banner)))
            bar.advance(task)
    segments = Counter(each.scores.segment for each in asked)
    rules = Counter(each.given.rule_id for each in asked)
    require(len(segments) > 1 and len(rules) > 1, "all customers got the same: no decision was made")
    scene.stage.done(
        f"{len(asked)} customers asked for over gRPC: {len(segments)} segments, {len(rules)} different winners"
    )
    return asked


def print_who_got_what(scene: Scene, asked: Sequence[Asked]) -> None:
    """A row per winner: a customer whom it won, with the numbers it was decided by."""
    examples = {each.given.rule_id: each for each in reversed(asked)}
    rows = []
    for each in sorted(examples.values(), key=lambda one: (-one.given.priority, one.given.rule_id))[:_ROWS]:
        (banner,) = scene.ask(each.customer, BANNER, context=each.context, explain=ExplainLevel.LOSERS, dry_run=True)
        require(only(banner) == each.given, f"customer {each.customer} got another answer the second time")
        features = scene.client.get_profile(each.customer).features
        rows.append(
            (
                each.customer,
                f"{features['orders_39w']:>2}",
                f"{features['spend_39w']:>7.2f}",
                f"{features['days_since_purchase']:>4.0f}",
                each.scores.segment,
                f"{each.scores.propensity:.2f}",
                told(banner),
            )
        )
    heads = ("customer", "orders", "spend $", "days", "segment", "p(again)", "gets, by which rule, and why")
    print_table(heads, rows, prose=heads[-1:])


def shares(asked: Sequence[Asked]) -> dict[str, dict[str, int]]:
    """By segment, how often each rule won; the segment with the highest propensity first."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    propensity: dict[str, list[float]] = defaultdict(list)
    for each in asked:
        counted[each.scores.segment][each.given.rule_id or DEFAULT] += 1
        propensity[each.scores.segment].append(each.scores.propensity)
    mean = {segment: sum(values) / len(values) for segment, values in propensity.items()}
    return {segment: dict(counted[segment]) for segment in sorted(mean, key=lambda one: -mean[one])}


def explain_and_tell_a_name(scene: Scene, asked: Sequence[Asked]) -> None:
    """Explain a decision in full: an offer by name that lacks the name. Tell the name: the next decision has it."""
    each, answer = _most_telling(scene, asked)
    print_explanation(answer_of(each.customer, answer))
    scene.stage.done(f"{len(answer.explanation)} rules accounted for; `{_BY_NAME}` fits but for the name")

    version = scene.client.update_profile(each.customer, set={"first_name": _NAME})
    (banner,) = scene.ask(each.customer, BANNER, context=each.context)
    given = only(banner)
    require(
        given.rule_id == _BY_NAME and _NAME in given.params["headline"],
        f"the decision after the update gave {given.rule_id}, not {_BY_NAME}",
    )
    scene.stage.done(
        f"told first_name = {shown(_NAME)} (version {version}): the very next decision says "
        f"{shown(given.params['headline'])}, {gets(given)}"
    )


def _most_telling(scene: Scene, asked: Sequence[Asked]) -> tuple[Asked, Answer]:
    """The customer who lacks but the name, and whose rules came to the most different ends, a lost one among them."""
    found: list[tuple[bool, int, Asked, Answer]] = []
    for each in asked:
        (answer,) = scene.ask(each.customer, BANNER, context=each.context, explain=ExplainLevel.ALL, dry_run=True)
        became = {rule.rule_id: rule.reason for rule in answer.explanation}
        if became.get(_BY_NAME) is Reason.RENDER_FAILED:
            ends = set(became.values())
            found.append((bool(ends & _LOST), len(ends), each, answer))
    if not found:
        raise StepFailed(f"no customer among {len(asked)} is worth `{_BY_NAME}`: the example rules have changed")
    _, _, each, answer = max(found, key=lambda one: one[:2])
    return each, answer
