"""How each feature of a set is stored and read, those that are made of others among them.

Law: definitions in, `FeatureRead`s and `Ratio`s out; computes no feature from events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.reads import FeatureRead, quotient

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.ruleset.rules import Feature


class Ratio(msgspec.Struct, frozen=True):
    """How a ratio is made of what is stored of its two features. One that time alone changes is left to be read."""

    key: str
    parts: tuple[str, ...]
    read: FeatureRead

    def stored(self, values: Mapping[str, Any]) -> Any:
        """What is to be stored of it, given what is of its features, by key; None when it is missing."""
        pair = [values.get(part) for part in self.parts]
        if None in pair:
            return None
        return pair if self.read.of else quotient(*pair)


def reads_of(features: Iterable[Feature]) -> dict[str, FeatureRead]:
    """How each feature is read, by key. The features that a ratio names are among them."""
    features = list(features)
    reads = {feature.key: _read(feature) for feature in features if feature.aggregate != "ratio"}
    for feature in features:
        if feature.aggregate == "ratio":
            of = tuple(reads[part] for part in feature.parts)
            reads[feature.key] = FeatureRead(feature.key, of=of if any(read.moves for read in of) else ())
    return reads


def reads_by_name(features: Iterable[Feature]) -> dict[str, FeatureRead]:
    """How each feature is read, by name."""
    features = list(features)
    reads = reads_of(features)
    return {feature.name: reads[feature.key] for feature in features}


def ratios_of(features: Iterable[Feature]) -> list[Ratio]:
    """The ratios among features, each once."""
    features = list(features)
    reads = reads_of(features)
    found = {feature.key: feature.parts for feature in features if feature.aggregate == "ratio"}
    return [Ratio(key, parts, reads[key]) for key, parts in found.items()]


def _read(feature: Feature) -> FeatureRead:
    unit = feature.unit if feature.aggregate == "since" else 0
    return FeatureRead(feature.key, unit=unit, half_life=feature.half_life)
