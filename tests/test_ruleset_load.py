"""What a sound rule set becomes, and that hostile bytes become diagnostics."""

import itertools
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from arbiter.authoring.documents import MAX_DEPTH
from arbiter.ruleset.load import RULE_FILE, load_ruleset
from arbiter.ruleset.rules import Rollout, Ruleset
from arbiter.ruleset.terms import Active, Fields, Items, Plain, Template
from arbiter.types import to_micros

RULES = Path(__file__).resolve().parent.parent / "rules"
MODELS = {"rfm": {"cluster": "string"}, "repurchase": {"probability": "double"}}
DAY = 86_400_000_000
PARAM = b"decisions: {h: }\nrules:\n  - {id: r, decision: h, then: {action: s, params: {a: '"


def load(text: str, **more: str) -> Ruleset:
    files = {"rules.yaml": text.encode()} | {f"{name}.yaml": other.encode() for name, other in more.items()}
    ruleset, found = load_ruleset(files, MODELS)
    assert ruleset is not None, "\n".join(d.render() for d in found)
    return ruleset


def first_message(content: bytes) -> str:
    ruleset, found = load_ruleset({"rules.yaml": content}, {})
    assert ruleset is None
    return found[0].render()


def test_a_rule_keeps_everything_that_its_author_wrote() -> None:
    ruleset = load("""
decisions: {home: {slots: 3, order: [value, priority], default: {action: show, params: {b: 1, a: [x]}}}}
rules:
  - id: a
    decision: home
    priority: -5
    when: [profile.x > 1, "context.y == 'z'"]
    then: {action: show, params: {z: "a ${profile.n} b", whole: "${profile.n}", deep: {k: ["${now}", 1]}, c: "$${x}"}}
    value: profile.x * 2
    group: offers
    rollout: {percent: 12.5}
    active: {from: 2026-11-01T01:00:00+01:00, until: "2026-12-01T00:00:00"}
    tags: [b, a, b]
    enabled: false
""")
    (point,) = ruleset.decisions
    assert (point.name, point.slots, point.order) == ("home", 3, ("value", "priority"))
    assert point.default is not None
    assert list(point.default.params.items()) == [("b", Plain(1)), ("a", Plain(["x"]))]
    (rule,) = ruleset.rules
    assert (rule.id, rule.decision, rule.priority, rule.group, rule.enabled) == ("a", "home", -5, "offers", False)
    assert [e.source for e in rule.when] == ["profile.x > 1", "context.y == 'z'"]
    assert [e.position for e in rule.when] == ["rules.yaml:7:12", "rules.yaml:7:28"]
    assert rule.when[0].names == (("profile", "x"),)
    assert rule.value is not None
    assert rule.value.source == "profile.x * 2"
    assert rule.rollout == Rollout(12.5, "subject", "a")
    start, until = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
    assert rule.active == Active(to_micros(start), to_micros(until))
    assert rule.tags == ("a", "b")
    assert rule.position == "rules.yaml:4:9"
    params = rule.then.params
    assert list(params) == ["z", "whole", "deep", "c"]
    text, whole, deep = params["z"], params["whole"], params["deep"]
    assert isinstance(text, Template)
    assert [p if isinstance(p, str) else p.source for p in text.parts] == ["a ", "profile.n", " b"]
    assert isinstance(whole, Template)
    assert len(whole.parts) == 1
    assert isinstance(deep, Fields)
    assert isinstance(deep.fields["k"], Items)
    assert deep.fields["k"].items[1] == Plain(1)
    assert params["c"] == Plain("${x}")


def test_declared_parameter_types_decide_what_constants_become() -> None:
    ruleset = load("""
actions: {show: {params: {price: double, at: timestamp, text: string}}}
decisions: {home: {default: {action: show, params: {price: 5, at: 2026-11-01T00:00:00Z, text: "$${x}"}}}}
""")
    default = ruleset.decisions[0].default
    assert default is not None
    price = default.params["price"]
    assert isinstance(price, Plain)
    assert type(price.value) is float
    assert default.params["at"] == Plain(datetime(2026, 11, 1, tzinfo=UTC))
    assert default.params["text"] == Plain("${x}")


