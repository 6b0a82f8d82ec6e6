"""Whether models still see and say what they did at training, by the decisions that are looked into.

Law: beside the calls, on the thread of `curiosity`. Of a subject nothing is kept but which bins its values fall into;
what its consent does not cover is not counted. A window of so many rows is judged once, when it is full, so that the
rate of false alarms is that of one look.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.learning.drift import MISSING, Baseline, Tally, read_baseline
from arbiter.models.rows import is_missing
from arbiter.models.seen import value_of
from arbiter.types import to_micros

if TYPE_CHECKING:
    from arbiter.expr.view import Symbols, View
    from arbiter.models.model import Model
    from arbiter.snapshot import Snapshot
    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.models")

ROWS: Final = 1000  # of a window: at one look a second some 17 minutes
_KNOWN: Final = "known"  # the bin of a value that may not be told
_MOST: Final = 64  # models that are remembered; those of snapshots that went are forgotten, the oldest first


class Watch:
    """Counts into `counters` what models of decisions see and say; a window is judged after `rows` rows."""

    def __init__(self, counters: Counters, rows: int = ROWS) -> None:
        self._counters = counters
        self._rows = rows
        self._watched: dict[str, _Watched] = {}

    def note(self, snapshot: Snapshot, view: View) -> None:
        """Count a subject for each model whose outputs the view has, or could have: none that consent denies it."""
        for name in view.models:
            model = snapshot.models[name]
            if f"models.{name}" not in view.consent.denied and name not in view.failed:
                self._of(model).note(model, view, snapshot.symbols)

    def _of(self, model: Model) -> _Watched:
        found = self._watched.get(model.digest)
        if found is None:
            found = self._watched[model.digest] = _Watched(model, self._counters, self._rows)
            if len(self._watched) > _MOST:
                del self._watched[next(iter(self._watched))]
        return found


class _Watched:
    """The window of one version of a model that fills."""

    def __init__(self, model: Model, counters: Counters, rows: int) -> None:
        self._counters = counters
        self._most = rows
        self._baseline = _read(model)
        self._begin()

    def _begin(self) -> None:
        told = self._baseline
        self._noted = 0
        self._tallies = {f"inputs.{name}": Tally(spread) for name, spread in told.inputs.items()}
        self._tallies |= {f"outputs.{name}": Tally(spread) for name, spread in told.outputs.items()}

    def note(self, model: Model, view: View, symbols: Symbols) -> None:
        """Count what the model saw of a subject, and said."""
        outputs = view.models[model.name]
        seen = {f"outputs.{name}": outputs.get(name) for name in model.outputs}
        withheld = set()
        for item, dtype in model.takes:
            value = value_of(item, view, symbols)
            if is_missing(item, dtype, value, view.clock):
                value = None
            elif item.unit:
                value = (view.clock - to_micros(value)) / item.unit
            seen[f"inputs.{item.name}"] = value
            if f"{item.root}.{item.attribute}" in symbols.personal:
                withheld.add(f"inputs.{item.name}")
        for field, tally in self._tallies.items():
            if field in seen:
                found = _added(tally, seen[field])
                told = _KNOWN if field in withheld and found != MISSING else found
                self._counters.model_values[*model.key, field, told] += 1
        self._noted += 1
        if self._noted >= self._most and self._tallies:
            self._judge(model)
            self._begin()

    def _judge(self, model: Model) -> None:
        for field, tally in self._tallies.items():
            drift = tally.judged(field, self._baseline.rows)
            key = (*model.key, field)
            new = not self._counters.model_alarms.get(key)
            self._counters.model_alarms[key] = len(drift.alarms)
            self._counters.model_drift[key] = drift.psi or 0.0
            for alarm in drift.alarms if new else ():
                _log.warning("model %s, version %s, %s: %s", *key, alarm)


def _added(tally: Tally, value: Any) -> str:
    """The bin of a value; one that is no number where the baseline has numbers is missing."""
    try:
        return tally.add(value)
    except (TypeError, ValueError):
        return tally.add(None)


def _read(model: Model) -> Baseline:
    """What the model's file says of its training; nothing where it says nothing that can be read."""
    if not model.baseline:
        return Baseline()
    try:
        return read_baseline(model.baseline)
    except (msgspec.DecodeError, ValueError) as error:
        _log.warning("model %s, version %s, is not watched: its `arbiter.baseline` is wrong: %s", *model.key, error)
        return Baseline()
