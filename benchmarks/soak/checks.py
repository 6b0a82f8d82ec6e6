"""Checks of answers: each against the oracle, at a clock that the call may have seen, by the version that it names.

Law: raises AssertionError with both sides in its text. Nothing is let pass because it is likely.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from arbiter.v1 import decision_pb2
from arbiter.wire.values import plain_values, read_timestamp
from benchmarks.soak.oracle import Given, Seen
from benchmarks.soak.world import world

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arbiter.v1 import profile_pb2
    from benchmarks.soak.board import Board, Mark, Version
    from benchmarks.soak.ledger import Subject
    from benchmarks.soak.world import World

_OUTCOMES = {
    decision_pb2.RULE_OUTCOME_WON: "won", decision_pb2.RULE_OUTCOME_LOST: "lost",
    decision_pb2.RULE_OUTCOME_FAILED: "failed", decision_pb2.RULE_OUTCOME_UNKNOWN: "unknown",
    decision_pb2.RULE_OUTCOME_ROLLOUT: "rollout", decision_pb2.RULE_OUTCOME_GROUP: "group",
    decision_pb2.RULE_OUTCOME_DUPLICATE: "duplicate", decision_pb2.RULE_OUTCOME_RENDER_FAILED: "render_failed",
}  # fmt: skip
_LATER = 0.2  # the share of answers whose `valid_until` is looked into
Asked = tuple["Subject", decision_pb2.DecideRequest, dict[str, Any]]
_Decision = decision_pb2.DecideResponse | decision_pb2.Decision


class Versions(Protocol):
    """Which digest is which version."""

    def version(self, digest: str) -> Version | None:
        """The version; None when nobody made it."""


class Checks:
    """The checks of one caller. `counts` says how many decisions and profiles were found right."""

    def __init__(self, board: Board, versions: Versions) -> None:
        self._board = board
        self._versions = versions
        self.counts: Counter[str] = Counter()

    def version(self, before: Mark, digest: str) -> World:
        """The world that an answer names. It must be one that was published, and the one that must serve now."""
        version = self._versions.version(digest)
        assert version is not None, f"snapshot {digest} was never published"
        certain = self._board.certain(before)
        assert certain in {None, version}, f"answered by version {version}, while all must serve {certain}"
        self.counts["certain versions"] += certain is not None
        return world(version)

    def decision(
        self,
        before: Mark,
        after: Mark,
        subject: Subject,
        request: decision_pb2.DecideRequest,
        context: dict[str, Any],
        answer: decision_pb2.DecideResponse,
        at: int | None = None,
    ) -> None:
        """A Decide's answer, of one point or a page."""
        known = self.version(before, answer.snapshot)
        moments = [at] if at is not None else self._board.moments(before, after)
        self._some(moments, lambda now: _differs(Seen(known, subject, context, now), request, answer))
        self._later(known, subject, request, context, answer, moments)

    def batch(
        self, before: Mark, after: Mark, asked: Sequence[Asked], answer: decision_pb2.DecideBatchResponse
    ) -> None:
        """A batch's answers: one world and one clock for all of them."""
        known = self.version(before, answer.snapshot)
        assert len(answer.results) == len(asked), f"{len(asked)} asked, {len(answer.results)} answered"

        def differs(now: int) -> str:
            for (subject, request, context), result in zip(asked, answer.results, strict=True):
                if not result.HasField("response") or result.response.snapshot != answer.snapshot:
                    return f"{subject.id} got {result}"
                if said := _differs(Seen(known, subject, context, now), request, result.response):
                    return f"{subject.id}: {said}"
            return ""

        self._some(self._board.moments(before, after), differs)
        self.counts["decisions checked"] += len(asked) - 1

    def _some(self, moments: Sequence[int], differs: Callable[[int], str]) -> None:
        """One of the moments must explain the answer."""
        said = [differs(moments[0])]
        for now in moments[1:]:
            if not said[-1]:
                break
            said.append(differs(now))
        assert not said[-1], said[0]
        self.counts["decisions checked"] += 1

    def _later(
        self,
        known: World,
        subject: Subject,
        request: decision_pb2.DecideRequest,
        context: dict[str, Any],
        answer: decision_pb2.DecideResponse,
        moments: Sequence[int],
    ) -> None:
        """`valid_until` promises the same answer before it, if all else stays."""
        if request.decisions or not answer.HasField("valid_until") or random.random() > _LATER:
            return
        until = read_timestamp(answer.valid_until)
        last = max(moments)
        if until > last + 1:
            now = random.randrange(last, until)
            said = _differs(Seen(known, subject, context, now), request, answer, outcomes=False)
            assert not said, f"valid until {until}, but at {now} {said}"
            self.counts["valid_until checked"] += 1

    def profile(self, before: Mark, after: Mark, subject: Subject, answer: profile_pb2.GetProfileResponse) -> None:
        """A profile, by the clock that it names."""
        known = self.version(before, answer.snapshot)
        now = read_timestamp(answer.at)
        assert now in self._board.moments(before, after), f"read at {now}, a moment that the clock did not show"
        seen = Seen(known, subject, {}, now)
        segments = seen.segments()
        wanted = {
            "exists": subject.exists, "version": subject.version, "attributes": subject.attributes,
            "features": seen.features,
            "segments": {name: truth for name, truth in segments.items() if truth is not None},
            "unknown": sorted(name for name, truth in segments.items() if truth is None),
        }  # fmt: skip
        got = {
            "exists": answer.exists, "version": answer.version, "attributes": plain_values(answer.attributes),
            "features": plain_values(answer.features), "segments": dict(answer.segments),
            "unknown": list(answer.unknown_segments),
        }  # fmt: skip
        wrong = [name for name in wanted if wanted[name] != got[name]]
        assert not wrong, "; ".join(f"{name} must be {wanted[name]}, are {got[name]}" for name in wrong)
        self.counts["profiles checked"] += 1


