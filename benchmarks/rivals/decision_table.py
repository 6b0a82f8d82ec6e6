"""zen-engine: the rules as one decision table that stops at its first hit, rows best first.

Law: everything that is known of zen-engine is here. Two uses: a decision that is created once and evaluated per
request, as its own page shows, whose time grows with the rows down to the first hit; and a table that the engine's own
loader holds, which version 2 prepares so that many rows cost little more than few. The second is faster at every size.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from zen import ZenEngine

from benchmarks.conditions import in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.conditions import Condition, PlainRule


def created(rules: Sequence[PlainRule]) -> Callable[[dict[str, Any]], str]:
    """A function from the attributes that the rules read, and no others, to the best rule's id: a decision created
    once.
    """
    evaluate = ZenEngine().create_decision(json.dumps(_graph(rules))).evaluate

    def best(person: dict[str, Any]) -> str:
        result: dict[str, str] = evaluate(person)["result"]
        return result.get("rule", "")

    return best


def loaded(rules: Sequence[PlainRule]) -> Callable[[dict[str, Any]], str]:
    """As `created`, with the table in the engine's loader."""
    evaluate = ZenEngine({"loader": {"type": "static", "content": {"rules": _graph(rules)}}}).evaluate

    def best(person: dict[str, Any]) -> str:
        result: dict[str, str] = evaluate("rules", person)["result"]
        return result.get("rule", "")

    return best


def columns(rules: Sequence[PlainRule]) -> list[str]:
    """The attributes that the rules read: the choosiest column first, since a row is left at its first miss."""
    chance: dict[str, float] = {}
    for rule in rules:
        for condition in rule.conditions:
            chance[condition.name] = min(condition.chance, chance.get(condition.name, 1.0))
    return sorted(chance, key=lambda name: chance[name])


def _cell(condition: Condition) -> str:
    match condition.test:
        case "true":
            return "true"
        case "==" | "in":
            return ", ".join(json.dumps(value) for value in condition.values)
        case test:
            return f"{test} {json.dumps(condition.values[0])}"


def _graph(rules: Sequence[PlainRule]) -> dict[str, Any]:
    """Input, table, output."""
    names = columns(rules)
    rows = [
        dict.fromkeys(names, "") | {c.name: _cell(c) for c in rule.conditions} | {"_id": rule.id, "out": f'"{rule.id}"'}
        for rule in in_order(rules)
    ]
    table = {
        "hitPolicy": "first",
        "inputs": [{"id": name, "name": name, "field": name} for name in names],
        "outputs": [{"id": "out", "name": "out", "field": "rule"}],
        "rules": rows,
        "passThrough": False,
        "inputField": None,
        "outputPath": None,
        "executionMode": "single",
    }
    parts: tuple[tuple[str, dict[str, Any]], ...] = (
        ("inputNode", {"schema": ""}),
        ("decisionTableNode", table),
        ("outputNode", {"schema": ""}),
    )
    return {
        "nodes": [{"id": kind, "name": kind, "type": kind, "content": content} for kind, content in parts],
        "edges": [
            {"id": "1", "sourceId": "inputNode", "targetId": "decisionTableNode", "type": "edge"},
            {"id": "2", "sourceId": "decisionTableNode", "targetId": "outputNode", "type": "edge"},
        ],
    }
