"""Generated Python: one function of if-statements, best rule first, that returns the first rule that holds.

Law: no index and no grouping, only what a good code generator would do to a chain of if-statements: attributes in
locals, constants in the code, the choosiest condition first, one return each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.conditions import choosiest_first, in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.conditions import Condition, PlainRule


def ask(rules: Sequence[PlainRule]) -> Callable[[dict[str, Any]], str]:
    """A function from a profile, which must have all attributes that the rules read, to the best rule's id."""
    names = sorted({condition.name for rule in rules for condition in rule.conditions})
    lines = ["def best(person):", *(f"    {name} = person[{name!r}]" for name in names)]
    for rule in in_order(rules):
        tests = " and ".join(_test(condition) for condition in choosiest_first(rule))
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
