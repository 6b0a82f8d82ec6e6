"""`profiles` with ten million of them: some 14 gigabytes on disk, which is why `make bench` leaves it out."""

from __future__ import annotations

from typing import Any

from benchmarks.profiles import measured

SIZES = (1_000, 10_000_000)


def run() -> dict[str, Any]:
    """As `profiles` does."""
    return measured(SIZES)
