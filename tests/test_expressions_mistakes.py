"""Every case of cases/expressions: an expression, and what is said of it: the underlined text, the sentence, the hint.

To add a case, write the source and run this test: it shows what is said now; paste it once it is what should be said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from arbiter.expr.check import Scope, read_expression

FILES = sorted((Path(__file__).parent / "cases" / "expressions").glob("*.yaml"))
CASES: list[dict[str, Any]] = [case for file in FILES for case in yaml.safe_load(file.read_text("utf-8"))]
SCOPE = Scope(
    roots={
        "profile": {
            "age": "int",
            "country": "string",
            "member": "bool",
            "signed_up": "timestamp",
            "tags": "list",
            "home": "map",
            "spend": "double",
            "key": "bytes",
        },
        "context": {"device": "string"},
        "features": {"days_since_purchase": "double", "orders": "int", "last_kind": "dyn"},
        "segments": {"loyal": "bool"},
    },
    models={"churn": {"probability": "double", "label": "string"}},
    barred={"account": "`account` cannot stand here"},
)


@pytest.mark.parametrize("case", CASES, ids=[case["source"] for case in CASES])
def test_an_expression_and_what_is_said_about_it(case: dict[str, Any]) -> None:
    source = case["source"]
    checked = read_expression(source, SCOPE, expect=case.get("expect", "bool"))
    said = [
        {"at": source[m.start : m.end], "message": m.message} | ({"hint": m.hint} if m.hint else {})
        for m in checked.mistakes
    ]
    assert said == case.get("mistakes", [])
    assert (checked.root is None) == bool(said)
    if not said:
        assert checked.type == case["type"]


def test_names_are_known_once_and_sorted() -> None:
    checked = read_expression("profile.age > 3 && (features.orders > 1 || profile.age < 1) && now > now", SCOPE)
    assert checked.names == (("features", "orders"), ("now",), ("profile", "age"))


def test_there_are_cases() -> None:
    assert len(CASES) > 80
