"""What an expression sees of the world while it is evaluated.

Law: a bag of dictionaries and a clock; absent keys are missing names. Whoever builds a view decides what is visible
(consent, say); nothing behind it fetches anything, except that a segment's value is computed from its tree on demand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.limits import ALLOWANCE
from arbiter.expr.reads import FeatureRead  # noqa: TC001 - msgspec reads the annotations
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from arbiter.expr.tree import AnyNode
    from arbiter.types import Lack


class Symbols(msgspec.Struct, frozen=True):
    """What names stand for within one snapshot: features by name, the trees of segments by name, and what each model
    reads. `personal` are the dotted names whose values explanations withhold.
    """

    features: dict[str, FeatureRead] = {}
    segments: dict[str, Any] = {}
    model_inputs: dict[str, tuple[tuple[str, ...], ...]] = {}
    personal: frozenset[str] = frozenset()

    def segment(self, name: str) -> AnyNode:
        """The condition's tree of a declared segment."""
        node: AnyNode = self.segments[name]
        return node


# Up to here every int is a double, so that Python's exact comparison of the two is also cel-cpp's.
EXACT = 2**52
_NONE: Mapping[str, Lack] = {}
_NO_ACCOUNT: Mapping[str, Any] = {}


class View:
    """One subject at one instant. `features` is keyed by feature key, `models` by model name, then output; `clock` is
    in µs.

    `failed` names the models that gave nothing, and why. `allowance` is how many
    steps costly expressions may still take.
    """

    __slots__ = ("account", "allowance", "clock", "context", "failed", "features", "models", "profile")

    def __init__(
        self,
        profile: Mapping[str, Any],
        context: Mapping[str, Any],
        features: Mapping[str, Any],
        clock: int,
        account: Mapping[str, Any] = _NO_ACCOUNT,
    ) -> None:
        self.profile = profile
        self.account = account
        self.context = context
        self.features = features
        self.clock = clock
        self.models: dict[str, Mapping[str, Any]] = {}
        self.failed: Mapping[str, Lack] = _NONE
        self.allowance = ALLOWANCE


def now(view: View) -> datetime:
    """The view's clock as expressions see it."""
    return from_micros(view.clock)
