"""What rule files declare about the outside: attributes, events, and the parameters of actions.

Law: gathers `schema` and `actions` of every file into one `Declared`; whether rules keep to it is checked where they
are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from arbiter.authoring.blocks import Block, check_identifier, check_name, one_of, under
from arbiter.authoring.nodes import Mapping, Node, Scalar, Sequence, as_text, is_nothing, kind_of
from arbiter.errors import did_you_mean
from arbiter.ruleset.consent import Use, known_purposes, named_purposes, read_consent
from arbiter.ruleset.rules import Merge
from arbiter.ruleset.times import rfc3339
from arbiter.types import type_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from arbiter.authoring.report import Report
    from arbiter.ruleset.rules import Feature
    from arbiter.ruleset.terms import SubjectZone

_OTHER_WORDS: Final = {
    "str": "string",
    "text": "string",
    "integer": "int",
    "int64": "int",
    "long": "int",
    "float": "double",
    "number": "double",
    "decimal": "double",
    "boolean": "bool",
    "date": "timestamp",
    "datetime": "timestamp",
    "time": "timestamp",
    "array": "list",
    "object": "map",
    "dict": "map",
}
# Sections of `schema` whose names expressions read under the section's own.
ATTRIBUTES: Final = ("profile", "account", "context")
LISTABLE: Final = ("string", "int", "double", "bool")
OF_ATTRIBUTE: Final = ("type", "values", "personal", "purposes")
OF_STORED: Final = (*OF_ATTRIBUTE, "default", "max_items")
PURPOSES: Final = "purposes"  # of an event: a list, which no property's type is
OF_PROFILE: Final = (*OF_STORED, "merge")
_KEYS: Final = {"profile": OF_PROFILE, "account": OF_STORED}
# The types that a way to merge works on, of those that do not work on all.
MERGES: Final[dict[Merge, tuple[str, ...]]] = dict.fromkeys(get_args(Merge), type_names) | {
    "sum": ("int", "double"),
    "max": ("int", "double", "timestamp"),
    "min": ("int", "double", "timestamp"),
    "union": ("list",),
}
MOST_ITEMS: Final = 1_000_000  # that may be declared: as many as `list_items` can be set to
OF_PARAMETER: Final = ("type", "values", "optional")


class Typed(msgspec.Struct, frozen=True):
    """A declared type; `values` are the only ones allowed, empty for any. `optional` is for parameters of actions,
    `merge` for attributes of a profile, `personal` for attributes and properties: their values stay out of
    explanations, logs, traces and metrics; without consent to all of the `purposes` there is none. `default` stands for
    a stored attribute that is absent, None for none; `max_items` bounds a stored list, None for not at all.

    ``dyn`` stands for a type that was refused, so that one mistake is reported once.
    """

    type: str
    values: tuple[Any, ...] = ()
    optional: bool = False
    personal: bool = False
    default: Any = None
    purposes: tuple[str, ...] = ()
    merge: Merge | None = None
    max_items: int | None = None


class Declared(msgspec.Struct):
    """Everything declared so far. A section is None until some file has it: then names in it are closed.

    `purposes` are those that consent is given for, None where that cannot be known; `event_purposes` are those that
    whole events are bound to. `zone` is where a subject's time zone stands, None until it is known; `zone_refused` says
    that it was told wrongly.
    """

    report: Report
    profile: dict[str, Typed] | None = None
    account: dict[str, Typed] | None = None
    context: dict[str, Typed] | None = None
    events: dict[str, dict[str, Typed]] | None = None
    actions: dict[str, dict[str, Typed]] | None = None
    purposes: list[str] | None = []
    event_purposes: dict[str, tuple[str, ...]] = {}
    zone: SubjectZone | None = None
    zone_refused: bool = False
    _uses: list[Use] = []
    _places: dict[tuple[str, ...], Scalar] = {}

    def attributes(self) -> Iterator[tuple[str, dict[str, Typed] | None]]:
        """The sections that hold attributes, by the root under which expressions name them."""
        for root in ATTRIBUTES:
            yield root, getattr(self, root)

    def first(self, key: Scalar, what: str, *name: str) -> bool:
        """Whether this is the first place that says `name`; reports the second, naming both."""
        known = self._places.setdefault((what, *name), key)
        if known is key:
            return True
        place = self.report.place_of(known)
        shown = ".".join(name)
        self.report.at(
            key, f"the {what} `{shown}` is declared twice; the other place is {place}", "remove one of the two"
        )
        return False

    def read_schema(self, node: Node) -> None:
        """Take in one file's `schema`."""
        block = _block(node, self.report, "schema", (*ATTRIBUTES, "events"))
        if block is None:
            return
        for section in ATTRIBUTES:
            mapping = block.mapping(section, "write `{name: type}`") if block.has(section) else None
            if mapping is None:
                continue
            types: dict[str, Typed] = getattr(self, section) or {}
            setattr(self, section, types)
            self._read_types(mapping, types, section, f"schema.{section}")
        events = block.mapping("events", "write `{event: {property: type}}`")
        if events is not None:
            self._read_events(events)

    def read_consent(self, node: Node) -> None:
        """Take in one file's `consent`."""
        found = read_consent(node, self.report, self.first)
        self.purposes = None if self.purposes is None else [*self.purposes, *found]

    def check_purposes(self) -> None:
        """Report the purposes that attributes and events name and no file declares: when all files were taken in."""
        known_purposes(self._uses, self.purposes, self.report)

    def read_actions(self, node: Node) -> None:
        """Take in one file's `actions`."""
        if not isinstance(node, Mapping):
            self.report.at(
                node, f"`actions` must be a mapping, this is {kind_of(node)}", "write `{action: {params: {}}}`"
            )
            return
        self.actions = {} if self.actions is None else self.actions
        for name, entry in node.entries.items():
            path = under("actions", name)
            if not check_identifier(entry.key, "name", self.report, path) or not self.first(entry.key, "action", name):
                continue
            params = self.actions.setdefault(name, {})
            if entry.node is None or is_nothing(entry.node):
                continue
            block = _block(entry.node, self.report, "an action", ("params",), path)
            mapping = block.mapping("params", "write `{name: type}`") if block is not None else None
            for param, inner in mapping.entries.items() if mapping is not None else ():
                where = f"{path}.params.{param}"
                params[param] = self._type(inner.node, where, OF_PARAMETER) if inner.node is not None else Typed("dyn")

    def _read_events(self, events: Mapping) -> None:
        self.events = {} if self.events is None else self.events
        for name, entry in events.entries.items():
            path = f"schema.events.{name}"
            if not check_name(entry.key, "an event type", self.report, path) or not self.first(
                entry.key, "event", name
            ):
                continue
            types = self.events.setdefault(name, {})
            if isinstance(entry.node, Mapping):
                mapping = entry.node
                own = mapping.entries.get(PURPOSES)
                if own is not None and isinstance(own.node, Sequence):
                    self.event_purposes[name] = self._named(own.node, f"{path}.{PURPOSES}")
                    mapping = msgspec.structs.replace(
                        mapping, entries={key: each for key, each in mapping.entries.items() if key != PURPOSES}
                    )
                self._read_types(mapping, types, f"{name} property", path)
            elif entry.node is not None and not is_nothing(entry.node):
                hint = "write `{property: type}`, or `{}` for none"
                self.report.at(entry.node, f"`{name}` must be a mapping, this is {kind_of(entry.node)}", hint, path)

    def _read_types(self, mapping: Mapping, into: dict[str, Typed], section: str, path: str) -> None:
        what = section if section.endswith("property") else f"{section} attribute"
        keys = _KEYS.get(section, OF_ATTRIBUTE)
        for name, entry in mapping.entries.items():
            where = f"{path}.{name}"
            if check_name(entry.key, f"a {what}", self.report, where) and self.first(entry.key, what, name):
                into[name] = self._type(entry.node, where, keys) if entry.node is not None else Typed("dyn")

    def _type(self, node: Node, path: str, keys: tuple[str, ...]) -> Typed:
        if not isinstance(node, Mapping):
            return Typed(self._type_name(node, path))
        block = Block(node, self.report, what="a declaration", path=path, keys=keys)
        if not block.require("type", f"one of {one_of(type_names)}"):
            return Typed("dyn")
        inner = block.get("type")
        kind = self._type_name(inner, path) if inner is not None else "dyn"
        values, max_items = self._values(block, kind), self._max_items(block, kind)
        return Typed(
            kind,
            values,
            optional=self._optional(block),
            personal=self._personal(block),
            default=self._default(block, kind, values, max_items),
            purposes=() if keys is OF_PARAMETER else self._named(block.get(PURPOSES), f"{path}.{PURPOSES}"),
            merge=self._merge(block, kind),
            max_items=max_items,
        )

    @staticmethod
    def _max_items(block: Block, kind: str) -> int | None:
        """How many items a list may have; None where nothing, or nothing sound, is said."""
        most = block.integer("max_items", 1, MOST_ITEMS)
        if most is not None and kind not in {"list", "dyn"}:
            block.refuse(block.key("max_items"), f"{article(kind)} has no items", "only a list does", "max_items")
            return None
        return most

    def _default(self, block: Block, kind: str, values: tuple[Any, ...], max_items: int | None) -> Any:
        """What stands for an absent attribute; None where that is not said, or said wrongly."""
        node, path = block.get("default"), f"{block.path}.default"
        if node is None:
            return None
        if kind == "bytes":
            block.refuse(node, "bytes cannot have a default", "leave it out", "default")
            return None
        value, wrong = constant_of(node, kind)
        if wrong or (value is None and isinstance(node, Scalar)):
            hint = "write `2026-11-01T00:00:00Z`" if kind == "timestamp" else ""
            block.refuse(node, f"the default must be {article(kind)}, this is {kind_of(node)}", hint, "default")
            return None
        if values and value not in values:
            allowed = one_of(str(each) for each in values)
            block.refuse(node, f"the default `{value}` is none of the values", f"they are {allowed}", "default")
            return None
        if max_items is not None and isinstance(node, Sequence) and len(node.items) > max_items:
            number = len(node.items)
            block.refuse(node, f"the default has {number} items, and `max_items` is {max_items}", key="default")
            return None
        return value if isinstance(node, Scalar) else self._nested(node, path)

    def _nested(self, node: Node | None, path: str) -> Any:
        """A list or a mapping as it stands; None, and reported, where there is nothing in it."""
        if isinstance(node, Mapping):
            inner = {name: self._nested(entry.node, under(path, name)) for name, entry in node.entries.items()}
            return None if None in inner.values() else inner
        if isinstance(node, Sequence):
            items = [self._nested(item, f"{path}[{number}]") for number, item in enumerate(node.items)]
            return None if None in items else items
        if node is not None and node.value is None:
            self.report.at(node, "a default cannot hold nothing", "leave it out", path)
        return None if node is None else node.value

    def _named(self, node: Node | None, path: str) -> tuple[str, ...]:
        """The purposes that a list names, sorted; whether they are declared is asked when all files are in."""
        uses = named_purposes(node, PURPOSES, path, self.report)
        self._uses += uses
        return tuple(sorted(use.scalar.text for use in uses))

    @staticmethod
    def _merge(block: Block, kind: str) -> Merge | None:
        """How an attribute that two linked ids both have becomes one; None where nothing, or nothing sound, is said."""
        said = block.text("merge")
        found = next((each for each in MERGES if said is not None and each == said.text), None)
        if said is None or (found is not None and (kind == "dyn" or kind in MERGES[found])):
            return found
        if found is None:
            hint = did_you_mean(said.text, MERGES) or f"one of {one_of(MERGES)}"
            block.refuse(said, f"unknown way to merge `{said.text}`", hint, "merge")
        else:
            block.refuse(said, f"`{found}` cannot merge {article(kind)}", f"it merges {one_of(MERGES[found])}", "merge")
        return None

    @staticmethod
    def _personal(block: Block) -> bool:
        """Whether values are personal; where that is said wrongly, they are."""
        said = block.boolean("personal")
        return block.has("personal") if said is None else said

    @staticmethod
    def _optional(block: Block) -> bool:
        """Whether a parameter may be left out; of one that does not say so soundly, nobody is told to add it."""
        said = block.boolean("optional")
        return block.has("optional") if said is None else said

    def _type_name(self, node: Node, path: str) -> str:
        word = as_text(node)
        if word in type_names:
            return word
        if word is None:
            self.report.at(
                node, f"a type must stand here, this is {kind_of(node)}", f"one of {one_of(type_names)}", path
            )
            return "dyn"
        better = _OTHER_WORDS.get(word.lower())
        hint = f"did you mean `{better}`?" if better else did_you_mean(word, type_names)
        self.report.at(node, f"unknown type `{word}`", hint or f"one of {one_of(type_names)}", path)
        return "dyn"

    def _values(self, block: Block, kind: str) -> tuple[Any, ...]:
        if block.has("values") and kind not in {*LISTABLE, "dyn"}:
            self.report.at(
                block.key("values"), f"a {kind} cannot have `values`", f"only {one_of(LISTABLE)} can", block.path
            )
            return ()
        values: list[Any] = []
        for path, item in block.items("values", "write `[one, two]`"):
            value, wrong = constant_of(item, kind)
            if wrong or isinstance(item, (Mapping, Sequence)):
                self.report.at(item, f"this must be {article(kind)}, it is {kind_of(item)}", path=path)
            elif value in values:
                self.report.at(item, f"the value `{value}` stands here twice", "remove one of the two", path)
            else:
                values.append(value)
        listed = block.get("values")
        if isinstance(listed, Sequence) and not listed.items:
            self.report.at(block.key("values"), "`values` is empty, so nothing would be allowed", path=block.path)
        return tuple(values)


