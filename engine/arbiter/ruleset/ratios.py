"""The two features of a ratio.

Law: reads names against the features that were read before, and reports what cannot be divided. It computes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.authoring.blocks import one_of
from arbiter.authoring.nodes import Scalar, Sequence, kind_of
from arbiter.authoring.scalars import shorten
from arbiter.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from arbiter.authoring.blocks import Block
    from arbiter.authoring.nodes import Node
    from arbiter.ruleset.rules import Feature

NUMBERS: Final = frozenset({"int", "double", "dyn"})
_FORM: Final = "write `[purchases_30d, visits_30d]`, say"
_OF_EVENTS: Final = ("window", "where", "unit", "half_life")
_TWO: Final = 2


class RatioReader:
    """Reads ratios of the features in `known`, where None is one that was refused; `ratios` are names of others.

    `whole` says that these are all that there are.
    """

    def __init__(self, known: Mapping[str, Feature | None], ratios: Collection[str], *, whole: bool) -> None:
        self._known = known
        self._ratios = ratios
        self._whole = whole

    def read(self, block: Block) -> tuple[Feature, ...]:
        """The dividend and the divisor; empty when the ratio was refused."""
        for key in filter(block.has, _OF_EVENTS):
            message = f"`{key}` is for features of events, and a ratio is of two features"
            block.refuse(block.key(key), message, "say it of these two", key)
        node = block.get("ratio")
        if node is None:
            return ()
        items = [item for item in node.items if item is not None] if isinstance(node, Sequence) else []
        if len(items) != _TWO:
            shown = f"this has {len(items)}" if isinstance(node, Sequence) else f"this is {kind_of(node)}"
            block.refuse(node, f"`ratio` takes the names of two features, {shown}", _FORM, "ratio")
            return ()
        parts = [self._part(block, item) for item in items]
        return tuple(part for part in parts if part is not None) if None not in parts else ()

    def _part(self, block: Block, node: Node) -> Feature | None:
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            block.refuse(node, f"`ratio` takes the names of two features, this is {kind_of(node)}", _FORM, "ratio")
            return None
        name = node.text
        if name in self._ratios:
            message = f"`{name}` is a ratio itself, and a ratio is of features that are not"
            block.refuse(node, message, "divide in the expression that reads it", "ratio")
            return None
        if name not in self._known:
            bare = name.removeprefix("features.")
            near = did_you_mean(bare, self._known) or f"features are {one_of(sorted(self._known)[:8])}"
            hint = f"write `{bare}`" if bare in self._known else near
            if self._whole:
                block.refuse(node, f"unknown feature `{shorten(name)}`", hint, "ratio")
            return None
        feature = self._known[name]
        if feature is not None and feature.type not in NUMBERS:
            block.refuse(node, f"a ratio is of numbers, `{name}` is declared as {feature.type}", key="ratio")
            return None
        return feature
