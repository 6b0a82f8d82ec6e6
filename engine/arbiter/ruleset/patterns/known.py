"""What the conditions of triggers may name, and what each name is.

Law: names and types only. A step sees its own event and those before it; what is judged when a trigger fires sees the
subject, and the events of all steps by their labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.expr.check import Scope
from arbiter.expr.syntax import NAMESPACES, PATH_LENGTH
from arbiter.ruleset.expressions import Expressions, types_of, values_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from arbiter.authoring.report import Report
    from arbiter.ruleset.declarations import Declared, Typed
    from arbiter.ruleset.rules import Segment

RESERVED: Final = frozenset(
    {*PATH_LENGTH, *NAMESPACES, "managed", "true", "false", "null", "in", "as", "break", "const", "continue", "else",
     "for", "function", "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}
)  # fmt: skip
"""What cannot be a label, since it means something else in an expression."""

_IN_WHERE: Final = dict.fromkeys(
    ("profile", "account", "features", "segments", "now"),
    "`where` looks at events alone: say this in the trigger's `when`, which is judged as it fires",
) | dict.fromkeys(("context", "models", "experiments"), "`where` looks at events alone")
_IN_FIRING: Final = {
    "context": "nobody sends a request when a trigger fires, so there is no `context`",
    "models": "a trigger asks no model; `decide` can",
    "experiments": "a trigger is for everybody alike; `decide` can tell the variants of `experiments` apart",
    "event": "`event` is for `where`; an event goes by its label here, the name of its type or what `as` says",
}


class Label(msgspec.Struct, frozen=True):
    """What an event is called behind its step, and the types that it may have: any where there are none, and None
    where that was refused.
    """

    name: str
    events: tuple[str, ...] | None


class Known(msgspec.Struct, frozen=True):
    """What triggers are read against. `scope` and `values` are those of rules; `decisions`, and the `managed` segments,
    are None where it is not known which there are. `beyond` says what a segment reads that is never there when a
    trigger fires, by the segment's name.
    """

    declared: Declared
    scope: Scope
    values: Mapping[tuple[str, ...], tuple[Any, ...]]
    decisions: Collection[str] | None
    managed: frozenset[str] | None
    segments: Collection[str]
    beyond: Mapping[str, str]


class Conditions:
    """Reads the expressions of triggers, each within the names that it may use."""

    def __init__(self, report: Report, known: Known) -> None:
        self._report = report
        self._known = known
        self._made: dict[object, Expressions] = {}

    def of_step(
        self, events: tuple[str, ...] | None, before: Iterable[Label], unusable: Mapping[str, str]
    ) -> Expressions:
        """For the `where` of a step of these types of events. `unusable` are labels, with the reason."""
        labels = (Label("event", events), *before)
        said = {**_IN_WHERE, **unusable}
        return self._expressions(labels, said, {})

    def of_firing(self, labels: Iterable[Label], unusable: Mapping[str, str]) -> Expressions:
        """For what is judged and rendered when a trigger fires."""
        roots = {root: names for root, names in self._known.scope.roots.items() if root != "context"}
        return self._expressions(tuple(labels), {**_IN_FIRING, **unusable}, {**roots, "context": {}})

    def _expressions(
        self, labels: tuple[Label, ...], unusable: Mapping[str, str], roots: Mapping[str, dict[str, str] | None]
    ) -> Expressions:
        key = (labels, tuple(unusable.items()), bool(roots))
        found = self._made.get(key)
        if found is None:
            typed = {label.name: properties_of(label.events, self._known.declared) for label in labels}
            scope = Scope(
                roots={**roots, **{name: types_of(types) for name, types in typed.items()}},
                barred=dict(unusable),
            )
            values = dict(self._known.values) if roots else {}
            for name, types in typed.items():
                values |= values_of(name, types)
            found = self._made[key] = Expressions(self._report, scope, values)
        return found


def properties_of(events: tuple[str, ...] | None, declared: Declared) -> dict[str, Typed] | None:
    """The properties that events of these types may have, as `Label` says; None where any name may be one. A property
    that they have of different types is of any.
    """
    if declared.events is None or events is None:
        return None
    found: dict[str, Typed] = {}
    for event in events or sorted(declared.events):
        for name, typed in declared.events.get(event, {}).items():
            known = found.setdefault(name, typed)
            if known.type != typed.type:
                found[name] = msgspec.structs.replace(known, type="dyn", values=())
            elif known.values != typed.values:
                both = (*known.values, *typed.values) if known.values and typed.values else ()
                found[name] = msgspec.structs.replace(known, values=tuple(dict.fromkeys(both)))
    return found


def beyond_of(segments: Iterable[Segment]) -> dict[str, str]:
    """By segment the dotted name that it reads of models, context or experiments, itself or through others."""
    names = {segment.name: segment.condition.names for segment in segments}
    found = {
        name: ".".join(path)
        for name, paths in names.items()
        for path in paths
        if path[0] in {"models", "context", "experiments"}
    }
    grown = True
    while grown:  # a level of segments at a time
        grown = False
        for name, paths in names.items():
            inner = next((found[path[1]] for path in paths if path[0] == "segments" and path[1] in found), None)
            if inner is not None and name not in found:
                found[name] = inner
                grown = True
    return found
