"""What onlookers are shown of the decisions of one process.

Law: nobody looks on, nobody pays: decisions are handed to a `Lookout` only while somebody does. A decision costs its
call a few comparisons then; what is told of it is put together beside the calls, by one thread that takes a bounded
part of a processor. Nothing that is personal is told, nor what the decision log would not say of a subject.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.errors import ArbiterError
from arbiter.learning.happened import MINUTE
from arbiter.runtime.quiet import SURVIVORS, Allowance
from arbiter.server.answerparts import write_treatment
from arbiter.server.decisions import write_degraded
from arbiter.server.explanations import write_explanation
from arbiter.v1 import admin_pb2
from arbiter.wire.values import write_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arbiter.runtime.engine import Noted
    from arbiter.runtime.settings import Backing
    from arbiter.server.decisions import Notes
    from arbiter.server.requests import RequestReader
    from arbiter.types import Decision, Request

    # Takes the number of who looks on, a decision, and how many others were too many.
    Show = Callable[[int, bytes, int], None]

_log = logging.getLogger("arbiter.server")

USUAL: Final = 10  # decisions a second where nobody says otherwise
MOST: Final = 1000
_QUEUE: Final = 256  # decisions that wait to be told
_SHARE: Final = 20  # of a processor's time, explaining takes one part in so many at most
_AT_ONCE_S: Final = 0.2  # of that
_BEAT_S: Final = 1.0  # after how long without a decision is told what was too many


class Rate:
    """At most `most` a second, and as many at once. For one thread, or where one too many is no harm."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = float(most)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Whether there is one more."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._most)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Onlooker:
    """Who looks on, and at what."""

    def __init__(self, number: int, asked: admin_pb2.WatchDecisionsRequest, reader: RequestReader) -> None:
        self.number = number
        self.points = frozenset(asked.decisions)
        self.rules = frozenset(asked.rules)
        self.subject_id = asked.subject_id
        self.share = asked.share if asked.HasField("share") else 1.0
        self.explain = reader.explaining(asked.explain) if asked.HasField("explain") else None
        self.rate = Rate(asked.most_per_second or USUAL)
        self.dropped = 0
        self._dropped_told = 0

    def untold(self) -> int:
        """How many more were too many, since this was last asked; for the thread that tells."""
        before, self._dropped_told = self._dropped_told, self.dropped
        return self._dropped_told - before

    def wants(self, request: Request, decision: Decision) -> bool:
        """Whether a decision is one of those that are asked for."""
        return (
            (not self.points or decision.point in self.points)
            and (not self.subject_id or request.subject_id == self.subject_id)
            and (not self.rules or any(each.rule_id in self.rules for each in decision.treatments))
            and (self.share >= 1 or random.random() < self.share)  # noqa: S311 - no secret
        )


# Who is to be told of a decision, and which.
_Taken = tuple[_Onlooker, "Noted"]


class Lookout:
    """Stands where a recorder stands, before it, while somebody looks on. `note_to` puts it there."""

    def __init__(self, backing: Backing, reader: RequestReader, note_to: Callable[[Notes | None], None]) -> None:
        self._engine = backing.engine
        self._reader = reader
        self._recorder: Notes | None = backing.recorder
        self._purpose = backing.purpose
        self._note_to = note_to
        self._show: Show = lambda _number, _content, _dropped: None
        self._onlookers: tuple[_Onlooker, ...] = ()
        self._taken: queue.Queue[_Taken | None] = queue.Queue(_QUEUE)
        self._thread: threading.Thread | None = None
        self._allowance = Allowance(_SHARE, _AT_ONCE_S)
        self.noted: list[Noted] = []
        self.together = 1

    def open(self, register: Callable[[Callable[[Mapping[int, bytes]], None]], Show]) -> None:
        """Follow who looks on."""
        self._show = register(self.look)

    def close(self) -> None:
        """End the thread, and tell nobody any more."""
        self.look({})
        if self._thread is not None:
            self._taken.put(None)
            self._thread.join()

    def look(self, asked: Mapping[int, bytes]) -> None:
        """These look on from now on, by number."""
        known = {each.number: each for each in self._onlookers}
        self._onlookers = tuple(
            known.get(number) or _Onlooker(number, admin_pb2.WatchDecisionsRequest.FromString(content), self._reader)
            for number, content in asked.items()
        )
        if self._onlookers and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="arbiter-lookout", daemon=True)
            self._thread.start()
        self._note_to(self if self._onlookers else self._recorder)

    def take(self) -> None:
        """Have decisions written down, and keep them for who is told of them. On the thread that decided."""
        recorder = self._recorder
        while self.noted:
            try:
                decided = self.noted.pop(0)
            except IndexError:
                return  # another thread took it
            if recorder is not None:
                recorder.noted.append(decided)
                if len(recorder.noted) >= recorder.together:
                    recorder.take()
            self._keep(decided)

    def _keep(self, decided: Noted) -> None:
        _, request, decision, *_ = decided
        for each in self._onlookers:
            if not each.wants(request, decision):
                continue
            if not each.rate.take():
                each.dropped += 1
                continue
            try:
                self._taken.put_nowait((each, decided))
            except queue.Full:
                each.dropped += 1

    def _run(self) -> None:
        while True:
            try:
                taken = self._taken.get(timeout=_BEAT_S if self._onlookers else None)
            except queue.Empty:
                self._tell_dropped()
                continue
            if taken is None:
                return
            onlooker = taken[0]
            try:
                content = self._told(*taken)
            except ArbiterError:
                _log.debug("a decision could not be told of", exc_info=True)
                content = None
            except Exception:  # noqa: BLE001 - the thread must go on, and no call is at fault
                _log.exception("a decision could not be told of")
                content = None
            if content is None:
                onlooker.dropped += 1
            elif content:
                self._show(onlooker.number, content, onlooker.untold())
            del taken  # it may hold a snapshot that goes

    def _tell_dropped(self) -> None:
        """Tell what was too many to those who are told nothing else."""
        for each in self._onlookers:
            if dropped := each.untold():
                self._show(each.number, b"", dropped)

    def _told(self, onlooker: _Onlooker, decided: Noted) -> bytes | None:
        """What is told of a decision, serialised; nothing where it is of no business; None where it is too much."""
        number, request, decision, active, seen, _, place = decided
        profile = seen[1]
        covered = active.snapshot.consent is None or not self._purpose or self._purpose in profile.granted
        if not covered and onlooker.subject_id:
            return b""  # whose it is would be told by telling it
        told = admin_pb2.WatchedDecision(
            decision=decision.point,
            at=write_timestamp(request.now if covered else request.now - request.now % MINUTE),
            snapshot=active.snapshot.digest,
            canary=active.canary,
            defaulted=decision.defaulted,
            impersonal=not covered,
        )
        for treatment in decision.treatments:
            write_treatment(told, msgspec.structs.replace(treatment, params={}, value=None))
        if not covered:
            return told.SerializeToString()
        told.id, told.reference, told.subject_id = number, profile.reference.hex(), onlooker.subject_id
        told.experiments.update(decision.experiments)
        write_degraded(told, decision)
        if onlooker.explain is not None and not place:
            if not self._allowance.is_left():
                return None
            point = active.snapshot.point(decision.point)
            with self._allowance.taking():
                if len(point.survivors(seen[0])) <= SURVIVORS:
                    level, rules = onlooker.explain
                    asking = msgspec.structs.replace(request, explain=level, explain_rules=rules)
                    explained = self._engine.explained(asking, decision, active, seen)
                    told.explanation.CopyFrom(write_explanation(explained, active.snapshot))
        return told.SerializeToString()
