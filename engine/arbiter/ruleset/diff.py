"""What differs between two rule sets, in the words of their authors.

Law: pure, over two `Ruleset`s. Expressions are compared by their source text, and where a thing stands in its file is
no part of it. Every other field counts, those that are added later too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from arbiter.expr.tree import Expression
from arbiter.ruleset.experiments.terms import Factor
from arbiter.ruleset.metrics import value_of
from arbiter.ruleset.patterns.words import written_of
from arbiter.ruleset.render import text
from arbiter.ruleset.rules import Effect
from arbiter.ruleset.terms import Cap
from arbiter.ruleset.written import constant_text, duration_text, param_text
from arbiter.types import from_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arbiter.ruleset.rules import Ruleset

# What a thing is found by, and what follows from the rest.
_APART = frozenset({"id", "name", "position", "specificity", "key", "caps"})
_LIST = frozenset({"when", "tags", "purposes", "requires_consent", "then"})
_MOMENTS = frozenset({"start", "until"})


class Change(msgspec.Struct, frozen=True):
    """One difference inside a thing: a field, with what it was and what it is; empty where there is nothing.

    A list (the conditions of a rule, its tags) gives one for each member that went or came.
    """

    field: str
    before: str
    after: str


class Changed(msgspec.Struct, frozen=True):
    """A thing that both sets have, and what differs in it."""

    name: str
    changes: tuple[Change, ...]


class Section(msgspec.Struct, frozen=True):
    """The differences of one kind of thing, each sorted by name."""

    added: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    changed: tuple[Changed, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.gone or self.changed)


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two versions. `declarations` are named ``profile.X``, ``account.X``, ``context.X``,
    ``events.E.X``, for a purpose ``consent.P``, ``layers.L``, ``holdout``, ``metrics.M``
    and ``groups.G``.
    """

    rules: Section
    decisions: Section
    segments: Section
    features: Section
    triggers: Section
    experiments: Section
    models: Section
    declarations: Section

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return any(getattr(self, name) for name in self.__struct_fields__)


def difference(
    before: Ruleset,
    after: Ruleset,
    models_before: Mapping[str, str] | None = None,
    models_after: Mapping[str, str] | None = None,
) -> Diff:
    """What it takes to come from `before` to `after`. Models are given by name, with their digests."""
    return Diff(
        rules=_section(before.rules, after.rules, lambda rule: rule.id),
        decisions=_section(before.decisions, after.decisions, lambda point: point.name),
        segments=_section(before.segments, after.segments, lambda segment: segment.name),
        features=_section(before.features, after.features, lambda feature: feature.name),
        triggers=_section(before.triggers, after.triggers, lambda trigger: trigger.id, written_of),
        experiments=_section(before.experiments.each, after.experiments.each, lambda each: each.name),
        models=_compared(
            {name: {"digest": (digest,)} for name, digest in (models_before or {}).items()},
            {name: {"digest": (digest,)} for name, digest in (models_after or {}).items()},
        ),
        declarations=_compared(_declared(before), _declared(after)),
    )


_Thing = TypeVar("_Thing", bound=msgspec.Struct)
# A field's texts: one, or of a list as many as it has.
_Written = dict[str, tuple[str, ...]]


def _section(
    before: Iterable[_Thing],
    after: Iterable[_Thing],
    name: Callable[[_Thing], str],
    fields: Callable[[_Thing], _Written] | None = None,
) -> Section:
    fields = fields or _fields
    old, new = ({name(each): each for each in things} for things in (before, after))
    # Most things are the same in both: they are told by equality, and not written.
    both = [key for key in old.keys() & new.keys() if old[key] != new[key]]
    found = _compared({key: fields(old[key]) for key in both}, {key: fields(new[key]) for key in both})
    return msgspec.structs.replace(
        found, added=tuple(sorted(new.keys() - old.keys())), gone=tuple(sorted(old.keys() - new.keys()))
    )


def _compared(before: Mapping[str, _Written], after: Mapping[str, _Written]) -> Section:
    changed = [(name, _changes(before[name], after[name])) for name in sorted(before.keys() & after.keys())]
    return Section(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(before.keys() - after.keys())),
        tuple(Changed(name, changes) for name, changes in changed if changes),
    )


