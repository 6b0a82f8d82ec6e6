"""Events out of Kafka into the store, beside the same events handed to it in process.

Brokers are librdkafka's own, in this process, and so take some of the processor that readers have in production. The
clock runs from the first message that is stored to the last, which leaves out the 3 s that a group takes to form.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arbiter.config.limits import Limits
from arbiter.config.options import Kafka, KafkaFormat
from arbiter.consumer.process import open_loop
from arbiter.consumer.told import Told
from arbiter.profiles.store import Store
from arbiter.runtime.engine import wall_clock
from arbiter.telemetry.counters import Counters
from arbiter.v1 import profile_pb2
from arbiter.wire.values import write_entries, write_timestamp
from benchmarks.store import features, purchases

if TYPE_CHECKING:
    from arbiter.types import Event

MESSAGES = 40_000
SUBJECTS = 13_000
BATCH = 1_000
FORMATS: tuple[KafkaFormat, ...] = ("json", "protobuf")
ROUNDS = 3


def run() -> dict[str, Any]:
    """Events a second, the median of three rounds, and the ratio of the slower format to no Kafka at all."""
    events = purchases(MESSAGES, SUBJECTS, wall_clock())
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for number in (0, 10):
            for form in FORMATS:
                rates.setdefault(f"{form}, {number} features", []).append(_consumed(events, form, number))
            rates.setdefault(f"in process, {number} features", []).append(_ingested(events, number))
    found = {name: statistics.median(rounds) for name, rounds in rates.items()}
    return {
        "events_per_second": found,
        "ratios": {"json_over_in_process": found["in process, 0 features"] / found["json, 0 features"]},
    }


def _consumed(events: list[Event], form: KafkaFormat, number: int) -> float:
    import confluent_kafka  # noqa: PLC0415 - an extra: what is compared with nothing else must not need it

    owner = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
    found = owner.list_topics(timeout=10).brokers.values()
    brokers = ",".join(f"{each.host}:{each.port}" for each in found)
    producer = confluent_kafka.Producer({"bootstrap.servers": brokers, "log_level": 0})
    written = _json if form == "json" else _protobuf
    for event in events:
        producer.produce("events", value=written(event), key=event.subject_id)
        producer.poll(0)
    assert producer.flush(60) == 0  # noqa: S101 - else what follows would measure something else
    with tempfile.TemporaryDirectory() as scratch, Store.open(Path(scratch), background=False) as store:
        store.use_features(features(number))
        counters = Counters()
        options = Kafka(brokers=brokers, topics="events", format=form)
        loop = open_loop(options, Limits(), store, Told(counters, wall_clock), wall_clock)
        loop.begin()
        while not counters.consumed["accepted"]:
            loop.step()
        before, start = counters.consumed["accepted"], time.perf_counter()
        while counters.consumed["accepted"] < len(events):
            loop.step()
        took = time.perf_counter() - start
        loop.end()
    return (len(events) - before) / took


def _ingested(events: list[Event], number: int) -> float:
    with tempfile.TemporaryDirectory() as scratch, Store.open(Path(scratch), background=False) as store:
        store.use_features(features(number))
        start = time.perf_counter()
        last = None
        for low in range(0, len(events), BATCH):
            following = store.ingest(events[low : low + BATCH])
            if last is not None:
                last.result()
            last = following
        if last is not None:
            last.result()
        return len(events) / (time.perf_counter() - start)


def _json(event: Event) -> bytes:
    return json.dumps({
        "id": event.id, "subject_id": event.subject_id, "type": event.type, "at": event.at // 1000,
        "properties": event.properties,
    }).encode()  # fmt: skip


def _protobuf(event: Event) -> bytes:
    message = profile_pb2.Event(id=event.id, subject_id=event.subject_id, type=event.type, at=write_timestamp(event.at))
    write_entries(message.properties, event.properties)
    return message.SerializeToString()
