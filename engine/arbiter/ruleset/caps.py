"""``cap`` of a rule: how often a subject may be shown it in a time, and what counts it.

Law: reads nodes into `Cap`, and makes of all caps the tallies by which stores count: features of a kind that no file
can declare, of the reserved events that say what was shown. What was shown, and when, is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.authoring.blocks import Block
from arbiter.authoring.nodes import Scalar, kind_of
from arbiter.authoring.scalars import shorten
from arbiter.ruleset.features import key_of
from arbiter.ruleset.rules import Feature
from arbiter.ruleset.terms import Cap
from arbiter.ruleset.times import duration_micros

if TYPE_CHECKING:
    from collections.abc import Iterable

    from arbiter.authoring.nodes import Node
    from arbiter.ruleset.declarations import Declared
    from arbiter.ruleset.rules import Rule

KEYS: Final = ("max", "per", "count_on")
CALENDAR: Final = ("day", "week")
LIFETIME: Final = "lifetime"
COUNTED: Final = ("exposure",)
UNBUILT: Final = ("decision",)
MOST: Final = 100
"""What `max` may be at most: so many times stand in the record that every decision on the subject reads."""

_PERIODS: Final = "a duration such as `7d`, or `day`, `week`, `lifetime`"


def read_cap(block: Block, declared: Declared) -> Cap | None:
    """The cap of a rule; None when it has none, or a wrong one."""
    node = block.mapping("cap", "write `{max: 2, per: 7d, count_on: exposure}`")
    if node is None:
        return None
    inner = Block(node, block.report, what="`cap`", path=f"{block.path}.cap", keys=KEYS)
    at = block.key("cap")
    for key, hint in (
        ("max", "how often may it be shown?"),
        ("per", f"in which time? {_PERIODS}"),
        ("count_on", "what counts? `exposure`: that it was shown, as callers report it"),
    ):
        inner.require(key, hint, at=at)
    most = inner.integer("max", 1, MOST)
    per = inner.get("per")
    span = _span(inner, per) if per is not None else None
    on = _counted(inner)
    if most is None or span is None or not on or not isinstance(per, Scalar):
        return None
    if per.text in CALENDAR and declared.zone is None:
        if not declared.zone_refused:
            hint = "say where it stands: `subject: {time_zone: profile.time_zone}` at the top of a file"
            message = f"a {per.text} is the subject's own, and no file says where a subject's time zone stands"
            inner.refuse(per, message, hint, "per")
        return None
    return Cap(most, per.text, span, on, declared.zone if per.text in CALENDAR else None)


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


def _counted(block: Block) -> str:
    node = block.get("count_on")
    if isinstance(node, Scalar) and node.text in UNBUILT:
        message = f"`count_on: {node.text}` is not built yet in this version"
        block.refuse(node, message, "write `count_on: exposure`", "count_on")
        return ""
    return block.word("count_on", COUNTED) or ""


def tally_name(on: str) -> str:
    """The name of the tally of what counts, which no file can write, and the type of the events that it counts."""
    return f"arbiter.{on}"


def tallies_of(rules: Iterable[Rule]) -> tuple[Feature, ...]:
    """What stores count for the caps of these rules: one tally for each thing that counts, of all rules together."""
    kept: dict[str, dict[str, int]] = {}
    for rule in rules:
        if rule.cap is not None:
            kept.setdefault(rule.cap.on, {})[rule.id] = rule.cap.most
    return tuple(_tally(tally_name(on), dict(sorted(keep.items()))) for on, keep in sorted(kept.items()))


def _tally(name: str, keep: dict[str, int]) -> Feature:
    key = key_of(("tally", name, list(keep.items())))
    return Feature(name, "tally", name, "rule", None, None, 0, key, "map", keep=keep)
