"""Triggers that set each other off without end.

Law: looks at typed triggers; an event that is emitted, and makes a trigger fire whatever it holds and whoever the
subject is, is a link. What a condition, a deadline or `repeat` may stop is bounded when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.ruleset.triggers import Emit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.authoring.report import Report
    from arbiter.ruleset.patterns.read import Authored
    from arbiter.ruleset.triggers import Trigger


def report_circles(triggers: Iterable[Authored], report: Report) -> None:
    """Report each circle once, where the first of its triggers by id says what it emits."""
    authored = {each.trigger.id: each for each in sorted(triggers, key=lambda each: each.trigger.id)}
    links = _links([each.trigger for each in authored.values() if always(each.trigger)])
    told: set[frozenset[str]] = set()
    for start, first in authored.items():
        circle = _circle(start, links)
        if not circle or frozenset(circle) in told:
            continue
        told.add(frozenset(circle))
        shown = " → ".join(f"`{name}`" for name in (*circle, start))
        what = f"triggers set each other off without end: {shown}" if len(circle) > 1 else (
            f"the trigger `{start}` sets itself off without end"
        )  # fmt: skip
        hint = "give one of them a `where`, a `when` or a `repeat` that stops it"
        report.at(first.emits or first.place, what, hint, f"{first.path}.then.emit")


def always(trigger: Trigger) -> bool:
    """Whether one event of a type that it waits for makes it fire, always and at once."""
    free = trigger.unless is None and not trigger.when and trigger.active is None and trigger.repeat.kind == "every"
    return trigger.enabled and free and trigger.kind in {"after", "any"}


def emitted(trigger: Trigger) -> tuple[str, ...]:
    """The type of event that it emits, if it does."""
    return tuple(act.event for act in trigger.then if isinstance(act, Emit))


def _links(triggers: Sequence[Trigger]) -> dict[str, list[str]]:
    """By trigger those that it sets off, sorted."""
    waiting: dict[str, list[str]] = {}
    for trigger in triggers:
        for event in dict.fromkeys(e for step in trigger.steps if step.where is None for e in step.events):
            waiting.setdefault(event, []).append(trigger.id)
    return {trigger.id: [other for event in emitted(trigger) for other in waiting.get(event, ())]
            for trigger in triggers}  # fmt: skip


def _circle(start: str, links: dict[str, list[str]]) -> list[str]:
    """The shortest way from a trigger back to it through those behind it by id; nothing where there is none."""
    trails: list[list[str]] = [[start]]
    seen: set[str] = set()
    while trails:
        longer = []
        for trail in trails:
            for other in links.get(trail[-1], ()):
                if other == start:
                    return trail
                if other > start and other not in seen:
                    seen.add(other)
                    longer.append([*trail, other])
        trails = longer
    return []
