"""``cap`` of a rule and the section ``caps``: how often a subject may be given something in a time, and what counts.

Law: reads nodes into `Cap` and `SharedCap`. What was given, and when, is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block, check_identifier, one_of
from arbiter.authoring.nodes import Mapping, Scalar, is_nothing, kind_of
from arbiter.authoring.scalars import shorten
from arbiter.errors import did_you_mean
from arbiter.ruleset.keys import read_duration
from arbiter.ruleset.terms import Cap, SharedCap
from arbiter.ruleset.times import duration_micros

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from arbiter.authoring.nodes import Node
    from arbiter.authoring.report import Report
    from arbiter.ruleset.declarations import Declared
    from arbiter.ruleset.rules import DecisionPoint, Rule

KEYS: Final = ("max", "per", "cool_down", "count_on", "strict")
RUN_KEYS: Final = ("max", "within", "count_on")
CALENDAR: Final = ("day", "week")
LIFETIME: Final = "lifetime"
DECIDED: Final = "decision"
COUNTED: Final = ("exposure", DECIDED)
RUN_COUNTED: Final = ("exposure",)
MOST: Final = 100
"""What `max` may be at most: so many times stand in the record that every decision on the subject reads."""
SECTION_KEYS: Final = ("all", "actions", "groups", "channels", "in_a_row")
ALL: Final = "all"
RUN: Final = "in_a_row"

_PERIODS: Final = "a duration such as `7d`, or `day`, `week`, `lifetime`"
_EXAMPLE: Final = "write `{max: 2, per: 7d, count_on: exposure}`"
_ON_HINT: Final = "what counts? `exposure`: that it was shown, as callers report it; `decision`: that it was decided"


def read_cap(block: Block, declared: Declared) -> Cap | None:
    """The cap of a rule; None when it has none, or a wrong one."""
    node = block.mapping("cap", _EXAMPLE)
    if node is None:
        return None
    inner = Block(node, block.report, what="`cap`", path=f"{block.path}.cap", keys=KEYS)
    return _cap(inner, block.key("cap"), declared)


def _cap(inner: Block, at: Scalar, declared: Declared) -> Cap | None:
    limited = inner.has("max") or inner.has("per") or not inner.has("cool_down")
    needed = [("max", "how often may it be shown?"), ("per", f"in which time? {_PERIODS}")] if limited else []
    for key, hint in (*needed, ("count_on", _ON_HINT)):
        inner.require(key, hint, at=at)
    most = inner.integer("max", 1, MOST)
    per = inner.get("per")
    span = _span(inner, per) if per is not None else None
    cooling = inner.get("cool_down")
    cool_down = read_duration(inner, "cool_down")
    on = inner.word("count_on", COUNTED) or ""
    strict = inner.boolean("strict") is True
    if strict and on and on != DECIDED:
        message = "`strict` is for caps that count decisions: when something is shown, others were decided already"
        inner.refuse(inner.key("strict"), message, f"write `count_on: {DECIDED}`, or leave it out", "strict")
        return None
    if not on or (cooling is not None and cool_down is None):
        return None
    if not limited:
        return Cap(0, "", 0, on, None, cool_down or 0, _written(cooling), strict)
    if most is None or span is None or not isinstance(per, Scalar):
        return None
    if per.text in CALENDAR and declared.zone is None:
        if not declared.zone_refused:
            hint = "say where it stands: `subject: {time_zone: profile.time_zone}` at the top of a file"
            message = f"a {per.text} is the subject's own, and no file says where a subject's time zone stands"
            inner.refuse(per, message, hint, "per")
        return None
    zone = declared.zone if per.text in CALENDAR else None
    return Cap(most, per.text, span, on, zone, cool_down or 0, _written(cooling), strict)


def _run(inner: Block, at: Scalar) -> Cap | None:
    """How often the same may be given running: a cap without a period, or of what was given `within` one."""
    inner.require("max", "how often may the same be shown running?", at=at)
    inner.require("count_on", _ON_HINT, at=at)
    most, on, within = (
        inner.integer("max", 1, MOST),
        inner.word("count_on", RUN_COUNTED),
        read_duration(inner, "within"),
    )
    if most is None or not on or (inner.has("within") and within is None):
        return None
    return Cap(most, _written(inner.get("within")), within or 0, on)


def _written(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) else ""


def _span(block: Block, node: Node) -> int | None:
    """The µs of a rolling period, 0 for another; None, and reported, for what is neither."""
    text = node.text if isinstance(node, Scalar) else ""
    if text in {*CALENDAR, LIFETIME}:
        return 0
    micros = duration_micros(text)
    if micros is None:
        shown = f"`{shorten(text)}`" if text else kind_of(node)
        block.refuse(node, f"`per` must be a period, this is {shown}", f"write {_PERIODS}", "per")
    return micros


class SharedCaps(msgspec.Struct, frozen=True):
    """What the section ``caps`` of all files says, sorted by what is capped, and where it says so of names that only
    rules have.
    """

    each: tuple[SharedCap, ...] = ()
    places: tuple[tuple[str, Scalar], ...] = ()

    def over(self, rule: Rule) -> Rule:
        """The rule with the caps that it shares with others; itself where there are none."""
        names = {"actions": rule.then.action, "groups": rule.group}
        found = tuple(
            cap for cap in self.each if cap.by == ALL or names.get(cap.by) == cap.name or rule.decision in cap.points
        )
        return msgspec.structs.replace(rule, caps=found) if found else rule

    def report_idle(self, rules: Sequence[Rule], report: Report) -> None:
        """Report the caps of groups and actions that no rule has: they would hold for nothing."""
        used = {"groups": {rule.group for rule in rules} - {""}, "actions": {rule.then.action for rule in rules}}
        for by, key in self.places:
            if key.text not in used[by]:
                _unknown(by.removesuffix("s"), key, used[by], report, f"caps.{by}.{key.text}", "no rule has one")


def read_shared(
    nodes: Iterable[Node],
    report: Report,
    declared: Declared,
    points: Collection[DecisionPoint],
    *,
    whole: bool,
) -> SharedCaps:
    """The section ``caps`` of all files; `whole` says that no decision point is missing."""
    found: list[SharedCap] = []
    places: list[tuple[str, Scalar]] = []
    channels: dict[str, list[DecisionPoint]] = {}
    for point in points:
        channels.setdefault(point.channel or point.name, []).append(point)
    for node in nodes:
        if not isinstance(node, Mapping):
            report.at(node, f"`caps` must be a mapping, this is {kind_of(node)}", f"it has {one_of(SECTION_KEYS)}")
            continue
        block = Block(node, report, what="`caps`", path="caps", keys=SECTION_KEYS)
        if block.has(ALL) and declared.first(block.key(ALL), "cap", ALL):
            mapping = block.mapping(ALL, _EXAMPLE)
            inner = Block(mapping, report, what="`all`", path="caps.all", keys=KEYS) if mapping is not None else None
            cap = _cap(inner, block.key(ALL), declared) if inner is not None else None
            found += [SharedCap(ALL, "", cap)] if cap is not None else []
        for by in SECTION_KEYS[1:]:
            for key, shared in _named(by, block, declared, channels if whole else None):
                found.append(shared)
                if by == "groups" or (by == "actions" and declared.actions is None):
                    places.append((by, key))
    found.sort(key=lambda each: (SECTION_KEYS.index(each.by), each.name))
    return SharedCaps(tuple(found), tuple(places))


def _named(
    by: str, block: Block, declared: Declared, channels: dict[str, list[DecisionPoint]] | None
) -> Iterator[tuple[Scalar, SharedCap]]:
    """The caps of one kind of thing, each with its name; `channels` are None when they cannot be known."""
    mapping = block.mapping(by, f"write `{{NAME: {_EXAMPLE[7:-1]}}}`")
    for name, entry in mapping.entries.items() if mapping is not None else ():
        path = f"caps.{by}.{name}"
        if not check_identifier(entry.key, "name", block.report, path) or not declared.first(
            entry.key, "cap", by, name
        ):
            continue
        if by == "actions" and declared.actions is not None and name not in declared.actions:
            _unknown("action", entry.key, declared.actions, block.report, path)
        of_channel = by in {"channels", RUN}
        if of_channel and channels is not None and name not in channels:
            _unknown("channel", entry.key, channels, block.report, path)
            continue
        if not isinstance(entry.node, Mapping):
            if entry.node is not None:
                what = "nothing" if is_nothing(entry.node) else kind_of(entry.node)
                block.report.at(entry.node, f"a cap must be a mapping, this is {what}", _EXAMPLE, path)
            continue
        keys = RUN_KEYS if by == RUN else KEYS
        inner = Block(entry.node, block.report, what="a cap", path=path, keys=keys)
        cap = _run(inner, entry.key) if by == RUN else _cap(inner, entry.key, declared)
        if cap is None:
            continue
        points = channels.get(name, ()) if of_channel and channels is not None else ()
        slots = max((point.slots for point in points), default=1)
        if by == RUN and cap.most * slots > MOST:
            message = f"`max` may be {MOST // slots} at most here, where {slots} are shown together"
            node = inner.get("max")
            inner.refuse(entry.key if node is None else node, message, key="max")
            continue
        yield entry.key, SharedCap(by, name, cap, tuple(sorted(point.name for point in points)))


def _unknown(
    what: str, key: Scalar, known: Collection[str], report: Report, path: str, none: str = "none is declared"
) -> None:
    few = sorted(known)
    hint = did_you_mean(key.text, few) or (f"there are {one_of(few[:8])}" if few else none)
    report.at(key, f"unknown {what} `{shorten(key.text)}`", hint, path)