def test_features_have_types_windows_and_units() -> None:
    ruleset = load("""
schema: {events: {buy: {pieces: int, amount: double, kind: string}}}
features:
  count: {count: buy, window: 2w}
  since: {since: buy, unit: h}
  distinct: {distinct: buy.kind}
  sum_int: {sum: buy.pieces}
  sum_double: {sum: buy.amount, where: event.pieces > 1}
  first: {first: buy.kind}
  largest: {max: buy.pieces}
  mean: {mean: buy.pieces}
""")
    features = {f.name: f for f in ruleset.features}
    assert list(features) == sorted(features)
    assert {name: f.type for name, f in features.items()} == {
        "count": "int", "since": "double", "distinct": "int", "sum_int": "int", "sum_double": "double",
        "first": "string", "largest": "int", "mean": "double",
    }  # fmt: skip
    assert features["count"].window == 14 * DAY
    assert (features["since"].window, features["since"].unit) == (None, DAY // 24)
    where = features["sum_double"].where
    assert where is not None
    assert where.names == (("event", "pieces"),)


def test_a_feature_key_follows_the_definition_and_not_the_name() -> None:
    def key(definition: str, name: str = "f") -> str:
        return load(f"features: {{{name}: {definition}}}").features[0].key

    same = key("{sum: buy.amount, window: 7d}")
    assert len(same) == 8
    assert key("{window: 1w, sum: buy.amount}", "other") == same
    others = {
        key("{sum: buy.amount, window: 8d}"), key("{sum: buy.total, window: 7d}"), key("{sum: buy.amount}"),
        key("{max: buy.amount, window: 7d}"), key("{sum: buy.amount, window: 7d, where: event.x > 1}"),
    }  # fmt: skip
    assert len(others | {same}) == 6


def test_the_order_of_files_and_entries_does_not_show() -> None:
    files = {
        "a.yaml": b"segments: {b: profile.x > 1, a: profile.x > 2}\nfeatures: {y: {count: e}, x: {count: e}}",
        "b.yaml": b"decisions: {d: , c: }\nrules: [{id: z, decision: c, then: {action: s}}]",
        "c.yaml": b"rules: [{id: a, decision: c, then: {action: s}}, {decision: d, then: {action: s}, id: b}]",
    }
    encoded = set()
    for order in itertools.permutations(files):
        ruleset, found = load_ruleset({path: files[path] for path in order}, {})
        assert not found
        encoded.add(msgspec.msgpack.encode(ruleset))
    assert len(encoded) == 1
    decoded = msgspec.msgpack.decode(encoded.pop(), type=Ruleset)
    assert [r.id for r in decoded.rules] == ["a", "b", "z"]


def test_declared_types_are_kept() -> None:
    ruleset = load(
        "schema: {profile: {b: int, a: string}}", more="schema: {context: {c: bool}, events: {e: {p: double}}}"
    )
    assert ruleset.profile_types == {"a": "string", "b": "int"}
    assert ruleset.context_types == {"c": "bool"}
    assert ruleset.event_types == {"e": {"p": "double"}}


def test_a_label_that_a_model_never_gives_is_a_mistake() -> None:
    files = {"r.yaml": b"segments: {a: models.rfm.cluster == 'champion'}"}
    _, found = load_ruleset(files, MODELS, {"rfm": {"cluster": ["champions", "lapsed"]}})
    assert [(d.column, d.message, d.hint) for d in found] == [
        (37, "`models.rfm.cluster` is never `champion`", "did you mean `champions`?")
    ]
    assert load_ruleset(files, MODELS)[1] == []


def test_a_folder_stands_before_every_place_that_people_read_and_nowhere_in_the_rule_set() -> None:
    files = {"a.yaml": b"segments: {x: 'true'}", "deep/b.yaml": b"segments: {y: 'true'}"}
    assert load_ruleset(files, {}, folder="shop/rules") == load_ruleset(files, {})
    files["deep/b.yaml"] = b"segments: {x: 'true'}"
    _, (found,) = load_ruleset(files, {}, folder="shop/rules")
    assert found.file == "shop/rules/deep/b.yaml"
    assert found.message == "the segment `x` is declared twice; the other place is shop/rules/a.yaml:1:12"


def test_windows_line_ends_and_a_byte_order_mark_move_nothing() -> None:
    text = "schema: {profile: {name: string}}\nsegments:\n  a: >\n    profile.name == 'x'\n    || profile.nmae == 'y'\n"
    _, plain = load_ruleset({"r.yaml": text.encode()}, {})
    _, marked = load_ruleset({"r.yaml": b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()}, {})
    assert plain == marked
    assert (plain[0].line, plain[0].column) == (5, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: \xff", "rules.yaml:1:4: the file is not UTF-8 from here on"),
        ("a: b".encode("utf-16"), "rules.yaml:1:1: the file is not UTF-8 from here on"),
        (b"a: b\nc: \0", "rules.yaml:2:4: the character U+0000 cannot stand in a rule file"),
        (b"a: \x1b", "rules.yaml:1:4: the character U+001B cannot stand in a rule file"),
        ("a: \u2028".encode(), "rules.yaml:1:4: the character U+2028 cannot stand in a rule file"),
        (b"a: " + b"[" * 100_000, f"rules.yaml:1:{MAX_DEPTH + 3}: more than {MAX_DEPTH} levels"),
        (b"{a: " * 100_000, f"rules.yaml:1:{MAX_DEPTH * 4 + 1}: more than {MAX_DEPTH} levels"),
        (b"- " * 100_000, f"rules.yaml:1:{MAX_DEPTH * 2 + 1}: more than {MAX_DEPTH} levels"),
        (b" " * (RULE_FILE.max_bytes + 1), "rules.yaml: the file has 16,777,217 bytes"),
        (b"rules: " + b"9" * 100_000, "does not fit in a 64-bit integer"),
        (b"%YAML 3.0\n---\na: b", "rules.yaml:1:1: this is not YAML"),
        (b'a: "\\ud800"', "rules.yaml:1:"),
        (b"segments: {a: '" + b"(" * 5_000 + b"'}", "rules.yaml:1:"),
        (b"segments: {a: '" + b"1+" * 3_000 + b"1'}", "rules.yaml:1:"),
        (b"segments: {a: '" + b"x" * 9_000 + b"'}", "this expression has 9,000 characters"),
        (PARAM + b"${" * 20_000 + b"'}}}", "this `${` is never closed"),
        (PARAM + b'${"""' + b"\\" * 5_000 + b"'}}}", "this `${` is never closed"),
    ],
)  # fmt: skip
def test_hostile_bytes_become_a_diagnostic(content: bytes, message: str) -> None:
    assert message in first_message(content)


def test_an_alias_bomb_is_defused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    assert "aliases repeat more than 20,000 values" in first_message("\n".join(lines).encode())
    chain = "a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100))
    assert f"more than {MAX_DEPTH} levels" in first_message(chain.encode())


def test_a_very_long_line_is_not_shown_whole() -> None:
    shown = first_message(b"decisions: {h: }\nrules: [" + b"{id: a, decision: x, then: {action: s}}, " * 1000 + b"]")
    assert len(shown) < 1000


def test_the_shipped_rule_sets_are_sound_together() -> None:
    files = {
        path.relative_to(RULES).as_posix(): path.read_bytes() for path in sorted(RULES.rglob("*")) if path.is_file()
    }
    ruleset, found = load_ruleset(files, MODELS)
    assert [d.render() for d in found] == []
    assert ruleset is not None
    points = {point.name for point in ruleset.decisions}
    assert points == {"store.home_banner", "store.shipping_note", "onboarding.next_step"}
