"""One entry of ``triggers``: a pattern over a subject's events, and what is done when it is complete.

Law: reads nodes into a `Trigger`, checking every key. It notes the ids, and the events that are emitted; what other
triggers say is for who knows them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.nodes import Mapping, Node, Scalar, as_text, kind_of
from arbiter.authoring.scalars import INT64
from arbiter.errors import did_you_mean
from arbiter.expr.syntax import walk
from arbiter.expr.tree import Name
from arbiter.ruleset.consent import inherited
from arbiter.ruleset.dates import read_active
from arbiter.ruleset.keys import read_duration, read_purposes, read_tags, read_when
from arbiter.ruleset.patterns.acts import ActReader
from arbiter.ruleset.patterns.known import Conditions
from arbiter.ruleset.patterns.steps import PATTERNS, PatternReader
from arbiter.ruleset.patterns.wheres import key_of
from arbiter.ruleset.render import expressions_of
from arbiter.ruleset.templates import Params
from arbiter.ruleset.triggers import Again, Decide, Emit, Increment, Pattern, Repeat, Set, Trigger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arbiter.authoring.report import Report
    from arbiter.expr.tree import Expression
    from arbiter.ruleset.patterns.known import Known
    from arbiter.ruleset.patterns.steps import Drawn
    from arbiter.ruleset.triggers import Act, Step

KEYS: Final = (
    "id",
    *PATTERNS,
    "within",
    "unless",
    "when",
    "then",
    "repeat",
    "priority",
    "requires_consent",
    "active",
    "tags",
    "enabled",
)
OVERALL: Final = ("sequence", "all")
WORDS: Final[tuple[Again, ...]] = ("every", "once")
OF_REPEAT: Final = ("per",)


class Authored(msgspec.Struct, frozen=True):
    """A trigger with the place of its id, and of the event that it emits, if it does."""

    trigger: Trigger
    place: Scalar
    path: str
    emits: Scalar | None


class TriggerReader:
    """Reads the triggers of one file. `ids` are theirs, with their paths."""

    def __init__(self, report: Report, known: Known) -> None:
        self.ids: list[tuple[Scalar, str]] = []
        self._report = report
        self._known = known
        self._conditions = Conditions(report, known)
        self._patterns = PatternReader(report, known.declared, self._conditions)
        self._acts = ActReader(report, known)

    def read(self, node: Node, path: str) -> Authored | None:
        """One trigger; None when something in it was refused."""
        if not isinstance(node, Mapping):
            hint = "write `{id: ..., after: {event: ...}, then: ...}`"
            self._report.at(node, f"a trigger must be a mapping, this is {kind_of(node)}", hint, path)
            return None
        block = Block(node, self._report, what="a trigger", path=path, keys=KEYS)
        block.require("id", "every trigger has an id of its own, `cart-abandoned` say")
        at = node.entries["id"].node if block.has("id") else None
        block.require("then", "say what it does", at=at if isinstance(at, Scalar) else None)
        place = block.identifier("id")
        if place is not None:
            self.ids.append((place, f"{path}.id"))
        drawn = self._pattern(block, place)
        within = self._within(block)
        unless = self._patterns.unless(block, drawn)
        repeat = self._repeat(block)
        priority = block.integer("priority", INT64[0], INT64[-1])
        purposes = read_purposes(block, "requires_consent", self._known.declared)
        active = read_active(block, self._known.declared)
        tags = read_tags(block)
        enabled = block.boolean("enabled")
        if drawn is None:
            return None  # its names are not known, so nothing can be said of what reads them
        expressions = self._conditions.of_firing(drawn.labels, drawn.unusable)
        when = read_when(block, expressions)
        deeds = self._acts.read(block, Params(self._report, expressions))
        if deeds is None or place is None:
            return None
        read = [*when, *rendered(deeds.acts)]
        self._check_segments(block, read, node)
        trigger = Trigger(
            id=place.text,
            kind=drawn.kind,
            steps=drawn.steps,
            then=deeds.acts,
            key=key_of(drawn.kind, drawn.steps, [within or drawn.within, drawn.times, drawn.by], unless),
            within=within or drawn.within,
            times=drawn.times,
            by=drawn.by,
            unless=unless,
            when=when,
            repeat=repeat or Repeat(),
            priority=priority or 0,
            active=active,
            purposes=tuple(sorted({*purposes, *self._inherited(drawn, unless, read)})),
            enabled=enabled is not False,
            tags=tags,
            position=place.source.position(place.start),
        )
        return Authored(trigger, place, path, deeds.emits)

    def _pattern(self, block: Block, place: Scalar | None) -> Drawn | None:
        found = [kind for kind in PATTERNS if block.has(kind)]
        if len(found) == 1:
            return self._patterns.read(block, found[0])
        if found:
            second = max((block.key(extra) for extra in found), key=lambda key: key.start)
            message = f"a trigger has one pattern, this has {one_of(found)}"
            block.refuse(second, message, "make a trigger of each; one can `emit` an event that the other waits for")
        elif not block.node.partial:
            at = place if place is not None else block.node
            block.refuse(at, "this trigger waits for nothing", f"add one of {one_of(PATTERNS)}")
        return None

    def _within(self, block: Block) -> int | None:
        if not block.has("within"):
            return None
        if any(block.has(kind) for kind in OVERALL):
            return read_duration(block, "within")
        found: tuple[Pattern, ...] = tuple(kind for kind in PATTERNS if block.has(kind))
        if found:
            hint = "put it into `count`" if "count" in found else "remove it"
            message = f"`within` here is for {one_of(OVERALL)}, from the first event to the last"
            block.refuse(block.key("within"), message, hint, "within")
        return None

    def _repeat(self, block: Block) -> Repeat | None:
        node = block.get("repeat")
        if node is None:
            return None
        if isinstance(node, Mapping):
            inner = Block(node, self._report, what="`repeat`", path=f"{block.path}.repeat", keys=OF_REPEAT)
            inner.require("per", "once in how long? `{per: 7d}`, say")
            period = read_duration(inner, "per")
            return Repeat("per", period) if period is not None else None
        word = as_text(node)
        for known in WORDS:
            if word == known:
                return Repeat(known)
        shown = f"`{word}`" if word is not None else kind_of(node)
        hint = did_you_mean(word or "", WORDS) or "write `every`, `once`, or `{per: 7d}`"
        block.refuse(node, f"`repeat` cannot be {shown}", hint, "repeat")
        return None

    def _check_segments(self, block: Block, read: Iterable[Expression], node: Mapping) -> None:
        """Report segments that rest on what is never there when a trigger fires."""
        for name in sorted({path[1] for expression in read for path in expression.names if path[0] == "segments"}):
            if name in self._known.beyond:
                key = "when" if "when" in node.entries else "then"
                message = f"the segment `{name}` reads `{self._known.beyond[name]}`, which is not there when this fires"
                block.refuse(block.key(key), message, "a trigger asks no model, and nobody sends it context", key)

    def _inherited(self, drawn: Drawn, unless: Step | None, read: Iterable[Expression]) -> set[str]:
        """The purposes to which the events are bound that it sees, and what it reads of them."""
        declared = self._known.declared
        types = {label.name: label.events or () for label in drawn.labels}
        names: set[tuple[str, str]] = {(path[0], path[1]) for each in read for path in each.names if path[0] in types}
        seen: set[tuple[str, str]] = set()
        for step in (*drawn.steps, *((unless,) if unless is not None else ())):
            read_here = {drawn.by} if drawn.by else set()
            for node in walk(step.where.root) if step.where is not None else ():
                if isinstance(node, Name) and node.path[0] == "event":
                    read_here.add(node.path[1])
                elif isinstance(node, Name) and node.path[0] in types:
                    names.add((node.path[0], node.path[1]))
            for event in step.events:
                seen |= {(event, name) for name in read_here} | {(event, "")}
        seen |= {(event, name) for label, name in names for event in types[label]}
        return set().union(*(inherited(declared, event, (name,)) for event, name in seen))


def rendered(acts: Iterable[Act]) -> Iterator[Expression]:
    """The expressions inside what is done."""
    for act in acts:
        match act:
            case Set(values=params) | Increment(values=params) | Emit(properties=params) | Decide(context=params):
                for param in params.values():
                    yield from expressions_of(param)
            case _:
                pass
