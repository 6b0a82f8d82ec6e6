"""What `parity.json` holds, and how far two answers are apart.

Law: plain data and arithmetic, so that the gate needs no library that trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


class ParityFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`parity.json`: rows, one value an input, none missing, texts as texts; and what the original says of each."""

    tolerance: float
    inputs: list[str]
    outputs: list[str]
    rows: list[list[Any]]
    answers: list[list[Any]]


def distance(answer: Sequence[Any], said: Sequence[Any]) -> tuple[float, bool]:
    """The greatest difference of numbers, by their size where that is above 1, and whether a word is another one."""
    apart, other = 0.0, False
    for found, wanted in zip(answer, said, strict=True):
        if isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
            if not isinstance(found, (int, float)):
                return float("inf"), other
            apart = max(apart, abs(found - wanted) / max(1.0, abs(wanted)))
        else:
            other = other or found != wanted
    return apart, other
