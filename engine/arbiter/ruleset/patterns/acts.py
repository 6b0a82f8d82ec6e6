"""``then`` of a trigger: what is done when it fires.

Law: reads the acts and holds them against what is declared: attributes, events, decisions, managed segments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block, check_identifier, check_name, one_of, under
from arbiter.authoring.nodes import Mapping, Node, Scalar, Sequence, as_text, kind_of
from arbiter.authoring.scalars import shorten
from arbiter.errors import did_you_mean
from arbiter.ruleset.effects import fitting
from arbiter.ruleset.patterns.steps import known_event
from arbiter.ruleset.segments import MANAGED
from arbiter.ruleset.terms import Param, Plain, Template
from arbiter.ruleset.triggers import Act, Decide, Emit, EnterSegment, Increment, LeaveSegment, Set, Unset

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as Mapped

    from arbiter.authoring.report import Report
    from arbiter.ruleset.declarations import Typed
    from arbiter.ruleset.patterns.known import Known
    from arbiter.ruleset.templates import Params

KEYS: Final = ("set", "unset", "increment", "enter_segment", "leave_segment", "emit", "decide")
OF_EMIT: Final = ("event", "properties")
OF_DECIDE: Final = ("decision", "context")
_HINT: Final = "write `{set: {lifecycle: active}}` or `{emit: cart_abandoned}`, say"
_NUMBERS: Final = frozenset({"int", "double", "dyn"})


class Deeds(msgspec.Struct, frozen=True):
    """What a trigger does. `emits` is where it says which event happens."""

    acts: tuple[Act, ...]
    emits: Scalar | None = None


class ActReader:
    """Reads ``then`` of the triggers of one file."""

    def __init__(self, report: Report, known: Known) -> None:
        self._report = report
        self._known = known
        self._declared = known.declared

    def read(self, block: Block, params: Params) -> Deeds | None:
        """The acts of a trigger; None when something in them was refused. `params` reads what may hold ``${}``."""
        node = block.mapping("then", _HINT)
        if node is None:
            return None
        inner = Block(node, self._report, what="`then`", path=f"{block.path}.then", keys=KEYS)
        if not node.entries and not node.partial:
            inner.refuse(block.key("then"), "`then` does nothing", f"it may have {one_of(KEYS)}")
        self._check_twice(inner, ("set", "unset", "increment"), "the attribute")
        self._check_twice(inner, ("enter_segment", "leave_segment"), "the segment")
        emits, emit = self._emit(inner, params)
        read: list[Act | None] = [
            self._set(inner, params),
            self._unset(inner),
            self._increment(inner, params),
            *self._moves(inner),
            emit,
            self._decide(inner, params),
        ]
        acts = tuple(act for act in read if act is not None)
        sound = len(acts) == sum(inner.has(key) for key in KEYS) > 0
        return Deeds(acts, emits) if sound else None

    def _set(self, block: Block, params: Params) -> Set | None:
        values = self._values(block, "set", params)
        return Set(values) if values is not None else None

    def _increment(self, block: Block, params: Params) -> Increment | None:
        values = self._values(block, "increment", params)
        mapping = block.mapping("increment")
        if values is None or mapping is None:
            return None
        sound = True
        for name, value in values.items():
            node = mapping.entries[name].node
            typed = (self._declared.profile or {}).get(name)
            if typed is not None and typed.type not in _NUMBERS:
                message = f"`{name}` is declared {typed.type}, only numbers are incremented"
                self._report.at(mapping.entries[name].key, message, "", f"{block.path}.increment.{name}")
                sound = False
            elif node is not None and _kind(value) not in _NUMBERS:
                message = f"an increment must be a number, this is {kind_of(node)}"
                self._report.at(node, message, "write `1`, say", f"{block.path}.increment.{name}")
                sound = False
        return Increment(values) if sound else None

    def _values(self, block: Block, key: str, params: Params) -> dict[str, Param] | None:
        """Values by attribute, of the types that are declared; None when one was refused, or there is none."""
        mapping = block.mapping(key, "write `{attribute: value}`")
        if mapping is None or not self._some(block, key, mapping.entries):
            return None
        noun = "profile attribute"
        return self._typed(mapping, under(block.path, key), params, self._declared.profile, noun, fit=key == "set")

    def _typed(
        self,
        mapping: Mapping,
        path: str,
        params: Params,
        declared: Mapped[str, Typed] | None,
        noun: str,
        *,
        fit: bool = True,
    ) -> dict[str, Param] | None:
        read: dict[str, Param] = {}
        for name, entry in mapping.entries.items():
            where = under(path, name)
            if not check_name(entry.key, f"a {noun.rpartition(' ')[2]}", self._report, where):
                continue
            value = params.read(entry.node, where)
            if declared is not None and name not in declared:
                hint = did_you_mean(name, declared) or (f"declared are {one_of(sorted(declared)[:8])}" * bool(declared))
                self._report.at(entry.key, f"unknown {noun} `{name}`", hint, where)
            elif value is not None and entry.node is not None:
                fits: Param | None = value
                if declared is not None and fit:
                    fits = fitting(value, entry.node, name, declared[name], self._report, where, noun)
                if fits is not None:
                    read[name] = fits
        return read if len(read) == len(mapping.entries) else None

    def _some(self, block: Block, key: str, entries: object) -> bool:
        if not entries:
            block.refuse(block.key(key), f"`{key}` names nothing", "remove it, or say what", key)
        return bool(entries)

    def _unset(self, block: Block) -> Unset | None:
        if not block.has("unset"):
            return None
        named, sound = self._names(block, "unset", "a profile attribute")
        declared = self._declared.profile
        for scalar, path in named:
            if declared is not None and scalar.text not in declared:
                hint = did_you_mean(scalar.text, declared)
                self._report.at(scalar, f"unknown profile attribute `{scalar.text}`", hint, path)
                sound = False
        return Unset(tuple(scalar.text for scalar, _ in named)) if sound else None

    def _moves(self, block: Block) -> tuple[EnterSegment | None, LeaveSegment | None]:
        entered, left = (self._segments(block, key) for key in ("enter_segment", "leave_segment"))
        return (
            EnterSegment(entered) if entered is not None else None,
            LeaveSegment(left) if left is not None else None,
        )

    def _segments(self, block: Block, key: str) -> tuple[str, ...] | None:
        if not block.has(key):
            return None
        named, sound = self._names(block, key, "a segment")
        for scalar, path in named:
            managed = self._known.managed
            if managed is None or scalar.text in managed:
                continue
            sound = False
            if scalar.text in self._known.segments:
                message = f"the segment `{scalar.text}` is a condition: nobody enters or leaves it"
                hint = f"only a segment that is declared `{MANAGED}` is entered"
            else:
                message = f"unknown segment `{scalar.text}`"
                hint = did_you_mean(scalar.text, managed) or f"declare it: `segments: {{{scalar.text}: {MANAGED}}}`"
            self._report.at(scalar, message, hint, path)
        return tuple(scalar.text for scalar, _ in named) if sound else None

    def _names(self, block: Block, key: str, what: str) -> tuple[list[tuple[Scalar, str]], bool]:
        """A name, or a list of them, each once with its path; and whether none was refused, and there are any."""
        node, path = block.get(key), under(block.path, key)
        if node is None:
            return [], False
        items = list(block.items(key)) if isinstance(node, Sequence) else [(path, node)]
        if not self._some(block, key, items):
            return [], False
        found: dict[str, tuple[Scalar, str]] = {}
        for where, item in items:
            if not isinstance(item, Scalar) or as_text(item) is None:
                self._report.at(item, f"{what} is named by text, this is {kind_of(item)}", "write its name", where)
            elif check_name(item, what, self._report, where):
                if item.text in found:
                    self._report.at(item, f"`{item.text}` stands here twice", "remove one of the two", where)
                else:
                    found[item.text] = item, where
        return list(found.values()), len(found) == len(items)

    def _emit(self, block: Block, params: Params) -> tuple[Scalar | None, Emit | None]:
        place, inner = self._either(block, "emit", "event", OF_EMIT)
        if place is None:
            return None, None
        sound = known_event(place, self._declared, self._report, f"{block.path}.emit")
        properties: dict[str, Param] | None = {}
        if inner is not None and inner.has("properties"):
            mapping = inner.mapping("properties", "write `{property: value}`")
            events = self._declared.events
            declared = events.get(place.text) if events is not None and sound else None
            path = under(inner.path, "properties")
            properties = self._typed(mapping, path, params, declared, "event property") if mapping is not None else None
        return place, Emit(place.text, properties) if sound and properties is not None else None

    def _decide(self, block: Block, params: Params) -> Decide | None:
        place, inner = self._either(block, "decide", "decision", OF_DECIDE)
        if place is None:
            return None
        path = inner.path if inner is not None else f"{block.path}.decide"
        sound = check_identifier(place, "decision", self._report, path)
        known = self._known.decisions
        if sound and known is not None and place.text not in known:
            hint = did_you_mean(place.text, known) or f"declared are {one_of(sorted(known)[:8])}" * bool(known)
            self._report.at(place, f"unknown decision `{place.text}`", hint, path)
            sound = False
        context: dict[str, Param] | None = {}
        if inner is not None and inner.has("context"):
            mapping = inner.mapping("context", "write `{name: value}`")
            declared, path = self._declared.context, under(inner.path, "context")
            noun = "context attribute"
            context = self._typed(mapping, path, params, declared, noun) if mapping is not None else None
        return Decide(place.text, context) if sound and context is not None else None

    def _either(self, block: Block, key: str, inner: str, keys: Iterable[str]) -> tuple[Scalar | None, Block | None]:
        """What an act names, said alone or in a mapping, which is the second."""
        node: Node | None = block.get(key)
        if not isinstance(node, Mapping):
            return block.text(key, f"write a name, or `{{{inner}: name}}`"), None
        found = Block(node, self._report, what=f"`{key}`", path=under(block.path, key), keys=keys)
        if not found.require(inner, f"say which: `{inner}: name`"):
            return None, None
        return found.text(inner), found

    def _check_twice(self, block: Block, keys: Iterable[str], what: str) -> None:
        """Report names that several of the acts speak of: one firing does one thing to each."""
        known: dict[str, str] = {}
        for key in keys:
            for scalar in _said(block.get(key)):
                first = known.setdefault(scalar.text, key)
                if first != key:
                    message = f"{what} `{shorten(scalar.text)}` stands under `{first}` and `{key}`"
                    block.refuse(scalar, message, "one firing does one thing to it: remove one of the two", key)


def _said(node: Node | None) -> list[Scalar]:
    """The names that an act speaks of, whatever is wrong with them."""
    if isinstance(node, Mapping):
        return [entry.key for entry in node.entries.values()]
    items = node.items if isinstance(node, Sequence) else [node]
    return [item for item in items if isinstance(item, Scalar)]


def _kind(value: Param) -> str:
    """The type of what a parameter comes to."""
    if isinstance(value, Template):
        return "string" if len(value.parts) > 1 or isinstance(value.parts[0], str) else value.parts[0].type
    if isinstance(value, Plain):
        return {int: "int", float: "double"}.get(type(value.value), "other")
    return "other"
