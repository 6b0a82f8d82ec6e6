"""What a call reads once: the snapshot that decides, or the canary's for its subjects, and what is switched off.

Law: frozen data, made anew for every change and swapped by the engine. No store, no models, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping  # noqa: TC003 - fields' types at run time
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.decision.assignment import Assigners
from arbiter.decision.hashing import share
from arbiter.decision.wording import shown
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.decision.lots import Draws
    from arbiter.profiles.features import FeatureSet
    from arbiter.serving import Override
    from arbiter.snapshot import Snapshot


class Candidate(msgspec.Struct, frozen=True):
    """A snapshot that decides for a share of the subjects, see `decision.hashing`."""

    snapshot: Snapshot
    percent: float
    salt: str


class Active(msgspec.Struct, frozen=True):
    """What a call reads once: the snapshot, the features that go with it, and what is switched off.

    `off` are ids of rules, `dark` names of models; `told` says in words, by rule id, what explanations say of them, and
    `until` is when the first of them ends (µs since the epoch), None for never. `beside` is what the canary's subjects
    get in place of it, with the canary; the canary's own has none, and says so by `canary`. `doubles` are the names of
    the context that are declared so; the defaults stand for absent attributes, by name. `split` says that not all
    subjects get the same; `experiments` say who is in which, None where none are declared; `plain` says that a view is
    no more than a profile, a context and a clock where a decision point needs no more. `variants` has what those get on
    whom versions of models are tried, by the names of these. `draws` gives what groups are drawn by, None where none is
    a bandit.
    """

    snapshot: Snapshot
    features: FeatureSet
    off: frozenset[str] = frozenset()
    dark: frozenset[str] = frozenset()
    told: Mapping[str, str] = {}
    until: int | None = None
    beside: tuple[Candidate, Active] | None = None
    canary: bool = False
    split: bool = False
    variants: dict[tuple[str, ...], Active] = {}
    doubles: tuple[str, ...] = ()
    profile_defaults: Mapping[str, Any] = {}
    account_defaults: Mapping[str, Any] = {}
    experiments: Assigners | None = None
    plain: bool = False
    draws: Callable[[], Draws] | None = None

    def of(self, subject_id: str) -> Active:
        """What this subject gets: always the same, as long as the canary, and the versions that are tried, are."""
        active = self
        if self.beside is not None:
            candidate, other = self.beside
            if share(candidate.salt, subject_id) * 100 < candidate.percent:
                active = other
        trials = active.snapshot.trials
        if not trials:
            return active
        names = tuple([name for name, trial in trials.items() if share(trial.salt, subject_id) < trial.share])
        return active.trying(names) if names else active

    def trying(self, names: tuple[str, ...]) -> Active:
        """The same with the versions of these models that are tried."""
        found = self.variants.get(names)
        if found is None:
            made = msgspec.structs.replace(self, snapshot=self.snapshot.tried(names), beside=None, variants={})
            found = self.variants.setdefault(names, made)
        return found


def active_of(snapshot: Snapshot, features: FeatureSet, draws: Callable[[], Draws] | None = None) -> Active:
    """What a call reads of a snapshot, with nothing switched off. `draws` is for where groups are bandits."""
    frame = snapshot.frame
    doubles = tuple(name for name, kind in frame.context_types.items() if kind == "double")
    defaults = frame.defaults_of("profile")
    experiments = Assigners(frame.experiments, snapshot.symbols) if frame.experiments.each else None
    return Active(
        snapshot,
        features,
        split=bool(snapshot.trials),
        doubles=doubles,
        profile_defaults=defaults,
        account_defaults=frame.defaults_of("account"),
        experiments=experiments,
        plain=not (doubles or defaults or snapshot.consent is not None),
        draws=draws if frame.bandits else None,
    )


def sooner(horizon: int | None, until: int) -> int:
    """The earlier of a moment that may be none and one that is there."""
    return until if horizon is None else min(horizon, until)


def switched(active: Active, overrides: Iterable[Override]) -> Active:
    """The same with these rules and models switched off."""
    overrides = tuple(overrides)
    rules = [each for each in overrides if each.kind == "rule"]
    splits = {each.name: _told(each) for each in overrides if each.kind == "experiment"}
    experiments = active.experiments
    if experiments is not None:
        experiments = Assigners(active.snapshot.frame.experiments, active.snapshot.symbols, splits)
    return msgspec.structs.replace(
        active,
        off=frozenset(each.name for each in rules),
        dark=frozenset(each.name for each in overrides if each.kind == "model"),
        told={each.name: _told(each) for each in rules},
        experiments=experiments,
        until=min((each.until for each in overrides), default=None),
    )


def _told(override: Override) -> str:
    because = f": {override.reason}" if override.reason else ""
    return f"switched off until {shown(from_micros(override.until))}{because}"
