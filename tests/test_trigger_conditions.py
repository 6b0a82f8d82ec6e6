"""Triggers as they are read: conditions taken apart, patterns named by their keys, and the forms that run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbiter.expr.evaluate import judge
from arbiter.expr.view import Symbols, View
from arbiter.ruleset.image import symbols_of
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.triggering import (
    OpenTrigger,
    ToDecide,
    ToEmit,
    ToIncrement,
    ToSet,
    Unrenderable,
    bindings_of,
    open_triggers,
)
from arbiter.ruleset.triggers import EnterSegment, Join, LeaveSegment, Trigger, Unset

if TYPE_CHECKING:
    from arbiter.ruleset.rules import Ruleset

DECLARED = """
schema:
  profile: {country: string, product: string, n: int, worth: double}
  events:
    view: {product: string, price: double, shop: string}
    cart: {product: string, price: double}
    home: {}
consent: {purposes: [ads, mail]}
segments: {vip: managed, rich: segments.vip || profile.worth > 10}
decisions: {home: }
"""


def read(triggers: str, declared: str = DECLARED) -> Ruleset:
    ruleset, found = load_ruleset({"a.yaml": f"{declared}\ntriggers:\n{triggers}".encode()}, {})
    assert ruleset is not None, [each.render() for each in found]
    return ruleset


def one(trigger: str, declared: str = DECLARED) -> Trigger:
    (found,) = read(f"  - {trigger}", declared).triggers
    return found


def opened(trigger: str) -> OpenTrigger:
    ruleset = read(f"  - {trigger}")
    (found,) = open_triggers(ruleset, symbols_of(ruleset, {}))
    return found


def view_of(profile: dict[str, Any], *managed: str) -> View:
    view = View(profile, {}, {}, 0)
    view.managed = dict.fromkeys(managed, True)
    return view


def test_a_condition_is_taken_apart() -> None:
    trigger = one(
        "{id: a, all: [{event: view, as: v}, {event: cart, as: c, where: 'event.price > 3 && v.product == event.product"
        " && event.price > v.price && (event.price < 9 || has(event.product)) && event.product == v.product'}],"
        " then: {unset: n}}"
    )
    second = trigger.steps[1]
    assert second.joins == (Join("product", "v", "product"),)
    assert second.own is not None
    assert {path[0] for path in second.own.names} == {"event"}
    assert second.across is not None
    assert ("v", "price") in second.across.names
    assert second.own.source == second.across.source == second.where.source  # type: ignore[union-attr]


properties = st.fixed_dictionaries(
    {},
    optional={
        "product": st.sampled_from(["a", "b", 1, 1.0, True]),
        "price": st.sampled_from([1, 1.0, 2.5, 7, "x", None]),
        "shop": st.sampled_from(["s", "t"]),
    },
)
parts = st.sampled_from(
    [
        "event.product == v.product", "v.shop == event.product", "event.price > 2.0", "event.price > v.price",
        "(event.price > 1.0 || v.price > 1.0)", "!(event.product == v.product)", "has(event.product)", "has(v.shop)",
        "event.price + v.price > 3.0", 'event.product in ["a", v.shop]', "true", 'v.shop == "s"', "1 < 2",
    ]
)  # fmt: skip


@given(st.lists(parts, min_size=1, max_size=4), properties, properties)
def test_the_parts_are_true_together_exactly_when_the_whole_is(
    said: list[str], event: dict[str, Any], before: dict[str, Any]
) -> None:
    where = " && ".join(said)
    untyped = "decisions: {home: }"
    ruleset = read(
        f"  - {{id: a, sequence: [{{event: x, as: v}}, {{event: y, where: '{where}'}}], then: {{unset: n}}}}", untyped
    )
    (found,) = open_triggers(ruleset, Symbols())
    step = found.steps[1]
    bindings = {"v": before}
    joined = all(_equal(event, join.own, before, join.other) for join in step.joins)
    together = (step.own is None or step.own(event)) and joined and step.across(event, bindings)
    view = View({}, {}, {}, 0)
    view.events = {"v": before, "event": event}
    whole = step.step.where
    assert whole is not None
    assert together is (judge(whole.root, view, Symbols()).value is True)


def _equal(event: dict[str, Any], own: str, before: dict[str, Any], other: str) -> bool:
    """What CEL says of two values: numbers are equal across their types, booleans are no numbers."""
    if own not in event or other not in before:
        return False
    left, right = event[own], before[other]
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def test_conditions_that_say_the_same_are_one_function() -> None:
    ruleset = read(
        "  - {id: a, after: {event: view, where: event.price>3}, then: {unset: n}}\n"
        "  - {id: b, after: {event: cart, where: ' event.price  > 3'}, then: {unset: n}}\n"
        "  - {id: c, after: {event: cart, where: event.price > 4}, then: {unset: n}}\n"
        "  - {id: d, after: {event: cart}, then: {unset: n}}"
    )
    a, b, c, d = (trigger.steps[0].own for trigger in open_triggers(ruleset, symbols_of(ruleset, {})))
    assert a is b
    assert a is not c
    assert d is None


PATTERN = "sequence: [{event: view, as: v}, {event: cart, where: event.product == v.product, within: 3d}], within: 9d"


@pytest.mark.parametrize(
    "other",
    [
        "sequence: [{event: view, as: v}, {event: cart, where: event.product==v.product, within: 72h}], within: 9d",
        f"{PATTERN}, when: profile.n > 3, repeat: once, priority: 3, tags: [x], enabled: false",
    ],
)
def test_a_pattern_keeps_its_key_where_something_else_changes(other: str) -> None:
    assert one(f"{{id: a, {PATTERN}, then: {{unset: n}}}}").key == one(f"{{id: a, {other}, then: {{emit: home}}}}").key


def test_a_pattern_keeps_its_key_where_declarations_change() -> None:
    whole = f"{{id: a, {PATTERN}, then: {{unset: n}}}}"
    assert one(whole).key == one(whole, "decisions: {home: }").key


@pytest.mark.parametrize(
    "other",
    [
        PATTERN.replace("within: 9d", "within: 8d"),
        PATTERN.replace("within: 3d", "within: 2d"),
        PATTERN.replace("event.product == v.product", "event.product != v.product"),
        PATTERN.replace("cart", "view"),
        PATTERN.replace("sequence", "all").replace(", within: 3d", ""),
        f"{PATTERN}, unless: {{event: home, within: 3d}}",
        f"{PATTERN}, unless: {{event: '*', within: 3d}}",
        "count: {event: view, times: 3}",
        "count: {event: view, times: 4}",
        "count: {event: view, times: 3, within: 1d}",
        "count: {event: view, times: 3, by: event.shop}",
        "count: {event: view, times: 3, by: event.product}",
    ],
)
def test_another_pattern_has_another_key(other: str) -> None:
    known = {one(f"{{id: a, {PATTERN}, then: {{unset: n}}}}").key, one("{id: a, any: [{event: view}, {event: cart}],"
             " then: {unset: n}}").key}  # fmt: skip
    assert one(f"{{id: a, {other}, then: {{unset: n}}}}").key not in known


def test_what_is_done_has_its_values() -> None:
    trigger = opened(
        "{id: a, after: {event: view, as: v}, when: segments.rich, then: {set: {product: '${v.product}', worth: 2},"
        " unset: country, increment: {n: '${profile.n + 1}'}, enter_segment: vip,"
        " emit: {event: cart, properties: {product: 'x ${v.product}', price: 3}},"
        " decide: {decision: home, context: {shop: '${v.shop}', all: [1, '${v.price}']}}}}"
    )
    bindings = bindings_of([("v", {"product": "p", "shop": "s", "price": 2.5})])
    assert trigger.acts(view_of({"n": 4}), bindings) == (
        ToSet({"product": "p", "worth": 2.0}),
        Unset(("country",)),
        ToIncrement({"n": 5}),
        EnterSegment(("vip",)),
        ToEmit("cart", {"product": "x p", "price": 3.0}),
        ToDecide("home", {"shop": "s", "all": [1, 2.5]}),
    )
    assert opened("{id: a, after: {event: view}, then: {leave_segment: [vip]}}").acts(view_of({}), {}) == (
        LeaveSegment(("vip",)),
    )


@pytest.mark.parametrize(
    ("profile", "managed", "true"),
    [({}, (), False), ({}, ("vip",), True), ({"worth": 11.0}, (), True), ({"worth": 9.0}, ("other",), False)],
)
def test_a_managed_segment_is_what_the_profile_holds(
    profile: dict[str, Any], managed: tuple[str, ...], *, true: bool
) -> None:
    trigger = opened("{id: a, after: {event: view}, when: segments.rich, then: {unset: n}}")
    assert trigger.when_true(view_of(profile, *managed), {}) is true
    never = opened("{id: a, after: {event: view}, when: '!segments.vip', then: {unset: n}}")
    assert never.when_true(view_of(profile, *managed), {}) is ("vip" not in managed)


def test_what_is_unknown_is_not_true_and_not_done() -> None:
    trigger = opened(
        "{id: a, after: {event: view, as: v}, when: ['v.price > 3.0', profile.n < 5],"
        " then: {unset: country, increment: {n: '${v.price}'}}}"
    )
    assert trigger.when_true(view_of({"n": 4}), {"v": {"price": 3.5}})
    assert not trigger.when_true(view_of({}), {"v": {"price": 3.5}})
    assert not trigger.when_true(view_of({"n": 4}), {"v": {}})
    assert not trigger.when_true(view_of({"n": 4}), {})
    with pytest.raises(Unrenderable) as caught:
        trigger.acts(view_of({"n": 4}), {"v": {}})
    said = caught.value
    assert (said.where, said.expression, said.missing) == ("increment.n", "v.price", ("v.price",))
    with pytest.raises(Unrenderable, match="is no number"):
        trigger.acts(view_of({"n": 4}), {"v": {"price": "x"}})


def test_steps_of_one_label_are_the_last_event_that_bears_it() -> None:
    assert bindings_of([("v", {"a": 1}), ("", {"b": 1}), ("v", {"a": 2})]) == {"v": {"a": 2}}


def test_a_trigger_needs_the_consent_that_its_events_need() -> None:
    declared = """
