"""Segments: named conditions, which may use each other but not in a circle.

Law: reads ``segments`` into `Segment`s and finds circles and too deep nesting among them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from arbiter.authoring.nodes import Scalar, kind_of
from arbiter.expr.syntax import walk
from arbiter.expr.tree import Call, Expression, Name
from arbiter.ruleset.rules import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arbiter.authoring.nodes import Entry
    from arbiter.authoring.report import Report
    from arbiter.expr.tree import AnyNode
    from arbiter.ruleset.expressions import Expressions

MANAGED: Final = "managed"
"""Stands for a condition where triggers and callers say who is in a segment."""


def managed_segment(name: str, position: str) -> Segment:
    """A segment that one is in exactly when one's profile holds its name, so never unknown."""
    held = ("managed", name)
    condition = Expression(MANAGED, Call("has", (Name(held, "bool"),)), "bool", position, (held,))
    return Segment(name, condition, position, managed=True)


def is_managed(condition: AnyNode) -> bool:
    """Whether a segment with this condition is managed."""
    match condition:
        case Call(function="has", args=(Name(path=("managed", _)),)):
            return True
    return False


def read_segment(name: str, entry: Entry, report: Report, expressions: Expressions) -> Segment | None:
    """One segment; None when it was refused."""
    path = f"segments.{name}"
    node = entry.node
    if node is None:
        return None
    position = entry.key.source.position(entry.key.start)
    if isinstance(node, Scalar) and node.text == MANAGED:
        return managed_segment(name, position)
    if not isinstance(node, Scalar):
        report.at(node, f"a segment is one condition, this is {kind_of(node)}", "join conditions with `&&`", path)
        return None
    said = expressions.read(node, "a segment", path, expect="bool")
    return Segment(name, said, position) if said is not None else None


# Deeper sets are slow to explain, and people lose their way in them long before.
MAX_DEPTH = 16
# Segments that name others several times double with each level.
MAX_SIZE = 5_000
_TOLD = 10  # of a circle's members


def report_nesting(segments: Iterable[Segment], entries: Mapping[str, Entry], report: Report) -> None:
    """Report each circle of segments once, at the member that comes first by name, and segments that are nested too
    deeply or come to too much with those that they name.
    """
    named = {s.name: _named(s) for s in segments}
    uses = {name: sorted(others) for name, (_, others) in named.items()}
    depths: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for start in sorted(uses):
        # Depth first with a stack of our own: chains of segments may be longer than Python's.
        trail: dict[str, None] = {}
        stack = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                trail.popitem()
                depths[name] = 1 + max((depths.get(used, 0) for used in uses[name]), default=0)
                if depths[name] == MAX_DEPTH + 1:
                    _report_depth(name, entries, report)
                own, others = named[name]
                sizes[name] = own + sum(times * sizes.get(used, 0) for used, times in others.items())
                if sizes[name] > MAX_SIZE:
                    _report_size(name, sizes[name], entries, report)
                    sizes[name] = 0  # once is enough: what names it is not at fault
            elif name in trail:
                names = list(trail)
                _report_circle(names[names.index(name) :], entries, report)
            elif name not in depths and name in uses:
                trail[name] = None
                stack.append((name, True))
                stack.extend((used, False) for used in reversed(uses[name]))


def _named(segment: Segment) -> tuple[int, Counter[str]]:
    """How many nodes a segment's condition has, and how often it names each other segment."""
    nodes = walk(segment.condition.root)
    return len(nodes), Counter(n.path[1] for n in nodes if isinstance(n, Name) and n.path[0] == "segments")


def _report_size(name: str, size: int, entries: Mapping[str, Entry], report: Report) -> None:
    message = (
        f"segment `{name}` comes to {size:,} operators and values with the segments that it names, each time that it "
        f"names them; at most {MAX_SIZE:,} are allowed"
    )
    report.at(entries[name].key, message, "name each of them once", f"segments.{name}")


def _report_depth(name: str, entries: Mapping[str, Entry], report: Report) -> None:
    message = f"segment `{name}` rests on {MAX_DEPTH} levels of other segments, one more than is allowed"
    report.at(entries[name].key, message, "write out some of the levels", f"segments.{name}")


def _report_circle(circle: list[str], entries: Mapping[str, Entry], report: Report) -> None:
    first = circle.index(min(circle))
    names = [*circle[first:], *circle[:first], circle[first]]
    told = [f"`{name}`" for name in names]
    shown = " → ".join([*told[:_TOLD], "…", told[-1]] if len(told) > 2 * _TOLD else told)
    key = entries[names[0]].key
    report.at(key, f"segments go in a circle: {shown}", "one of them must do without the next", f"segments.{names[0]}")
