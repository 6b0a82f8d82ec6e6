"""Models in the decision path: what walks ask for is run, and its outputs put into views.

Law: no model makes a decision fail or late. One that cannot answer inside the deadline, that fails or is switched off
leaves no outputs, and the view says why; what is missing or denied leaves none either, and that is no fault. A model
runs at most once for a view. No store, no rules here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping  # noqa: TC003 - a field's type at run time
from typing import TYPE_CHECKING, Any, TypeVar

from arbiter.models.failure import ModelFailure
from arbiter.runtime.faults import told
from arbiter.runtime.merging import Merger
from arbiter.telemetry import tracing
from arbiter.types import Lack

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from arbiter.expr.view import View
    from arbiter.models.model import Model
    from arbiter.models.rows import Row
    from arbiter.runtime.active import Active
    from arbiter.snapshot import Joint
    from arbiter.telemetry.counters import Counters

_log = logging.getLogger("arbiter.models")
# Rows of a batch that run at once: more save little, and other calls wait for them.
SLICE = 64
# So few rows run faster one by one.
FEW = 4
_Rows = TypeVar("_Rows")
_Answer = TypeVar("_Answer")
_NO_SCORES: Mapping[str, Any] = {}


class Scorer:
    """Runs models. `merger` makes those that are needed together run as one."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.merger = Merger()

    def score(self, active: Active, names: Sequence[str], view: View, deadline: float | None) -> None:
        """Put the outputs of those models into the view that it lacks. `deadline` is in seconds of `time.monotonic`."""
        if len(names) > 1:
            self._together(active, names, view, deadline)
        snapshot, known = active.snapshot, view.models
        for name in names:
            if name in known:
                continue
            model = snapshot.models[name]
            if deadline is not None:
                began = time.monotonic()
                if began + model.pace.longest >= deadline:
                    model.pace.refused()
                    _lacks(view, name, Lack.LATE)
                    continue
            if name in active.dark:
                _lacks(view, name, Lack.OVERRIDDEN)
                continue
            try:
                row = snapshot.rows[name](view)
                if row is None:
                    known[name] = _NO_SCORES
                    continue
                known[name] = (
                    self._watched((model,), 1, model.score, row) if self.counters.watched else model.score(row)
                )
            except Exception as error:  # noqa: BLE001 - the model is foreign code
                self._failed(model, view, error)
            if deadline is not None:
                model.pace.took(time.monotonic() - began)

    def score_all(
        self, active: Active, asked: Iterable[tuple[View, Sequence[str]]], deadline: float | None
    ) -> Generator[None, None, None]:
        """Put the outputs of the models that are asked for into each of many views, each model in as few runs as can
        be. Pauses after each.
        """
        together: dict[tuple[str, ...], list[View]] = {}
        alone: dict[str, list[View]] = {}
        for view, names in asked:
            if len(names) > 1 and view.models.keys().isdisjoint(names):
                together.setdefault(tuple(names), []).append(view)
            for name in names:
                alone.setdefault(name, []).append(view)
        for several, views in together.items():
            yield from self._score_together(active, several, views, deadline)
        for name, views in alone.items():
            lacking = [view for view in views if name not in view.models]
            if lacking:
                yield from self.score_many(active, name, lacking, deadline)

    def score_many(
        self, active: Active, name: str, views: Sequence[View], deadline: float | None
    ) -> Generator[None, None, None]:
        """Put the outputs of one model into views, all of which lack them, in one run for each slice of them. Pauses
        after each.
        """
        if name in active.dark or len(views) <= FEW:
            for view in views:
                self.score(active, (name,), view, deadline)
            return
        model, read = active.snapshot.models[name], active.snapshot.rows[name]
        for start in range(0, len(views), SLICE):
            part = views[start : start + SLICE]
            if deadline is not None and time.monotonic() + model.pace_of_row.longest * len(part) >= deadline:
                model.pace_of_row.refused()
                # Fewer may still be in time.
                for view in part:
                    self.score(active, (name,), view, deadline)
                continue
            rows: list[Row] = []
            having: list[View] = []
            for view in part:
                try:
                    row = read(view)
                except ModelFailure as error:
                    self._failed(model, view, error)
                    continue
                if row is None:
                    view.models[name] = _NO_SCORES
                else:
                    rows.append(row)
                    having.append(view)
            self._run_slice(active, model, rows, having, deadline)
            yield

    def _score_together(
        self, active: Active, names: Sequence[str], views: Sequence[View], deadline: float | None
    ) -> Generator[None, None, None]:
        """Put the outputs of several models into views that lack all of them, in one run for each slice of them, where
        they run as one. What is left lacking is for `score_many`. Pauses after each.
        """
        wanted = tuple([name for name in names if name not in active.dark])
        if len(wanted) < 2 or len(views) <= FEW:  # noqa: PLR2004 - one is not several
            return
        joints = active.snapshot.merged.get(wanted)
        if joints is None:
            self.merger.ask(active.snapshot, wanted)
            return
        for joint in joints:
            for start in range(0, len(views), SLICE):
                part = views[start : start + SLICE]
                began = time.monotonic()
                if deadline is not None and began + joint.pace_of_row.longest * len(part) >= deadline:
                    joint.pace_of_row.refused()
                    continue
                try:
                    self._run_joint_slice(joint, part)
                except Exception:  # noqa: BLE001 - the models are foreign code
                    # Alone each tells whether the fault is its own.
                    _log.debug("models %s failed together", ", ".join(wanted), exc_info=True)
                else:
                    joint.pace_of_row.took((time.monotonic() - began) / len(part))
                yield

    def _run_joint_slice(self, joint: Joint, views: Sequence[View]) -> None:
        read = [joint.rows(view) for view in views]
        rows = [values for values, _ in read]
        models, run = joint.merged.models, joint.merged.run
        answers = self._watched(models, len(rows), run, rows) if self.counters.watched else run(rows)
        for view, (_, unknown), found in zip(views, read, answers, strict=True):
            for place, (model, answer) in enumerate(zip(models, found or (), strict=False)):
                view.models[model.name] = _NO_SCORES if unknown >> place & 1 else _scores(model, answer)

    def _run_slice(
        self, active: Active, model: Model, rows: list[Row], views: list[View], deadline: float | None
    ) -> None:
        if not rows:
            return
        name = model.name
        began = time.monotonic()
        try:
            answers = self._watched((model,), len(rows), model.run, rows) if self.counters.watched else model.run(rows)
        except Exception as error:  # noqa: BLE001 - the model is foreign code
            # One row may be at fault: each runs alone, so that only that one goes without.
            _log.error("model %s failed on a batch of %d, which now runs one by one\n%s", name, len(rows), told(error))
            for view in views:
                self.score(active, (name,), view, deadline)
            return
        model.pace_of_row.took((time.monotonic() - began) / len(rows))
        for view, answer in zip(views, answers, strict=True):
            view.models[name] = _scores(model, answer)

    def _together(self, active: Active, names: Iterable[str], view: View, deadline: float | None) -> None:
        """Run as one what can be. What is left lacking after that runs alone."""
        known, dark, snapshot = view.models, active.dark, active.snapshot
        wanted = tuple([name for name in names if name not in known and name not in dark])
        if len(wanted) < 2:  # noqa: PLR2004 - one is not several
            return
        joints = snapshot.merged.get(wanted)
        if joints is None:
            self.merger.ask(snapshot, wanted)
            return
        for joint in joints:
            began = 0.0 if deadline is None else time.monotonic()
            if deadline is not None and began + joint.pace.longest >= deadline:
                joint.pace.refused()
                continue
            try:
                self._run_joint(joint, view)
            except Exception:  # noqa: BLE001 - the models are foreign code
                # Alone each tells whether the fault is its own.
                _log.debug("models %s failed together", ", ".join(wanted), exc_info=True)
            if began:
                joint.pace.took(time.monotonic() - began)

    def _run_joint(self, joint: Joint, view: View) -> None:
        values, unknown = joint.rows(view)
        models, score = joint.merged.models, joint.merged.score
        found = self._watched(models, 1, score, values) if self.counters.watched else score(values)
        if found is None:
            return
        known = view.models
        known.update(zip(joint.merged.names, found))  # noqa: B905 - equal by construction, and this is the hot path
        for place, name in enumerate(joint.merged.names if unknown else ()):
            if unknown >> place & 1:
                known[name] = _NO_SCORES

    def _watched(self, models: Sequence[Model], rows: int, run: Callable[[_Rows], _Answer], given: _Rows) -> _Answer:
        """What models make of `rows` rows, and what that took is counted."""
        began = time.perf_counter_ns()
        try:
            if self.counters.traced:
                named = ",".join(model.name for model in models)
                attributes: dict[str, str | int] = {"arbiter.model.name": named, "arbiter.model.rows": rows}
                return tracing.step("model.run", run, given, attributes=attributes)
            return run(given)
        finally:
            took = time.perf_counter_ns() - began
            for model in models:
                figures = self.counters.models[model.key]
                figures.runs += 1
                figures.rows += rows
                figures.time += took // len(models)

    def _failed(self, model: Model, view: View, error: Exception) -> None:
        """A model that fails must not fail the decision: its rules become unknown, and the answer says so."""
        _log.error("model %s, version %s, failed\n%s", *model.key, told(error))
        self.counters.models[model.key].failures += 1
        _lacks(view, model.name, Lack.FAILED)


def _lacks(view: View, name: str, lack: Lack) -> None:
    view.models[name] = _NO_SCORES
    view.failed = {**view.failed, name: lack}


def _scores(model: Model, answer: Sequence[Any]) -> Mapping[str, Any]:
    """The outputs by name; one without a value is missing."""
    if None in answer:
        named = zip(model.outputs, answer, strict=True)
        return {name: value for name, value in named if value is not None}
    return dict(zip(model.outputs, answer))  # noqa: B905 - equal by construction, and this is the hot path
