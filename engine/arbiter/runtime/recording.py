"""Writing decisions down, in the worker that makes them.

Law: the hot path of the log: one row is made of what a decision saw and said, and appended to what waits; a thread of
its own has it on disk within the stated seconds. What waits is bounded, and whatever goes wrong with the log costs
rows, which are counted, and no decision. No consent, no personal row.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.decision.explain import explain
from arbiter.decision.hashing import share
from arbiter.errors import ArbiterError
from arbiter.expr.generated import function_of
from arbiter.expr.shaped import STORED, taker
from arbiter.learning.happened import MINUTE
from arbiter.learning.logged import CERTAIN, Head, Lost, Won, by_lot, encode, lacking_of
from arbiter.runtime.active import sooner
from arbiter.runtime.spool import DECIDED, MIB, TOLD, Spool
from arbiter.runtime.waiting import MOST, Waiting
from arbiter.types import ExplainLevel, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from arbiter.config.options import DecisionLog
    from arbiter.expr.view import View
    from arbiter.ruleset.compiled import Point
    from arbiter.runtime.active import Active
    from arbiter.runtime.engine import Engine, Seen
    from arbiter.runtime.scoring import Scorer
    from arbiter.snapshot import Snapshot
    from arbiter.telemetry.counters import Counters
    from arbiter.types import Decision, Request, Treatment

_log = logging.getLogger("arbiter.log")

_REFERRING: Final = 10_000  # rows that wait for the reference of their subject
_PENS: Final = 1_000
_CURIOUS: Final = 64  # decisions that wait to be looked at
_SURVIVORS: Final = 200  # a decision that has more is not looked into: calls would wait for it
_SHARE: Final = 400  # of a processor's time, looking into decisions takes one part in so many at most
_CREDIT_S: Final = 0.02  # of a processor, that may be taken at once


class _Pen:
    """What writes rows of one decision point under one snapshot: `head` is their number, `line` what they share.

    With `consent` a subject must have granted the purpose of the log.
    """

    __slots__ = ("changes", "consent", "experiments", "head", "line", "plain", "salts", "values")

    def __init__(self, head: int, point: Point, snapshot: Snapshot, *, consent: bool) -> None:
        symbols = point.symbols.features
        by_root: dict[str, list[str]] = {"profile": [], "features": [], "context": [], "account": [], "managed": []}
        for root, name in point.reads:
            by_root[root].append(name)
        keys = {name: symbols[name].key for name in by_root["features"]}
        reads = tuple(
            (root, name, keys[name] if root == "features" else "") for root, names in by_root.items() for name in names
        )
        self.head = head
        self.line = encode(Head(head, point.name, snapshot.digest, reads))
        self.values = _reader(reads)
        """Gives what a view knows of the head's names, None for what is missing."""
        self.consent = consent
        self.salts = point.salts
        self.experiments = point.experiments
        changing = {f"{root}.{key or name}" for root, name, key in reads}
        self.changes = frozenset(changing) if "recency" in point.dynamic else frozenset()
        # Whether the subject's consent, its share, its variants and its changes are no matter.
        self.plain = snapshot.consent is None and not (self.salts or self.changes or self.experiments)


