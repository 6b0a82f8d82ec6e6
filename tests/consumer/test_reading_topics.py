"""The loop over a store: what is no event is put aside and holds up nothing, and what is lost in Kafka is told.

A group takes 3 s to form: all of it is read in one go, and each test looks at its own topic.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from arbiter.config.limits import Limits as ApiLimits
from arbiter.config.options import Kafka as Options
from arbiter.consumer.told import Told
from arbiter.profiles.consuming import Partition, Span
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Declarations, Declared, Limits, Store
from arbiter.ruleset.rules import Feature
from arbiter.telemetry import instruments
from arbiter.telemetry.counters import Counters
from tests.consumer.conftest import PATIENCE_S, await_

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.consumer.conftest import Kafka

COUNT = Feature("buys", "count", "buy", "", None, None, 1, "buys", "int")
DAY = 86_400_000_000
LONG_AGO = "2001-01-01T00:00:00Z"


def buy(subject: str, **more: Any) -> dict[str, Any]:
    return {"subject_id": subject, "type": "buy", **more}


BAD: list[Any] = [
    b"secret",
    buy("bad", type="Secret Type"),
    buy("bad", properties={"amount": "secret"}),
    buy("bad", at=LONG_AGO),
    buy("bad", at=LONG_AGO, id="secret"),
    buy("bad", properties={"text": "secret" * 9_000}),
]


def clock() -> int:
    return time.time_ns() // 1000


@contextmanager
def reading(store: Store, options: Options) -> Iterator[Counters]:
    """While the block runs, topics are read; what is counted of it."""
    from arbiter.consumer.process import open_loop  # noqa: PLC0415 - brings what may be missing

    counters = Counters()
    loop = open_loop(options, ApiLimits(), store, Told(counters, clock), clock)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield counters
    finally:
        loop.stop()
        thread.join()


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    with Store.open(folder, limits=Limits(late=30 * DAY), background=False) as store:
        store.use_features(FeatureSet([COUNT]))
        store.use_declared(Declarations(events={"buy": Declared({"amount": "double"})}))
        yield store


class Read(msgspec.Struct):
    """What was read, and what is known of it."""

    store: Store
    folder: Path
    counters: Counters
    lag: dict[tuple[str, ...], Any] = {}
    log: str = ""

    def stored(self, topic: str, number: int) -> int | None:
        partition = Partition("arbiter", topic, number)
        return self.store.offsets([partition]).get(partition)

    def counted(self, subject: str) -> int:
        """The events of a subject, by its feature and by the log alike."""
        found: int = self.store.read(subject, clock()).features["buys"]
        assert found == len(self.store.events(subject))
        return found


@pytest.fixture(scope="module")
def read(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    folder = tmp_path_factory.mktemp("read")
    topics = ("bad", "stored", "shorter", "deleted")
    for topic in topics:
        kafka.create(topic)
    options = Options(
        brokers=kafka.brokers,
        topics=",".join(topics),
        rejected_file=str(folder / "rejected.jsonl"),
        rejected_topic="rejected",
    )
    with opened(folder / "store") as store:
        for bad in BAD:
            kafka.send("bad", bad, buy("bad", properties={"amount": 9}), key="one", partition=2)
        for number in range(4):
            kafka.send("stored", buy("stored"), buy("stored"), partition=number)
        store.consume([Span(Partition("arbiter", "stored", 1), 0, 1)]).result()
        kafka.send("shorter", *[buy("shorter")] * 3, partition=0)
        store.consume([Span(Partition("arbiter", "shorter", 0), 0, 5_000)]).result()
        # The broker keeps 5 MiB of a partition.
        kafka.send("deleted", *[buy("deleted", at=LONG_AGO, properties={"x": "x" * 500_000})] * 15, partition=0)
        kafka.send("deleted", buy("deleted"), partition=0)
        store.consume([Span(Partition("arbiter", "deleted", 0), 0, 1)]).result()
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("arbiter.consumer").addHandler(handler)
        try:
            with reading(store, options) as counters:
                await_(lambda: counters.consumed["accepted"] == len(BAD) + 7 + 3 + 1)
                await_(lambda: len(points := instruments.read(counters, "worker")["arbiter.consumer.lag"]) == 16
                       and not any(lag for _, lag in points))  # fmt: skip
        finally:
            logging.getLogger("arbiter.consumer").removeHandler(handler)
        yield Read(store, folder, counters, log="\n".join(lines))


def test_what_is_no_event_is_passed_over(read: Read) -> None:
    assert read.counted("bad") == len(BAD)
    assert [event.properties for event in read.store.events("bad")] == [{"amount": 9.0}] * len(BAD)
    assert read.stored("bad", 2) == 2 * len(BAD)
    kept = 15 - read.counters.consumed["missed"]
    assert read.counters.consumed["rejected"] == len(BAD) + kept - 1


def test_the_log_says_where_it_is_and_not_what_it_holds(read: Read) -> None:
    assert "the message bad/2/0 is no event, and is passed over: it is no JSON object" in read.log
    assert "ecret" not in read.log


def test_the_file_has_it_with_the_reason_for_its_owner_alone(read: Read) -> None:
    file = read.folder / "rejected.jsonl"
    lines = {line["offset"]: line for line in map(json.loads, file.read_text().splitlines()) if line["topic"] == "bad"}
    assert sorted(lines) == [0, 2, 4, 6, 8, 10]
    assert base64.b64decode(lines[0]["key"]) == b"one"
    assert base64.b64decode(lines[0]["value"]) == b"secret"
    assert "events.late_days" in lines[6]["reason"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_topic_has_it_with_the_reason_in_its_headers(read: Read, kafka: Kafka) -> None:
    from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415 - it may be missing

    consumer = Consumer({"bootstrap.servers": kafka.brokers, "group.id": "nobody", "log_level": 0})
    consumer.assign([TopicPartition("rejected", number, 0) for number in range(4)])
    found: dict[bytes | None, dict[str, Any]] = {}
    deadline = time.monotonic() + PATIENCE_S
    wanted = read.counters.consumed["rejected"]
    count = 0
    while count < wanted and time.monotonic() < deadline:
        for message in consumer.consume(100, 0.1):
            count += 1
            found[message.value()] = dict(message.headers() or ())
    consumer.close()
    assert count == wanted
    said = found[b"secret"]
    assert (said["arbiter.topic"], said["arbiter.partition"], said["arbiter.offset"]) == (b"bad", b"2", b"0")
    assert said["arbiter.reason"].startswith(b"JSON is malformed")


def test_a_partition_is_read_on_from_where_it_is_stored(read: Read) -> None:
    assert read.counted("stored") == 7
    assert [read.stored("stored", number) for number in range(4)] == [2, 2, 2, 2]


def test_a_topic_that_is_shorter_than_what_was_read_is_read_from_its_beginning(read: Read) -> None:
    assert read.counted("shorter") == 3
    assert read.stored("shorter", 0) == 3
    assert read.counters.consumer_errors["anew"] == 1
    assert "shorter/0 ends at 3 and was read up to 5000" in read.log


def test_messages_that_were_deleted_before_they_were_read_are_counted(read: Read) -> None:
    assert read.counted("deleted") == 1
    assert read.stored("deleted", 0) == 16
    assert 0 < read.counters.consumed["missed"] < 15
    assert f"deleted/0: messages 1 to {read.counters.consumed['missed']} were deleted before they were read" in read.log


def test_the_end_of_a_topic_is_where_it_was_when_it_was_first_assigned(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    kafka.send(topic, buy("ann"), buy("ann"), partition=0)
    partitions = [Partition("late", topic, number) for number in range(4)]
    # A place that takes nothing holds up nothing either: a folder is no file.
    options = Options(brokers=kafka.brokers, topics=topic, group="late", start="latest", rejected_file=str(tmp_path))
    with opened(tmp_path / "store") as store, reading(store, options) as counters:
        await_(lambda: len(store.offsets(partitions)) == 4)
        kafka.send(topic, b"nonsense", buy("ann"), partition=0)
        await_(lambda: counters.consumed["accepted"] == 1)
        assert store.offsets(partitions)[partitions[0]] == 4
        assert counters.consumer_errors["aside"] == 1
