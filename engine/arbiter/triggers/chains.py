"""Chains: how many firings led to an event, which its id tells.

Law: ids and numbers.
"""

from __future__ import annotations

from arbiter.types import EMITTED


def emitted_id(firing: str, depth: int) -> str:
    """The id of the event that a firing emits, to which `depth` firings led, it among them."""
    return f"{EMITTED}{firing}.{depth}"


def depth_of(event_id: str) -> int:
    """How many firings led to an event; 0 for one that none emitted."""
    told = event_id.rpartition(".")[2] if event_id.startswith(EMITTED) else ""
    return int(told) if told.isascii() and told.isdigit() else 0