def _reader(reads: tuple[tuple[str, str, str], ...]) -> Callable[[View], tuple[Any, ...]]:
    """Generated, since every decision that is logged is read by it; mostly nothing is missing."""
    by_root: dict[str, list[str]] = {}
    for root, name, key in reads:
        by_root.setdefault(root, []).append(key or name)
    names: dict[str, Any] = {}
    held, found = [], []
    for root, keys in by_root.items():
        if root in STORED and len(keys) > 1:
            names[f"take_{root}"] = taker(tuple(keys))
            held.append(f"*take_{root}(v.{root})")
            found.append(held[-1])
        else:
            held += [f"v.{root}[{key!r}]" for key in keys]
            found += [f"v.{root}.get({key!r})" for key in keys]
    if not held:
        return lambda _view: ()
    lines = ["def f(v):", "    try:", f"        return ({', '.join(held)},)"]
    lines += ["    except KeyError:", f"        return ({', '.join(found)},)", ""]
    read: Callable[[View], tuple[Any, ...]] = function_of(["\n".join(lines)], names, "what is logged")
    return read


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
        self._refer = refer
        self._scorer = scorer
        self._counters = counters
        self._purpose = purpose
        self._losers = losers
        self._seconds = seconds
        self._most = most
        self._decided = Waiting(spool, counters, most)
        self._told = Waiting(told, counters, most)
        self._waiting = self._decided.rows
        self._curious: deque[tuple[str, Request, Decision, Active, Seen]] = deque()
        self._credit = _CREDIT_S  # s of a processor that looking into decisions may take now,
        self._credited = time.monotonic()  # and when that was reckoned
        self._referring = 0
        self._pens: dict[tuple[str, str], _Pen] = {}
        # Those of the present pens, and of the ones before them, for rows that wait.
        self._heads: deque[bytes] = deque(maxlen=2 * _PENS)
        self._numbers = itertools.count()
        self._making = threading.Lock()
        # By rule, and by head for a default: a constant treatment is the very same object each time.
        self._won: dict[str | int, tuple[Treatment, msgspec.Raw]] = {}
        self._drawn: dict[tuple[str | int, float], tuple[Treatment, msgspec.Raw]] = {}
        counters.logs = True
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arbiter-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end."""
        self._end.set()
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
        if len(self._waiting) >= self._most:
            self._counters.log_dropped["full"] += 1
            return
        snapshot, profile = active.snapshot, seen[1]
        pen = self._pens.get((snapshot.digest, decision.point)) or self._pen(snapshot, decision.point)
        if pen.consent and self._purpose not in profile.granted:
            self._waiting.append(_impersonal(pen, request, decision))
        elif profile.feature_set and not profile.reference:
            self._find_reference(number, request, decision, active, seen, page, place)
        elif self._losers and not page and random.random() < self._losers and len(self._curious) < _CURIOUS:  # noqa: S311 - no secret
            self._curious.append((number, request, decision, active, seen))
        else:
            reference = profile.reference.hex()
            self._waiting.append(self._row(pen, number, reference, request, decision, active, seen, page, place))

    def asks(self, active: Active) -> str:
        """The purpose that a subject must have granted for a row of its own, empty where nothing is asked for."""
        snapshots = [active.snapshot] if active.beside is None else [active.snapshot, active.beside[1].snapshot]
        return self._purpose if any(each.consent is not None for each in snapshots) else ""

    def tell(self, rows: Sequence[bytes]) -> None:
        """Write down what became of decisions."""
        self._told.put(rows)

    def _row(
        self,
        pen: _Pen,
        number: str,
        reference: str,
        request: Request,
        decision: Decision,
        active: Active,
        seen: Seen,
        page: str,
        place: int,
        losers: tuple[Lost, ...] | None = None,
    ) -> bytes:
        view, profile = seen
        until = profile.next_change_at if active.until is None else sooner(profile.next_change_at, active.until)
        won = []
        if decision.drawn:
            won = [msgspec.Raw(encode(each)) for each in by_lot(decision)]
        elif decision.experiments:
            won = [self._drawn_of(treatment, pen, decision.propensity) for treatment in decision.treatments]
        else:
            for treatment in decision.treatments:
                # As `_won_of` does, written out: mostly it is there.
                known = self._won.get(treatment.rule_id or pen.head)
                won.append(known[1] if known and known[0] is treatment else self._won_of(treatment, pen))
        values = pen.values(view)
        row = (
            pen.head, number, request.now, reference, values, won, decision.defaulted, decision.valid_until, until,
        )  # fmt: skip
        trying = active.snapshot.trying
        if pen.plain and losers is None and not (
            page or request.slots or active.off or decision.degraded or active.canary or trying
        ):  # fmt: skip
            return encode(row)
        changes = profile.changes() if pen.changes else {}
        return encode(
            (
                *row,
                sorted(view.consent.granted),
                {salt: share(salt, request.subject_id) for salt in pen.salts},
                request.slots,
                page,
                place,
                sorted(active.off),
                {key: changes[key] for key in pen.changes if key in changes},
                trying,
                lacking_of(decision),
                active.canary,
                losers,
                {name: view.experiments.of(name, view) for name in pen.experiments},
                tuple(decision.experiments),
            )
        )

    def _won_of(self, treatment: Treatment, pen: _Pen) -> msgspec.Raw:
        won = msgspec.Raw(encode(_won(treatment)))
        self._won[treatment.rule_id or pen.head] = treatment, won
        return won

    def _drawn_of(self, treatment: Treatment, pen: _Pen, propensity: float) -> msgspec.Raw:
        """The same of one that an experiment mattered to: there are as many propensities as shares multiply to."""
        key = (treatment.rule_id or pen.head, propensity)
        known = self._drawn.get(key)
        if known is None or known[0] is not treatment:
            known = self._drawn[key] = treatment, msgspec.Raw(encode(_won(treatment, propensity)))
        return known[1]

    def _pen(self, snapshot: Snapshot, name: str) -> _Pen:
        with self._making:
            known = self._pens.get((snapshot.digest, name))
            if known is not None:
                return known
            if len(self._pens) >= _PENS:
                self._pens = {}
                self._won, self._drawn = {}, {}
            consent = bool(self._purpose) and snapshot.consent is not None
            pen = _Pen(next(self._numbers), snapshot.point(name), snapshot, consent=consent)
            self._heads.append(pen.line)
            self._pens[snapshot.digest, name] = pen
            return pen

    def _find_reference(
        self, number: str, request: Request, decision: Decision, active: Active, seen: Seen, page: str, place: int
    ) -> None:
        """Nothing of the subject was logged before: the row waits until it has a reference on disk."""
        if self._referring >= _REFERRING:
            self._counters.log_dropped["unreferenced"] += 1
            return
        self._referring += 1

        def found(future: Future[bytes]) -> None:
            self._referring -= 1
            if future.cancelled() or future.exception() is not None:
                self._counters.log_dropped["unreferenced"] += 1
            else:
                pen = self._pen(active.snapshot, decision.point)
                reference = future.result().hex()
                self._waiting.append(self._row(pen, number, reference, request, decision, active, seen, page, place))

        self._refer(request.subject_id).add_done_callback(found)

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            self._flush()
        until = time.monotonic() + 5.0
        while self._referring and time.monotonic() < until:
            time.sleep(0.01)
        self._flush()
        for waiting in (self._decided, self._told):
            try:
                waiting.spool.seal()
            except OSError as error:
                self._stopped(str(error))

    def _flush(self) -> None:
        """Write what waits. What finds no room waits on, as long as there is room for that."""
        self._look()
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
        now = time.monotonic()
        self._credit = min(self._credit + (now - self._credited) / _SHARE, _CREDIT_S)
        self._credited = now
        while self._curious:
            number, request, decision, active, seen = self._curious.popleft()
            began = time.thread_time()
            lost = None
            try:
                lost = self._lost(request, decision, active, seen) if self._credit > 0 else None
            except ArbiterError:
                _log.debug("a decision could not be looked into", exc_info=True)
            pen, reference = self._pen(active.snapshot, decision.point), seen[1].reference.hex()
            self._waiting.append(self._row(pen, number, reference, request, decision, active, seen, "", 0, lost))
            self._credit -= time.thread_time() - began

    def _lost(self, request: Request, decision: Decision, active: Active, seen: Seen) -> tuple[Lost, ...] | None:
        """The rules that matched and were not delivered; None where there are too many to look at."""
        view, profile = seen
        point = active.snapshot.point(decision.point)
        if len(point.survivors(view)) > _SURVIVORS:
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


def _won(treatment: Treatment, propensity: float = CERTAIN) -> Won:
    return Won(
        treatment.rule_id, treatment.action, treatment.params, treatment.priority, treatment.value, propensity
    )  # fmt: skip


def _impersonal(pen: _Pen, request: Request, decision: Decision) -> bytes:
    """A row that says nothing of the subject, nor exactly when."""
    won = [Won(each.rule_id, each.action, {}, each.priority) for each in decision.treatments]
    return encode((pen.head, "", request.now - request.now % MINUTE, "", None, won, decision.defaulted))


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
