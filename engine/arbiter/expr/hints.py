"""What to try instead: the hints that go with mistakes in expressions.

Law: words for authors, chosen from an operator, types of operands or a source text. Finds no mistakes itself.
"""

from __future__ import annotations

import re

FUNCTIONS = (
    "size", "startsWith", "endsWith", "contains", "matches", "has", "all", "exists", "exists_one", "map", "filter",
    "int", "double", "string", "bool", "bytes", "timestamp", "duration", "type", "dyn",
    "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours", "getMinutes",
    "getSeconds", "getMilliseconds", "lowerAscii", "upperAscii", "trim", "split", "join", "replace", "substring",
    "indexOf", "lastIndexOf", "charAt", "reverse", "format",
    "math.greatest", "math.least", "math.ceil", "math.floor", "math.round", "math.trunc", "math.abs", "math.sign",
    "math.sqrt", "math.isNaN", "math.isInf", "math.isFinite", "math.bitAnd", "math.bitOr", "math.bitXor", "math.bitNot",
    "math.bitShiftLeft", "math.bitShiftRight", "strings.quote",
)  # fmt: skip
"""Every function and macro that an expression may call, unsigned numbers left out."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")
_QUOTES = frozenset("\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb")
_FUNCTION_OF_TEXT = frozenset({"contains", "startsWith", "endsWith"})
_BY_WORD = {
    "=": "compare with `==`",
    "and": "write `&&`",
    "or": "write `||`",
    "not": "write `!`",
    "AND": "write `&&`",
    "OR": "write `||`",
    "NOT": "write `!`",
    "IN": "write `in`",
    "between": "write `x >= 3 && x <= 5`",
    "BETWEEN": "write `x >= 3 && x <= 5`",
    "is": "compare with `==`",
    "like": 'write `x.startsWith("a")` or `x.contains("a")`',
    "LIKE": 'write `x.startsWith("a")` or `x.contains("a")`',
    "contains": 'write `"a" in list`; of a text, `text.contains("a")`',
    "&": "write `&&`",
    "|": "write `||`",
    "<>": "write `!=`",
    "invalid int literal": "whole numbers have 64 bits; write a larger one as a double: `1e20`",
    "has() argument must be a field selection": "write `has(root.name)`, or compare without `has`",
}


def word_hint(word: str, before: str = "") -> str:
    """For a word of another language behind `before`, or a complaint of the parser; else an empty string."""
    if word[:1] in _QUOTES:
        return 'write straight quotes: `"text"`'
    if word[:1] == "T" and _DATE.search(before):
        return 'write a time as `timestamp("2026-11-01T00:00:00Z")`'
    return _BY_WORD.get(word, "")


def end_hint(source: str) -> str:
    """For an expression that ends too early."""
    for opening, closing in ("()", "[]", "{}"):
        if source.count(opening) > source.count(closing):
            return f"a `{opening}` is not closed"
    return "something is missing behind this"


def operand_hint(operator: str, kinds: list[str]) -> str:
    """For an operator that does not take operands of these types; else an empty string."""
    if operator in {"&&", "||", "!"}:
        return "each side must be true or false: compare it with something"
    if operator == "in":
        return 'the right side must be a list: `in ["a", "b"]`'
    if operator in _FUNCTION_OF_TEXT and kinds[:1] and kinds[0].startswith("list"):
        return 'of a list, write `"a" in list`'
    if "bool" in kinds and operator in {"<", "<=", ">", ">="}:
        return "join comparisons with `&&`"
    if {"google.protobuf.Timestamp", "timestamp"} & set(kinds) and {"int", "double", "string"} & set(kinds):
        return 'compare with a time: `timestamp("2026-11-01T00:00:00Z")` or `now - duration("24h")`'
    if {"google.protobuf.Duration", "duration"} & set(kinds):
        return 'compare with a duration: `duration("24h")`'
    if "string" in kinds and {"int", "double"} & set(kinds):
        return "compare text with text, numbers with numbers"
    return ""
