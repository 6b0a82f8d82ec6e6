"""Writing decisions down, in the worker that makes them.

Law: the hot path of the log: what a decision saw and said is noted; one call in so many makes rows of all that was, and
a thread of its own has them on disk within the stated seconds. What waits is bounded, and whatever goes wrong with the
log costs rows, which are counted, and no decision. No consent, no personal row.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from pathlib import Path
from random import random as lot
from typing import TYPE_CHECKING, Final

from arbiter.decision.explain import explain
from arbiter.errors import ArbiterError
from arbiter.learning.logged import Lost
from arbiter.runtime.nameless import UNNAMED, Nameless
from arbiter.runtime.pens import Pen, never, ordinary
from arbiter.runtime.quiet import SURVIVORS, Allowance
from arbiter.runtime.spool import DECIDED, MIB, TOLD, Spool
from arbiter.runtime.waiting import MOST, Waiting
from arbiter.types import ExplainLevel, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from arbiter.config.options import DecisionLog
    from arbiter.runtime.active import Active
    from arbiter.runtime.engine import Engine, Seen
    from arbiter.runtime.pens import Quick
    from arbiter.runtime.scoring import Scorer
    from arbiter.snapshot import Snapshot
    from arbiter.telemetry.counters import Counters
    from arbiter.types import Decision, Request

_log = logging.getLogger("arbiter.log")

_PENS: Final = 1_000
_TOGETHER: Final = 32  # decisions that are noted until rows are made of them: some 100 µs of one call in so many
_CURIOUS: Final = 64  # decisions that wait to be looked at
_SHARE: Final = 400  # of a processor's time, looking into decisions takes one part in so many at most
_LAST_S: Final = 5.0  # at the end, for references
_AT_ONCE_S: Final = 0.02  # of that


class _Quick(dict[str, "Quick"]):
    """What writes the plain rows of a decision point under `active`, by the point; none does where that is None."""

    __slots__ = ("_pen", "active")

    def __init__(self, active: Active | None, pen: Callable[[Snapshot, str], Pen]) -> None:
        super().__init__()
        self.active = active
        self._pen = pen

    def __missing__(self, point: str) -> Quick:
        """Make it."""
        if self.active is None:
            return never
        quick = self[point] = self._pen(self.active.snapshot, point).quick
        return quick


class Recorder:
    """Writes rows of decisions to `spool`, and of what became of them to `told`, every `seconds`. `purpose` is what a
    subject must have granted where purposes are declared, empty to ask for nothing; `refer` has the store give a
    subject a reference; of a share of `losers` it is written, too, which rules lost, for which `scorer` runs the models
    that they need.
    """

    def __init__(
        self,
        spool: Spool,
        told: Spool,
        refer: Callable[[str], Future[bytes]],
        scorer: Scorer,
        counters: Counters,
        *,
        purpose: str = "",
        losers: float = 0.0,
        seconds: float = 1.0,
        most: int = MOST,
    ) -> None:
        self._scorer = scorer
        self._counters = counters
        self._purpose = purpose
        self._losers = losers
        self._seconds = seconds
        self._most = most
        self._decided = Waiting(spool, counters, most)
        self._told = Waiting(told, counters, most)
        self._rows = self._decided.rows
        self._noted: list[tuple[str, Request, Decision, Active, Seen, str, int]] = []
        self._packing = threading.Lock()
        self._curious: deque[tuple[str, Request, Decision, Active, Seen]] = deque()
        self._allowance = Allowance(_SHARE, _AT_ONCE_S)
        self._pens: dict[tuple[str, str], Pen] = {}
        # Those of the present pens, and of the ones before them, for rows that wait.
        self._heads: deque[bytes] = deque(maxlen=2 * _PENS)
        self._numbers = itertools.count()
        self._making = threading.Lock()
        self._none = _Quick(None, self._pen)
        self._quick = self._none
        counters.logs = True
        self._ended = False
        self._wake = threading.Event()
        self._nameless = Nameless(refer, counters, self._wake.set)
        self._thread = threading.Thread(target=self._run, name="arbiter-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end."""
        self._ended = True
        self._wake.set()
        self._thread.join()

    def note(
        self,
        number: str,
        request: Request,
        decision: Decision,
        active: Active,
        seen: Seen,
        page: str = "",
        place: int = 0,
    ) -> None:
        """Write a decision down, with the id `number`. On the thread that decided."""
        noted = self._noted
        noted.append((number, request, decision, active, seen, page, place))
        if len(noted) >= _TOGETHER and self._packing.acquire(blocking=False):
            try:
                self._pack()
            finally:
                self._packing.release()

    def asks(self, active: Active) -> str:
        """The purpose that a subject must have granted for a row of its own, empty where nothing is asked for."""
        snapshots = [active.snapshot] if active.beside is None else [active.snapshot, active.beside[1].snapshot]
        return self._purpose if any(each.consent is not None for each in snapshots) else ""

    def tell(self, rows: Sequence[bytes]) -> None:
        """Write down what became of decisions."""
        self._told.put(rows)

    def _pack(self) -> None:
        """Make rows of what was noted. Who does has `_packing`.

        Of many together each takes less than by itself between two calls: the code for it is near then. A decision of
        which no row can be made costs its row, and no call.
        """
        noted = self._noted
        some = noted[:]
        del noted[: len(some)]  # whoever noted more meanwhile did so behind them
        rows, most, losers = self._rows, self._most, self._losers
        for number, request, decision, active, seen, page, place in some:
            if len(rows) >= most:
                self._counters.log_dropped["full"] += 1
                continue
            try:
                quick = self._quick
                if quick.active is not active:
                    quick = self._turn_to(active)
                chosen = lot() < losers  # noqa: S311 - no secret
                row = None if page or chosen else quick[decision.point](number, request, decision, seen)
                if row is None:
                    self._pack_peculiar(number, request, decision, active, seen, page, place, chosen=chosen)
                else:
                    rows.append(row)
            except Exception:  # noqa: BLE001 - whatever it is, it is no matter of this call
                self._counters.log_dropped["unwritable"] += 1
                _log.exception("a decision could not be written down")

    def _pack_peculiar(
        self,
        number: str,
        request: Request,
        decision: Decision,
        active: Active,
        seen: Seen,
        page: str,
        place: int,
        *,
        chosen: bool,
    ) -> None:
        """The same of any decision: one that was `chosen` is looked into."""
        profile, pen = seen[1], self._pen(active.snapshot, decision.point)
        if pen.purpose and pen.purpose not in profile.granted:
            self._rows.append(pen.impersonal(request, decision))
        elif profile.feature_set and not profile.reference:
            row = pen.row(number, UNNAMED, request, decision, active, seen, page, place)
            self._nameless.put(request.subject_id, row)
        elif chosen and not page and len(self._curious) < _CURIOUS:
            self._curious.append((number, request, decision, active, seen))
        else:
            row = pen.row(number, profile.reference, request, decision, active, seen, page, place)
            self._rows.append(row)

    def _turn_to(self, active: Active) -> _Quick:
        """What writes plain rows of it from now on."""
        if not ordinary(active):
            return self._none
        self._quick = quick = _Quick(active, self._pen)
        return quick

    def _pen(self, snapshot: Snapshot, name: str) -> Pen:
        with self._making:
            known = self._pens.get((snapshot.digest, name))
            if known is not None:
                return known
            if len(self._pens) >= _PENS:
                self._pens, self._quick = {}, self._none
            pen = Pen(next(self._numbers), snapshot.point(name), snapshot, self._purpose)
            self._heads.append(pen.line)
            self._pens[snapshot.digest, name] = pen
            return pen

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(self._seconds)
            self._wake.clear()
            self._flush(self._seconds)
        self._flush(_LAST_S)
        for waiting in (self._decided, self._told):
            try:
                waiting.spool.seal()
            except OSError as error:
                self._stopped(str(error))

    def _flush(self, patience: float) -> None:
        """Write what waits. What finds no room waits on, as long as there is room for that."""
        with self._packing:
            self._pack()
        self._look()
        for row in self._nameless.named(patience):  # calls append to the same list meanwhile
            self._rows.append(row)
        counters = self._counters
        try:
            self._decided.write(self._heads)
            self._told.write()
        except (OSError, ArbiterError) as error:
            self._stopped(str(error))
        else:
            if counters.log_error:
                _log.warning("decisions are logged again; %d rows were lost", counters.log_dropped["full"])
                counters.log_error = ""

    def _stopped(self, why: str) -> None:
        if not self._counters.log_error:
            _log.error("decisions are not logged: %s", why)
        self._counters.log_error = why

    def _look(self) -> None:
        """Find out who lost in the decisions that were chosen for it, as far as there is time, and write them down."""
        while self._curious:
            number, request, decision, active, seen = self._curious.popleft()
            lost = None
            affordable = self._allowance.is_left()
            with self._allowance.taking():
                try:
                    lost = self._lost(request, decision, active, seen) if affordable else None
                except ArbiterError:
                    _log.debug("a decision could not be looked into", exc_info=True)
                pen, reference = self._pen(active.snapshot, decision.point), seen[1].reference
                self._rows.append(pen.row(number, reference, request, decision, active, seen, losers=lost))

    def _lost(self, request: Request, decision: Decision, active: Active, seen: Seen) -> tuple[Lost, ...] | None:
        """The rules that matched and were not delivered; None where there are too many to look at."""
        view, profile = seen
        point = active.snapshot.point(decision.point)
        if len(point.survivors(view)) > SURVIVORS:
            return None
        self._scorer.score(active, point.models, view, None)
        outcomes = explain(
            point, view, request.subject_id, request.slots, (), profile.changes, ExplainLevel.LOSERS, off=active.told
        )
        return tuple(
            Lost(each.rule_id, each.reason.name.lower(), each.lost_to)
            for each in outcomes
            if each.reason is not Reason.WON
        )


def open_recorder(options: DecisionLog, engine: Engine) -> Recorder:
    """What writes down the decisions of an engine."""
    decided, told = (
        Spool(
            Path(options.directory),
            seconds=options.rotate_seconds,
            most=options.rotate_mib * MIB,
            spare=options.spare_mib * MIB,
            suffix=suffix,
        )
        for suffix in (DECIDED, TOLD)
    )
    return Recorder(
        decided,
        told,
        engine.store.refer,
        engine.scorer,
        engine.counters,
        purpose=options.purpose,
        losers=options.losers,
        seconds=options.flush_seconds,
    )
