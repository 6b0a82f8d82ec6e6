"""The engine: a store, a clock, and the one mutable reference to the current snapshot.

Law: the imperative shell around the pure core. A call reads the snapshot reference once and the profile once; it runs
models that walks ask for and puts their outputs into views. No gRPC here, no files.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import msgspec

from arbiter.decision.explain import explain
from arbiter.decision.exposure import exposed, standings
from arbiter.decision.walk import Need, Walk
from arbiter.errors import CallerError, NotReady
from arbiter.expr import zones
from arbiter.expr.view import View
from arbiter.models.seen import seen
from arbiter.runtime.active import Active, Candidate, active_of, sooner, switched
from arbiter.runtime.bandits import Bandits
from arbiter.runtime.declared import keep_to
from arbiter.runtime.described import Described, described
from arbiter.runtime.scoring import Scorer
from arbiter.runtime.views import view_of
from arbiter.snapshot import finished
from arbiter.telemetry import tracing
from arbiter.telemetry.counters import Counters
from arbiter.types import Decision, Degradation, ExplainLevel, Request, Treatment

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from arbiter.profiles.features import FeatureSet
    from arbiter.profiles.store import Profile, Store
    from arbiter.ruleset.compiled import Point
    from arbiter.serving import Override
    from arbiter.snapshot import Snapshot

# Decisions of a batch between which other calls may go.
STEP = 32
# A decision of a batch: its place, its walk, what that sees, and what it needs before it goes on.
_Waiting = tuple[int, Walk, View, Need]
# What a decision saw, and what is stored of its subject.
Seen = tuple[View, "Profile"]
# A decision for who follows what is decided: its number, what was asked, what came of it, what it was read from, and
# what it saw; where it is one of a page, the number of the first of that, and its place.
Noted = tuple[str, Request, Decision, Active, Seen, str, int]


def wall_clock() -> int:
    """Now, in µs since the epoch."""
    return time.time_ns() // 1000


class Engine:
    """Decides. Nothing can be decided before the first `activate`."""

    def __init__(self, store: Store, clock: Callable[[], int] = wall_clock, counters: Counters | None = None) -> None:
        self.store = store
        self.clock = clock
        self.counters = counters or Counters()
        self.scorer = Scorer(self.counters)
        self.bandits = Bandits(store.learned)
        # Who wants to see the next request and what decides it, once.
        self.look: Callable[[Request, Active], None] | None = None
        self._active: Active | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot that the next call sees."""
        return self._active.snapshot if self._active else None

    @property
    def snapshots(self) -> dict[str, Snapshot]:
        """All that decide, by digest: the snapshot, and the canary beside it."""
        active = self._active
        if active is None:
            return {}
        found = [active.snapshot] if active.beside is None else [active.snapshot, active.beside[0].snapshot]
        return {snapshot.digest: snapshot for snapshot in found}

    def activate(
        self, snapshot: Snapshot, candidate: Candidate | None = None, overrides: Iterable[Override] = ()
    ) -> None:
        """Make this what the next call sees; calls under way finish on theirs.

        With a candidate, writes maintain the features of both, and are checked by what `snapshot` declares.
        """
        for running in self.snapshots.values():
            for fresh in (snapshot, *(() if candidate is None else (candidate.snapshot,))):
                self.scorer.merger.prepare(fresh, running)
        features = keep_to(self.store, snapshot.frame, None if candidate is None else candidate.snapshot.frame)
        zones.read_all()
        active = switched(active_of(snapshot, features, self.bandits), overrides)
        if candidate is not None:
            other = switched(active_of(candidate.snapshot, features, self.bandits), overrides)
            other = msgspec.structs.replace(other, canary=True)
            active = msgspec.structs.replace(active, beside=(candidate, other), split=True)
        self._active = active

    def current(self) -> Active:
        """What the next call would read; `of` gives a subject's. Pass it to a call to know what the answer was made of.

        Raises NotReady.
        """
        active = self._active
        if active is None:
            raise NotReady("no snapshot is loaded yet: try again when the health service says SERVING")
        return active

    def decide(
        self,
        request: Request,
        deadline: float | None = None,
        active: Active | None = None,
        seen: list[Seen] | None = None,
    ) -> tuple[Decision, ...]:
        """One Decision per decision point asked, in order, from one profile read and one snapshot: the subject's.

        `deadline` is in seconds of `time.monotonic`; a model that would start behind it counts as unable to answer.
        What was seen is added to `seen`.
        Raises NotFound for an unknown decision point, NotReady before the first snapshot.
        """
        active = active or self.current()
        if active.split:
            active = active.of(request.subject_id)
        if self.look is not None:
            look, self.look = self.look, None
            if look is not None:  # another thread may have been quicker
                look(request, active)
        snapshot = active.snapshot
        asked = request.decisions
        # Before the profile is read: a wrong name costs nothing.
        first = snapshot.point(asked[0])
        points = [first, *map(snapshot.point, asked[1:])] if len(asked) > 1 else ()
        apart = first.apart or (points and any(point.apart for point in points))
        accounts = apart and any(point.accounts for point in (points or (first,)))
        read: Callable[[str, int, FeatureSet], Profile] = self.store.read_member if accounts else self.store.read
        if self.counters.traced:
            profile = tracing.step("store.read", read, request.subject_id, request.now, active.features)
        else:
            profile = read(request.subject_id, request.now, active.features)
        if apart or not active.plain or profile.managed:
            view = view_of(profile, request, active)
        else:
            # All that `view_of` does then, written out: a call costs as much as making the view.
            view = View(profile.attributes, request.context, profile.features, request.now)
        if seen is not None:
            seen.append((view, profile))
        if points:
            return self._page(active, points, request, profile, view, deadline)
        return (self._decide(active, first, request, profile, view, (), deadline),)

    def decide_on(
        self, profile: Profile, request: Request, active: Active, seen: list[Seen] | None = None
    ) -> tuple[Decision, ...]:
        """As `decide`, on a profile that was read, beside its account, and on what the subject gets. Raises NotFound.

        For who decides inside a transaction of its own.
        """
        points = [active.snapshot.point(name) for name in request.decisions]
        view = view_of(profile, request, active)
        if seen is not None:
            seen.append((view, profile))
        return self._page(active, points, request, profile, view, None)

    def decide_batch(
        self, requests: Sequence[Request], deadline: float | None = None, active: Active | None = None
    ) -> list[tuple[Decision, ...] | CallerError]:
        """The answer to each request, in order, on one state of the store; each subject's by its snapshot.

        A model runs once for all walks that wait for it. Raises NotReady before the first snapshot.
        """
        return finished(self.deciding(requests, deadline, active))

    def deciding(
        self,
        requests: Sequence[Request],
        deadline: float | None = None,
        active: Active | None = None,
        seen: list[Seen] | None = None,
    ) -> Generator[None, None, list[tuple[Decision, ...] | CallerError]]:
        """`decide_batch` in steps of some 32 decisions, for who has other calls to answer in between.

        What was seen of each request that has an answer is added to `seen`.
        """
        active = active or self.current()
        answers: dict[int, tuple[Decision, ...] | CallerError] = {}
        waiting: dict[int, tuple[Active, list[_Waiting]]] = {}
        with self.store.reading(active.features) as read:
            for number, request in enumerate(requests):
                own = active.of(request.subject_id)
                try:
                    points = [own.snapshot.point(name) for name in request.decisions]
                except CallerError as error:
                    answers[number] = error.with_traceback(None)  # its frames would hold it
                    continue
                of = read.member if any(point.accounts for point in points) else read
                profile = of(request.subject_id, request.now)
                view = view_of(profile, request, own)
                if seen is not None:
                    seen.append((view, profile))
                if len(points) == 1 and not request.explain and not points[0].experiments:
                    until = profile.next_change_at if own.until is None else sooner(profile.next_change_at, own.until)
                    walk = Walk(points[0], view, request.subject_id, request.slots, (), until, profile.changes, own.off)
                    outcome = walk.advance()
                    if isinstance(outcome, Need):
                        waiting.setdefault(id(own), (own, []))[1].append((number, walk, view, outcome))
                    else:
                        answers[number] = (outcome,)
                else:
                    answers[number] = self._page(own, points, request, profile, view, deadline)
                if number % STEP == STEP - 1:
                    yield
        for own, walks in waiting.values():
            yield from self._advance_together(own, walks, answers, deadline)
        return [answers[number] for number in range(len(requests))]

    def view(self, request: Request, active: Active, models: Sequence[str]) -> tuple[View, Profile]:
        """What a decision sees of the request's subject, with the outputs of these models. Raises StoreError."""
        profile = self.store.read_member(request.subject_id, request.now, active.features)
        view = view_of(profile, request, active)
        self.scorer.score(active, models, view, None)
        return view, profile

    def explained(self, request: Request, decision: Decision, active: Active, seen: Seen) -> Decision:
        """A decision that was made, with what became of the rules, as the request asks; from what it saw, now."""
        view, profile = seen
        return self._explained(
            active, active.snapshot.point(decision.point), decision, request, view, profile, (), None
        )

    def describe(self, subject_id: str, now: int, active: Active | None = None) -> Described:
        """Attributes, features and segments of a subject as decisions would see them at `now` (µs). Raises NotReady."""
        active = (active or self.current()).of(subject_id)
        profile = self.store.read_member(subject_id, now, active.features)
        view = view_of(profile, Request(subject_id, (), now), active)
        self.scorer.score(active, sorted(active.snapshot.models), view, None)
        found, rebuilding = described(profile, view, active.snapshot), self.store.rebuilding
        return found if rebuilding is None else msgspec.structs.replace(found, rebuilding=rebuilding.features)

    def _page(
        self,
        active: Active,
        points: Iterable[Point],
        request: Request,
        profile: Profile,
        view: View,
        deadline: float | None,
    ) -> tuple[Decision, ...]:
        delivered: list[Treatment] = []
        page: list[Decision] = []
        for point in points:
            decision = self._decide(active, point, request, profile, view, tuple(delivered), deadline)
            page.append(decision)
            delivered += decision.treatments
        return tuple(page)

    def _decide(
        self,
        active: Active,
        point: Point,
        request: Request,
        profile: Profile,
        view: View,
        delivered: tuple[Treatment, ...],
        deadline: float | None,
    ) -> Decision:
        horizon = profile.next_change_at if active.until is None else sooner(profile.next_change_at, active.until)
        walk = Walk(point, view, request.subject_id, request.slots, delivered, horizon, profile.changes, active.off)
        outcome = walk.advance()
        while outcome.__class__ is Need:
            self.scorer.score(active, outcome.models, view, deadline)
            outcome = walk.advance()
        decision: Decision = outcome  # type: ignore[assignment]  # the loop above leaves nothing else
        if point.experiments:
            decision = self._exposed(active, point, decision, request, view, profile, delivered, deadline)
        if request.explain:
            decision = self._explained(active, point, decision, request, view, profile, delivered, deadline)
        if view.failed:
            decision = _degraded(decision, view)
        return decision

    def _exposed(
        self,
        active: Active,
        point: Point,
        decision: Decision,
        request: Request,
        view: View,
        profile: Profile,
        delivered: tuple[Treatment, ...],
        deadline: float | None,
    ) -> Decision:
        def score(models: Sequence[str], other: View) -> None:
            self.scorer.score(active, models, other, deadline)

        subject = request.subject_id
        return exposed(decision, point, view, subject, request.slots, delivered, profile.changes, score, active.off)

    def _explained(
        self,
        active: Active,
        point: Point,
        decision: Decision,
        request: Request,
        view: View,
        profile: Profile,
        delivered: tuple[Treatment, ...],
        deadline: float | None,
    ) -> Decision:
        if request.explain is not ExplainLevel.WINNERS:
            self.scorer.score(active, point.models, view, deadline)
        outcomes = explain(
            point,
            view,
            request.subject_id,
            request.slots,
            delivered,
            profile.changes,
            request.explain,
            request.explain_rules,
            active.told,
        )
        snapshot = active.snapshot
        asked = tuple(seen(snapshot.models[m], view, snapshot.symbols) for m in point.models if m in view.models)
        return msgspec.structs.replace(
            decision, explanation=outcomes, models=asked, standings=standings(decision, point, view)
        )

    def _advance_together(
        self,
        active: Active,
        waiting: list[_Waiting],
        answers: dict[int, tuple[Decision, ...] | CallerError],
        deadline: float | None,
    ) -> Generator[None, None, None]:
        """Run each model once for every walk that waits for it, and advance them; again until none waits."""
        while waiting:
            asked = [(view, need.models) for _, _, view, need in waiting]
            yield from self.scorer.score_all(active, asked, deadline)
            advanced, waiting = waiting, []
            for place, (number, walk, view, _) in enumerate(advanced):
                if place % STEP == STEP - 1:
                    yield
                outcome = walk.advance()
                if isinstance(outcome, Need):
                    waiting.append((number, walk, view, outcome))
                elif view.failed:
                    answers[number] = (_degraded(outcome, view),)
                else:
                    answers[number] = (outcome,)


def _degraded(decision: Decision, view: View) -> Decision:
    degraded = tuple(sorted(itertools.starmap(Degradation, view.failed.items())))
    return msgspec.structs.replace(decision, degraded=degraded)
