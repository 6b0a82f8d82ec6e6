"""docs/security.md and docs/threat-model.md say what is: roles, fields of the audit log, and tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgspec

from arbiter.server.audit import Record
from arbiter.server.auth.roles import NEEDS
from arbiter.server.auth.signed import ALGORITHMS

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`([^`]+)`")


def rows(name: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading."""
    text = (ROOT / "docs" / name).read_text("utf-8")
    table = re.search(r"(?:^\|.*\n)+", text[text.index(f"\n{heading}\n") :], re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[0].splitlines()[2:]]


def test_the_table_of_roles_is_the_one_that_is_asked() -> None:
    listed = {
        f"/{method}": NAMED.findall(need)[0]
        for methods, need in rows("security.md", "## Roles")
        for method in NAMED.findall(methods)
    }
    assert listed == NEEDS


def test_the_page_lists_what_each_kind_of_key_verifies() -> None:
    listed = [NAMED.findall(kind + verifies) for kind, verifies in rows("security.md", "## JWTs")]
    assert dict(each[:2] for each in listed) == ALGORITHMS


def test_the_page_lists_every_field_of_the_audit_log() -> None:
    listed = {NAMED.findall(row[0])[0] for row in rows("security.md", "## The audit log")}
    assert listed == {field.encode_name for field in msgspec.structs.fields(Record)}


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = [NAMED.findall(row[2])[0] for row in rows("threat-model.md", "## What stops them")]
    assert len(named) > 25
    for name in named:
        path, _, function = name.partition("::")
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in tests if function else any(each.startswith("test_") for each in tests), name
