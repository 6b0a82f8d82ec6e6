"""durable-rules: the C module alone, one session, a sentinel, the person as one fact that is asserted and retracted.

Law: everything that is known of durable_rules_engine is here. It has limits: 4,096 rules a rule set, under 512 distinct
conditions behind one beginning, beyond which it never returns, and 64 sibling conditions that hold for one fact.
`TooMuch` says which of them forbids a question.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.conditions import choosiest_first, in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.conditions import Condition, PlainRule

try:
    import durable_rules_engine as engine
except ModuleNotFoundError:  # it needs a C compiler to install
    engine = None

_names = itertools.count()  # the engine registers a name only once
_SESSION = "0"
_MOST_RULES = 4_096
_MOST_SIBLINGS = 511


class TooMuch(Exception):
    """The engine refuses these rules or this fact."""


def ask(rules: Sequence[PlainRule]) -> Callable[[dict[str, Any]], str]:
    """A function from the attributes that the rules read, and no others, to the best rule's id.

    Raises TooMuch for more rules than it takes; the function does for a person who meets too many conditions.
    """
    if engine is None:
        raise TooMuch("is not installed")
    _check(rules)
    defined: dict[str, Any] = {"sentinel": _rule([{"kind": "sentinel"}, {"go": 1}])}
    for rule in rules:
        # Equality first and what few pass first: nodes are shared by what conditions begin with.
        defined[rule.id] = _rule([{"kind": "person"}, *map(_test, choosiest_first(rule))])
    try:
        handle = engine.create_ruleset(f"rules {next(_names)}", json.dumps(defined))
    except engine.error as error:
        raise TooMuch(str(error)) from error
    place = {rule.id: number for number, rule in enumerate(in_order(rules))}
    encode = msgspec.json.Encoder().encode
    tags = {"id": "1", "sid": _SESSION, "kind": "person"}
    _run(handle, encode({"id": "0", "sid": _SESSION, "kind": "sentinel", "go": 1}).decode())

    def best(person: dict[str, Any]) -> str:
        found = _run(handle, encode(person | tags).decode())
        return min(found, key=place.__getitem__) if found else ""

    return best


def _check(rules: Sequence[PlainRule]) -> None:
    """Refuse what the engine would refuse, or never come back from."""
    if len(rules) >= _MOST_RULES:
        raise TooMuch(f"takes {_MOST_RULES:,} rules at most")
    siblings: dict[tuple[Any, ...], set[Any]] = {}
    for rule in rules:
        ordered = choosiest_first(rule)
        for depth, condition in enumerate(ordered):
            siblings.setdefault(tuple(ordered[:depth]), set()).add(condition)
    if max(map(len, siblings.values())) > _MOST_SIBLINGS:
        raise TooMuch(f"takes {_MOST_SIBLINGS} different conditions behind one beginning at most")


def _run(handle: int, fact: str) -> set[str]:
    """The names of the rules that a fact completes; the fact is gone again."""
    try:
        status, session = engine.assert_fact(handle, fact)
    except engine.error as error:
        raise TooMuch(f"takes 64 conditions side by side that hold at most ({error})") from error
    found: set[str] = set()
    if status == 0 and (action := engine.start_action_for_state(handle, session)):
        message = action[1]
        while message:
            found.update(json.loads(message))
            message = engine.complete_and_start_action(handle, session)
    engine.retract_fact(handle, fact)
    return found


def _rule(conditions: list[dict[str, Any]]) -> dict[str, Any]:
    return {"all": [{"m": {"$and": conditions}}]}


def _test(condition: Condition) -> dict[str, Any]:
    values = list(dict.fromkeys(condition.values))
    match condition.test:
        case "true":
            return {condition.name: True}
        case "in" if len(values) > 1:
            return {"$or": [{condition.name: value} for value in values]}
        case "in" | "==":
            return {condition.name: values[0]}
        case test:
            return {{">": "$gt", "<=": "$lte"}[test]: {condition.name: values[0]}}
