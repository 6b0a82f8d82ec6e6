"""Triggers end to end, over real processes: events go in, firings are recorded once, profiles change."""

from __future__ import annotations

import os
import signal
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


def trigger_process(served: Served) -> int:
    """The process that runs triggers; 0 for none."""
    workers = {worker.pid for worker in served.client(served.address).server_info().workers}
    return next((pid for pid in served.workers() if pid not in workers), 0)


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


def test_rules_are_reloaded_while_events_flow_and_no_pair_is_lost(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    write(folder, PAIR)
    served = serve()
    client = served.client(served.address)
    eventually(lambda: looked_for(folder) == {"pair"})
    more = [PAIR, BOUGHT, ABANDONED]
    for turn in range(30):
        client.ingest_events([Event(f"a{turn}", "ann", "a", now(), {"n": turn})])
        if turn % 10 == 5:
            more = more[1:] + more[:1]
            write(folder, PAIR, *(each for each in more[:2] if each != PAIR))
        client.ingest_events([Event(f"b{turn}", "ann", "b", now(), {"n": turn})])
    eventually(lambda: attributes(client, "ann").get("pairs") == 30)
    write(folder)
    eventually(lambda: looked_for(folder) == set())
    eventually(lambda: not (folder / "data" / "triggers.at").exists())
    client.ingest_events([Event(f"{name}99", "ann", name, now(), {"n": 99}) for name in "ab"])
    write(folder, PAIR)
    eventually(lambda: looked_for(folder) == {"pair"})
    client.ingest_events([Event(f"{name}100", "ann", name, now(), {"n": 100}) for name in "ab"])
    eventually(lambda: attributes(client, "ann").get("pair") == 100)
    assert attributes(client, "ann")["pairs"] == 31
    assert len({firing.id for firing in fired(folder)}) == 31


def test_a_process_that_dies_or_hangs_is_started_again_and_each_occurrence_fires_once(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    write(folder, PAIR)
    served = serve("--workers", "1", "--triggers-watchdog-seconds", "5")
    client = served.client(served.address)
    eventually(lambda: looked_for(folder) == {"pair"} and trigger_process(served))
    gone: list[int] = []
    for turn, number in enumerate((signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)):
        client.ingest_events([Event(f"a{turn}", "ann", "a", now(), {"n": turn})])
        eventually(lambda: trigger_process(served) not in {0, *gone})
        gone.append(trigger_process(served))
        os.kill(gone[-1], number)
        client.ingest_events([Event(f"b{turn}", "ann", "b", now(), {"n": turn})])
        eventually(lambda turn=turn: attributes(client, "ann").get("pairs") == turn + 1)
    assert len(set(gone)) == 3
    assert "hangs: nothing was heard of it for" in served.log
    assert "looked at before another opens it" not in served.log  # the store has nothing to do with it
    served.stop(signal.SIGKILL)
    served = serve()
    client = served.client(served.address)
    client.ingest_events([Event(f"{name}9", "ann", name, now(), {"n": 9}) for name in "ab"])
    eventually(lambda: attributes(client, "ann").get("pairs") == 4)
    assert len(fired(folder)) == 4