def _differs(
    seen: Seen, request: decision_pb2.DecideRequest, answer: decision_pb2.DecideResponse, *, outcomes: bool = True
) -> str:
    """In what an answer is not what it must be; ``""`` when it is."""
    if answer.request_id != request.request_id:
        return f"answers {answer.request_id}"
    if not request.decisions:
        return _wrong(seen, request, request.decision, answer, (), outcomes=outcomes)[0]
    if [each.decision for each in answer.decisions] != list(request.decisions):
        return f"the page holds {[each.decision for each in answer.decisions]}"
    before: tuple[Given, ...] = ()
    for name, each in zip(request.decisions, answer.decisions, strict=True):
        said, given = _wrong(seen, request, name, each, before)
        if said:
            return said
        before += given
    return ""


def _wrong(
    seen: Seen,
    request: decision_pb2.DecideRequest,
    name: str,
    answer: _Decision,
    before: tuple[Given, ...],
    *,
    outcomes: bool = True,
) -> tuple[str, tuple[Given, ...]]:
    verdict = seen.decide(name, request.slots, before)
    got = tuple(
        Given(
            each.rule_id,
            tuple(sorted(plain_values(each.params).items())),
            each.priority,
            each.value if each.HasField("value") else None,
        )
        for each in answer.treatments
    )
    if (got, answer.defaulted, answer.decision) != (verdict.given, verdict.defaulted, name) or answer.degraded:
        said = f"{name} must give {verdict.given}, gave {got}{f', degraded {answer.degraded}' * bool(answer.degraded)}"
        return said, verdict.given
    if outcomes and request.HasField("explain"):
        told = {rule.rule_id: _OUTCOMES.get(rule.outcome, "?") for rule in answer.explanation.rules}
        if told != verdict.outcomes:
            return f"{name} must explain {verdict.outcomes}, explains {told}", verdict.given
    return "", verdict.given
