"""Purposes: which there are, and what is bound to them.

Law: reads `consent`, `purposes` and `requires_consent`, and checks that what is named is declared. What it means that a
purpose is not granted is `visibility`'s matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block, check_name, one_of
from arbiter.authoring.nodes import Entry, Mapping, Node, Scalar, Sequence, as_text, kind_of
from arbiter.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arbiter.authoring.report import Report
    from arbiter.ruleset.declarations import Declared
    from arbiter.ruleset.rules import Feature

KEYS: Final = ("purposes",)
_TOLD: Final = 8  # purposes that a hint lists


class Use(msgspec.Struct, frozen=True):
    """A purpose where a file names it."""

    scalar: Scalar
    path: str


def read_consent(node: Node, report: Report, first: Callable[[Scalar, str, str], bool]) -> list[str]:
    """The purposes that one file's `consent` declares. `first` tells, and reports, whether a name is declared anew."""
    if not isinstance(node, Mapping):
        report.at(node, f"`consent` must be a mapping, this is {kind_of(node)}", "write `{purposes: [...]}`", "consent")
        return []
    block = Block(node, report, what="`consent`", path="consent", keys=KEYS)
    if not block.require("purposes", "name them: `purposes: [personalization, analytics]`"):
        return []
    uses = _listed(block.get("purposes"), "purposes", "consent.purposes", report)
    return [use.scalar.text for use in uses if first(use.scalar, "purpose", use.scalar.text)]


def named_purposes(node: Node | None, key: str, path: str, report: Report) -> tuple[Use, ...]:
    """The purposes that a list names, each once."""
    found: dict[str, Use] = {}
    for use in _listed(node, key, path, report):
        if found.setdefault(use.scalar.text, use) is not use:
            message = f"the purpose `{use.scalar.text}` stands here twice"
            report.at(use.scalar, message, "remove one of the two", use.path)
    return tuple(found.values())


def _listed(node: Node | None, key: str, path: str, report: Report) -> list[Use]:
    if node is None:
        return []
    if not isinstance(node, Sequence):
        word = as_text(node)
        hint = f"write `[{word}]`" if word else "write `[personalization]`, say"
        report.at(node, f"`{key}` must be a list, this is {kind_of(node)}", hint, path)
        return []
    if not node.items:
        report.at(node, f"`{key}` is empty, so it asks for nothing", "name a purpose, or remove the key", path)
    found: list[Use] = []
    for number, item in enumerate(node.items):
        where = f"{path}[{number}]"
        if item is None:
            continue
        if not isinstance(item, Scalar) or as_text(item) is None:
            report.at(item, f"a purpose must be text, this is {kind_of(item)}", path=where)
        elif check_name(item, "a purpose", report, where):
            found.append(Use(item, where))
    return found


def known_purposes(uses: Iterable[Use], declared: Iterable[str] | None, report: Report) -> tuple[str, ...]:
    """The names of the purposes, sorted; reports those that are not declared. None: it is not known which are."""
    names = sorted({use.scalar.text for use in uses})
    if declared is None:
        return tuple(names)
    known = sorted(declared)
    for use in uses:
        word = use.scalar.text
        if word not in known:
            hint = did_you_mean(word, known) or (
                f"declared are {one_of(known[:_TOLD])}" if known else f"declare it: `consent: {{purposes: [{word}]}}`"
            )
            report.at(use.scalar, f"unknown purpose `{word}`", hint, use.path)
    return tuple(names)


def inherited(declared: Declared, event: str, properties: Iterable[str]) -> set[str]:
    """The purposes to which an event and these properties of it are bound."""
    types = (declared.events or {}).get(event, {})
    found = set(declared.event_purposes.get(event, ()))
    return found.union(*(types[name].purposes for name in properties if name in types))


def report_twins(features: Iterable[Feature | None], entries: dict[str, Entry], report: Report) -> None:
    """Report features that are computed alike under two names, but bound to different purposes: their value is one."""
    known: dict[str, Feature] = {}
    for feature in features:
        if feature is None:
            continue
        first = known.setdefault(feature.key, feature)
        if first.purposes != feature.purposes:
            message = f"the feature `{feature.name}` is `{first.name}` under another name, but for other purposes"
            hint = "give both the same `purposes`, or use one of the two"
            report.at(entries[feature.name].key, message, hint, f"features.{feature.name}")


def bound_names(declared: Declared, features: Iterable[Feature]) -> dict[str, tuple[str, ...]]:
    """The dotted names that are seen only where all of their purposes are granted, with these."""
    found = {
        f"{root}.{name}": typed.purposes
        for root, types in declared.attributes()
        for name, typed in (types or {}).items()
    }
    found |= {f"features.{feature.name}": feature.purposes for feature in features}
    return {name: purposes for name, purposes in sorted(found.items()) if purposes}
