"""Limits of the configuration hold for what is stored and ordered as for what is sent, over real processes."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from arbiter.client import Client, ResourceExhausted
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes.conftest import Served


def test_limits_are_raised_and_lowered_for_what_is_stored(serve: Callable[..., Served]) -> None:
    served = serve(
        "--limits-list-items", "1500", "--limits-record-bytes", "200000", "--limits-event-bytes", "100",
        "--limits-overrides", "0",
    )  # fmt: skip
    now = time.time_ns() // 1000
    with Client(served.address) as client:
        client.update_profile("ann", set={"seen": list(range(1499)), "note": "x" * 65_000})
        client.update_profile("ann", append={"seen": 1499})
        assert client.get_profile("ann").attributes["seen"] == list(range(1500))
        with pytest.raises(ResourceExhausted, match="`list_items` allows 1,500") as full:
            client.update_profile("ann", append={"seen": 1500})
        assert (full.value.limit, full.value.field) == ("list_items", "append.seen")
        with pytest.raises(ResourceExhausted) as large:
            client.ingest_events([Event("e1", "ann", "buy", now, {"note": "x" * 100})])
        assert (large.value.limit, large.value.field) == ("event_bytes", "events[0]")
        with pytest.raises(ResourceExhausted) as many:
            client.override("all", until=datetime.now(UTC) + timedelta(hours=1))
        assert many.value.limit == "overrides"
