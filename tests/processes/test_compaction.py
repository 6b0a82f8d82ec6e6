"""A running server whose store is compacted under it: calls go on, and what was erased leaves the disk in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.profiles import generations
from arbiter.profiles.compaction import note_erased
from arbiter.profiles.environment import open_environment
from arbiter.profiles.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.conftest import Callers, Served


def erase(store: Path) -> None:
    """Say that something was erased, as an erasure does."""
    environment = open_environment(store, 1 << 40)
    with environment.handle.begin(write=True) as txn:
        note_erased(txn, environment)
    environment.handle.close()


def test_what_was_erased_leaves_the_disk_while_calls_go_on(
    folder: Path, serve: Callable[..., Served], call_all: Callable[..., Callers], eventually: Callable[..., None]
) -> None:
    (folder / "config.yaml").write_text("profiles: {compact_hours: 0.0003}\n")
    served = serve("--config", str(folder / "config.yaml"))
    store = folder / "data" / "store"
    callers = call_all([served.channel() for _ in range(4)])
    erase(store)
    eventually(lambda: [each.name for each in store.iterdir() if each.is_dir()] == ["2"])
    callers.wait_for(100)
    callers.end()
    assert not callers.failures
    assert served.stop() == 0
    assert generations.newest(store) == 2
    with Store.open(store, background=False) as opened:
        stored = {subject: opened.read(subject, 1 << 60).attributes["number"] for subject in callers.acknowledged}
    assert stored == callers.acknowledged
    assert "is compacted into its generation 2" in served.log