schema:
  events:
    view: {purposes: [ads], product: {type: string, purposes: [mail]}}
    cart: {product: {type: string, purposes: [mail]}, price: double}
    home: {purposes: [mail]}
consent: {purposes: [ads, mail]}
"""
    more = declared.replace("cart:", "x: {y: string}\n    cart:")
    for trigger, purposes in [
        ("{id: a, after: {event: view}, then: {unset: n}}", ("ads",)),
        ("{id: a, after: {event: cart}, then: {unset: n}}", ()),
        ("{id: a, after: {event: cart}, requires_consent: [ads], then: {unset: n}}", ("ads",)),
        ("{id: a, after: {event: cart, where: event.product == 'x'}, then: {unset: n}}", ("mail",)),
        ("{id: a, after: {event: cart, where: event.price > 3}, then: {unset: n}}", ()),
        ("{id: a, after: {event: cart}, then: {set: {p: '${cart.product}'}}}", ("mail",)),
        ("{id: a, after: {event: cart}, when: cart.product == 'x', then: {unset: n}}", ("mail",)),
        ("{id: a, after: {event: cart}, unless: {event: home, within: 1d}, then: {unset: n}}", ("mail",)),
        ("{id: a, count: {event: cart, times: 2, by: event.product}, then: {unset: n}}", ("mail",)),
        ("{id: a, all: [{event: cart, as: c}, {event: x, where: c.product == event.y}], then: {unset: n}}", ("mail",)),
    ]:
        assert one(trigger, more).purposes == purposes, trigger
