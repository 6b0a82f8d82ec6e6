"""What the store keeps to while a snapshot runs: the types and the features that it declares.

Law: the one place that says so, since every process that writes must keep to the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.profiles.declared import declared_by
from arbiter.profiles.features import FeatureSet

if TYPE_CHECKING:
    from arbiter.profiles.store import Store
    from arbiter.ruleset.rules import Ruleset


def keep_to(store: Store, frame: Ruleset, beside: Ruleset | None = None) -> FeatureSet:
    """Let the store check by what a rule set declares, and maintain its features, and those of a canary `beside` it.

    Both read the union: a profile then holds what either needs, and is as fresh for one as for the other.
    """
    features = FeatureSet([*(beside.computed if beside is not None else ()), *frame.computed])
    store.use_declared(declared_by(frame))
    store.use_features(features)
    return features
