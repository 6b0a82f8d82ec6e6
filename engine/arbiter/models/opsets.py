"""Which versions of the operators a graph may be read by.

Law: a graph in, ranges out. An operator means the same from the version that last changed it to the one before the next
change, by onnx's own table; a graph means the same under every version at which all of its operators do.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from onnx.defs import get_all_schemas_with_history

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnx import ModelProto

_NEWEST = 1 << 30


class Opset(NamedTuple):
    """The versions of one domain of operators, both ends included."""

    domain: str
    first: int
    last: int


def opsets_of(model: ModelProto) -> tuple[Opset, ...]:
    """The range of each domain that the model's nodes use, by domain. An unknown operator is held to its version."""
    versions = {_domain(each.domain): each.version for each in model.opset_import}
    found: dict[str, Opset] = {}
    for node in model.graph.node:
        domain = _domain(node.domain)
        version = versions.get(domain, 1)
        own = Opset(domain, *_range(domain, node.op_type, version))
        found[domain] = _both(found.get(domain, own), own)
    return tuple(sorted(found.values()))


def common(opsets: Iterable[tuple[Opset, ...]]) -> tuple[Opset, ...] | None:
    """What graphs of all these can be read by; None when no versions suit them all."""
    found: dict[str, Opset] = {}
    for own in opsets:
        for each in own:
            found[each.domain] = _both(found.get(each.domain, each), each)
    if any(each.first > each.last for each in found.values()):
        return None
    return tuple(sorted(found.values()))


def _both(one: Opset, other: Opset) -> Opset:
    return Opset(one.domain, max(one.first, other.first), min(one.last, other.last))


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


@cache
def _changes() -> dict[tuple[str, str], list[int]]:
    """By domain and operator the versions that changed it, in order."""
    found: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for schema in get_all_schemas_with_history():
        found[_domain(schema.domain), schema.name].add(schema.since_version)
    return {name: sorted(versions) for name, versions in found.items()}


def _range(domain: str, operator: str, version: int) -> tuple[int, int]:
    changes = _changes().get((domain, operator), [])
    place = bisect_right(changes, version)
    if not place:
        return version, version
    return changes[place - 1], changes[place] - 1 if place < len(changes) else _NEWEST
