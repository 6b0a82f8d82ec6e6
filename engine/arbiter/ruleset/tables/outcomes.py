"""What a row gives, as a value to compare: two rows give the same if nobody can tell which of them won.

Law: rules in, plain tuples out. Where something was written does not count, nor its type's Python equality: 1 is not
true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.ruleset.terms import Fields, Items, Plain, Template

if TYPE_CHECKING:
    from arbiter.ruleset.rules import Rule
    from arbiter.ruleset.terms import Param


def outcome_of(rule: Rule) -> tuple[Any, ...]:
    """All that a rule gives or competes with."""
    params = {name: _given(param) for name, param in sorted(rule.then.params.items())}
    value = rule.value.source if rule.value is not None else None
    return rule.then.action, params, rule.priority, value


def _given(param: Param) -> Any:
    match param:
        case Plain(value=value):
            return repr(value)
        case Template(parts=parts):
            return [part if isinstance(part, str) else (part.source,) for part in parts]
        case Items(items=items):
            return [_given(item) for item in items]
        case Fields(fields=fields):
            return {name: _given(field) for name, field in fields.items()}
