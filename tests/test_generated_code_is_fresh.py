"""The committed stubs are what the protos give, and the expression stubs read what cel-cpp writes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cel_expr_python import cel
from google.protobuf.any_pb2 import Any

from arbiter.expr.v1 import syntax_pb2

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


def test_committed_stubs_are_what_the_protos_give(generator: ModuleType) -> None:
    assert generator.stale() == []


def test_protos_keep_the_lint_rules(generator: ModuleType) -> None:
    generator.lint()


def parsed(source: str) -> syntax_pb2.ParsedExpr:
    env = cel.NewEnv(variables={"profile": cel.Type.DYN})
    found = Any.FromString(env.compile(source, disable_check=True).serialize())
    assert found.type_url == "type.googleapis.com/cel.expr.ParsedExpr"
    return syntax_pb2.ParsedExpr.FromString(found.value)


def test_a_parsed_expression_keeps_its_shape() -> None:
    root = parsed("profile.age >= 18").expr
    assert root.call_expr.function == "_>=_"
    left, right = root.call_expr.args
    assert left.select_expr.field == "age"
    assert left.select_expr.operand.ident_expr.name == "profile"
    assert right.const_expr.int64_value == 18


def test_a_parsed_expression_keeps_its_positions() -> None:
    tree = parsed("true &&\n  profile.x")
    right = tree.expr.call_expr.args[1]
    assert tree.source_info.positions[right.id] == 17
    assert tree.source_info.line_offsets[0] == 8


def test_a_checked_expression_has_the_same_tree_as_the_parsed_one() -> None:
    env = cel.NewEnv(variables={"profile": cel.Type.DYN})
    found = Any.FromString(env.compile("has(profile.x) && [1, 2u].exists(n, n == profile.n)").serialize())
    assert found.type_url == "type.googleapis.com/cel.expr.CheckedExpr"
    checked = syntax_pb2.CheckedExpr.FromString(found.value)
    assert checked.expr.call_expr.function == "_&&_"
    assert checked.expr.call_expr.args[0].select_expr.test_only
    fold = checked.expr.call_expr.args[1].comprehension_expr
    assert [item.const_expr.WhichOneof("constant_kind") for item in fold.iter_range.list_expr.elements] == [
        "int64_value",
        "uint64_value",
    ]
    assert checked.source_info.positions


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("null", "null_value"),
        ("true", "bool_value"),
        ("-1", "int64_value"),
        ("1u", "uint64_value"),
        ("1.5", "double_value"),
        ("'a'", "string_value"),
        ("b'a'", "bytes_value"),
    ],
)
def test_a_literal_keeps_its_kind(source: str, kind: str) -> None:
    assert parsed(source).expr.const_expr.WhichOneof("constant_kind") == kind
