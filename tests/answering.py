"""Decisions of a server without a port."""

from __future__ import annotations

from arbiter.server.calls import settled
from arbiter.server.decisions import NOBODY, DecisionService


def answered(service: DecisionService, content: bytes) -> bytes:
    """The answer to a decision, as a transport has it in the end, of one that has proven heavy too."""
    return settled(service.decide(content), NOBODY)
