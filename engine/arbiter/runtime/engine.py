"""The engine: a store, a clock, and the one mutable reference to the current snapshot.

Law: the imperative shell around the pure core. A call reads the snapshot reference once and the profile once; it runs
models that walks ask for and puts their outputs into views. No gRPC here, no files.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.decision.explain import explain
from arbiter.decision.walk import Need, Walk
from arbiter.errors import CallerError
from arbiter.expr.evaluate import evaluate
from arbiter.expr.ops import Unknown
from arbiter.expr.view import View
from arbiter.profiles.features import FeatureSet
from arbiter.types import Decision, ExplainLevel, Request, Treatment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from arbiter.models.model import Model
    from arbiter.profiles.store import Profile, Store
    from arbiter.ruleset.compiled import Point
    from arbiter.snapshot import Snapshot

_log = logging.getLogger(__name__)
_NO_SCORES: Mapping[str, Any] = {}


def wall_clock() -> int:
    """Now, in µs since the epoch."""
    return time.time_ns() // 1000


class Described(msgspec.Struct, frozen=True):
    """What is known of a subject at one instant. A feature or segment without a value is None."""

    version: int
    attributes: dict[str, Any]
    features: dict[str, Any]
    segments: dict[str, bool | None]


class Engine:
    """Decides. `snapshot` is None until the first `activate`."""

    def __init__(self, store: Store, clock: Callable[[], int] = wall_clock) -> None:
        self.store = store
        self.clock = clock
        self.snapshot: Snapshot | None = None

    def activate(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the one that the next call sees; calls under way finish on theirs."""
        self.store.use_types(snapshot.ruleset.profile_types, snapshot.ruleset.event_types)
        self.store.use_features(FeatureSet(snapshot.ruleset.features))
        self.snapshot = snapshot

    def decide(self, request: Request, deadline: float | None = None) -> tuple[Decision, ...]:
        """One Decision per decision point asked, in order, from one profile read and one snapshot.

        `deadline` is in seconds of `time.monotonic`; a model that would start behind it counts as unable to answer.
        Raises NotFound for an unknown decision point.
        """
        snapshot = self._current()
        points = [snapshot.point(name) for name in request.decisions]
        profile = self.store.read(request.subject_id, request.now)
        return self._page(snapshot, points, request, profile, deadline)

    def decide_batch(
        self, requests: Sequence[Request], deadline: float | None = None
    ) -> list[tuple[Decision, ...] | CallerError]:
        """The answer to each request, in order, all on one snapshot; models run once for all walks that wait for
        them.
        """
        snapshot = self._current()
        answers: list[tuple[Decision, ...] | CallerError | None] = [None] * len(requests)
        alone: list[tuple[int, Walk, View, Request]] = []
        for number, request in enumerate(requests):
            try:
                points = [snapshot.point(name) for name in request.decisions]
                profile = self.store.read(request.subject_id, request.now)
                if len(points) == 1 and not request.explain:
                    view = View(profile.attributes, request.context, profile.features, request.now)
                    walk = Walk(
                        points[0], view, request.subject_id, request.slots, (), profile.next_change_at, profile.changes
                    )
                    alone.append((number, walk, view, request))
                else:
                    answers[number] = self._page(snapshot, points, request, profile, deadline)
            except CallerError as error:
                answers[number] = error
        self._advance_together(snapshot, alone, answers, deadline)
        return [a for a in answers if a is not None]

    def describe(self, subject_id: str, now: int) -> Described:
        """Attributes, features and segments of a subject as decisions would see them at `now` (µs)."""
        snapshot = self._current()
        profile = self.store.read(subject_id, now)
        view = View(profile.attributes, {}, profile.features, now)
        features = {name: _feature(view, snapshot, name) for name in snapshot.symbols.features}
        for model in snapshot.models:
            self._score(snapshot, (model,), view, None)
        segments = {name: _segment(view, snapshot, name) for name in snapshot.symbols.segments}
        return Described(profile.version, profile.attributes, features, segments)

    def _current(self) -> Snapshot:
        if self.snapshot is None:
            raise RuntimeError("no snapshot is active yet")
        return self.snapshot

    def _page(
        self, snapshot: Snapshot, points: Iterable[Point], request: Request, profile: Profile, deadline: float | None
    ) -> tuple[Decision, ...]:
        view = View(profile.attributes, request.context, profile.features, request.now)
        delivered: list[Treatment] = []
        page: list[Decision] = []
        for point in points:
            walk = Walk(
                point, view, request.subject_id, request.slots, delivered, profile.next_change_at, profile.changes
            )
            outcome = walk.advance()
            while isinstance(outcome, Need):
                self._score(snapshot, outcome.models, view, deadline)
                outcome = walk.advance()
            decision: Decision = outcome
            if request.explain:
                decision = self._explained(snapshot, point, decision, request, view, profile, delivered, deadline)
            if view.failed:
                decision = msgspec.structs.replace(decision, degraded=tuple(sorted(view.failed)))
            page.append(decision)
            delivered += decision.treatments
        return tuple(page)

    def _explained(
        self,
        snapshot: Snapshot,
        point: Point,
        decision: Decision,
        request: Request,
        view: View,
        profile: Profile,
        delivered: Iterable[Treatment],
        deadline: float | None,
    ) -> Decision:
        if request.explain is not ExplainLevel.WINNERS:
            lacking = tuple(m for m in point.models if m not in view.models)
            self._score(snapshot, lacking, view, deadline)
        outcomes = explain(
            point,
            view,
            request.subject_id,
            request.slots,
            delivered,
            profile.changes,
            request.explain,
            request.explain_rules,
        )
        return msgspec.structs.replace(decision, explanation=outcomes)

    def _advance_together(
        self,
        snapshot: Snapshot,
        walks: list[tuple[int, Walk, View, Request]],
        answers: list[tuple[Decision, ...] | CallerError | None],
        deadline: float | None,
    ) -> None:
        """Advance all walks; run each model once for every walk that waits for it; again until none waits."""
        while walks:
            waiting: dict[str, list[View]] = {}
            stopped = []
            for item in walks:
                number, walk, view, _ = item
                outcome = walk.advance()
                if isinstance(outcome, Need):
                    stopped.append(item)
                    for model in outcome.models:
                        waiting.setdefault(model, []).append(view)
                    continue
                decision: Decision = outcome
                if view.failed:
                    decision = msgspec.structs.replace(decision, degraded=tuple(sorted(view.failed)))
                answers[number] = (decision,)
            for model, views in waiting.items():
                self._score_many(snapshot, model, views, deadline)
            walks = stopped

    def _score(self, snapshot: Snapshot, models: Iterable[str], view: View, deadline: float | None) -> None:
        """Put the outputs of `models` into the view; a model that cannot answer leaves no outputs."""
        for name in models:
            if deadline is not None and time.monotonic() >= deadline:
                view.models[name] = _NO_SCORES
                view.failed = {*view.failed, name}
                continue
            row = snapshot.rows[name](view)
            if row is None:
                view.models[name] = _NO_SCORES
                continue
            try:
                model = snapshot.models[name]
                view.models[name] = _scores(model, model.run_one(row))
            except Exception:  # noqa: BLE001 - the model is foreign code
                # A model that fails must not fail the decision: its rules become unknown, and the answer says so.
                _log.exception("model %s failed", name)
                view.models[name] = _NO_SCORES
                view.failed = {*view.failed, name}

    def _score_many(self, snapshot: Snapshot, name: str, views: list[View], deadline: float | None) -> None:
        rows = [(view, snapshot.rows[name](view)) for view in views]
        known = [(view, row) for view, row in rows if row is not None]
        for view, row in rows:
            if row is None:
                view.models[name] = _NO_SCORES
        if not known:
            return
        late = deadline is not None and time.monotonic() >= deadline
        try:
            model = snapshot.models[name]
            outputs = [] if late else [_scores(model, answer) for answer in model.run([row for _, row in known])]
        except Exception:  # noqa: BLE001 - the model is foreign code
            _log.exception("model %s failed", name)
            outputs = []
        for place, (view, _) in enumerate(known):
            if outputs:
                view.models[name] = outputs[place]
            else:
                view.models[name] = _NO_SCORES
                view.failed = {*view.failed, name}


def _scores(model: Model, answer: Iterable[Any]) -> dict[str, Any]:
    """The outputs by name; one without a value is missing."""
    return {name: value for name, value in zip(model.outputs, answer, strict=True) if value is not None}


def _feature(view: View, snapshot: Snapshot, name: str) -> Any:
    feature = snapshot.symbols.features[name]
    value = view.features.get(feature.key)
    return (view.clock - value) / feature.unit if feature.unit and value is not None else value


def _segment(view: View, snapshot: Snapshot, name: str) -> bool | None:
    try:
        return bool(evaluate(snapshot.symbols.segment(name), view, snapshot.symbols))
    except Unknown:
        return None
