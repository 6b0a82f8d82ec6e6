"""Triggers ready to run: their conditions and acts as functions.

Law: pure. A condition that is unknown is not true, and an act whose value is unknown is not done, nor are the others of
its trigger. Conditions of steps that ask the event alone are one function where they say the same, so that whoever asks
many can ask each once. What needs the subject is compiled when it is first asked.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.compile import event_filter, occasion_filter, truth_function
from arbiter.expr.ops import FAILURES
from arbiter.expr.view import Occasion
from arbiter.ruleset.patterns.wheres import same_condition
from arbiter.ruleset.render import failure_of, params_renderer
from arbiter.ruleset.triggers import Decide, Emit, EnterSegment, Increment, LeaveSegment, Set, Unset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arbiter.expr.view import Symbols, View
    from arbiter.ruleset.rules import Ruleset
    from arbiter.ruleset.terms import Param
    from arbiter.ruleset.triggers import Act, Join, Step, Trigger

    Properties = Mapping[str, Any]
    Bindings = Mapping[str, Properties]
    Own = Callable[[Properties], bool]


class ToSet(msgspec.Struct, frozen=True, array_like=True, tag="set"):
    """Attributes are given these values, by name."""

    values: dict[str, Any]


class ToIncrement(msgspec.Struct, frozen=True, array_like=True, tag="increment"):
    """These numbers are added to attributes, by name."""

    values: dict[str, Any]


class ToEmit(msgspec.Struct, frozen=True, array_like=True, tag="emit"):
    """An event of this type, with these properties, happens."""

    event: str
    properties: dict[str, Any]


class ToDecide(msgspec.Struct, frozen=True, array_like=True, tag="decide"):
    """A decision is made with this context."""

    decision: str
    context: dict[str, Any]


Todo = ToSet | Unset | ToIncrement | EnterSegment | LeaveSegment | ToEmit | ToDecide
"""An act with its values."""


class Unrenderable(Exception):
    """A value of an act that cannot be had. `where` says which, ``set.product`` say, `expression` what was to give it,
    and `missing` has the names that had no value.
    """

    def __init__(self, where: str, expression: str, why: str, missing: tuple[str, ...] = ()) -> None:
        self.where, self.expression, self.why, self.missing = where, expression, why, missing
        super().__init__(f"`{where}` has no value: {why}")


class OpenStep:
    """A step with its condition in the parts of `Step`: `own`, of the event alone, is None where there is nothing to
    ask.
    """

    __slots__ = ("_across", "joins", "own", "step")

    def __init__(self, step: Step, owns: dict[bytes, Own]) -> None:
        self.step = step
        self.joins: tuple[Join, ...] = step.joins
        self.own: Own | None = None
        if step.own is not None:
            key = same_condition(step.own)
            self.own = owns.get(key)
            if self.own is None:
                self.own = owns[key] = _of_event(step)
        self._across = occasion_filter(step.across) if step.across is not None else None

    @property
    def crosses(self) -> bool:
        """Whether `across` asks anything."""
        return self._across is not None

    def across(self, properties: Properties, bindings: Bindings) -> bool:
        """Whether what asks of the event and of those before it, joins apart, is true."""
        return self._across is None or self._across(Occasion(properties, bindings))


class OpenTrigger:
    """A trigger with its functions."""

    def __init__(self, trigger: Trigger, symbols: Symbols, owns: dict[bytes, Own]) -> None:
        self.trigger = trigger
        self.steps = tuple(OpenStep(step, owns) for step in trigger.steps)
        self.unless = OpenStep(trigger.unless, owns) if trigger.unless is not None else None
        self._symbols = symbols

    def when_true(self, view: View, bindings: Bindings) -> bool:
        """Whether the trigger's `when` is true of the subject, with these events by label."""
        view.events = bindings
        return self._when(view)

    def acts(self, view: View, bindings: Bindings) -> tuple[Todo, ...]:
        """What is to be done, in the trigger's order; raises Unrenderable when a value cannot be had."""
        view.events = bindings
        return tuple(act(view) for act in self._acts)

    @cached_property
    def _when(self) -> Callable[[View], bool]:
        lines = [(line.root, True) for line in self.trigger.when]
        return truth_function(lines, self._symbols, f"when of {self.trigger.id}")

    @cached_property
    def _acts(self) -> tuple[Callable[[View], Todo], ...]:
        return tuple(self._act(act) for act in self.trigger.then)

    def _act(self, act: Act) -> Callable[[View], Todo]:
        match act:
            case Set(values=values):
                to_set = self._values(values, "set")
                return lambda view: ToSet(to_set(view))
            case Increment(values=values):
                numbers = self._values(values, "increment")
                return lambda view: ToIncrement(_numbers(numbers(view)))
            case Emit(event=event, properties=properties):
                held = self._values(properties, "emit")
                return lambda view: ToEmit(event, held(view))
            case Decide(decision=decision, context=context):
                sent = self._values(context, "decide")
                return lambda view: ToDecide(decision, sent(view))
            case Unset() | EnterSegment() | LeaveSegment():
                return lambda _view: act

    def _values(self, params: Mapping[str, Param], kind: str) -> Callable[[View], dict[str, Any]]:
        render = params_renderer(params, self._symbols, f"{kind} of {self.trigger.id}")

        def values(view: View) -> dict[str, Any]:
            try:
                return render(view)
            except FAILURES:
                raise self._failure(params, kind, view) from None

        return values

    def _failure(self, params: Mapping[str, Param], kind: str, view: View) -> Unrenderable:
        """Which value cannot be had, and why; slow."""
        for name, param in params.items():
            found = failure_of(param, view, self._symbols)
            if found is not None:
                return Unrenderable(f"{kind}.{name}", found[0].source, str(found[1]), found[1].names)
        return Unrenderable(kind, "", "it takes too many steps")


def open_triggers(ruleset: Ruleset, symbols: Symbols) -> tuple[OpenTrigger, ...]:
    """The triggers of a rule set, sorted by id, those that are not enabled too."""
    owns: dict[bytes, Own] = {}
    return tuple(OpenTrigger(trigger, symbols, owns) for trigger in ruleset.triggers)


def told(act: Todo) -> tuple[str, Any]:
    """An act by its key of ``then``, in plain values."""
    match act:
        case ToSet(values):
            return "set", values
        case Unset(names):
            return "unset", list(names)
        case ToIncrement(values):
            return "increment", values
        case EnterSegment(segments):
            return "enter_segment", list(segments)
        case LeaveSegment(segments):
            return "leave_segment", list(segments)
        case ToEmit(event, properties):
            return "emit", {"event": event, "properties": properties}
        case ToDecide(decision, context):
            return "decide", {"decision": decision, "context": context}


def bindings_of(events: Iterable[tuple[str, Properties]]) -> dict[str, Properties]:
    """The properties of events by label, of several with one label the last."""
    return {label: properties for label, properties in events if label}


def _of_event(step: Step) -> Own:
    own = event_filter(step.own)
    assert own is not None  # noqa: S101 - for the type checker
    return own


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    for name, value in values.items():
        if value.__class__ is not int and value.__class__ is not float:
            raise Unrenderable(f"increment.{name}", "", f"{value!r} is no number")
    return values
