"""Whoever misspells a word of a closed set is told the one that is meant, wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from arbiter.cli.app import app
from arbiter.cli.offline import _answer
from arbiter.errors import InvalidField, NotFound
from arbiter.models import load_models
from arbiter.models.reader import read_manifest
from arbiter.ruleset.load import load_ruleset
from arbiter.ruletests import read_tests
from arbiter.server.explanations import check_rules
from arbiter.snapshot import Snapshot
from arbiter.types import Decision, Request

if TYPE_CHECKING:
    from arbiter.models import Model

ROOT = Path(__file__).parent.parent
OUTPUTS = {"rfm": {"cluster": "string"}}
LABELS = {"rfm": {"cluster": ["champions", "lapsed"]}}
RULES = """
schema:
  profile: {country: string, plan: {type: string, values: [free, trial]}}
  context: {device: string}
  events: {purchase: {amount: double, category: string}}
actions: {show_offer: {params: {offer: string, size: {type: string, optional: true, values: [small, large]}}}}
decisions: {home.banner: {slots: 1, order: [priority, recency], default: {action: show_offer, params: {offer: x}}}}
features: {orders_90d: {count: purchase, window: 90d}, spend: {sum: purchase.amount}, age: {since: purchase, unit: d}}
segments: {loyal: features.orders_90d > 3 && size(profile.country) > 1, rich: models.rfm.cluster == "champions"}
rules:
  - id: win-back
    decision: home.banner
    priority: 1
    when: [segments.loyal, context.device == "ios", profile.plan == "trial", "profile.country.startsWith('C')"]
    then: {action: show_offer, params: {offer: A, size: large}}
    value: features.spend
    group: offers
    rollout: {percent: 10, by: profile.country, salt: s}
    active: {from: 2026-11-01T00:00:00Z}
    tags: [a]
    enabled: true
  - id: table
    decision: home.banner
    hit_policy: first
    inputs: [profile.plan]
    outputs: {offer: params.offer, on: enabled}
    gaps: allowed
    rows:
      - ['"free"', X, true]
      - {profile.plan: '"trial"', offer: Y, on: true}
    then: {action: show_offer}
"""
# What stands in RULES, how it may be misspelt (first only), and the word that is meant.
MISSPELT = [
    ("schema:", "shcema:", "schema"), ("profile: {c", "profil: {c", "profile"), ("country: string", "country: sting",
    "string"), ("country: string", "country: number", "double"), ("values: [free", "vals: [free", "values"),
    ("params: {offer: string", "parms: {offer: string", "params"), ("optional:", "optonal:", "optional"),
    ("slots", "slot", "slots"), ("order: [", "oder: [", "order"), ("[priority", "[prority", "priority"),
    ("recency]", "recent]", "recency"), ("default:", "defualt:", "default"), ("count: p", "cuont: p", "count"),
    ("count: purchase", "count: purchas", "purchase"), ("purchase.amount", "purchase.amuont", "amount"),
    ("window", "windw", "window"), ("90d}", "90days}", "90d"), ("unit: d", "unit: days", "d"),
    ("features.orders_90d", "features.order_90d", "orders_90d"), ("features.orders_90d", "feature.orders_90d",
    "features"), ("size(", "sise(", "size"), ("models.rfm", "models.rmf", "rfm"), ("rfm.cluster",
    "rfm.clutser", "cluster"), ('"champions"', '"champion"', "champions"), ("priority: 1", "prio: 1", "priority"),
    ("decision: home.banner", "decision: home.baner", "home.banner"), ("segments.loyal", "segments.loyl", "loyal"),
    ("context.device", "context.devise", "device"), ('"trial"', '"trail"', "trial"), ("startsWith", "startWith",
    "startsWith"), ("{action: show_offer, params: {offer: A", "{action: show_ofer, params: {offer: A", "show_offer"),
    ("{offer: A", "{ofer: A", "offer"), ("size: large", "size: lage", "large"), ("then: {action: show_offer, params",
    "then: {actoin: show_offer, params", "action"), ("value: f", "vlaue: f", "value"),
    ("features.spend", "features.spent",
    "spend"), ("group:", "gruop:", "group"), ("percent", "procent", "percent"), ("by: profile.country",
    "by: profil.country", "profile.country"), ("by: profile.country", "by: profile.contry", "country"),
    ("by: profile.country", "by: subjct", "subject"), ("salt", "slat", "salt"), ("from", "form", "from"),
    ("tags", "tag", "tags"), ("enabled:", "enabeld:", "enabled"), ("hit_policy: first", "hit_policy: frist", "first"),
    ("hit_policy:", "hit_policies:", "hit_policy"), ("inputs", "input", "inputs"), ("on: enabled", "on: enabeld",
    "enabled"), ("gaps: allowed", "gaps: allow", "allowed"), ('"free"', '"fre"', "free"), ("profile.plan: '",
    "profile.plann: '", "profile.plan"),
]  # fmt: skip


def hints(rules: str) -> list[str]:
    _, found = load_ruleset({"r.yaml": rules.encode()}, OUTPUTS, LABELS)
    return [each.hint for each in found]


def test_the_words_are_right_to_begin_with() -> None:
    assert hints(RULES) == []


@pytest.mark.parametrize(("right", "wrong", "meant"), MISSPELT, ids=[wrong for _, wrong, _ in MISSPELT])
def test_in_rule_files(right: str, wrong: str, meant: str) -> None:
    assert right in RULES
    assert f"did you mean `{meant}`?" in hints(RULES.replace(right, wrong, 1))


@pytest.mark.parametrize(
    ("right", "wrong", "meant"),
    [
        ("kind: segment", "kind: segmnt", "segment"), ("type: string", "type: strng", "string"),
        ("from: features.", "from: feature.", "features"), ("version:", "verison:", "version"),
        ("tensor:", "tenser:", "tensor"), ("default:", "defualt:", "default"),
    ],
)  # fmt: skip
def test_in_manifests(right: str, wrong: str, meant: str) -> None:
    text = (ROOT / "models" / "rfm" / "manifest.yaml").read_text("utf-8")
    assert right in text
    _, _, found = read_manifest(text.replace(right, wrong, 1).encode(), "m")
    assert f"did you mean `{meant}`?" in [each.hint for each in found]


@pytest.mark.parametrize(("right", "wrong", "meant"), [("tensor: cluster", "tensor: clutser", "cluster")])
def test_between_a_manifest_and_its_graph(tmp_path: Path, right: str, wrong: str, meant: str) -> None:
    folder = tmp_path / "rfm"
    folder.mkdir()
    text = (ROOT / "models" / "rfm" / "manifest.yaml").read_text("utf-8")
    (folder / "manifest.yaml").write_text(text.replace(right, wrong), "utf-8")
    (folder / "model.onnx").write_bytes((ROOT / "models" / "rfm" / "model.onnx").read_bytes())
    _, found = load_models(tmp_path)
    assert [each.hint for each in found] == [f"did you mean `{meant}`?"]


TESTS = """
defaults: {now: 2026-06-01T00:00:00Z, decision: home.banner}
tests:
  - name: one
    profile: {country: CA}
    events: [{type: purchase, at: 3d ago, amount: 1.0}]
    segments: {loyal: true}
    expect: {treatments: [win-back], reasons: {win-back: WON}}
