"""Which facts, taken together, complete which patterns, found by trying.

Law: pure, and for the few events of a test. A server asks durable-rules in a process of its own; tests run in authors'
CI and in supervisors, where no engine that may hang is loaded. `tests/test_trigger_tests.py` holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Shape = tuple[tuple[int, ...], ...]
    Keys = tuple[int, ...]


class Ways:
    """The patterns of a machine: for each place of one the variables that its fact holds."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self._shapes = shapes

    def complete(self, asked: Mapping[int, Sequence[Sequence[Keys]]]) -> dict[int, set[tuple[int, ...]]]:
        """By pattern, which facts complete it: for each way the place of every fact in its list."""
        return {pattern: set(_ways(self._shapes[pattern], facts, {})) for pattern, facts in asked.items()}

    def close(self) -> None:
        """Nothing is held."""


def _ways(shape: Shape, facts: Sequence[Sequence[Keys]], bound: Mapping[int, int]) -> Iterator[tuple[int, ...]]:
    """The ways in which facts fill the places that are left, their variables as they are bound so far."""
    if not shape:
        yield ()
        return
    for number, keys in enumerate(facts[0]):
        held = dict(zip(shape[0], keys, strict=True))
        if all(bound.get(variable, value) == value for variable, value in held.items()):
            for rest in _ways(shape[1:], facts[1:], {**bound, **held}):
                yield (number, *rest)
