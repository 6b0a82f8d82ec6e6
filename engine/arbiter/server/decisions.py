"""DecisionService: protobuf in, decision, protobuf out.

Law: the hot path; every step has been measured (benchmarks/wire.py). Protobuf lets two serialised messages be joined
into one, so an answer is put together from parts: what is the same each time (a constant treatment, the digest) is
serialised once per snapshot, and only the rest is written per call.
"""

from __future__ import annotations

import itertools
import logging
import math
import secrets
import time
import weakref
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import DecodeError

from arbiter.errors import CallerError, LimitExceeded
from arbiter.learning import token
from arbiter.profiles.ingesting import IngestEvents
from arbiter.runtime.counting import Decided, counting, entries_of, strict
from arbiter.runtime.engine import STEP
from arbiter.runtime.faults import let_go
from arbiter.server.answerparts import Parts, varint, write_treatment
from arbiter.server.calls import Call, Later, Slow, malformed, parse, settled
from arbiter.server.explanations import check_rules, write_explanation
from arbiter.server.requests import RequestReader
from arbiter.server.status import status_of
from arbiter.server.weights import LONG_NS, Weights
from arbiter.telemetry import tracing
from arbiter.telemetry.histogram import NOTED, drained
from arbiter.types import Lack
from arbiter.v1 import decision_pb2
from arbiter.wire.values import write_timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from arbiter.config.limits import Limits
    from arbiter.runtime.active import Active
    from arbiter.runtime.engine import Engine, Noted, Seen
    from arbiter.server.calls import Steps, Work
    from arbiter.snapshot import Snapshot
    from arbiter.telemetry.counters import Counters
    from arbiter.types import Decision, Request
    from arbiter.v1 import admin_pb2

SERVICE = decision_pb2.DESCRIPTOR.services_by_name["DecisionService"].full_name

_log = logging.getLogger("arbiter.server")
_clock, _thread_clock = time.perf_counter_ns, time.thread_time_ns
_DecideRequest = decision_pb2.DecideRequest
_DecideResponse = decision_pb2.DecideResponse
_parse_request = _DecideRequest.FromString
NOBODY = Call()
_TOLD_EVERY_S = 60.0
_RESULT_TAG = bytes([decision_pb2.DecideBatchResponse.RESULTS_FIELD_NUMBER << 3 | 2])
_RESPONSE_TAG = bytes([decision_pb2.DecideBatchResult.RESPONSE_FIELD_NUMBER << 3 | 2])
_ID_TAG = decision_pb2.DecideResponse.DESCRIPTOR.fields_by_name["decision_id"].number << 3 | 2
# Tag and length, by length: that is never below 128, and takes two bytes.
_ID_HEADS = tuple(bytes((_ID_TAG, size & 0x7F | 0x80, size >> 7)) for size in range(token.LIMIT + 1))
_CAUSES = {
    Lack.LATE: (decision_pb2.DEGRADATION_CAUSE_DEADLINE, "the call's deadline came before the model could run"),
    Lack.FAILED: (decision_pb2.DEGRADATION_CAUSE_MODEL_FAILED, "the model failed; the server's log says why"),
    Lack.OVERRIDDEN: (decision_pb2.DEGRADATION_CAUSE_OVERRIDDEN, "an operator switched the model off for a time"),
}


class Notes(Protocol):
    """Is handed decisions as they are made, as a `Recorder` is: who makes them puts them into `noted`."""

    noted: list[Noted]
    together: int

    def take(self) -> None:
        """Take what was noted: whoever sees `together` there, on the thread that decided."""


