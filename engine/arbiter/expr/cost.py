"""What a tree may cost: how deep its macros stand, what one round of one weighs, and whether it must be metered.

Law: looks at trees, never at values; the numbers themselves are in `limits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.expr.functions import COSTLY, NATIVE
from arbiter.expr.syntax import children, walk
from arbiter.expr.tree import AnyNode, Call, Fold, Name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.expr.view import Symbols

# Operators that are no functions, and evaluate what they need of their sides.
CONTROL = frozenset({"_&&_", "_||_", "!_", "_?_:_", "has"})


def weight_of(fold: Fold) -> int:
    """The nodes that one round of a macro evaluates, at most."""
    return len(walk(fold.body)) + (len(walk(fold.where)) if fold.where is not None else 0)


def metered(node: AnyNode, symbols: Symbols) -> bool:
    """Whether evaluating the tree can take long: it runs over a list, or asks cel-cpp, itself or in a segment."""
    pending, seen = [node], set[str]()
    while pending:
        for each in walk(pending.pop()):
            match each:
                case Fold():
                    return True
                case Call(function=function) if function in COSTLY or function not in NATIVE.keys() | CONTROL:
                    return True
                case Name(path=("segments", name)) if name not in seen:
                    seen.add(name)
                    pending.append(symbols.segment(name))
    return False


def nested_macros(node: AnyNode, around: int = 0) -> Iterator[tuple[int, Fold]]:
    """Every macro of the tree with how many stand around it in whose bodies it is, counting itself."""
    if isinstance(node, Fold):
        yield around + 1, node
        yield from nested_macros(node.over, around)
        for inner in (node.where, node.body):
            if inner is not None:
                yield from nested_macros(inner, around + 1)
        return
    for child in children(node):
        yield from nested_macros(child, around)
