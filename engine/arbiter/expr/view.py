"""What an expression sees of the world while it is evaluated.

Law: a bag of dictionaries and a clock; absent keys are missing names. Whoever builds a view decides what is visible
(consent, say); nothing behind it fetches anything, except that a segment's value is computed from its tree on demand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.limits import ALLOWANCE
from arbiter.expr.reads import FeatureRead  # noqa: TC001 - msgspec reads the annotations
from arbiter.expr.shaped import Shaped
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from arbiter.expr.tree import AnyNode
    from arbiter.types import Lack


class Symbols(msgspec.Struct, frozen=True):
    """What names stand for within one snapshot: features by name, the trees of segments by name, and what each model
    reads. `personal` are the dotted names whose values explanations withhold; `experiments` has by name the trees that
    are read to say who is in it.
    """

    features: dict[str, FeatureRead] = {}
    segments: dict[str, Any] = {}
    model_inputs: dict[str, tuple[tuple[str, ...], ...]] = {}
    personal: frozenset[str] = frozenset()
    experiments: dict[str, tuple[Any, ...]] = {}

    def segment(self, name: str) -> AnyNode:
        """The condition's tree of a declared segment."""
        node: AnyNode = self.segments[name]
        return node


class Visibility(msgspec.Struct, frozen=True, kw_only=True):
    """What a subject's consent leaves to be seen. `granted` are the declared purposes that it granted; `denied` has for
    each dotted name that is hidden (``profile.X``, ``account.X``, ``context.X``, ``features.X``, ``models.M``) the
    purposes that it lacks. What is hidden: attributes of `profile`, `account` and `context`, all of an account where
    not even that is to be seen which it is (`no_account`), `features` by key, and `models`, with what stands for their
    outputs.
    """

    granted: frozenset[str] = frozenset()
    denied: dict[str, tuple[str, ...]] = {}
    profile: tuple[str, ...] = ()
    account: tuple[str, ...] = ()
    no_account: bool = False
    context: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    models: dict[str, Any] = {}


NOTHING_GRANTED = Visibility()
"""Where no purposes are declared, and of a view that nobody covered: no rule that needs consent is eligible."""


# Up to here every int is a double, so that Python's exact comparison of the two is also cel-cpp's.
EXACT = 2**52
_NONE: Mapping[str, Lack] = {}
_NOTHING: Mapping[str, Any] = {}


class Outside:
    """What the experiments are for who is in none."""

    __slots__ = ()

    def of(self, _name: str, _view: View) -> str:
        """What ``experiments.NAME`` is."""
        return ""


_OUTSIDE = Outside()


class View:
    """One subject at one instant. `features` is keyed by feature key, `models` by model name, then output; `clock` is
    in µs.

    `consent` says what was taken out for lack of consent; it is set by who takes it out. `failed` names the models that
    gave nothing, and why. `experiments` says what the experiments are for the subject, when they are read. `managed`
    has the managed segments that the subject is in, by name. `events` are the properties of the events to which a
    trigger's steps are bound, by label. `draws` draws one of the rules of a group, where a group has one drawn, see
    `decision.lots`. `allowance` is how many steps costly expressions may still take.
    """

    __slots__ = (
        "account", "allowance", "clock", "consent", "context", "draws", "events", "experiments", "failed",
        "features", "managed", "models", "profile",
    )  # fmt: skip

    def __init__(
        self,
        profile: Mapping[str, Any],
        context: Mapping[str, Any],
        features: Mapping[str, Any],
        clock: int,
        account: Mapping[str, Any] = _NOTHING,
    ) -> None:
        self.profile = profile
        self.account = account
        self.context = context
        self.features = features
        self.clock = clock
        self.models: dict[str, Mapping[str, Any]] = {}
        self.consent = NOTHING_GRANTED
        self.experiments: Any = _OUTSIDE
        self.failed: Mapping[str, Lack] = _NONE
        self.managed: Mapping[str, Any] = _NOTHING
        self.events: Mapping[str, Mapping[str, Any]] = _NOTHING
        self.draws: Any = None
        self.allowance = ALLOWANCE

    def unfold(self) -> None:
        """Make dictionaries of what has its names apart: it pays from some twenty values asked for one by one."""
        if isinstance(self.profile, Shaped):
            self.profile = self.profile.plain()
        if isinstance(self.account, Shaped):
            self.account = self.account.plain()
        if isinstance(self.features, Shaped):
            self.features = self.features.plain()

    def elsewhere(self, experiments: Any) -> View:
        """The same subject where the experiments are what these say. Models that ran for one ran for both."""
        other = View(self.profile, self.context, self.features, self.clock, self.account)
        other.models = self.models
        other.consent = self.consent
        other.managed = self.managed
        other.experiments = experiments
        other.draws = self.draws
        return other


class Occasion(msgspec.Struct, frozen=True, gc=False):
    """What the condition of a trigger's step sees: the properties of an event, and of those before it by label."""

    event: Mapping[str, Any]
    events: Mapping[str, Mapping[str, Any]]


def now(view: View) -> datetime:
    """The view's clock as expressions see it."""
    return from_micros(view.clock)
