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
from typing import TYPE_CHECKING, Final

from arbiter.decision.explain import explain
from arbiter.errors import ArbiterError
from arbiter.learning.logged import Lost, encode, encode_rows
from arbiter.runtime.chosen import Chosen
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
    from arbiter.runtime.engine import Engine, Noted, Seen
    from arbiter.runtime.pens import Quick, Row, Rows
    from arbiter.runtime.scoring import Scorer
    from arbiter.snapshot import Snapshot
    from arbiter.telemetry.counters import Counters
    from arbiter.types import Decision, Request

_log = logging.getLogger("arbiter.log")

THREAD: Final = "arbiter-log"
_PENS: Final = 1_000
_TOGETHER: Final = 32  # decisions that are noted until rows are made of them: some 100 µs of one call in so many
_CURIOUS: Final = 64  # decisions that wait to be looked at
_SHARE: Final = 1_000  # of a processor's time, looking into decisions takes one part in so many at most
_LAST_S: Final = 5.0  # at the end, for references
_AT_ONCE_S: Final = 0.02  # of that


class _Quick(dict[str, "Quick"]):
    """What makes the plain rows of a decision point under `active`, by the point; none does where that is None."""

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
        self._chosen = Chosen(losers)
        self._seconds = seconds
        self._decided = Waiting(spool, counters, most)
        self._told = Waiting(told, counters, most)
        self.noted: list[Noted] = []
        self.together = _TOGETHER
        self._packing = threading.Lock()
        self._curious: deque[Noted] = deque()
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
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end."""
        self._ended = True
        self._wake.set()
        self._thread.join()

    def take(self) -> None:
        """Make rows of the decisions that are in `noted`. On the thread that decided."""
        if self._packing.acquire(blocking=False):
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
        rows = self._told.room(rows)
        self._told.put(b"".join(rows), len(rows))

    def _pack(self) -> None:
        """Make rows of what was noted, in order. Who does has `_packing`.

        Of many together each takes less than by itself between two calls: the code for it is near then. A decision of
        which no row can be made costs its row, and no call.
        """
        noted = self.noted
        some: Sequence[Noted] = noted[:]
        del noted[: len(some)]  # whoever noted more meanwhile did so behind them
        some = self._decided.room(some)
        rows: Rows = [None] * len(some)
        places: Sequence[int] = range(len(some))
        if chosen := self._chosen.among(len(some)):
            for place in chosen:
                rows[place] = self._peculiar(some[place], chosen=True)
            places = [place for place in places if place not in chosen]
        while places:
            places = self._make(some, places, rows)
        self._write([row for row in rows if row is not None])

    def _make(self, noted: Sequence[Noted], places: Sequence[int], rows: Rows) -> Sequence[int]:
        """Make the rows of the first of these places and of all that are at its decision point under its snapshot.

        Gives the other places.
        """
        _, _, decision, active, _, _, _ = noted[places[0]]
        left = places
        try:
            quick = self._quick
            if quick.active is not active:
                quick = self._turn_to(active)
            left = quick[decision.point](noted, places, active, rows)
        except Exception:  # noqa: BLE001 - one of them, which is found when each is made by itself
            _log.debug("decisions are written down one by one", exc_info=True)
        others = []
        for place in left:
            each = noted[place]
            if each[3] is active and each[2].point == decision.point:
                rows[place] = self._peculiar(each)
            else:
                others.append(place)
        return others

    def _peculiar(self, noted: Noted, *, chosen: bool = False) -> Row | None:
        """The row of any decision, unless it is made later: one that was `chosen` is looked into."""
        _, request, decision, active, (_, profile), page, _ = noted
        try:
            pen = self._pen(active.snapshot, decision.point)
            if pen.purpose and pen.purpose not in profile.granted:
                return pen.impersonal(request, decision)
            if profile.feature_set and not profile.reference:
                self._nameless.put(request.subject_id, encode(pen.row(noted, UNNAMED)))
                return None
            if chosen and not page and len(self._curious) < _CURIOUS:
                self._curious.append(noted)
                return None
            return pen.row(noted, profile.reference)
        except Exception:  # noqa: BLE001 - whatever it is, it is no matter of this call
            self._unwritable()
            return None

    def _write(self, rows: list[Row]) -> None:
        """Have rows written. One that cannot be packed costs no other."""
        try:
            self._decided.put(encode_rows(rows), len(rows))
        except Exception:  # noqa: BLE001 - see above
            if len(rows) == 1:
                self._unwritable()
                return
            for row in rows:
                self._write([row])

    def _unwritable(self) -> None:
        self._counters.log_dropped["unwritable"] += 1
        _log.exception("a decision could not be written down")

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
        named = list(self._nameless.named(patience))
        self._decided.put(b"".join(named), len(named))
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
        rows = []
        while self._curious:
            noted = self._curious.popleft()
            _, request, decision, active, seen, _, _ = noted
            lost = None
            affordable = self._allowance.is_left()
            with self._allowance.taking():
                try:
                    lost = self._lost(request, decision, active, seen) if affordable else None
                except ArbiterError:
                    _log.debug("a decision could not be looked into", exc_info=True)
                rows.append(self._pen(active.snapshot, decision.point).row(noted, seen[1].reference, lost))
        self._write(rows)

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
