"""What answers when no server does.

Law: makes answers out of what the caller gave; asks nobody, remembers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import replace

from arbiter.client.answers import Answer, Page
from arbiter.client.arguments import Ask
from arbiter.client.failures import CallFailed
from arbiter.client.retry import stands_in
from arbiter.types import Reason, Treatment

# A function gets the request of one decision point and the failure.
Fallback = Treatment | Iterable[Treatment] | Callable[[Ask, CallFailed], Treatment | Iterable[Treatment]]
Fallbacks = Mapping[str, Fallback]  # by decision point


def for_point(fallback: Fallback, asked: Ask) -> Callable[[CallFailed], Answer]:
    """Return what answers in a server's place, at the request's one decision point."""

    def answer(failure: CallFailed) -> Answer:
        given = fallback(asked, failure) if callable(fallback) else fallback
        treatments = [given] if isinstance(given, Treatment) else given
        return Answer(
            decision=asked.decision,
            decision_id="",
            # No rule won: whatever the caller wrote, it is a default.
            treatments=tuple(replace(each, reason=Reason.DEFAULT) for each in treatments),
            snapshot="",
            defaulted=True,
            degraded=(),
            valid_until=None,
            explanation=(),
            explanation_text="",
            request_id=asked.request_id,
            failure=failure,
        )

    return answer


def for_page(fallbacks: Fallbacks, asked: Ask, decisions: Iterable[str]) -> Callable[[CallFailed], Page] | None:
    """Return what answers a page in a server's place; None unless each of its decision points has a fallback."""
    points = []
    for name in decisions:
        if name not in fallbacks:
            return None
        points.append(for_point(fallbacks[name], replace(asked, decision=name, decisions=())))
    if not points:
        return None

    def answer(failure: CallFailed) -> Page:
        answered = tuple(point(failure) for point in points)
        return Page(decisions=answered, snapshot="", request_id=asked.request_id, failure=failure)

    return answer


def for_request(
    fallbacks: Fallbacks, asked: Ask, decisions: Iterable[str]
) -> Callable[[CallFailed], Answer | Page] | None:
    """Return what answers one request of a batch in a server's place, None for nothing."""
    if not asked.decision:
        return for_page(fallbacks, asked, decisions)
    fallback = fallbacks.get(asked.decision)
    return None if fallback is None else for_point(fallback, asked)


def mended(
    local: Callable[[CallFailed], Answer | Page] | None, result: Answer | Page | CallFailed
) -> Answer | Page | CallFailed:
    """Return the result of one request of a batch, or what stands in for it where the server was at fault."""
    return local(result) if local and isinstance(result, CallFailed) and stands_in(result) else result
