"""What the figures are held to: `thresholds.json`, by benchmark and by ratio.

A number is the most that a ratio may be; ``{"at least": number}`` the least. The benchmark `compiling` is the one
whose figures are seconds: the promise there is a time.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec


class Bound(msgspec.Struct, frozen=True):
    """What one ratio is held to."""

    limit: float
    least: bool = False

    def holds(self, value: float) -> bool:
        """Whether a measured ratio is within it."""
        return value >= self.limit if self.least else value <= self.limit

    def __str__(self) -> str:
        """As people read it."""
        return f"{'at least' if self.least else 'at most'} {self.limit:,g}"


def thresholds() -> dict[str, dict[str, Bound]]:
    """All bounds, by benchmark and ratio."""
    read = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    return {name: {ratio: _bound(value) for ratio, value in ratios.items()} for name, ratios in read.items()}


def _bound(value: float | dict[str, float]) -> Bound:
    return Bound(value["at least"], least=True) if isinstance(value, dict) else Bound(value)
