"""The difference of two versions: by what authors wrote, and never by where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.ruleset.diff import Change, Changed, Section, difference
from arbiter.ruleset.load import load_ruleset

if TYPE_CHECKING:
    from arbiter.ruleset.rules import Ruleset

RULES = """\
schema:
  profile: {country: string, age: int}
  events: {purchase: {amount: double}}
features:
  spend: {sum: purchase.amount, window: 90d, where: event.amount > 0}
segments:
  grown: profile.age >= 18
decisions:
  home: {slots: 2, order: [priority, value], default: {action: show, params: {text: none}}}
rules:
  - id: one
    decision: home
    priority: 5
    when:
      - profile.country == "CA"
      - segments.grown
    then: {action: show, params: {text: "Hi ${profile.country}", n: 7, list: [a, "${features.spend}"]}}
    value: features.spend * 2
    group: offers
    rollout: {percent: 20, salt: one}
    active: {from: 2026-11-01T00:00:00Z, until: 2026-12-01T00:00:00Z}
    tags: [a, b]
  - id: two
    decision: home
    then: {action: show, params: {text: two}}
"""


def read(text: str) -> Ruleset:
    ruleset, found = load_ruleset({"a.yaml": text.encode()}, {})
    assert ruleset is not None, [each.render() for each in found]
    return ruleset


def changed(old: str, new: str) -> tuple[Change, ...]:
    """What differs in rule `one` when `old` is replaced by `new` in the file; nothing else does."""
    assert old in RULES
    found = difference(read(RULES), read(RULES.replace(old, new)))
    (rule,) = found.rules.changed
    assert (rule.name, found.rules.added, found.rules.gone) == ("one", (), ())
    assert not any((found.decisions, found.segments, found.features, found.declarations, found.models))
    return rule.changes


def test_equal_sets_and_moved_lines_make_no_difference() -> None:
    rules, moved = read(RULES), read(f"# moved\n\n{RULES}")
    assert rules != moved
    assert not difference(rules, rules)
    assert not difference(rules, moved)


def test_each_part_of_a_rule_is_told_with_what_it_was_and_is() -> None:
    assert changed("priority: 5", "priority: 6") == (Change("priority", "5", "6"),)
    assert changed("    group: offers\n", "") == (Change("group", "offers", ""),)
    assert changed("value: features.spend * 2", "value: features.spend") == (
        Change("value", "features.spend * 2", "features.spend"),
    )
    assert changed('"Hi ${profile.country}"', '"Ho ${profile.country}"') == (
        Change("text", "Hi ${profile.country}", "Ho ${profile.country}"),
    )
    assert changed("n: 7", 'n: "7"') == (Change("n", "7", '"7"'),)
    assert changed('[a, "${features.spend}"]', '[b, "${features.spend}"]') == (
        Change("list", '["a", ${features.spend}]', '["b", ${features.spend}]'),
    )
    assert changed("percent: 20", "percent: 30") == (
        Change("rollout", "percent 20, by subject, salt one", "percent 30, by subject, salt one"),
    )
    (dates,) = changed("until: 2026-12-01", "until: 2026-12-24")
    assert (dates.field, "until 2026-12-24T00:00:00Z" in dates.after) == ("active", True)
    assert changed("    tags: [a, b]\n", "    tags: [a, b]\n    enabled: false\n") == (
        Change("enabled", "true", "false"),
    )


def test_conditions_and_tags_are_told_one_by_one() -> None:
    assert changed("      - segments.grown\n", "      - profile.age > 5\n") == (
        Change("when", "segments.grown", ""),
        Change("when", "", "profile.age > 5"),
    )
    assert changed("tags: [a, b]", "tags: [b, c]") == (Change("tags", "a", ""), Change("tags", "", "c"))
    swapped = RULES.replace("segments.grown", "X").replace('profile.country == "CA"', "segments.grown")
    both = difference(read(RULES), read(swapped.replace("- X", '- profile.country == "CA"'))).rules.changed
    assert both[0].changes == (
        Change("when", 'profile.country == "CA", segments.grown', 'segments.grown, profile.country == "CA"'),
    )


def test_what_came_and_went_is_listed_by_kind() -> None:
    new = RULES.replace("id: two", "id: three").replace("grown: profile.age >= 18", "grown: profile.age > 17")
    new = new.replace("window: 90d", "window: 30d").replace("slots: 2", "slots: 1").replace("age: int", "age: double")
    found = difference(read(RULES), read(new), {"m": "1", "gone": "1"}, {"m": "2"})
    assert found.rules == Section(("three",), ("two",))
    assert found.decisions.changed == (Changed("home", (Change("slots", "2", "1"),)),)
    assert found.segments.changed == (
        Changed("grown", (Change("condition", "profile.age >= 18", "profile.age > 17"),)),
    )
    assert found.features.changed == (Changed("spend", (Change("window", "90d", "30d"),)),)
    assert found.declarations.changed == (Changed("profile.age", (Change("type", "int", "double"),)),)
    assert found.models == Section((), ("gone",), (Changed("m", (Change("digest", "1", "2"),)),))


TRIGGERS = """\
schema: {events: {view: {product: string}, cart: {product: string}, left: {product: string}}}
segments: {vip: managed}
decisions: {home: }
triggers:
  - id: one
    sequence: [{event: view, as: v}, {event: cart, where: event.product == v.product, within: 3d}]
    within: 30d
    unless: {event: "*", within: 90m}
    when: [profile.country == "CA", segments.vip]
    then: {set: {last: "${v.product}"}, emit: {event: left, properties: {product: "${v.product}"}}, leave_segment: vip}
    repeat: {per: 7d}
  - {id: two, count: {event: view, times: 3, within: 7d, by: event.product}, then: {enter_segment: vip}}
  - {id: three, any: [{event: view}, {event: cart}], then: {decide: home}}
"""


def test_triggers_are_told_in_the_words_of_their_authors() -> None:
    new = TRIGGERS
    for old, other in [
        ("within: 3d", "within: 4d"), ('"*"', "[left, cart]"), ("profile.country", "profile.land"), ("7d}\n", "8d}\n"),
        ("leave_segment: vip", "increment: {n: 2}"), ("times: 3", "times: 4"), ("id: three", "id: four"),
    ]:  # fmt: skip
        assert old in new
        new = new.replace(old, other, 1)
    found = difference(read(TRIGGERS), read(new)).triggers
    assert (found.added, found.gone) == (("four",), ("three",))
    start, end = "view as v, then cart where event.product == v.product within", ", all within 30d, unless"
    assert found.changed == (
        Changed(
            "one",
            (
                Change("pattern", f"{start} 3d{end} any event within 90m", f"{start} 4d{end} left or cart within 90m"),
                Change("when", 'profile.country == "CA"', ""),
                Change("when", "", 'profile.land == "CA"'),
                Change("then", "leave segment vip", ""),
                Change("then", "", "increment n by 2"),
                Change("repeat", "once per 7d", "once per 8d"),
            ),
        ),
        Changed("two", (Change("pattern", "3 times view of one event.product within 7d",
                               "4 times view of one event.product within 7d"),)),
    )  # fmt: skip
    assert not difference(read(TRIGGERS), read(f"# moved\n{TRIGGERS}"))