class DecisionService:
    """Decide and DecideBatch over an engine."""

    def __init__(self, engine: Engine, limits: Limits, counters: Counters, recorder: Notes | None = None) -> None:
        self._engine = engine
        self._keys = engine.store.keys
        self._recorder = recorder
        self._limits = limits
        self._counters = counters
        # By the decision points that were asked, in ns; counted by `_fold`, always before anybody reads.
        self._took: list[tuple[tuple[str, ...], int]] = []
        counters.sources.append(self._fold)
        self._reader = RequestReader(limits)
        self._parts: Parts | None = None
        self._weights = Weights()  # of the snapshot that is current
        # Of a canary's snapshot, for as long as it is there.
        self._others: weakref.WeakKeyDictionary[Snapshot, Parts] = weakref.WeakKeyDictionary()
        # Time, process and number make an id unique without a system call per decision.
        self._process = secrets.token_urlsafe(9)
        self._numbers = itertools.count()
        self._told_at = -math.inf  # when the log was last told that decisions are not counted, by the monotonic clock

    def note_to(self, recorder: Notes | None) -> None:
        """Hand what is decided from now on to this, None for nobody."""
        self._recorder = recorder

    def works(self) -> dict[str, Work]:
        """Return the work of each RPC by name."""
        return {"Decide": self.decide, "DecideBatch": self.decide_batch}

    def decide(self, content: bytes, call: Call = NOBODY) -> bytes | Slow | Later:
        """Answer a serialised DecideRequest with a serialised DecideResponse. Raises CallerError, NotReady.

        Explaining takes as long as fifty decisions do, and so may a question that has proven heavy. What a strict cap
        holds for is answered when it is counted.
        """
        try:
            asked = _parse_request(content)
        except DecodeError:
            raise malformed(_DecideRequest) from None
        engine = self._engine
        request = self._reader.read(asked, engine.clock())
        active = engine.current()
        if active.split:
            active = active.of(request.subject_id)
        deadline = call.deadline
        seen: list[Seen] | None = None if self._recorder is None else []
        if request.explain:
            return Slow(
                lambda: self._settled(asked, request, engine.decide(request, deadline, active, seen), active, seen)
            )
        if self._weights.heavy(request.decisions):
            return Slow(
                lambda: self._settled(asked, request, self._timed(request, deadline, active, seen), active, seen)
            )
        decisions = self._timed(request, deadline, active, seen)
        if active.snapshot.counts_decisions and not asked.dry_run and counting(decisions):
            return self._counted(asked, request, decisions, active, seen)
        return self._write(asked, request, decisions, active, seen)

    def _settled(
        self,
        asked: decision_pb2.DecideRequest,
        request: Request,
        decisions: tuple[Decision, ...],
        active: Active,
        seen: list[Seen] | None,
    ) -> bytes:
        """The answer, counted where something counts it, in a thread that may wait."""
        if asked.dry_run or not active.snapshot.counts_decisions or not counting(decisions):
            return self._write(asked, request, decisions, active, seen)
        answer = self._counted(asked, request, decisions, active, seen)
        return answer if isinstance(answer, bytes) else answer.finish(answer.future.result())

    def _counted(
        self,
        asked: decision_pb2.DecideRequest,
        request: Request,
        decisions: tuple[Decision, ...],
        active: Active,
        seen: list[Seen] | None,
    ) -> bytes | Later:
        """The answer of decisions that count; where a strict cap holds for them, when they were made again and counted
        in one transaction.
        """
        numbers = [self._number(request) for _ in decisions]
        store = self._engine.store
        if strict(decisions):
            again = Decided(self._engine, request, active, numbers)

            def finish(made: tuple[tuple[Decision, ...], list[Seen]]) -> bytes:
                return self._write(asked, request, made[0], active, None if seen is None else made[1], numbers)

            return Later(store.write(again), finish)
        entries = entries_of(store.keys.subject(request.subject_id), request.now, decisions, numbers)
        store.write(IngestEvents(entries)).add_done_callback(self._uncounted)
        return self._write(asked, request, decisions, active, seen, numbers)

    def _uncounted(self, written: Future[object]) -> None:
        """Say of a count that could not be written what was wrong, once a minute."""
        error = written.exception()
        if error is not None and time.monotonic() - self._told_at >= _TOLD_EVERY_S:
            self._told_at = time.monotonic()
            _log.error("decisions are not counted for caps: %s", error)

    def _timed(
        self, request: Request, deadline: float | None, active: Active, seen: list[Seen] | None
    ) -> tuple[Decision, ...]:
        """Decide, and note what it took."""
        # Who waited for a processor took long too: a question that is suspected is judged by what this thread worked.
        suspected = self._weights.suspect(request.decisions)
        worked = _thread_clock() if suspected else 0
        begun = _clock()
        decisions = self._engine.decide(request, deadline, active, seen)
        took = _clock() - begun
        counters = self._counters
        if counters.watched:
            self._took.append((request.decisions, took))
            if len(self._took) >= NOTED:
                self._fold()
            if counters.traced:
                tracing.tell(decisions, active.snapshot.digest)
        if self._weights.took(request.decisions, _thread_clock() - worked if suspected else took):
            _log.warning(
                "decisions at %s take over %d ms again and again: from now on they are worked out beside other calls",
                ", ".join(request.decisions),
                LONG_NS // 1_000_000,
            )
        return decisions

    def _fold(self) -> None:
        """Count what decisions took: many at once cost a fifth of what each costs between the steps of a call."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for points, took in drained(self._took):
            for point in points:
                found[point].append(took)
        for point, durations in found.items():
            self._counters.durations[point].count(durations)

    def decide_batch(self, content: bytes, call: Call = NOBODY) -> Steps | Slow:
        """Answer a serialised DecideBatchRequest. A bad request of the batch fails alone."""
        if any(snapshot.counts_decisions for snapshot in self._engine.snapshots.values()):
            return Slow(lambda: settled(self._batch(content, call), call))  # some may have to wait for their counts
        return self._batch(content, call)

    def _batch(self, content: bytes, call: Call) -> Steps:
        batch = parse(decision_pb2.DecideBatchRequest, content).requests
        if len(batch) > self._limits.batch_requests:
            raise LimitExceeded(
                f"requests holds {len(batch):,}, and `batch_requests` allows {self._limits.batch_requests:,}: split it",
                field="requests",
                reason="batch_requests",
            )
        now = self._engine.clock()
        read: list[Request | CallerError] = []
        for place, asked in enumerate(batch):
            try:
                read.append(self._reader.read(asked, now))
            except CallerError as error:
                read.append(error.with_traceback(None))
            if place % STEP == STEP - 1:
                yield
        good = [request for request in read if not isinstance(request, CallerError)]
        active = self._engine.current()
        seen: list[Seen] | None = None if self._recorder is None else []
        answers = iter((yield from self._engine.deciding(good, call.deadline, active, seen)))
        shown = iter(seen or ())
        written = [decision_pb2.DecideBatchResponse(snapshot=active.snapshot.digest).SerializeToString()]
        for place, (asked, request) in enumerate(zip(batch, read, strict=True)):
            if place % STEP == STEP - 1:
                yield
            try:
                if isinstance(request, CallerError):
                    raise request
                answer = next(answers)
                if isinstance(answer, CallerError):
                    raise answer
                own = None if seen is None else [next(shown)]
                content = self._settled(asked, request, answer, active.of(request.subject_id), own)
                # Written by hand: making messages of it would take as long as a tenth of the decision.
                content = _RESPONSE_TAG + varint(len(content)) + content
            except CallerError as error:
                status = status_of(error, "DecideBatch", f"requests[{place}]")
                content = decision_pb2.DecideBatchResult(error=status).SerializeToString()
                let_go(error)
            written += _RESULT_TAG, varint(len(content)), content
        return b"".join(written)

    def _write(
        self,
        asked: decision_pb2.DecideRequest,
        request: Request,
        decisions: tuple[Decision, ...],
        active: Active,
        seen: list[Seen] | None,
        numbers: Sequence[str] = (),
    ) -> bytes:
        snapshot = active.snapshot
        parts = self._parts
        if parts is None or parts.of() is not snapshot:
            parts = self._parts_of(active)
        if request.explain_rules:
            check_rules(request, snapshot)
        recorder, dry = self._recorder, asked.dry_run
        subject = b"" if dry else self._keys.asked(request.subject_id)
        if asked.decision:
            number = numbers[0] if numbers else "" if dry else self._number(request)
            if seen and recorder is not None and number:
                noted = recorder.noted
                noted.append((number, request, decisions[0], active, seen[0], "", 0))
                if len(noted) >= recorder.together:
                    recorder.take()
            # Last in the parts stands what differs per call, the request's own id included.
            own = self._own(decisions[0], parts, number, subject, request, asked.request_id, active)
            return b"".join((*own, parts.digest))
        response = _DecideResponse(request_id=asked.request_id)
        page, first = response.decisions, ""
        for place, decision in enumerate(decisions):
            number = numbers[place] if numbers else "" if dry else self._number(request)
            first = first or number
            own = self._own(decision, parts, number, subject, request, "", active)
            page.add().MergeFromString(b"".join(own))
            if seen and recorder is not None and number:
                recorder.noted.append((number, request, decision, active, seen[0], first, place))
        if recorder is not None and len(recorder.noted) >= recorder.together:
            recorder.take()
        return response.SerializeToString() + parts.digest

    def _number(self, request: Request) -> str:
        """The number of a decision, with which its id begins. A dry run has none, counts nothing and is not logged."""
        return f"{request.now:x}-{self._process}-{next(self._numbers):x}"

    def _parts_of(self, active: Active) -> Parts:
        if active.canary:
            parts = self._others.get(active.snapshot)
            if parts is None:
                parts = self._others[active.snapshot] = Parts(active.snapshot, self._counters, self._keys)
            return parts
        self._parts = Parts(active.snapshot, self._counters, self._keys)
        self._weights = Weights()
        return self._parts

    def _own(
        self,
        decision: Decision,
        parts: Parts,
        number: str,
        subject: bytes,
        request: Request,
        request_id: str,
        active: Active,
    ) -> list[bytes]:
        """Return the serialised parts of one decision, without the snapshot.

        They are parts of a DecideResponse and of a Decision alike: the two give their fields the same numbers.
        """
        point = decision.point
        written = [parts.treatment(treatment, point) for treatment in decision.treatments]
        written.append(parts.points[point])
        # Most decisions have nothing else of their own than an id, and half a microsecond is a lot for that.
        until = decision.valid_until
        experiments = decision.experiments
        if decision.defaulted or request_id or until is not None or experiments or decision.degraded or request.explain:
            own = _DecideResponse(defaulted=decision.defaulted, request_id=request_id, experiments=experiments)
            if until is not None:
                seconds, rest = divmod(until, 1_000_000)
                stamped = own.valid_until
                stamped.seconds = seconds
                stamped.nanos = rest * 1000
            write_degraded(own, decision)
            if request.explain:
                own.explanation.CopyFrom(write_explanation(decision, active.snapshot))
            written.append(own.SerializeToString())
        if number:
            statement = parts.statement(decision, active.snapshot)
            decision_id = token.sealed(statement, number, subject)
            written += _ID_HEADS[len(decision_id)], decision_id
            self._count(decision, parts, active)
        return written

    def _count(self, decision: Decision, parts: Parts, active: Active) -> None:
        counters, point = self._counters, decision.point
        counters.decisions[point] += 1
        counters.by_snapshot[parts.name] += 1
        for treatment in decision.treatments:
            if treatment.rule_id:
                counters.wins[treatment.rule_id] += 1
        if decision.defaulted:
            counters.defaulted[point] += 1
        if active.canary:
            counters.canary_decisions[point] += 1
        for lacking in decision.degraded:
            counters.degraded[lacking.model, lacking.cause.name.lower()] += 1


def write_decision(message: decision_pb2.DecideResponse, decision: Decision, snapshot: str) -> None:
    """Fill in the answer that a decision was which nobody called for: it has no id."""
    message.decision = decision.point
    message.snapshot = snapshot
    message.defaulted = decision.defaulted
    for treatment in decision.treatments:
        write_treatment(message, treatment)
    if decision.valid_until is not None:
        message.valid_until.CopyFrom(write_timestamp(decision.valid_until))
    write_degraded(message, decision)


def write_degraded(message: decision_pb2.DecideResponse | admin_pb2.WatchedDecision, decision: Decision) -> None:
    """Fill in what a decision had to do without."""
    for degradation in decision.degraded:
        cause, detail = _CAUSES[degradation.cause]
        message.degraded.add(name=f"models.{degradation.model}", cause=cause, detail=detail)
