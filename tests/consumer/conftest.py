"""Kafka, as librdkafka's test mode has it: brokers in this process, asked over the real protocol."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 30.0  # how long a test waits for what must come; none is expected to


class Kafka:
    """A cluster of one broker."""

    def __init__(self) -> None:
        kafka = pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed")
        # Whoever is made with this owns a cluster, and says where it is when it is asked for its metadata.
        self._owner = kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
        found = self._owner.list_topics(timeout=PATIENCE_S).brokers.values()
        self.brokers = ",".join(f"{each.host}:{each.port}" for each in found)
        self.producer = kafka.Producer({"bootstrap.servers": self.brokers, "linger.ms": 5, "log_level": 0})

    def create(self, topic: str) -> None:
        """Make a topic: the broker makes what it is asked for, of four partitions."""
        assert len(self.producer.list_topics(topic, PATIENCE_S).topics[topic].partitions) == 4

    def send(self, topic: str, *values: bytes | dict[str, Any] | None, key: str = "", partition: int = -1) -> None:
        """Send messages, and wait until the broker has them."""
        for value in values:
            content = json.dumps(value).encode() if isinstance(value, dict) else value
            self.producer.produce(topic, value=content, key=key or None, partition=partition)
            self.producer.poll(0)
        assert self.producer.flush(PATIENCE_S) == 0


@pytest.fixture(scope="module")
def kafka() -> Kafka:
    """Brokers for the tests of a file: each has topics of its own."""
    return Kafka()


@pytest.fixture
def topic(kafka: Kafka, request: pytest.FixtureRequest) -> str:
    """A topic of four partitions, for one test."""
    name: str = request.node.name.replace("[", ".").replace("]", "")[:200]
    kafka.create(name)
    return name


def await_(what: Callable[[], object]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
