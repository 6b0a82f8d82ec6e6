"""Options bound what a server takes and keeps of events, over real processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from arbiter.client import Client, InvalidRequest
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes.conftest import Served

DAY = 86_400_000_000


def test_workers_refuse_what_is_dated_out_of_bounds_and_collect_what_is_old(serve: Callable[..., Served]) -> None:
    served = serve("--events-late-days", "30", "--events-ahead-seconds", "60", "--events-keep-days", "7")
    now = time.time_ns() // 1000
    with Client(served.address) as client:
        with pytest.raises(InvalidRequest, match="ahead of the server's clock") as soon:
            client.ingest_events([Event("e1", "ann", "buy", now + DAY)])
        assert (soon.value.field, soon.value.limit) == ("events[0].at", "events.ahead_seconds")
        with pytest.raises(InvalidRequest, match=r"31\.0 days ago") as early:
            client.ingest_events([Event("e1", "ann", "buy", now), Event("e2", "ann", "buy", now - 31 * DAY)])
        assert (early.value.field, early.value.limit) == ("events[1].at", "events.late_days")
        events = [Event(f"e{day}", "ann", "buy", now - day * DAY) for day in range(20)]
        assert client.ingest_events(events).accepted == 20
        assert client.ingest_events(events).duplicates == 20