"""


@pytest.mark.parametrize(
    ("right", "wrong", "meant"),
    [
        ("country", "contry", "country"), ("type: purchase", "type: purchas", "purchase"),
        ("amount", "amuont", "amount"),
        ("loyal", "loyl", "loyal"), ("[win-back]", "[winback]", "win-back"), ("WON}", "WIN}", "WON"),
        ("home.banner", "home.baner", "home.banner"), ("treatments", "treatment", "treatments"),
        ("profile", "profil", "profile"), ("defaults", "default", "defaults"),
    ],
)  # fmt: skip
def test_in_tests_of_rules(shipped_models: dict[str, Model], right: str, wrong: str, meant: str) -> None:
    rules = RULES.replace(', rich: models.rfm.cluster == "champions"', "")
    ruleset, found = load_ruleset({"r.yaml": rules.encode()}, {})
    assert ruleset is not None, found
    assert right in TESTS
    assert not read_tests({"r.test.yaml": TESTS.encode()}, ruleset, shipped_models)[1]
    _, found = read_tests({"r.test.yaml": TESTS.replace(right, wrong, 1).encode()}, ruleset, shipped_models)
    assert f"did you mean `{meant}`?" in [each.hint for each in found]


def snapshot() -> Snapshot:
    ruleset, found = load_ruleset(
        {"r.yaml": RULES.replace(', rich: models.rfm.cluster == "champions"', "").encode()}, {}
    )
    assert ruleset is not None, found
    return Snapshot(ruleset, {})


def test_in_requests() -> None:
    loaded = snapshot()
    with pytest.raises(NotFound, match=r"did you mean `home\.banner`\?"):
        loaded.point("home.baner")
    request = Request("someone", ("home.banner",), 0, explain_rules=("winback",))
    with pytest.raises(InvalidField, match="did you mean `win-back`"):
        check_rules(request, loaded)
    with pytest.raises(NotFound, match="did you mean `win-back`"):
        _answer(Decision("home.banner", (), defaulted=True), request, loaded)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("chek rules", "check"), ("snapshot lst", "list"), ("check rules --jsno", "--json"), ("fmt --chek", "--check"),
        ("serve --transport inlne", "inline"), ("serve --log-level wraning", "warning"),
        ("explain a b --level winer", "winners"),
    ],
)  # fmt: skip
def test_on_the_command_line(words: str, meant: str) -> None:
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 2
    assert meant in done.stderr.rpartition("Error")[2]


def test_in_a_config_file(tmp_path: Path) -> None:
    (tmp_path / "arbiter.yaml").write_text("wokers: 2\n", "utf-8")
    done = CliRunner().invoke(app, ["serve", "--config", str(tmp_path / "arbiter.yaml")])
    assert done.exit_code == 2
    assert "did you mean `workers`?" in " ".join(done.stderr.split())
