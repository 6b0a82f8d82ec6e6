"""Which properties of a pattern's events have to be equal, and the values that equal ones share.

Law: pure, and knows no time. What is equal to the language has equal keys; where keys are equal and values are perhaps
not (integers beyond 2**53), `equal` of the language has the last word, in `choosing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from arbiter.ruleset.triggers import Step

MOST_VARIABLES = 16
"""Of a pattern, for the engine, which refuses rules with thirty. What is beyond is left to `choosing`."""
Keys = tuple["Hashable", ...]
_NUMBERS = frozenset({int, float})


def key(value: Any) -> Hashable:
    """What values that are equal in CEL have in common: numbers are compared as doubles there, others by type."""
    kind = value.__class__
    if kind is str:
        return value  # type: ignore[no-any-return]
    if kind in _NUMBERS:
        return float(value)
    if kind is list:
        return (list, *map(key, value))
    if kind is dict:
        return (dict, frozenset((name, key(each)) for name, each in value.items()))
    return (bool, value) if kind is bool else value


def exact_key(value: Any) -> Hashable:
    """As `key`, of the same values alone: integers beyond 2**53 are told apart."""
    return value if value.__class__ is int else key(value)


class Joins:
    """What the joins of a pattern's steps come to. Properties that have to be equal are one variable.

    `shape` has, for each step, the variables that its event has a value of.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        places = {step.label: number for number, step in enumerate(steps) if step.label}
        classes: dict[tuple[int, str], set[tuple[int, str]]] = {}
        for number, step in enumerate(steps):
            for join in step.joins:
                ends = (number, join.own), (places[join.label], join.other)
                together = set().union(*(classes.get(end, {end}) for end in ends))
                classes.update(dict.fromkeys(together, together))
        variables = {min(together) for together in classes.values()}
        self._properties: list[list[tuple[str, tuple[str, ...]]]] = [[] for _ in steps]
        shape: list[list[int]] = [[] for _ in steps]
        for variable, first in enumerate(sorted(variables)):
            for number in range(len(steps)):
                names = tuple(sorted(name for place, name in classes[first] if place == number))
                if names:
                    self._properties[number].append((names[0], names[1:]))
                    if variable < MOST_VARIABLES:
                        shape[number].append(variable)
        self.shape: tuple[tuple[int, ...], ...] = tuple(map(tuple, shape))

    def joinable(self, number: int, properties: Mapping[str, Any]) -> bool:
        """Whether an event at step `number` could be joined with any: whether it has `keys`."""
        for name, others in self._properties[number]:
            value = properties.get(name)
            if value is None:
                return False
            if others and any(other not in properties or key(properties[other]) != key(value) for other in others):
                return False
        return True

    def keys(self, number: int, properties: Mapping[str, Any]) -> Keys | None:
        """The values of the variables that an event at step `number` has, None where it can be joined with nothing."""
        if not self.joinable(number, properties):
            return None
        return tuple([key(properties[name]) for name, _ in self._properties[number][: len(self.shape[number])]])
