"""The lint, word by word: every case of cases/lint is the files of a rule set that loads, and what the lint says.

A case is a file, as in cases/rules. To add one, write it and run this test: it shows what is said now; paste it once it
is what should be said.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from arbiter.lint.finding import KINDS
from arbiter.lint.order import KNOWN_FIELDS
from arbiter.lint.run import Names, lint
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.rules import Rule
from arbiter.snapshot import Snapshot

if TYPE_CHECKING:
    from arbiter.models import Model

CASES = sorted((Path(__file__).parent / "cases" / "lint").glob("*.case"))
NOON = 1_780_000_000_000_000  # 2026-05-28


def said_of(files: dict[str, str], ignored: tuple[str, ...] = ()) -> str:
    contents = {path: text.encode() for path, text in files.items()}
    ruleset, found = load_ruleset(contents, {})
    assert ruleset is not None, [each.render() for each in found]
    noted = lint(Snapshot(ruleset, {}), contents, NOON, Names(), ignored)
    return "".join(f"{each.diagnostic.render()}\n" for each in noted) or "ok\n"


def sections(case: Path) -> dict[str, str]:
    parts = re.split(r"^=== (.+)\n", case.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_of_a_rule_set_the_lint_says_exactly_this(case: Path) -> None:
    files = sections(case)
    expected = files.pop("expected")
    assert said_of(files) == expected


def test_every_kind_of_finding_but_those_of_models_has_a_case() -> None:
    shown = set(
        re.findall(r"warning: .* \[([a-z-]+)\]$", "".join(case.read_text("utf-8") for case in CASES), re.MULTILINE)
    )
    assert shown == set(KINDS) - {"unused-model"}


@pytest.mark.parametrize("code", ["never-matches", "redundant-condition"])
def test_what_is_ignored_is_not_said(code: str) -> None:
    rule = "{id: a, decision: home, when: [now > timestamp('2026-01-01T00:00:00Z'), %s], then: {action: a}}"
    head = "decisions: {home: {default: {action: none}}}\nrules:\n"
    parts = {
        "never-matches": "now < timestamp('2025-01-01T00:00:00Z')",
        "redundant-condition": "now > timestamp('2025-01-01T00:00:00Z')",
    }
    files = {"r.yaml": f"{head}  - {rule % parts[code]}\n"}
    assert f"[{code}]" in said_of(files)
    assert said_of(files, (code,)) == "ok\n"


def test_a_model_that_no_rule_asks_is_found(shipped_models: dict[str, Model]) -> None:
    text = "decisions: {home: {default: {action: none}}}\nrules: [{id: a, decision: home, then: {action: a}}]\n"
    files = {"r.yaml": text.encode()}
    ruleset, _ = load_ruleset(files, {})
    assert ruleset is not None
    models = {"rfm": shipped_models["rfm"]}
    (noted,) = lint(Snapshot(ruleset, models), files, NOON, Names("rules", "models"))
    assert noted.diagnostic.render() == (
        "models/rfm/manifest.yaml: warning: no rule asks the model `rfm`, which every worker loads [unused-model]\n"
        "  hint: use it, or remove its folder"
    )


def test_the_lint_accounts_for_every_part_of_a_rule() -> None:
    # A new gate that the lint does not know would make it claim what is not so: teach it, then add the field here.
    assert set(Rule.__struct_fields__) == KNOWN_FIELDS


def test_outputs_of_models_are_told_apart_as_stored_values_are(shipped_models: dict[str, Model]) -> None:
    text = """
features:
  orders_39w: {count: purchase, window: 39w}
  spend_39w: {sum: purchase.amount, window: 39w}
  days_since_purchase: {since: purchase, unit: d}
decisions: {home: {default: {action: none}}}
rules:
  - {id: loyal, decision: home, priority: 9, when: models.rfm.cluster == "loyal", then: {action: a}}
  - {id: lost, decision: home, priority: 8, when: 'models.rfm.cluster in ["loyal"] && now > timestamp("2026-01-01T00:00:00Z")', then: {action: b}}
  - {id: torn, decision: home, priority: 7, when: 'models.rfm.cluster == "loyal" && models.rfm.cluster == "lapsed"', then: {action: c}}
"""  # noqa: E501 - a rule a line
    files = {"r.yaml": text.encode()}
    model = shipped_models["rfm"]
    outputs, labels = {"rfm": model.outputs}, {"rfm": model.labels}
    ruleset, found = load_ruleset(files, outputs, labels)
    assert ruleset is not None, found
    noted = lint(Snapshot(ruleset, {"rfm": model}), files, NOON, Names())
    assert [(each.diagnostic.code, each.diagnostic.line) for each in noted] == [
        ("never-wins", 9),
        ("never-matches", 10),
    ]
    assert 'models.rfm.cluster = "loyal"' in noted[0].diagnostic.example


def test_subjects_in_json_can_be_decided_again() -> None:
    text = """
schema: {profile: {age: int}}
decisions: {home: {default: {action: none}}}
rules:
  - {id: a, decision: home, when: profile.age > 3, then: {action: a}}
  - {id: b, decision: home, when: profile.age < 9, then: {action: b}}
"""
    files = {"r.yaml": text.encode()}
    ruleset, _ = load_ruleset(files, {})
    assert ruleset is not None
    (noted,) = lint(Snapshot(ruleset, {}), files, NOON, Names())
    assert noted.finding is not None
    assert noted.finding.subject is not None
    encoded = msgspec.json.decode(msgspec.json.encode(noted.finding.subject.fields()))
    assert encoded == {"profile": {"age": 4}, "now": "2026-05-28T20:26:40Z"}
