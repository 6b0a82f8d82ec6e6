"""The published JSON Schemas are those of the code; they refuse nothing that loads, and every mistake of shape.

A schema knows shapes. What only the readers can know stands in BEYOND, case by case, with the reason.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft7Validator

from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.nodes import Mapping, Node, Scalar
from arbiter.authoring.report import Report
from arbiter.cli.kinds import KINDS, MODELS, RULES, TESTS, kind_of_file
from arbiter.cli.schema import published
from arbiter.models.reader import read_manifest
from arbiter.ruleset.load import load_ruleset
from arbiter.ruleset.schema import FOLDED

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
FORM = Form("a file", 1 << 24, "")
OUTPUTS = {"rfm": {"cluster": "string"}, "repurchase": {"probability": "double"}}
VALIDATORS = {kind.published: Draft7Validator(kind.schema()) for kind in KINDS}

# Mistakes that a schema cannot see, and why. YAML that cannot be read never reaches it.
NAMES = "which names there are, all files together say"
CEL = "what an expression says, CEL knows"
CELLS = "a table's cells are read by its columns, and CSV files are no YAML"
BEYOND = {
    "a_group_that_no_rule_is_in": NAMES,
    "a_purpose_that_no_file_declares": NAMES,
    "caps_of_what_no_rule_has": NAMES,
    "a_csv_file_that_is_none": CELLS,
    "a_csv_file_with_semicolons": CELLS,
    "columns_of_a_csv_file": CELLS,
    "columns_that_make_no_sense": CELLS,
    "hit_policies_and_priorities": CELLS,
    "mistakes_in_a_csv_file": CELLS,
    "letters_of_a_zone_are_no_name_of_one": NAMES,
    "mistakes_in_cells_of_a_table": CELLS,
    "a_row_with_an_unknown_column_is_not_held_against_others": CELLS,
    "cells_that_other_tables_would_take": CELLS,
    "outputs_that_are_keys_of_a_rule": CELLS,
    "rows_of_a_unique_table_that_overlap": CELLS,
    "rows_of_an_any_table_that_differ": CELLS,
    "where_a_csv_file_may_lie": CELLS,
    "a_comparison_with_a_value_that_is_not_allowed": CEL,
    "a_feature_on_an_undeclared_event_or_property": NAMES,
    "a_name_declared_twice_names_both_places": NAMES,
    "a_rule_for_an_undeclared_decision": NAMES,
    "a_rule_id_used_twice_names_both_places": NAMES,
    "a_rule_without_any_decision_declared": NAMES,
    "a_step_with_too_many_equalities": CEL,
    "a_syntax_error_in_an_expression": CEL,
    "a_template_that_is_never_closed": CEL,
    "actions_and_parameters_are_checked": NAMES,
    "an_account_is_declared_like_a_profile": NAMES,
    "an_unknown_feature_names_the_closest": NAMES,
    "positions_behind_tags_and_anchors": CEL,
    "positions_in_a_double_quoted_text": CEL,
    "positions_in_a_folded_block": CEL,
    "positions_in_a_literal_block": CEL,
    "positions_in_a_single_quoted_text": CEL,
    "positions_in_plain_text_over_several_lines": CEL,
    "positions_inside_templates": CEL,
    "segments_in_a_circle": NAMES,
    "segments_nested_too_deeply": NAMES,
    "triggers_that_go_in_a_circle": NAMES,
    "unknown_names_under_declared_sections": NAMES,
}


def plain(node: Node | None) -> Any:
    """What a node is in JSON."""
    if node is None:
        return None
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Mapping):
        return {name: plain(entry.node) for name, entry in node.entries.items()}
    return [plain(item) for item in node.items]


def documents(text: str) -> list[Any]:
    """The documents of a file; empty when it cannot be read without a mistake."""
    report = Report()
    roots = read_documents("f", text.encode(), FORM, report)
    return [] if report or roots is None else [plain(root) for root in roots]


def refusals(file: str, text: str) -> list[str]:
    """What its schema says of a file."""
    validator = VALIDATORS[kind_of_file(file).published]
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
            for document in documents(text) for error in validator.iter_errors(document)]  # fmt: skip


def rule_cases() -> dict[str, dict[str, str]]:
    cases = {}
    for case in sorted((ROOT / "tests" / "cases" / "rules").glob("*.case")):
        parts = re.split(r"^=== (.+)\n", case.read_text("utf-8"), flags=re.MULTILINE)
        cases[case.stem] = dict(zip(parts[1::2], parts[2::2], strict=True))
    return cases


def authored() -> Iterator[tuple[str, str]]:
    """Every rule file, test and manifest in the repository that is meant to be sound."""
    for folder in ("rules", "models"):
        for path in sorted((ROOT / folder).rglob("*.yaml")):
            yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
    for path in sorted((ROOT / "tests" / "cases" / "decisions").glob("*.yaml")):
        rules = yaml.safe_load(path.read_text("utf-8"))["rules"]
        for name, text in ({"rules.yaml": rules} if isinstance(rules, str) else rules).items():
            yield f"{path.stem}/{name}", text
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        blocks = re.findall(r"^```yaml([^\n]*)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        for number, (words, text) in enumerate(blocks):
            file = re.search(r"file=(\S+)", words)
            if "wrong" not in words and (file is None or file[1].startswith("rules/")):
                name = Path(file[1]).name if file else "rules.test.yaml" if "test" in words else "rules.yaml"
                yield f"{page.name}/{number}/{name}", text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.published)
def test_a_schema_is_one(kind: Any) -> None:
    Draft7Validator.check_schema(kind.schema())


def test_the_published_schemas_are_fresh() -> None:
    stale = [path.name for path, content in published(ROOT / "rules" / "schema") if path.read_bytes() != content]
    assert not stale, "run: arbiter schema"


@pytest.mark.parametrize(("file", "text"), list(authored()), ids=lambda value: value if "\n" not in value else "")
def test_what_is_sound_is_valid(file: str, text: str) -> None:
    assert documents(text)
    assert refusals(file, text) == []


@pytest.mark.parametrize("path", sorted((ROOT / "rules").rglob("*.yaml")), ids=lambda path: path.name)
def test_shipped_files_name_their_schema(path: Path) -> None:
    first = path.read_text("utf-8").partition("\n")[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None
    kind = kind_of_file(path.as_posix())
    assert (path.parent / named[1]).resolve() == ROOT / "rules" / "schema" / kind.published


@pytest.mark.parametrize("name", list(rule_cases()))
def test_every_case_of_rule_files(name: str) -> None:
    files = rule_cases()[name]
    expected = files.pop("expected")
    texts = {file: text for file, text in files.items() if file.endswith((".yaml", ".yml"))}
    said = [each for file, text in texts.items() for each in refusals(file, text)]
    if expected == "ok\n" or name in BEYOND:
        assert said == []
    else:
        assert said or not all(documents(text) for text in texts.values())


# A rule set that says everything which there is to say, to be spoilt in every place.
WHOLE = """
consent: {purposes: [ads, mail]}
schema:
  profile: {name: string, age: {type: int, values: [1, 2], purposes: [ads]}, tags: list}
  context: {device: {type: string, values: [ios]}, at: timestamp}
  events: {buy: {purposes: [ads], amount: double}, visit: {}}
