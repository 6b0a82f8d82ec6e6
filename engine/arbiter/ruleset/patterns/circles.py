"""Triggers that set each other off.

Law: looks at typed triggers. An event that is emitted, and of which one alone makes a trigger fire, is a link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.ruleset.triggers import Emit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from arbiter.authoring.report import Report
    from arbiter.ruleset.patterns.read import Authored
    from arbiter.ruleset.triggers import Step, Trigger

    Links = Callable[[Trigger, Step], bool]


def report_circles(triggers: Iterable[Authored], report: Report) -> None:
    """Report each circle that nothing ends once, where the first of its triggers by id says what it emits."""
    authored = {each.trigger.id: each for each in triggers}
    for circle in circles((each.trigger for each in authored.values()), goes_on):
        first = authored[circle[0].id]
        shown = " → ".join(f"`{trigger.id}`" for trigger in (*circle, circle[0]))
        message = f"triggers set each other off without end: {shown}"
        if len(circle) == 1:
            message = f"the trigger `{circle[0].id}` sets itself off without end"
        hint = "give one of them a `where`, a `when` or a `repeat` that stops it"
        report.at(first.emits or first.place, message, hint, f"{first.path}.then.emit")


def goes_on(trigger: Trigger, step: Step) -> bool:
    """Whether every event of this step makes the trigger fire, always and at once: what a condition, a deadline or
    `repeat` may stop is bounded when it runs.
    """
    return _at_once(trigger) and not trigger.when and trigger.active is None and step.where is None


def may_go_on(trigger: Trigger, step: Step) -> bool:
    """Whether an event of this step makes the trigger fire at once where conditions let it, and some are asked."""
    return _at_once(trigger) and not goes_on(trigger, step)


def _at_once(trigger: Trigger) -> bool:
    often = trigger.unless is None and trigger.repeat.kind == "every"
    return trigger.enabled and often and trigger.kind in {"after", "any"}


def emitted(trigger: Trigger) -> tuple[str, ...]:
    """The type of event that it emits, if it does."""
    return tuple(act.event for act in trigger.then if isinstance(act, Emit))


def circles(triggers: Iterable[Trigger], links: Links) -> Iterator[list[Trigger]]:
    """Each circle once, from its first trigger by id on. `links` says whether a step hands an event on."""
    by_id = {trigger.id: trigger for trigger in sorted(triggers, key=lambda trigger: trigger.id)}
    waiting: dict[str, list[str]] = {}
    for trigger in by_id.values():
        events = (event for step in trigger.steps if links(trigger, step) for event in step.events)
        for event in dict.fromkeys(events):
            waiting.setdefault(event, []).append(trigger.id)
    behind = {
        name: [other for event in emitted(trigger) for other in waiting.get(event, ())]
        for name, trigger in by_id.items()
    }
    for start in by_id:
        if circle := _circle(start, behind):
            yield [by_id[name] for name in circle]


def _circle(start: str, behind: Mapping[str, list[str]]) -> list[str]:
    """The shortest way from a trigger back to it through those behind it by id; nothing where there is none."""
    trails: list[list[str]] = [[start]]
    seen: set[str] = set()
    while trails:
        longer = []
        for trail in trails:
            for other in behind[trail[-1]]:
                if other == start:
                    return trail
                if other > start and other not in seen:
                    seen.add(other)
                    longer.append([*trail, other])
        trails = longer
    return []
