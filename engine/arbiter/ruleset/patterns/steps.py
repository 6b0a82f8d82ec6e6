"""The pattern of a trigger: which events, in which order, how close together.

Law: reads the keys of a pattern into `Step`s. First all of its steps say what they wait for and what they are called;
then their conditions are read, each of which may name the steps before it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, get_args

import msgspec

from arbiter.authoring.blocks import Block, check_name, one_of
from arbiter.authoring.nodes import Mapping, Node, Scalar, Sequence, as_text, kind_of
from arbiter.authoring.scalars import NAME, shorten
from arbiter.errors import did_you_mean
from arbiter.ruleset.keys import read_duration
from arbiter.ruleset.patterns.known import RESERVED, Label
from arbiter.ruleset.patterns.wheres import step_of
from arbiter.ruleset.triggers import Pattern, Step

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence as Many

    from arbiter.authoring.report import Report
    from arbiter.expr.tree import Expression
    from arbiter.ruleset.declarations import Declared
    from arbiter.ruleset.patterns.known import Conditions

PATTERNS: Final[tuple[Pattern, ...]] = get_args(Pattern)
OF_STEP: Final = ("event", "as", "where")
KEYS: Final[dict[Pattern, tuple[str, ...]]] = dict.fromkeys(PATTERNS, OF_STEP) | {
    "sequence": (*OF_STEP, "within"),
    "count": (*OF_STEP, "times", "within", "by"),
}
OF_UNLESS: Final = ("event", "where", "within")
MOST_STEPS: Final[dict[Pattern, int]] = {"sequence": 6, "all": 6, "any": 32}
MOST_TIMES: Final = 1_000
MOST_TYPES: Final = 32
MOST_JOINS: Final = 32  # of a step; what is compared with all of them has room in the engine then
ANY: Final = "*"
_HINTS: Final[dict[Pattern, str]] = {
    "after": "write `{event: purchase}`",
    "count": "write `{event: purchase, times: 3, within: 30d}`",
    **dict.fromkeys(("sequence", "any", "all"), "write `[{event: signed_up}, {event: invited}]`"),
}


class Drawn(msgspec.Struct, frozen=True):
    """What a pattern came to. `labels` are what its events are called once it is complete, and `unusable` are names
    that stand for none of them, with the reason. `within`, `times` and `by`
    are of ``count``.
    """

    kind: Pattern
    steps: tuple[Step, ...]
    labels: tuple[Label, ...]
    unusable: dict[str, str]
    within: int | None = None
    times: int = 0
    by: str = ""


class _Raw(msgspec.Struct):
    """A step before its condition is read: None instead of `events` where they were refused."""

    block: Block
    events: tuple[str, ...] | None
    label: str = ""


class PatternReader:
    """Reads patterns of the triggers of one file."""

    def __init__(self, report: Report, declared: Declared, conditions: Conditions) -> None:
        self._report = report
        self._declared = declared
        self._conditions = conditions

    def read(self, block: Block, kind: Pattern) -> Drawn | None:
        """What stands under the key `kind` of a trigger; None when something in it was refused."""
        nodes = self._nodes(block, kind)
        raws = [self._raw(node, path, kind) for path, node in nodes]
        sound = bool(nodes) and None not in raws
        steps = [raw for raw in raws if raw is not None]
        self._name(steps, kind)
        unusable = _ambiguous(steps, kind)
        labels = _labels(steps)
        read: list[Step] = []
        for number, raw in enumerate(steps):
            before = _labels(steps[:number]) if kind in {"sequence", "all"} else ()
            where = self._where(raw, before, unusable | _behind(steps[number:], before))
            within = self._within(raw.block, number, kind)
            step = self._step(raw, where, within)
            sound = sound and step is not None
            read += [] if step is None else [step]
        drawn = Drawn(kind, tuple(read), labels, unusable)
        if kind == "count" and steps:
            block = steps[0].block
            times, window, by = self._times(block), read_duration(block, "within"), self._by(steps[0])
            sound = sound and times > 0 and (window is not None or not block.has("within"))
            drawn = msgspec.structs.replace(drawn, within=window, times=times, by=by)
        return drawn if sound else None

    def unless(self, block: Block, drawn: Drawn | None) -> Step | None:
        """What keeps a trigger from firing; None when there is nothing, or nothing sound."""
        node = block.mapping("unless", "write `{event: purchase, within: 30d}`")
        if node is None:
            return None
        inner = Block(node, self._report, what="`unless`", path=f"{block.path}.unless", keys=OF_UNLESS)
        if not inner.require("event", 'say which event it is, or `"*"` for any'):
            return None
        events = self._events(inner, any_type=True)
        if inner.require("within", "for how long is it waited for? `5m`, say", at=inner.key("event")):
            within = read_duration(inner, "within")
        else:
            within = None
        labels, unusable = (drawn.labels, drawn.unusable) if drawn is not None else ((), {})
        where = self._where(_Raw(inner, events), labels, unusable) if drawn is not None else None
        return self._step(_Raw(inner, events), where, within) if within is not None else None

    def _step(self, raw: _Raw, where: Expression | None, within: int | None) -> Step | None:
        """The step; None where something in it was refused."""
        node = raw.block.get("where")
        if raw.events is None or (node is not None and where is None):
            return None
        step = step_of(raw.label, raw.events, where, within)
        if node is not None and len(step.joins) > MOST_JOINS:
            message = f"this `where` ties the event to others by {len(step.joins)} equalities; at most {MOST_JOINS} can"
            raw.block.refuse(node, message, "compare one property that stands for several", "where")
            return None
        return step

    def _nodes(self, block: Block, kind: Pattern) -> list[tuple[str, Node]]:
        path, node = f"{block.path}.{kind}", block.get(kind)
        if node is None:
            return []
        if kind not in MOST_STEPS:
            return [(path, node)]
        if not isinstance(node, Sequence):
            hint = "one event alone is `after`" if isinstance(node, Mapping) else _HINTS[kind]
            block.refuse(node, f"`{kind}` must be a list of steps, this is {kind_of(node)}", hint, kind)
            return []
        least = 2
        if len(node.items) < least:
            hint = "one event alone is `after`" if node.items else _HINTS[kind]
            block.refuse(node, f"`{kind}` has at least {least} steps, this has {len(node.items)}", hint, kind)
            return []
        if len(node.items) > MOST_STEPS[kind]:
            most = MOST_STEPS[kind]
            hint = "let a first trigger `emit` an event that a second one goes on from" if kind != "any" else ""
            block.refuse(node, f"`{kind}` has at most {most} steps, this has {len(node.items)}", hint, kind)
            return []
        return [(f"{path}[{n}]", item) for n, item in enumerate(node.items) if item is not None]

    def _raw(self, node: Node, path: str, kind: Pattern) -> _Raw | None:
        what = "a step" if kind in MOST_STEPS else f"`{kind}`"
        if not isinstance(node, Mapping):
            word = as_text(node)
            hint = f"write `{{event: {word}}}`" if word and NAME.fullmatch(word) else "write `{event: purchase}`"
            self._report.at(node, f"{what} must be a mapping, this is {kind_of(node)}", hint, path)
            return None
        if kind in {"all", "any", "after"} and "within" in node.entries:
            key = node.entries["within"].key
            message = f"a `within` in a step counts from the step before it, and `{kind}` has no order"
            hint = "put it beside `all`: from the first event to the last" if kind == "all" else "remove it"
            self._report.at(key, message, hint, f"{path}.within")
        keys = KEYS[kind] if kind not in {"all", "any", "after"} else (*KEYS[kind], "within")
        block = Block(node, self._report, what=what, path=path, keys=keys)
        if not block.require("event", "say which event it waits for: `event: purchase`"):
            return None
        return _Raw(block, self._events(block))

    def _events(self, block: Block, *, any_type: bool = False) -> tuple[str, ...] | None:
        """The types of events that are waited for, none for any; None when something there was refused."""
        node, path = block.get("event"), f"{block.path}.event"
        if node is None:
            return None
        if as_text(node) == ANY:
            if not any_type:
                hint = "name them: `event: [visit, purchase]`"
                block.refuse(node, "a step says which events it waits for; any event is for `unless`", hint, "event")
            return () if any_type else None
        items = list(block.items("event")) if isinstance(node, Sequence) else [(path, node)]
        if isinstance(node, Sequence) and not 0 < len(node.items) <= MOST_TYPES:
            message = f"`event` lists from 1 to {MOST_TYPES} types, this is {len(node.items)}"
            block.refuse(node, message, "name the types that are waited for", "event")
            return None
        found: list[str] = []
        for where, item in items:
            event = self._event(item, where)
            if event is not None and event in found:
                self._report.at(item, f"`{event}` stands here twice", "remove one of the two", where)
            elif event is not None:
                found.append(event)
        return tuple(found) if len(found) == len(items) and found else None

    def _event(self, node: Node, path: str) -> str | None:
        word = as_text(node)
        if not isinstance(node, Scalar) or word is None:
            hint = "write the type of the event, `purchase` say"
            self._report.at(node, f"an event is named by its type, this is {kind_of(node)}", hint, path)
            return None
        return word if known_event(node, self._declared, self._report, path) else None

    def _name(self, steps: Iterable[_Raw], kind: Pattern) -> None:
        """Give each step its label: what `as` says, else its type where only one step is of that name."""
        steps = list(steps)
        given: dict[str, Scalar] = {}
        for raw in steps:
            scalar = raw.block.text("as", "write a name, `view` say")
            if scalar is None or not check_name(scalar, "a step", self._report, f"{raw.block.path}.as"):
                continue
            if scalar.text in RESERVED:
                message = f"`{scalar.text}` means something else in expressions"
                raw.block.refuse(scalar, message, "call the step otherwise", "as")
                continue
            first = given.setdefault(scalar.text, scalar)
            if first is not scalar and kind != "any":
                message = f"the label `{scalar.text}` stands for two steps"
                raw.block.refuse(scalar, message, "call one of the two otherwise", "as")
                continue
            raw.label = scalar.text
        types = Counter(map(_type_of, steps))
        for raw in steps:
            name = _type_of(raw)
            if name and name not in given and name not in RESERVED and (types[name] == 1 or kind == "any"):
                raw.label = name

    def _where(self, raw: _Raw, before: tuple[Label, ...], unusable: dict[str, str]) -> Expression | None:
        node = raw.block.get("where")
        if node is None:
            return None
        named = {label.name for label in before}
        expressions = self._conditions.of_step(
            raw.events, before, {name: why for name, why in unusable.items() if name not in named}
        )
        return expressions.read(node, "`where`", f"{raw.block.path}.where", expect="bool")

    def _within(self, block: Block, number: int, kind: Pattern) -> int | None:
        if kind == "sequence" and number:
            return read_duration(block, "within")
        if kind == "sequence" and block.has("within"):
            message = "the first step has none before it from which `within` could count"
            hint = "put it into the step behind, or beside `sequence`: from the first event to the last"
            block.refuse(block.key("within"), message, hint, "within")
        return None

    @staticmethod
    def _times(block: Block) -> int:
        """How many events there must be; 0 when that was refused."""
        if not block.require("times", "how many of them? `times: 3`, say", at=block.key("event")):
            return 0
        node = block.get("times")
        if isinstance(node, Scalar) and node.value == 1 and not isinstance(node.value, bool):
            block.refuse(node, "a count of 1 is each event", "write `after` instead of `count`", "times")
            return 0
        return block.integer("times", 2, MOST_TIMES) or 0

    def _by(self, raw: _Raw) -> str:
        scalar = raw.block.text("by", "write `event.category`, say")
        if scalar is None:
            return ""
        root, _, name = scalar.text.partition(".")
        if root != "event" or not NAME.fullmatch(name):
            hint = f"write `event.{root}`" if not name and NAME.fullmatch(root) else "write `event.category`, say"
            message = f"events are counted by a property, `{shorten(scalar.text)}` is none"
            raw.block.refuse(scalar, message, hint, "by")
            return ""
        found = self._conditions.of_step(raw.events, (), {}).scope.resolve(("event", name))
        if isinstance(found, tuple):
            self._report.inside(scalar, len(root) + 1, len(scalar.text), *found, f"{raw.block.path}.by")
        return name


def known_event(scalar: Scalar, declared: Declared, report: Report, path: str) -> bool:
    """Whether a scalar names a type of event that may be; reports it if not."""
    if not check_name(scalar, "an event", report, path):
        return False
    if declared.events is None or scalar.text in declared.events:
        return True
    known = sorted(declared.events)
    hint = did_you_mean(scalar.text, known) or (f"declared are {one_of(known[:8])}" if known else "")
    report.at(scalar, f"unknown event `{scalar.text}`", hint, path)
    return False


def _type_of(raw: _Raw) -> str:
    """The type of event after which a step may be called; empty where it says `as`, or waits for several types."""
    return "" if raw.block.has("as") or raw.events is None or len(raw.events) != 1 else raw.events[0]


def _labels(steps: Many[_Raw]) -> tuple[Label, ...]:
    """What the steps are called. Steps of one name, of which only one is bound, are of the types of all."""
    found: dict[str, Label] = {}
    for raw in steps:
        if not raw.label:
            continue
        known = found.get(raw.label)
        if known is None:
            found[raw.label] = Label(raw.label, raw.events)
        elif known.events is not None and raw.events is not None:
            found[raw.label] = Label(raw.label, tuple(dict.fromkeys((*known.events, *raw.events))))
    return tuple(found.values())


def _ambiguous(steps: Iterable[_Raw], kind: Pattern) -> dict[str, str]:
    """The types that several steps without a name wait for, as names that stand for none of them."""
    steps = list(steps)
    types = Counter(filter(None, map(_type_of, steps)))
    said = "several steps wait for `{}`: say `as: first`, say, to give one of them a name"
    used = {raw.label for raw in steps}
    return {name: said.format(name) for name, n in types.items() if n > 1 and kind != "any" and name not in used}


def _behind(steps: Many[_Raw], before: tuple[Label, ...]) -> dict[str, str]:
    """This step's own label and those of later ones, which its condition cannot name."""
    taken = {label.name for label in before}
    found = {
        raw.label: f"`{raw.label}` is a step behind this one: a step is compared with those before it"
        for raw in steps[1:]
        if raw.label and raw.label not in taken
    }
    own = steps[0].label
    if own and own not in taken:
        found[own] = f"`{own}` is this step itself, whose event is called `event` here"
    return found