def _changes(before: _Written, after: _Written) -> tuple[Change, ...]:
    found: list[Change] = []
    for field in dict.fromkeys((*before, *after)):
        old, new = before.get(field, ()), after.get(field, ())
        if old == new:
            continue
        gone, come = _beyond(old, new), _beyond(new, old)
        if field in _LIST and (gone or come):
            found += [Change(field, each, "") for each in gone] + [Change(field, "", each) for each in come]
        else:
            found.append(Change(field, ", ".join(old), ", ".join(new)))
    return tuple(found)


def _beyond(these: tuple[str, ...], those: tuple[str, ...]) -> list[str]:
    left = list(those)
    return [each for each in these if each not in left or left.remove(each)]  # type: ignore[func-returns-value]


def _declared(ruleset: Ruleset) -> dict[str, _Written]:
    groups = {
        "profile": ruleset.profile_types, "account": ruleset.account_types, "context": ruleset.context_types
    }  # fmt: skip
    groups |= {f"events.{event}": types for event, types in ruleset.event_types.items()}
    named = {f"{group}.{name}": kind for group, types in groups.items() for name, kind in types.items()}
    personal = frozenset(ruleset.personal)
    written: dict[str, _Written] = {name: {"type": (kind,)} for name, kind in named.items()}
    for name in personal & written.keys():
        written[name]["personal"] = ("true",)
    for name, values in ruleset.values.items():
        written[name]["values"] = tuple(map(constant_text, values))
    for name, value in ruleset.defaults.items():
        written[name]["default"] = (constant_text(value),)
    for name in ruleset.bound.keys() & written.keys():
        written[name]["purposes"] = ruleset.bound[name]
    written |= {f"consent.{purpose}": {} for purpose in ruleset.purposes}
    for name, merge in ruleset.profile_merges.items():
        written[f"profile.{name}"]["merge"] = (merge,)
    for name, most in ruleset.max_items.items():
        written[name]["max_items"] = (str(most),)
    written |= {f"caps.{each.by}{each.name and f'.{each.name}'}": {"": (_text(each.cap),)} for each in ruleset.caps}
    written |= {f"layers.{layer.name}": _fields(layer) for layer in ruleset.experiments.layers}
    if ruleset.experiments.holdout is not None:
        written["holdout"] = _fields(ruleset.experiments.holdout)
    for metric in ruleset.metrics:
        written[f"metrics.{metric.name}"] = {
            "outcome": (metric.outcome,), "within": (duration_text(metric.within),), "value": (value_of(metric.take),)
        }  # fmt: skip
    for bandit in ruleset.bandits:
        written[f"groups.{bandit.name}"] = {
            "metric": (bandit.metric,), "prior.wins": (text(bandit.wins),), "prior.losses": (text(bandit.losses),),
            "half_life": (duration_text(bandit.half_life),) if bandit.half_life else (), "floor": (text(bandit.floor),),
        }  # fmt: skip
    return written


def _fields(thing: msgspec.Struct) -> _Written:
    written: _Written = {}
    for field in thing.__struct_fields__:
        value = getattr(thing, field)
        match value:
            case _ if field in _APART:
                continue
            case Effect(action, params):
                label = {"then": ""}.get(field, f"{field} ")
                written[f"{label}action"] = (action,)
                written |= {f"{label}{name}": (param_text(param),) for name, param in params.items()}
            case tuple() | list():
                written[field] = tuple(map(_text, value))
            case None | "":
                written[field] = ()
            case int() if field == "window":
                written[field] = (duration_text(value),)
            case _:
                written[field] = (_text(value),)
    return written


def _text(value: Any) -> str:
    match value:
        case Expression():
            return value.source
        case Factor(name, levels):
            weights = ", ".join(f"{level} {text(weight)}" for level, weight in levels)
            return f"{name}: {weights}" if name else weights
        case Cap():
            said = {"max": value.most, "per": value.per, "cool_down": value.cooling, "count_on": value.on}
            said |= {"strict": "true"} if value.strict else {}
            return ", ".join(f"{key} {each}" for key, each in said.items() if each)
        case msgspec.Struct():
            named = [(name, getattr(value, name)) for name in value.__struct_fields__]
            return ", ".join(f"{name} {_member(name, each)}" for name, each in named if each is not None)
    return str(value) if isinstance(value, str) else constant_text(value)


def _member(name: str, value: Any) -> str:
    """Inside a rollout or a range of dates."""
    if name in _MOMENTS and isinstance(value, int):
        return text(from_micros(value))
    return text(value) if isinstance(value, float) else _text(value)
