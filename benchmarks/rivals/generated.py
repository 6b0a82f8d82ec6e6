"""Generated Python: one function of if-statements, best rule first, that returns the first rule that holds.

Law: no index and no grouping, only what a good code generator would do to a chain of if-statements: attributes in
locals, constants in the code, one return each. Conditions stand as they were written; or the choosiest first, which
nobody can know who does not know the people too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.conditions import choosiest_first, in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.conditions import Condition, PlainRule


def ask(rules: Sequence[PlainRule]) -> Callable[[dict[str, Any]], str]:
    """A function from a profile, which must have all attributes that the rules read, to the best rule's id."""
    return _function(rules, lambda rule: rule.conditions)


def ask_choosily(rules: Sequence[PlainRule]) -> Callable[[dict[str, Any]], str]:
    """The same with each rule's choosiest condition first."""
    return _function(rules, choosiest_first)


def _function(
    rules: Sequence[PlainRule], ordered: Callable[[PlainRule], Sequence[Condition]]
) -> Callable[[dict[str, Any]], str]:
    names = sorted({condition.name for rule in rules for condition in rule.conditions})
    lines = ["def best(person):", *(f"    {name} = person[{name!r}]" for name in names)]
    for rule in in_order(rules):
        tests = " and ".join(_test(condition) for condition in ordered(rule))
        lines.append(f"    if {tests}: return {rule.id!r}")
    lines.append("    return ''")
    made: dict[str, Any] = {}
    exec(compile("\n".join(lines), "<generated rules>", "exec"), made)  # noqa: S102 - that is what is measured
    best: Callable[[dict[str, Any]], str] = made["best"]
    return best


def _test(condition: Condition) -> str:
    match condition.test:
        case "true":
            return condition.name
        case "in" if len(set(condition.values)) > 1:
            return f"{condition.name} in {tuple(dict.fromkeys(condition.values))!r}"
        case "in" | "==":
            return f"{condition.name} == {condition.values[0]!r}"
        case test:
            return f"{condition.name} {test} {condition.values[0]!r}"
