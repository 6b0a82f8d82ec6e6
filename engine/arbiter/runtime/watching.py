"""What models see and say in the decisions that are looked into: by the bins of their training.

Law: beside the calls, on the thread of `curiosity`. Of a subject nothing is kept but which bins its values fall into;
what its consent does not cover is not counted. Whether it is still as at training is for `modelwatch` to judge, over
all workers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.learning.drift import MISSING, Baseline, Tally, read_baseline
from arbiter.models.rows import is_missing
from arbiter.models.seen import value_of
from arbiter.runtime.messages import Noticed
from arbiter.types import to_micros

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.expr.view import Symbols, View
    from arbiter.models.model import Model
    from arbiter.snapshot import Snapshot
    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.models")

KNOWN: Final = "known"  # the bin of a value that may not be told
_MOST: Final = 64  # models that are remembered; those of snapshots that went are forgotten, the oldest first


class Watch:
    """Counts into `counters` what models of decisions see and say, and tells the supervisor of each by `tell`."""

    def __init__(self, counters: Counters, tell: Callable[[Noticed], None]) -> None:
        self._counters = counters
        self._tell = tell
        self._fields: dict[str, dict[str, Tally]] = {}

    def note(self, snapshot: Snapshot, view: View) -> None:
        """Count a subject for each model whose outputs the view has, or could have: none that consent denies it."""
        for name in view.models:
            model = snapshot.models[name]
            if f"models.{name}" not in view.consent.denied and name not in view.failed:
                self._note(model, view, snapshot.symbols)

    def _note(self, model: Model, view: View, symbols: Symbols) -> None:
        fields = self._of(model)
        if not fields:
            return
        seen = _seen(model, view, symbols)
        withheld = withheld_in(model, symbols)
        places, beyond = [], []
        for number, (field, tally) in enumerate(fields.items()):
            place, outside = _placed(tally, seen[field])
            places.append(place)
            if outside:
                beyond.append(number)
            told = MISSING if place < 0 else KNOWN if field in withheld else tally.bins[place]
            self._counters.model_values[*model.key, field, told] += 1
        self._tell(Noticed(model.digest, tuple(places), tuple(beyond)))

    def _of(self, model: Model) -> dict[str, Tally]:
        found = self._fields.get(model.digest)
        if found is None:
            found = self._fields[model.digest] = fields_of(model, baseline_of(model))
            if len(self._fields) > _MOST:
                del self._fields[next(iter(self._fields))]
        return found


def baseline_of(model: Model) -> Baseline:
    """What the model's file says of its training; nothing where it says nothing that can be read."""
    if not model.baseline:
        return Baseline()
    try:
        return read_baseline(model.baseline)
    except (msgspec.DecodeError, ValueError) as error:
        _log.warning("model %s, version %s, is not watched: its `arbiter.baseline` is wrong: %s", *model.key, error)
        return Baseline()


def fields_of(model: Model, baseline: Baseline) -> dict[str, Tally]:
    """The inputs and outputs that a model has and its baseline tells of, ``inputs.age``, each with what counts it."""
    inputs = {each.name for each in model.inputs}
    found = {f"inputs.{name}": Tally(spread) for name, spread in baseline.inputs.items() if name in inputs}
    outputs = baseline.outputs.items()
    return found | {f"outputs.{name}": Tally(spread) for name, spread in outputs if name in model.outputs}


def withheld_in(model: Model, symbols: Symbols) -> set[str]:
    """The fields whose values are personal."""
    return {f"inputs.{each.name}" for each in model.inputs if f"{each.root}.{each.attribute}" in symbols.personal}


def _seen(model: Model, view: View, symbols: Symbols) -> dict[str, Any]:
    """What the model saw of a subject, and said; None for what is missing, or of a kind that it does not take."""
    outputs = view.models[model.name]
    seen: dict[str, Any] = {f"outputs.{name}": outputs.get(name) for name in model.outputs}
    for item, dtype in model.takes:
        value = value_of(item, view, symbols)
        if is_missing(item, dtype, value, view.clock):
            value = None
        elif item.unit:
            value = (view.clock - to_micros(value)) / item.unit
        seen[f"inputs.{item.name}"] = value
    return seen


def _placed(tally: Tally, value: Any) -> tuple[int, bool]:
    """The bin of a value; one that is no number where the baseline has numbers is missing."""
    try:
        return tally.place(value)
    except (TypeError, ValueError):
        return tally.place(None)
