"""Who follows a whole server: each firing once, over workers that die, on the command line too."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING

from arbiter.types import Event
from tests import forked
from tests.processes.test_triggers import ABANDONED, BOUGHT, looked_for, now, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arbiter.client import Firing
    from tests.processes.conftest import Served

OFTEN = """\
  - id: often
    count: {event: purchase, times: 1000, within: 7d}
    tags: [loyalty]
    then: {set: {often: true}, leave_segment: [buyers]}
"""


def test_each_firing_is_told_once_over_workers_that_are_killed(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    write(folder, BOUGHT)
    served = serve("--workers", "2")
    client, sender = served.client(served.address), served.client(served.address)
    eventually(lambda: "bought" in looked_for(folder))
    found: list[Firing] = []
    followed = client.subscribe(triggers=["bought"], include_decision=True)

    def follow() -> None:
        for firing in followed:
            found.append(firing)
            if len(found) == 60:
                return

    following = threading.Thread(target=follow)
    following.start()
    eventually(lambda: followed.position is not None)
    for number in range(60):
        if number in {20, 40}:
            os.kill(served.workers()[number // 40], signal.SIGKILL)
        sender.ingest_events([Event(f"e{number}", f"s{number % 7}", "purchase", now(), {"product": "lamp"})])
    following.join(60)
    assert not following.is_alive()
    followed.close()
    assert len({each.id for each in found}) == 60
    assert [each.position for each in found] == sorted(each.position for each in found)
    assert [each.causes[0].id for each in found] == [f"e{number}" for number in range(60)]
    assert [each.subject_id for each in found] == [f"s{number % 7}" for number in range(60)]
    assert {each.enter_segments for each in found} == {("buyers",)}
    assert {each.decision.treatments[0].rule_id for each in found if each.decision is not None} == {"for-buyers"}
    assert all(each.emitted is not None and each.emitted.type == "thanked" for each in found)


def test_the_commands_list_follow_and_explain_and_the_status_names_the_process(
    folder: Path, serve: Callable[..., Served], eventually: Callable[..., None]
) -> None:
    write(folder, BOUGHT, ABANDONED, OFTEN)
    listed = forked.arbiter("triggers", "list", str(folder / "rules")).stdout.splitlines()
    assert listed[1].split("\t")[:5] == [
        "abandoned", "viewed as view, unless added where event.product == view.product within 1s",
        "set abandoned = ${view.product}; increment abandonments by 1", "every", "yes",
    ]  # fmt: skip
    (_, _, often, _) = json.loads(forked.arbiter("triggers", "list", str(folder / "rules"), "--json").stdout)
    assert (often["kind"], often["pattern"], often["tags"]) == (
        "count", ["1000 times purchase within 7d"], ["loyalty"],
    )  # fmt: skip
    served = serve("--workers", "1")
    client = served.client(served.address)
    eventually(lambda: len(looked_for(folder)) == 4)
    client.ingest_events([Event("e1", "ann", "purchase", now(), {"product": "lamp"})])
    eventually(lambda: client.get_profile("ann").attributes.get("thanked_for") == "lamp")

    def ask(*arguments: str) -> str:
        done = forked.arbiter(*arguments, "--target", served.address)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        return done.stdout

    lines = ask("triggers", "follow", "--after", "0", "--count", "2", "--json").splitlines()
    assert [(each["trigger"], each["subject_id"]) for each in map(json.loads, lines)] == [
        ("bought", "ann"), ("thanked", "ann"),
    ]  # fmt: skip
    (line,) = ask("triggers", "follow", "--after", "0", "--count", "1", "--subject", "ann").splitlines()
    assert 'bought ann: last = "lamp"; purchases + 1; in buyers; emitted thanked; decided home' in line
    told = ask("triggers", "explain", "ann", "--trigger", "often", "--trigger", "bought")
    assert "often: under way" in told
    assert "1 of 1000 purchase, the newest at" in told
    assert 'it set last = "lamp"; added 1 to purchases; let the subject enter buyers; emitted thanked' in told
    standing = json.loads(ask("triggers", "explain", "ann", "--json"))
    assert [(each["trigger"], each["stage"]) for each in standing["triggers"]] == [
        ("abandoned", "idle"), ("bought", "idle"), ("often", "in progress"), ("thanked", "idle"),
    ]  # fmt: skip

    def up_to_date() -> bool:
        triggers = client.server_info().triggers
        return triggers is not None and triggers.figures is not None and triggers.figures.firings == 2

    eventually(up_to_date)
    assert "4 triggers, 2 firings, 0 passed over" in ask("status")
    assert json.loads(ask("status", "--json"))["triggers"]["figures"]["lag"] == 0
    assert ask("profile", "set", "ann", "--leave", "buyers").startswith("ann: out of buyers, version ")
    assert client.get_profile("ann").managed_segments == ()
    assert client.get_profile("ann").segments["buyers"] is False
    version = client.update_profile("ann", enter_segments=["buyers"])
    known = client.get_profile("ann", history=1)
    assert (known.version, known.managed_segments, known.segments["buyers"]) == (version, ("buyers",), True)
