"""Checks of triggers: conditions that are never true, steps that are never the one, what nobody sees or enters.

Law: one trigger at a time where conditions are asked; names alone where it is about several. A condition on an event is
asked as one on a request, whose names are the event's properties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.expr.syntax import with_children
from arbiter.expr.tree import Expression, Name
from arbiter.lint.conditions import impossible_parts, parts_of
from arbiter.lint.domains import Allowed
from arbiter.lint.finding import Finding
from arbiter.lint.space import Space
from arbiter.ruleset.patterns.circles import circles, emitted, may_go_on
from arbiter.ruleset.patterns.words import events_text
from arbiter.ruleset.rules import Effect, Rule
from arbiter.ruleset.triggers import EnterSegment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.expr.tree import AnyNode
    from arbiter.lint.contest import Given
    from arbiter.ruleset.rules import Ruleset
    from arbiter.ruleset.terms import Active
    from arbiter.ruleset.triggers import Step, Trigger

_SILENT = Effect("", {})


def check_triggers(ruleset: Ruleset, given: Given) -> Iterator[Finding]:
    """Findings about triggers and managed segments."""
    for trigger in ruleset.triggers:
        if trigger.enabled:
            yield from _never_fires(trigger, ruleset, given)
            yield from _never_taken(trigger)
    yield from _unseen(ruleset)
    entered = {name for trigger in ruleset.triggers for act in trigger.then if isinstance(act, EnterSegment)
               for name in act.segments}  # fmt: skip
    for segment in ruleset.segments:
        if segment.managed and segment.name not in entered:
            yield Finding(
                code="never-entered",
                position=segment.position,
                message=f"no trigger enters the segment `{segment.name}`",
                hint="let one `enter_segment` it; where callers alone do, say so with a comment",
                path=f"segments.{segment.name}",
            )
    for circle in circles(ruleset.triggers, may_go_on):
        shown = " → ".join(f"`{trigger.id}`" for trigger in (*circle, circle[0]))
        hint = "see to it that the conditions end it; longer chains than the server's bound are cut off"
        message = f"these triggers may set each other off again and again: {shown}"
        if len(circle) == 1:
            message = f"the trigger `{circle[0].id}` may set itself off again and again"
        yield _finding("may-loop", circle[0], message, hint)


def _finding(code: str, trigger: Trigger, message: str, hint: str, **more: Any) -> Finding:
    return Finding(code=code, position=trigger.position, message=message, hint=hint, **more)


def _never_fires(trigger: Trigger, ruleset: Ruleset, given: Given) -> Iterator[Finding]:
    yield from _impossible(trigger, trigger.when, trigger.active, given)
    steps = trigger.steps if trigger.kind != "any" else ()  # of those another may be the one
    for step in steps:
        if step.own is not None:
            yield from _impossible(trigger, (_as_context(step.own),), None, _of_event(step, ruleset, given))


def _impossible(
    trigger: Trigger, lines: tuple[Expression, ...], active: Active | None, given: Given
) -> Iterator[Finding]:
    rule = Rule(trigger.id, "", 0, lines, _SILENT, active=active)
    if any(way.possible for way in Space([rule], given.trees, given.allowed, given.now).ways[0]):
        return
    start = f"trigger `{trigger.id}` can never fire"
    guilty = impossible_parts(rule, parts_of(rule), given)
    shown = " and ".join(f"`{part.text}`" for part in guilty)
    if not guilty or any(way.possible for way in _undated(rule, given)):
        message = f"{start}: its conditions are never true within its `active` dates"
        yield _finding("never-fires", trigger, message, "mend the dates or the condition, or remove the trigger")
        return
    message = f"{start}: {shown} {'is' if len(guilty) == 1 else 'are'} never true" + " together" * (len(guilty) > 1)
    yield Finding(
        code="never-fires",
        position=guilty[-1].line.position,
        text=guilty[-1].text,
        message=message,
        hint="mend the condition, or remove the trigger",
        also=(trigger.position,),
    )


def _undated(rule: Rule, given: Given) -> list[Any]:
    plain = msgspec.structs.replace(rule, active=None)
    return list(Space([plain], given.trees, given.allowed, given.now).ways[0])


def _as_context(expression: Expression) -> Expression:
    def renamed(node: AnyNode) -> AnyNode:
        if isinstance(node, Name):
            return Name(("context", node.path[1]), node.type, node.span)
        return with_children(node, renamed)

    return msgspec.structs.replace(expression, root=renamed(expression.root))


def _of_event(step: Step, ruleset: Ruleset, given: Given) -> Given:
    """What is known of the properties of a step's event, where it is of one type, as of a request's attributes."""
    allowed = {path: known for path, known in given.allowed.items() if path[0] != "context"}
    if len(step.events) == 1:
        event = step.events[0]
        for name, kind in ruleset.event_types.get(event, {}).items():
            allowed["context", name] = Allowed(kind, ruleset.values.get(f"events.{event}.{name}", ()))
    return msgspec.structs.replace(given, allowed=allowed)


def _never_taken(trigger: Trigger) -> Iterator[Finding]:
    """Steps of `any` all of whose events are an earlier one's."""
    taken: set[str] = set()
    for step in trigger.steps if trigger.kind == "any" else ():
        if taken.issuperset(step.events):
            message = f"this step of `{trigger.id}` is never the one: an earlier one takes every {events_text(step)}"
            yield _finding("never-taken", trigger, message, "put it first, or remove it", text=step.label)
        if step.where is None:
            taken.update(step.events)


def _unseen(ruleset: Ruleset) -> Iterator[Finding]:
    """Events that are emitted and that nothing in the rules looks at."""
    seen = {event for trigger in ruleset.triggers for step in (*trigger.steps, trigger.unless) if step is not None
            for event in step.events}  # fmt: skip
    seen |= {feature.event for feature in ruleset.features}
    for trigger in ruleset.triggers:
        for event in emitted(trigger):
            if event not in seen:
                message = f"no trigger and no feature looks at the event `{event}` that this emits"
                hint = "who subscribes to firings sees it; where that is meant, say so with a comment"
                yield _finding("unseen-event", trigger, message, hint, text=event)
