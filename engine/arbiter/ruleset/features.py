"""Features: typed values computed from a subject's events.

Law: reads ``features`` into `Feature`s and gives each the key under which stores keep its values. It computes nothing.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final, get_args

import msgspec

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.nodes import Mapping, Scalar, kind_of
from arbiter.authoring.scalars import NAME, UNITS, shorten
from arbiter.errors import did_you_mean
from arbiter.expr.check import Scope
from arbiter.ruleset.consent import inherited
from arbiter.ruleset.expressions import Expressions, types_of, values_of
from arbiter.ruleset.keys import read_duration, read_purposes
from arbiter.ruleset.ratios import RatioReader
from arbiter.ruleset.rules import Aggregate, Feature
from arbiter.ruleset.times import unit_letter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as Mapped

    from arbiter.authoring.nodes import Entry
    from arbiter.authoring.report import Report
    from arbiter.expr.tree import Expression
    from arbiter.ruleset.declarations import Declared, Typed

AGGREGATES: Final[tuple[Aggregate, ...]] = tuple(each for each in get_args(Aggregate) if each != "tally")
OF_EVENTS: Final = frozenset({"count", "since"})
OF_EITHER: Final = frozenset({"decay"})
_OF_NUMBERS: Final = frozenset({"sum", "min", "max", "mean", "decay"})
_FIXED_TYPE: Final = {"count": "int", "distinct": "int", "since": "double", "mean": "double", "decay": "double"}
_LOWEST: Final = {"count": 0, "since": 0, "distinct": 1}
KEYS: Final = (*AGGREGATES, "window", "where", "unit", "half_life", "purposes")


class FeatureReader:
    """Reads features against what is declared about events."""

    def __init__(self, report: Report, declared: Declared) -> None:
        self._report = report
        self._declared = declared
        self._events = declared.events
        self._conditions: dict[str, Expressions] = {}

    def read_all(self, entries: Mapped[str, Entry], *, whole: bool) -> list[Feature | None]:
        """Every feature, None for one that was refused. `entries` are keys and definitions; `whole` says that none is
        missing.
        """
        read: dict[str, Feature | None] = {}
        ratios: dict[str, Block] = {}
        for name, entry in entries.items():
            block = self._block(name, entry)
            aggregate = self._aggregate(block, entry.key) if block is not None else None
            if block is not None and aggregate == "ratio":
                ratios[name] = block
            else:
                read[name] = self._read(name, entry, block, aggregate) if block is not None and aggregate else None
        reader = RatioReader(read, frozenset(ratios), whole=whole)
        made = {name: self._ratio(name, entries[name], block, reader.read(block)) for name, block in ratios.items()}
        return [*read.values(), *made.values()]

    def _block(self, name: str, entry: Entry) -> Block | None:
        path = f"features.{name}"
        if isinstance(entry.node, Mapping):
            return Block(entry.node, self._report, what="a feature", path=path, keys=KEYS)
        if entry.node is not None:
            message = f"a feature must be a mapping, this is {kind_of(entry.node)}"
            self._report.at(entry.node, message, "write `{count: event, window: 7d}`", path)
        return None

    def _read(self, name: str, entry: Entry, block: Block, aggregate: Aggregate) -> Feature | None:
        target = self._target(block, aggregate)
        window = read_duration(block, "window")
        unit = self._unit(block, aggregate)
        half_life = self._half_life(block, aggregate)
        where = self._where(block, target[0] if target else "")
        own = read_purposes(block, "purposes", self._declared)
        if target is None:
            return None
        event, name_of_property = target
        kind = self._type(block, aggregate, event, name_of_property)
        read = {name_of_property, *(names[1] for names in (where.names if where else ()))}
        definition: tuple[object, ...] = (
            aggregate, event, name_of_property, window, where.source.strip() if where else "", unit, kind
        )  # fmt: skip
        if half_life:  # keys of features without one are as they were before there was any
            definition += (half_life,)
        return Feature(
            name=name,
            aggregate=aggregate,
            event=event,
            property=name_of_property,
            window=window,
            where=where,
            unit=unit,
            key=key_of(definition),
            type=kind,
            position=entry.key.source.position(entry.key.start),
            half_life=half_life,
            purposes=tuple(sorted(inherited(self._declared, event, read).union(own))),
        )

    def _ratio(self, name: str, entry: Entry, block: Block, parts: tuple[Feature, ...]) -> Feature | None:
        own = read_purposes(block, "purposes", self._declared)
        if not parts:
            return None
        keys = tuple(part.key for part in parts)
        return Feature(
            name=name,
            aggregate="ratio",
            event="",
            property="",
            window=None,
            where=None,
            unit=0,
            key=key_of(("ratio", *keys)),
            type="double",
            position=entry.key.source.position(entry.key.start),
            of=tuple(part.name for part in parts),
            parts=keys,
            purposes=tuple(sorted(set(own).union(*(part.purposes for part in parts)))),
        )

    def _aggregate(self, block: Block, key: Scalar) -> Aggregate | None:
        found = [aggregate for aggregate in AGGREGATES if block.has(aggregate)]
        if len(found) == 1:
            return found[0]
        if found:
            second = min((block.key(extra) for extra in found), key=lambda k: -k.start)
            block.refuse(second, f"a feature has one aggregate, this has {one_of(found)}", "make one feature for each")
        else:
            block.refuse(key, f"the feature `{key.text}` says nothing to compute", f"add one of {one_of(AGGREGATES)}")
        return None

    def _target(self, block: Block, aggregate: Aggregate) -> tuple[str, str] | None:
        """Event type and property, the property empty where there is none."""
        scalar = block.text(aggregate, "write an event type")
        if scalar is None:
            return None
        event, dot, inner = scalar.text.partition(".")
        needs = aggregate not in OF_EVENTS and (bool(dot) or aggregate not in OF_EITHER)
        form = "event.property" if aggregate not in OF_EVENTS else "event"
        if aggregate in OF_EITHER:
            form = "event` or `event.property"
        if bool(dot) != needs or not NAME.fullmatch(event) or (needs and not NAME.fullmatch(inner)):
            hint = f"write `{aggregate}: {event}`" if dot and not needs and NAME.fullmatch(event) else ""
            message = f"`{aggregate}` takes `{form}`, this is `{shorten(scalar.text)}`"
            block.refuse(scalar, message, hint or f"`{aggregate}: purchase{'.amount' * needs}`, say", aggregate)
            return None
        if self._events is None:
            return event, inner
        if event not in self._events:
            self._unknown(block, scalar, (0, len(event)), f"unknown event `{event}`", did_you_mean(event, self._events))
            return None
        properties = self._events[event]
        if needs and inner not in properties:
            span = (len(event) + 1, len(scalar.text))
            hint = did_you_mean(inner, properties) or (f"it has {one_of(properties)}" if properties else "it has none")
            self._unknown(block, scalar, span, f"the event `{event}` has no property `{inner}`", hint)
            return None
        return event, inner

    def _unknown(self, block: Block, scalar: Scalar, span: tuple[int, int], message: str, hint: str) -> None:
        declared = f"declared are {one_of(sorted(self._events or ())[:8])}" if self._events else ""
        self._report.inside(scalar, *span, message, hint or declared, block.path)

    def _half_life(self, block: Block, aggregate: Aggregate) -> int:
        if aggregate != "decay":
            if block.has("half_life"):
                message = f"`half_life` is for `decay`, `{aggregate}` has none"
                block.refuse(block.key("half_life"), message, "remove it", "half_life")
            return 0
        if not block.require("half_life", "how long it takes to halve: `14d`, say", at=block.key("decay")):
            return 0
        return read_duration(block, "half_life") or 0

    def _unit(self, block: Block, aggregate: Aggregate) -> int:
        if aggregate != "since":
            if block.has("unit"):
                message = f"`unit` is for `since`, `{aggregate}` has none"
                block.refuse(block.key("unit"), message, "remove it", "unit")
            return 0
        if not block.require("unit", f"one of {one_of(UNITS)}", at=block.key("since")):
            return 0
        scalar = block.text("unit", f"one of {one_of(UNITS)}")
        if scalar is not None and scalar.text not in UNITS:
            letter = unit_letter(scalar.text)
            hint = f"did you mean `{letter}`?" if letter else f"one of {one_of(UNITS)}"
            block.refuse(scalar, f"unknown unit `{shorten(scalar.text)}`", hint, "unit")
            return 0
        return UNITS[scalar.text] if scalar is not None else 0

    def _where(self, block: Block, event: str) -> Expression | None:
        node = block.get("where")
        if node is None:
            return None
        if event not in self._conditions:
            known: dict[str, Typed] | None = (self._events or {}).get(event) if self._events else None
            scope = Scope(roots={"event": types_of(known)})
            self._conditions[event] = Expressions(self._report, scope, values_of("event", known))
        return self._conditions[event].read(node, "`where`", f"{block.path}.where", expect="bool")

    def _type(self, block: Block, aggregate: Aggregate, event: str, name: str) -> str:
        declared = (self._events or {}).get(event, {}).get(name)
        kind = declared.type if declared is not None else "dyn"
        if aggregate in _OF_NUMBERS and name and kind not in {"int", "double", "dyn"}:
            scalar = block.get(aggregate)
            if isinstance(scalar, Scalar):
                message = f"`{aggregate}` needs numbers, `{event}.{name}` is declared as {kind}"
                self._report.inside(scalar, len(event) + 1, len(scalar.text), message, path=block.path)
            return "double"
        if aggregate in _FIXED_TYPE:
            return _FIXED_TYPE[aggregate]
        return "double" if aggregate in _OF_NUMBERS and kind == "dyn" else kind


def lowest_of(features: Iterable[Feature]) -> dict[str, int]:
    """What features cannot be below, by name, those that have such a bound."""
    features = list(features)
    found = {f.name: _LOWEST[f.aggregate] for f in features if f.aggregate in _LOWEST}
    found |= {f.name: 0 for f in features if f.aggregate == "decay" and not f.property}
    return found | {f.name: 0 for f in features if f.aggregate == "ratio" and found.keys() >= set(f.of)}


def key_of(definition: object) -> str:
    """The key of a definition: equal definitions share it, whatever their names."""
    digest = hashlib.blake2b(msgspec.msgpack.encode(definition), digest_size=6).digest()
    return base64.urlsafe_b64encode(digest).decode()
