"""What stores count for caps: features of a kind that no file can declare, of the reserved events that say what a
subject was given.

Law: pure; makes of the caps of all rules the tallies that are kept for them, and of those of one rule the limits that
decisions look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.ruleset.caps.read import DECIDED, RUN
from arbiter.ruleset.features import key_of
from arbiter.ruleset.rules import Feature
from arbiter.ruleset.terms import SubjectZone  # noqa: TC001 - a field's type at run time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from arbiter.expr.reads import FeatureRead
    from arbiter.ruleset.rules import Rule
    from arbiter.ruleset.terms import Cap

_OWN: Final = "rules"
# The property of the events by which things are told apart.
_PROPERTY: Final = {_OWN: "rule", "all": "", "actions": "action", "groups": "group", "channels": "point", RUN: "point"}
_CALLED: Final = {"all": "over all", "actions": "action `{}`", "groups": "group `{}`", "channels": "channel `{}`",
                  RUN: "channel `{}`"}  # fmt: skip


class Limit(msgspec.Struct, frozen=True, gc=False):
    """One thing that a cap asks of a rule: fewer than `most` times in the period. `what` is capped, empty for the rule
    itself; `tally` is the key of the feature that has the times of its `names`, of which `name` is the rule's own. A
    cool-down is one time in a period (`cools`). `mark` is the rule's id where the same `most` times running is asked
    about, and empty where it is not.
    """

    what: str
    tally: str
    names: tuple[str, ...]
    most: int
    per: str
    span: int
    on: str
    zone: SubjectZone | None
    cools: bool = False
    mark: str = ""
    name: str = ""
    strict: bool = False


def tally_name(on: str, by: str = _OWN) -> str:
    """The name of the tally of what counts, by what it tells things apart; no file can write it."""
    return f"arbiter.{on}" if by == _OWN else f"arbiter.{on}.{by}"


def event_type(on: str) -> str:
    """The type of the events that say it."""
    return f"arbiter.{on}"


def caps_of(rule: Rule) -> Iterator[Cap]:
    """Its own cap, and those that it shares."""
    if rule.cap is not None:
        yield rule.cap
    yield from (shared.cap for shared in rule.caps)


def tallies_read(rule: Rule) -> frozenset[tuple[str, str]]:
    """The names, as paths, of the tallies that its caps are looked up in."""
    own = {tally_name(rule.cap.on)} if rule.cap is not None else set()
    return frozenset(("features", name) for name in own | {tally_name(each.cap.on, each.by) for each in rule.caps})


def tallies_of(rules: Iterable[Rule]) -> tuple[Feature, ...]:
    """What stores count for the caps of these rules: one tally for each thing that counts, and each way to tell things
    apart, of all rules together.
    """
    kept: dict[tuple[str, str], dict[str, int]] = {}
    for rule in rules:
        if rule.cap is not None:
            kept.setdefault((rule.cap.on, _OWN), {})[rule.id] = max(rule.cap.most, 1)
        for each in rule.caps:
            keep = kept.setdefault((each.cap.on, each.by), {})
            for name in each.points or (each.name,):
                keep[name] = max(each.cap.most, keep.get(name, 1))
    return tuple(_tally(on, by, dict(sorted(keep.items()))) for (on, by), keep in sorted(kept.items()))


def _tally(on: str, by: str, keep: dict[str, int]) -> Feature:
    name = tally_name(on, by)
    key = key_of(("tally", name, list(keep.items())))
    marks = "rule" if by == RUN else ""
    return Feature(name, "tally", event_type(on), _PROPERTY[by], None, None, 0, key, "map", keep=keep, marks=marks)


def limits_of(rule: Rule, features: Mapping[str, FeatureRead]) -> tuple[Limit, ...]:
    """What the caps of a rule ask, its own first."""
    found: list[Limit] = []
    if rule.cap is not None:
        found += _limits(rule.cap, "", features[tally_name(rule.cap.on)].key, (rule.id,), rule.id)
    for each in rule.caps:
        key, names = features[tally_name(each.cap.on, each.by)].key, each.points or (each.name,)
        what, mark = _CALLED[each.by].format(each.name), rule.id if each.by == RUN else ""
        found += _limits(each.cap, what, key, names, rule.decision if each.points else each.name, mark)
    return tuple(found)


def takes_of(limits: Iterable[Limit]) -> tuple[tuple[str, str], ...]:
    """Where a rule with these limits is counted when it is decided: the keys of tallies, each with a name."""
    return tuple(dict.fromkeys((limit.tally, limit.name) for limit in limits if limit.on == DECIDED))


def _limits(cap: Cap, what: str, tally: str, names: tuple[str, ...], name: str, mark: str = "") -> Iterator[Limit]:
    of = Limit(what, tally, names, cap.most, cap.per, cap.span, cap.on, cap.zone, False, mark, name, cap.strict)
    if cap.most:
        yield of
    if cap.cool_down:
        yield msgspec.structs.replace(of, most=1, per=cap.cooling, span=cap.cool_down, zone=None, cools=True)
