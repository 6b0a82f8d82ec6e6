"""Where messages that are no events are put, for somebody to look at.

Law: a message is put aside before it is passed over, so after a crash it may be there twice. A place that takes nothing
holds up no partition: the message is in its topic, and the log says where.
"""

from __future__ import annotations

import base64
import logging
import os
from typing import TYPE_CHECKING, Final, Protocol

import confluent_kafka
import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arbiter.consumer.reading import Record, Rejected

_log = logging.getLogger("arbiter.consumer")

FILE_BYTES: Final = 64 << 20
_PATIENCE_S: Final = 10.0
Put = tuple["Record", "Rejected"]


class Aside(Protocol):
    """A place for messages that are no events."""

    def put(self, rejected: Sequence[Put]) -> None:
        """Put these there, and return when they are safe. Raises OSError, KafkaException."""


class AsideFile:
    """A file of one JSON object a line, for its owner alone. Beyond `FILE_BYTES` it becomes NAME.1, and a new one
    begins.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, rejected: Sequence[Put]) -> None:
        """Append them, and sync. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = b"".join(msgspec.json.encode(_line(record, reason)) + b"\n" for record, reason in rejected)
        number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(number, "ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
            full = file.tell() >= FILE_BYTES
        if full:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))


class AsideTopic:
    """A topic: key and value are the message's own, and headers say where it comes from and why."""

    def __init__(self, topic: str, brokers: str, properties: dict[str, str]) -> None:
        self._topic = topic
        self._producer = confluent_kafka.Producer(
            {"log_level": 2, **properties, "bootstrap.servers": brokers, "enable.idempotence": True}, logger=_log
        )

    def put(self, rejected: Sequence[Put]) -> None:
        """Send them, and wait for the brokers. Raises KafkaException."""
        failed: list[confluent_kafka.KafkaError] = []

        def delivered(error: confluent_kafka.KafkaError | None, _message: object) -> None:
            if error is not None:
                failed.append(error)

        for record, reason in rejected:
            headers: list[tuple[str, str | bytes | None]] = [
                ("arbiter.topic", record.topic),
                ("arbiter.partition", str(record.partition)),
                ("arbiter.offset", str(record.offset)),
                ("arbiter.reason", str(reason)),
            ]
            self._producer.produce(
                self._topic, value=record.value, key=record.key, headers=headers, on_delivery=delivered
            )
        left = self._producer.flush(_PATIENCE_S)
        if left:
            self._producer.purge()
            self._producer.flush(0)
        if failed:
            raise confluent_kafka.KafkaException(failed[0])


def _line(record: Record, reason: Rejected) -> dict[str, str | int | None]:
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "time": record.time,
        "reason": str(reason),
        "key": _base64(record.key),
        "value": _base64(record.value),
    }


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
