"""The recipes of docs/triggers.md on CDNOW's purchases: whom they fire for, and when, counted by hand beside them."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arbiter.datasets import cdnow
from arbiter.expr.view import View
from arbiter.profiles.features import FeatureSet
from arbiter.ruleset.load import load_ruleset
from arbiter.ruletests.overtime import Course, Triggers
from arbiter.snapshot import Snapshot
from arbiter.types import Event, to_micros

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parent.parent
DAY = timedelta(days=1) // timedelta(microseconds=1)
EVERY = 8  # one customer in so many
LAST = to_micros(cdnow.CUT) + 40 * 7 * DAY


@pytest.fixture(scope="module")
def histories() -> list[list[Event]]:
    """The purchases of each customer, in order."""
    of: dict[str, list[Event]] = {}
    for event in cdnow.events(cdnow.load()):
        if int(event.subject_id) % EVERY == 0:
            of.setdefault(event.subject_id, []).append(event)
    return list(of.values())


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    text = (ROOT / "docs" / "triggers.md").read_text("utf-8").partition("## Recipes")[2]
    block = re.search(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    ruleset, found = load_ruleset({"a.yaml": block[1].encode()}, {})
    assert ruleset is not None, [each.render() for each in found]
    return Snapshot(ruleset, {})


def fired(snapshot: Snapshot, history: Iterable[Event]) -> Counter[tuple[str, int]]:
    """What triggers do, by trigger and time."""
    features = FeatureSet(snapshot.frame.features)

    def look(course: Course, now: int) -> View:
        def events(first: int | None, last: int | None) -> Iterable[Event]:
            return [e for e in course.events if (first is None or e.at >= first) and (last is None or e.at <= last)]

        values = features.read(features.complete({}, now, events), now, events).values
        view = View(course.profile, {}, values, now)
        view.managed = course.managed
        return view

    course = Course({}, {}, list(history))
    Triggers(snapshot).run(course, LAST, look)
    return Counter((each.trigger, each.at) for each in course.fired)


def by_hand(history: list[Event]) -> Counter[tuple[str, int]]:
    found: Counter[tuple[str, int]] = Counter()
    times = [event.at for event in history]
    if len(times) > 1 and times[1] - times[0] < 30 * DAY:
        found["second-purchase", times[1]] += 1
    asleep, due = False, None
    for at in times:
        if due is not None and due <= at:
            found["lapsed", due] += 1
            asleep = True
        if asleep:
            found["awake", at] += 1
            asleep = False
        due = at + 90 * DAY
    if due is not None and due <= LAST:
        found["lapsed", due] += 1
    unused: list[int] = []
    for event in history:
        if event.properties["amount"] >= 50:
            unused = [*unused, event.at][-3:]
            if len(unused) == 3 and unused[2] - unused[0] < 30 * DAY:
                found["big-spender", event.at] += 1
                unused = []
    return found


def test_each_recipe_fires_for_whom_it_should_and_when(snapshot: Snapshot, histories: list[list[Event]]) -> None:
    total: Counter[str] = Counter()
    for history in histories:
        expected = by_hand(history)
        assert fired(snapshot, history) == expected, [(event.at, event.properties) for event in history]
        total.update(trigger for trigger, _ in expected.elements())
    assert len(histories) > 2_500
    assert all(total[trigger.id] > 20 for trigger in snapshot.frame.triggers), total
