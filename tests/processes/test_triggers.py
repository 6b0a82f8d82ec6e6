"""Triggers end to end, over real processes: events go in, firings are recorded once, profiles change."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.profiles.reached import read_reached
from arbiter.profiles.store import Store
from arbiter.types import Decision, Event
from tests.conftest import replace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arbiter.client import Client
    from arbiter.profiles.firings import FiringRecord
    from tests.processes.conftest import Served

HOME = """\
actions: {show: {params: {text: string}}}
segments: {buyers: managed}
decisions:
  home: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
rules:
  - {id: for-buyers, decision: home, priority: 5, when: segments.buyers, then: {action: show, params: {text: thanks}}}
"""
BOUGHT = """\
  - id: bought
    after: {event: purchase, as: purchase}
    then:
      set: {last: "${purchase.product}"}
      increment: {purchases: 1}
      enter_segment: buyers
      emit: {event: thanked, properties: {product: "${purchase.product}"}}
      decide: home
  - id: thanked
    after: {event: thanked, as: thanked}
    then: {set: {thanked_for: "${thanked.product}"}}
"""
ABANDONED = """\
  - id: abandoned
    after: {event: viewed, as: view}
    unless: {event: added, where: event.product == view.product, within: 1s}
    then: {set: {abandoned: "${view.product}"}, increment: {abandonments: 1}}
"""
PAIR = """\
  - id: pair
    sequence: [{event: a, as: first}, {event: b, as: second, where: event.n == first.n}]
    within: 1h
    then: {increment: {pairs: 1}, set: {pair: "${second.n}"}}
"""


def write(folder: Path, *triggers: str) -> None:
    replace(folder / "rules" / "rules.yaml", HOME + "".join(("triggers:\n" if triggers else "", *triggers)))


def fired(folder: Path) -> list[FiringRecord]:
    with Store.open(folder / "data" / "store", background=False) as store:
        return [told.firing for told in store.fired.after(0, 100_000)[0]]


def now() -> int:
    return time.time_ns() // 1000


def attributes(client: Client, subject: str) -> dict[str, Any]:
    return dict(client.get_profile(subject).attributes)


def looked_for(folder: Path) -> set[str]:
    """The triggers that look at what is logged from now on."""
    with Store.open(folder / "data" / "store", background=False) as store, store.fired.looking() as (environment, txn):
        return set(read_reached(environment, txn).since)


def test_what_happens_changes_profiles_and_is_recorded(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    write(folder, BOUGHT, ABANDONED, PAIR)
    served = serve()
    client = served.client(served.address)
    eventually(lambda: len(looked_for(folder)) == 4)
    at = now()
    client.ingest_events([Event("e1", "ann", "purchase", at, {"product": "lamp"})])
    eventually(lambda: attributes(client, "ann").get("thanked_for") == "lamp")
    assert attributes(client, "ann") == {"last": "lamp", "purchases": 1, "thanked_for": "lamp"}
    client.ingest_events([
        Event("v1", "bob", "viewed", now(), {"product": "sofa"}),
        Event("v2", "bob", "viewed", now() + 1, {"product": "chair"}),
        Event("v3", "bob", "added", now() + 2, {"product": "chair"}),
        *(Event(f"a{n}", "bob", "a", now() + n, {"n": n}) for n in range(4)),
        Event("b", "bob", "b", now() + 9, {"n": 2}),
    ])  # fmt: skip
    eventually(lambda: "abandoned" in attributes(client, "bob"))
    assert attributes(client, "bob") == {"pairs": 1, "pair": 2, "abandoned": "sofa", "abandonments": 1}
    first, second, *others = fired(folder)
    assert (first.trigger, first.at, [cause.event_id for cause in first.causes]) == ("bought", at, ["e1"])
    assert first.acts["emit"] == {"event": "thanked", "properties": {"product": "lamp"}}
    (treatment,) = msgspec.msgpack.decode(first.decision, type=Decision).treatments
    assert treatment.params == {"text": "thanks"}  # the segment that it entered counts already
    assert (second.trigger, second.depth, second.causes[0].event_id) == ("thanked", 1, first.emitted)
    assert [(each.trigger, [cause.event_id for cause in each.causes]) for each in others] == [
        ("pair", ["a2", "b"]), ("abandoned", ["v1"]),
    ]  # fmt: skip
    assert not any(each.dropped for each in (first, second, *others))