actions:
  show: {params: {text: string, size: {type: int, optional: true, values: [1, 2]}}}
  hide:
decisions:
  home: {slots: 2, order: [priority, value], default: {action: show, params: {text: x, size: 1}}}
  bare:
segments: {old: profile.age > 1}
features:
  total: {sum: buy.amount, window: 7d, where: event.amount > 1.0, purposes: [mail]}
  last_seen: {since: visit, unit: d}
rules:
  - id: a
    decision: home
    priority: 3
    when: [segments.old, profile.name == "x"]
    then: {action: show, params: {text: "a ${profile.name}", size: 2}}
    value: features.total * 2.0
    group: g
    rollout: {percent: 12.5, by: profile.name, salt: s}
    active: {from: "2026-11-01T00:00:00Z", until: "2026-12-01T00:00:00Z"}
    tags: [one, two]
    enabled: true
  - {id: b, decision: bare, when: features.last_seen > 2.0, then: {action: hide}}
"""
MANIFEST = """
name: rfm
version: 1
kind: segment
description: text
sha256: "3998aeaf20f33c5061d0b5c40b10d25c1980cdd2fff5699c3f5c4a2f76374127"
inputs:
  - {name: a, from: features.a, default: 0}
  - {name: b, from: features.b, impute: mean, training: {mean: 2.5, missing: 0.1}, range: [0, 9], outside: clip}
  - {name: c, from: profile.c, categories: [x, y], as: onehot, unseen: other}
  - {name: d, from: profile.d, as: missing, unit: d}
outputs:
  cluster: {tensor: t, type: string, index: 0, labels: [x, y]}
  far: {tensor: t, type: double, reduce: min}