def constant_of(node: Node, kind: str) -> tuple[Any, bool]:
    """A scalar as a value of the type, and whether it is none; of lists and mappings only the kind is checked."""
    if isinstance(node, Mapping):
        return None, kind not in {"map", "dyn"}
    if isinstance(node, Sequence):
        return None, kind not in {"list", "dyn"}
    value = node.value
    if kind == "dyn":
        return value, False
    if kind == "double" and isinstance(value, int) and not isinstance(value, bool):
        return float(value), False
    if kind == "timestamp" and isinstance(value, str):
        instant = rfc3339(value)
        return instant, instant is None
    classes: dict[str, type] = {"bool": bool, "int": int, "double": float, "string": str}
    return value, type(value) is not classes.get(kind)


def personal_names(declared: Declared, features: Iterable[Feature]) -> tuple[str, ...]:
    """The dotted names whose values are declared personal: attributes, and features of what events hold, or of such."""
    events = declared.events or {}
    found = [
        f"{root}.{name}"
        for root, types in declared.attributes()
        for name, typed in (types or {}).items()
        if typed.personal
    ]
    features = list(features)
    for feature in features:
        typed = events.get(feature.event, {}).get(feature.property)
        if typed is not None and typed.personal:
            found.append(f"features.{feature.name}")
    personal = set(found)
    found += [f"features.{f.name}" for f in features if any(f"features.{part}" in personal for part in f.of)]
    return tuple(sorted(found))


def defaults_of(declared: Declared) -> dict[str, Any]:
    """What stands for absent attributes, by dotted name."""
    return {
        f"{root}.{name}": typed.default
        for root, types in declared.attributes()
        for name, typed in sorted((types or {}).items())
        if typed.default is not None
    }


def max_items_of(declared: Declared) -> dict[str, int]:
    """How many items stored lists may have, by dotted name."""
    return {
        f"{root}.{name}": typed.max_items
        for root, types in declared.attributes()
        for name, typed in sorted((types or {}).items())
        if typed.max_items is not None
    }


def article(kind: str) -> str:
    """The type with its article."""
    return f"an {kind}" if kind == "int" else f"a {kind}"


def _block(node: Node, report: Report, what: str, keys: tuple[str, ...], path: str = "") -> Block | None:
    if isinstance(node, Mapping):
        return Block(node, report, what=what, path=path or what, keys=keys)
    report.at(node, f"{what} must be a mapping, this is {kind_of(node)}", f"it may have {one_of(keys)}", path or what)
    return None
