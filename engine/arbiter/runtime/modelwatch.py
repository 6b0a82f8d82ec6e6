"""Whether models still see and say what they did at training: what all workers noticed, added up and judged.

Law: belongs to one thread, the supervisor's. A window of so many rows is judged once, when it is full, so that the rate
of false alarms is that of one look, however many workers there are. What is known of a version goes when no snapshot
that decides has it any more, and its alarms with it. It is kept on disk, some seconds behind, and a restart goes on.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.runtime.watchfile import KeptTally, KeptVersion
from arbiter.runtime.watching import KNOWN, baseline_of, fields_of, withheld_in
from arbiter.serving import WatchedField, WatchedModel, WatchedWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arbiter.expr.view import Symbols
    from arbiter.learning.drift import Drift, Tally
    from arbiter.models.model import Model
    from arbiter.runtime.messages import Noticed
    from arbiter.runtime.watchfile import WatchFile
    from arbiter.snapshot import Snapshot
    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.models")

ROWS: Final = 1000  # of a window: at one look a second in each of two workers some 8 minutes
_WINDOWS: Final = 500  # that are remembered of a model
_KEPT_EVERY_S: Final = 5.0  # what a crash may cost of the counts


class ModelWatch:
    """Judges, after every `rows` rows, the models of those `snapshots` that decide now; into `counters` go the index
    and the alarms of each field's last window. `clock` gives µs since the epoch. With a `file` it begins with what that
    has, and writes it `later`, which calls something after so many seconds in this thread.
    """

    def __init__(
        self,
        counters: Counters,
        snapshots: Callable[[], Iterable[Snapshot]],
        rows: int = ROWS,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        file: WatchFile | None = None,
        later: Callable[[float, Callable[[], None]], None] = lambda _seconds, _letter: None,
    ) -> None:
        self._counters = counters
        self._snapshots = snapshots
        self._rows = rows
        self._clock = clock
        self._file = file
        self._later = later
        self._kept = {} if file is None else file.read()  # until it is known which versions are served
        self._waits = False  # a time is set at which what is new is written
        self._watched: dict[str, _Watched] = {}

    def noticed(self, said: Noticed) -> None:
        """A worker looked into a decision that a model had a part in."""
        self._follow()
        watched = self._watched.get(said.digest)
        if watched is None or len(said.places) != len(watched.window):
            return  # of a snapshot that went
        watched.put(said)
        if watched.filling >= self._rows:
            self._judge(watched)
        if self._file is not None and not self._waits:
            self._waits = True
            self._later(_KEPT_EVERY_S, self._keep)

    def close(self) -> None:
        """Write what is not written yet, and wait for that."""
        if self._file is not None:
            self._file.close()
            if self._waits and not self._file.busy:
                self._keep()
                self._file.close()

    def reports(self) -> tuple[WatchedModel, ...]:
        """What is known of each version that is served, by name, the live one before the one that is tried."""
        self._follow()
        return tuple(each.report() for each in self._watched.values())

    def _keep(self) -> None:
        file = self._file
        if file is None:
            return
        if file.busy:  # the disk hangs: what is new waits for it
            self._later(_KEPT_EVERY_S, self._keep)
            return
        self._waits = False
        file.write([each.kept() for each in self._watched.values()])

    def _follow(self) -> None:
        """Know the models that are served now, and no others."""
        served = {model.digest: (model, each.symbols) for each in self._snapshots() for model in each.known_models()}
        if served.keys() == self._watched.keys():
            return
        now = self._clock()
        gone = [each for digest, each in self._watched.items() if digest not in served]
        self._watched = {
            digest: self._watched.get(digest) or _Watched(model, symbols, now)
            for digest, (model, symbols) in sorted(served.items(), key=lambda item: item[1][0].name)
        }
        stay = {each.model.key for each in self._watched.values()}
        for each in gone:
            for field in each.window if each.model.key not in stay else ():
                self._counters.model_alarms.pop((*each.model.key, field), None)
                self._counters.model_drift.pop((*each.model.key, field), None)
        for each in self._watched.values():
            if each.go_on(self._kept):
                for drift in each.drifts.values():
                    self._tell(each, drift)
        self._kept = {}

    def _judge(self, watched: _Watched) -> None:
        for drift in watched.judged(self._clock()):
            key = (*watched.model.key, drift.name)
            new = not self._counters.model_alarms.get(key)
            self._tell(watched, drift)
            for alarm in drift.alarms if new else ():
                _log.warning("model %s, version %s, %s: %s", *key, alarm)

    def _tell(self, watched: _Watched, drift: Drift) -> None:
        key = (*watched.model.key, drift.name)
        self._counters.model_alarms[key] = len(drift.alarms)
        self._counters.model_drift[key] = drift.psi or 0.0


class _Watched:
    """One version: all that was counted, the window that fills, and those that were full."""

    def __init__(self, model: Model, symbols: Symbols, now: int) -> None:
        self.model = model
        self._baseline = baseline_of(model)
        self._withheld = withheld_in(model, symbols)
        self._since = self._began = now
        self._all = fields_of(model, self._baseline)
        self._windows: deque[WatchedWindow] = deque(maxlen=_WINDOWS)
        self.drifts: dict[str, Drift] = {}
        self._judged_at = 0
        self.rows = self.filling = 0
        self.window: dict[str, Tally] = fields_of(model, self._baseline)

    def go_on(self, kept: Mapping[str, KeptVersion]) -> bool:
        """Begin with what was kept of this version, where there is something that fits."""
        found = kept.get(self.model.digest)
        if found is None:
            return False
        pairs = [(fields_of(self.model, self._baseline), each) for each in (found.all, found.window)]
        if any(tallies.keys() != each.keys() for tallies, each in pairs):
            return False
        try:
            for tallies, each in pairs:
                for name, tally in tallies.items():
                    tally.take(each[name].counts, each[name].missing, each[name].outside)
        except ValueError:
            return False
        (self._all, _), (self.window, _) = pairs
        self._since, self._began, self._judged_at = found.since, found.began, found.judged_at
        self.rows, self.filling = found.rows, found.filling
        self._windows.extend(found.windows)
        self.drifts = {drift.name: drift for drift in found.drifts}
        return True

    def kept(self) -> KeptVersion:
        """All of it, for `go_on`."""
        return KeptVersion(
            self.model.digest, self._since, self._began, self._judged_at, self.rows, self.filling, _kept(self._all),
            _kept(self.window), [*self._windows], [*self.drifts.values()],
        )  # fmt: skip

    def put(self, said: Noticed) -> None:
        """Count what a worker noticed."""
        beyond = set(said.beyond)
        for tallies in (self._all, self.window):
            for number, (place, tally) in enumerate(zip(said.places, tallies.values(), strict=True)):
                tally.put(min(place, len(tally.counts) - 1), outside=number in beyond)
        self.rows += 1
        self.filling += 1

    def judged(self, now: int) -> list[Drift]:
        """How each field of the window that is full differs from the training; another one begins."""
        found = [tally.judged(field, self._baseline.rows) for field, tally in self.window.items()]
        outputs = {
            field.removeprefix("outputs."): (*tally.counts, tally.missing)
            for field, tally in self.window.items()
            if field.startswith("outputs.")
        }
        self._windows.append(WatchedWindow(began=self._began, ended=now, rows=self.filling, outputs=outputs))
        self.drifts = {drift.name: drift for drift in found}
        self._judged_at = self._began = now
        self.window, self.filling = fields_of(self.model, self._baseline), 0
        return found

    def report(self) -> WatchedModel:
        """All of it."""
        return WatchedModel(
            name=self.model.name,
            version=self.model.version,
            digest=self.model.digest,
            trained_on=self._baseline.rows if self._all else 0,
            since=self._since,
            rows=self.rows,
            filling=self.filling,
            judged_at=self._judged_at,
            fields=tuple(self._field(name, tally) for name, tally in self._all.items()),
            windows=tuple(self._windows),
        )

    def _field(self, name: str, tally: Tally) -> WatchedField:
        drift = self.drifts.get(name)
        found = WatchedField(
            name=name,
            bins=tuple(tally.bins),
            expected=tuple(tally.expected),
            counts=tuple(tally.counts),
            missing=tally.missing,
            missing_before=tally.missing_before,
            outside=tally.outside,
            drift=None if drift is None else drift.psi,
            chance=0.0 if drift is None else drift.chance,
            alarms=() if drift is None else tuple(drift.alarms),
        )
        if name not in self._withheld:
            return found
        one = {"bins": (KNOWN,), "expected": (1.0,), "counts": (sum(tally.counts),)}
        return msgspec.structs.replace(found, withheld=True, **one)


def _kept(tallies: Mapping[str, Tally]) -> dict[str, KeptTally]:
    return {name: KeptTally(each.counts, each.missing, each.outside) for name, each in tallies.items()}