"""
SPOILT: list[Any] = [None, True, 5, -3, 0, 1.5, "", "no such thing", "x.y", [], [[]], {}, {"odd": 1}, "7d", 2**70]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from places(each, (*path, key))


def spoilt(value: Any) -> Iterator[tuple[str, Any]]:
    """The value with one place changed: another value there, the key gone, the key misspelt, a key more."""
    for path in places(value):
        for change in [*SPOILT, "gone", "misspelt"]:
            copied = copy.deepcopy(value)
            above = copied
            for key in path[:-1]:
                above = above[key]
            last = path[-1]
            if change == "misspelt" and isinstance(above, dict):
                above[f"{last}x"] = above.pop(last)
            elif change == "gone":
                del above[last]
            elif change != "misspelt":
                above[last] = change
            yield f"{'/'.join(map(str, path))} := {change!r}", copied


def refused_sections(validator: Draft7Validator, changed: dict[str, Any], sound: dict[str, Any]) -> list[str]:
    """What a schema says of a rule file that differs from a sound one: sections that are the same need not be looked at
    again, where the schema binds none to another.
    """
    differ = {
        name: section
        for name, section in changed.items()
        if name not in sound or json.dumps(section) != json.dumps(sound[name])
    }
    return [error.message for error in validator.iter_errors(differ)]


def loads(document: Any) -> list[str]:
    """What the reader of rule files says."""
    _, found = load_ruleset({"r.yaml": json.dumps(document).encode()}, OUTPUTS)
    return [each.message for each in found]


# What the readers say where the shape is right: of names, of values of declared types, of expressions.
MEANING = re.compile(
    "unknown|declared|has no (parameter|property)|needs the parameter|the parameter|is never|64-bit|"
    "condition must be true|number is needed|cannot stand here|reads"
)


def test_a_schema_refuses_no_rule_file_that_loads_and_every_one_of_a_wrong_shape() -> None:
    document = yaml.safe_load(WHOLE)
    assert loads(document) == []
    validator = VALIDATORS[RULES.published]
    assert list(validator.iter_errors(document)) == []
    assert RULES.schema().keys() <= {
        "$schema", "title", "description", "type", "properties", "additionalProperties", "definitions",
    }  # fmt: skip
    both = 0
    for what, changed in spoilt(document):
        said, wrong = loads(changed), refused_sections(validator, changed, document)
        assert said or not wrong, f"{what}: loads, and the schema says {wrong}"
        assert wrong or all(map(MEANING.search, said)), f"{what}: the schema does not see that {said}"
        both += bool(said and wrong)
    assert both > 1000


TABLE = """
decisions: {home: }
rules:
  - id: a
    decision: home
    when: profile.age > 1
    hit_policy: priority
    inputs: {plan: profile.plan, profile.age: profile.age}
    outputs: [offer, priority]
    rows:
      - ['"free", "trial"', "> 5", X, 3]
      - {plan: "-", profile.age: "[1..10)", offer: Y, priority: 4}
    gaps: allowed
    then: {action: show, params: {text: x}}
    tags: [one]
"""


def test_a_schema_refuses_no_decision_table_that_loads_and_every_key_that_there_is_not() -> None:
    document = yaml.safe_load(TABLE)
    assert loads(document) == []
    validator = VALIDATORS[RULES.published]
    for what, changed in spoilt(document):
        said, wrong = loads(changed), [error.message for error in validator.iter_errors(changed)]
        assert said or not wrong, f"{what}: loads, and the schema says {wrong}"
        misspelt = re.fullmatch(r"rules/0/\w+ := 'misspelt'", what)
        assert wrong or not misspelt, f"{what}: the schema does not see that {said}"


# What a schema cannot say: how one key is to another, in what is given to `reader`.
_BEYOND_SHAPES = (
    "64-bit|labels are strings|needs an output|under `training`|needs `categories`|needs a `range`"
    "|all texts, all numbers|the least and the greatest|stands here twice|looks at all columns|place of a column"
    "|gives a number, and|categories are no numbers|`as: missing` says|both say what stands in"
    "|none of the categories|and here are categories"
)


def test_a_schema_refuses_no_manifest_that_loads_and_every_one_of_a_wrong_shape() -> None:
    document = yaml.safe_load(MANIFEST)
    validator = VALIDATORS[MODELS.published]
    both = 0
    for what, changed in spoilt(document):
        said = [each.message for each in read_manifest(json.dumps(changed).encode(), "m")[2]]
        wrong = [error.message for error in validator.iter_errors(changed)]
        assert said or not wrong, f"{what}: loads, and the schema says {wrong}"
        assert wrong or all(re.search(_BEYOND_SHAPES, each) for each in said), f"{what}: {said}"
        both += bool(said and wrong)
    assert both > 150


def test_misspelt_keys_of_a_test_are_refused() -> None:
    document = yaml.safe_load((ROOT / "rules" / "store" / "banner.test.yaml").read_text("utf-8"))
    validator = VALIDATORS[TESTS.published]
    for number, test in enumerate(document["tests"]):
        for key in test:
            changed = copy.deepcopy(document)
            changed["tests"][number][f"{key}x"] = changed["tests"][number].pop(key)
            assert list(validator.iter_errors(changed))


def test_what_is_folded_is_a_key_of_the_language() -> None:
    known = {key for kind in KINDS for key in re.findall(r"'(\w+)': ", str(kind.schema()))}
    assert known >= FOLDED
