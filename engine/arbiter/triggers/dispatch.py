"""Which conditions of steps an event may pass, without asking each.

Law: pure. What is left out is certainly not true of the event; what is given may be. A condition that says what some
property is equal to is looked up by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from arbiter.expr.syntax import conjuncts
from arbiter.expr.tree import Call, Const, ListOf, Name
from arbiter.triggers.joins import key

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from arbiter.expr.tree import AnyNode, Expression
    from arbiter.ruleset.triggering import OpenStep

User = TypeVar("User")
_Asked = tuple["Callable[[Mapping[str, Any]], bool]", list[User]]


class Dispatch(Generic[User]):
    """Steps that wait for events of one type, and who is told that an event passed one."""

    def __init__(self, entries: Iterable[tuple[OpenStep, User]]) -> None:
        self._always: list[User] = []
        self._asked: list[_Asked[User]] = []
        self._by_value: dict[str, dict[Hashable, list[_Asked[User]]]] = {}
        known: dict[int, _Asked[User]] = {}  # by condition: steps that say the same share one
        for step, user in entries:
            if step.own is None or step.step.own is None:
                self._always.append(user)
            elif id(step.own) in known:
                known[id(step.own)][1].append(user)
            else:
                asked = known[id(step.own)] = (step.own, [user])
                self._put(asked, step.step.own)

    def _put(self, asked: _Asked[User], expression: Expression) -> None:
        named = _choosiest(expression.root)
        if named is None:
            self._asked.append(asked)
            return
        for value in named[1]:
            self._by_value.setdefault(named[0], {}).setdefault(value, []).append(asked)

    def passed(self, properties: Mapping[str, Any]) -> list[User]:
        """Those whose condition is true of an event with these properties."""
        found = [*self._always]
        for own, users in self._asked:
            if own(properties):
                found += users
        for name, by_value in self._by_value.items():
            if name in properties:
                for own, users in by_value.get(key(properties[name]), ()):
                    if own(properties):
                        found += users
        return found


def _choosiest(root: AnyNode) -> tuple[str, set[Hashable]] | None:
    """A property that has one of a few values wherever the condition is true, and these values, as keys."""
    found = [each for each in map(_named, conjuncts(root)) if each is not None]
    return min(found, key=lambda each: len(each[1]), default=None)


def _named(node: AnyNode) -> tuple[str, set[Hashable]] | None:
    match node:
        case Call(function="_==_", args=(Name(path=("event", name)), Const(value=value))):
            return name, {key(value)}
        case Call(function="_==_", args=(Const(value=value), Name(path=("event", name)))):
            return name, {key(value)}
        case Call(function="@in", args=(Name(path=("event", name)), ListOf(items=items))):
            if all(isinstance(item, Const) for item in items):
                return name, {key(item.value) for item in items if isinstance(item, Const)}
    return None
