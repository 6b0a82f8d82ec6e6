"""librdkafka's properties: those that a file gives, and those that are ours.

Law: what makes the effect exactly once is set here and nowhere else, and no file may change it. A message about the
file names a line and a property, never a value: it may be a password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.config.files import content_of
from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from pathlib import Path

    from arbiter.config.options import Kafka

# Options of ours say these, or the way in which partitions are read leans on them.
_OURS: Final = {
    "bootstrap.servers": "`kafka.brokers` says it",
    "metadata.broker.list": "`kafka.brokers` says it",
    "group.id": "`kafka.group` says it",
    "auto.offset.reset": "`kafka.start` says where to begin",
    "enable.auto.commit": "offsets are kept in the store",
    "auto.commit.enable": "offsets are kept in the store",
    "enable.auto.offset.store": "offsets are kept in the store",
    "enable.partition.eof": "it is of no use here",
}
_GROUP_BYTES: Final = 249  # the name of a topic may be as long, and both are in the key of an offset


class BadProperties(ArbiterError):
    """The options for Kafka, or the file of properties, cannot be used."""


def read_properties(path: Path) -> dict[str, str]:
    """The properties in a file of ``name=value`` lines; ``#`` begins a comment line.

    Raises BadProperties, and UnusableFile for a file that cannot be read, or that every user of the machine may read.
    """
    try:
        text = content_of(path, secret=True).decode()
    except UnicodeDecodeError:
        raise BadProperties(f"{path} is no UTF-8") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name:
            raise BadProperties(f"{path}:{number}: this is no `name=value`")
        if name in _OURS:
            raise BadProperties(f"{path}:{number}: `{name}` cannot be set here: {_OURS[name]}")
        if name in found:
            raise BadProperties(f"{path}:{number}: `{name}` stands here twice")
        found[name] = value
    return found


def consumer_properties(options: Kafka, given: dict[str, str]) -> dict[str, str | bool | int]:
    """All that the consumer is made with. Raises BadProperties."""
    size = len(options.group.encode())
    if not 1 <= size <= _GROUP_BYTES:
        raise BadProperties(f"`kafka.group` has {size} bytes: give it 1 to {_GROUP_BYTES}")
    return {
        # What a file may change:
        "client.id": "arbiter",
        "partition.assignment.strategy": "cooperative-sticky",
        "queued.max.messages.kbytes": 16_384,
        "allow.auto.create.topics": False,
        "log_level": 2,  # what goes wrong with connections is told without it, and not twenty times a second
        **given,
        # and what it may not.
        "bootstrap.servers": options.brokers,
        "group.id": options.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
    }


def is_incremental(properties: dict[str, str | bool | int]) -> bool:
    """Whether partitions come and go one by one, and not all at once."""
    cooperative = "cooperative" in str(properties["partition.assignment.strategy"])
    return cooperative or properties.get("group.protocol") == "consumer"


def topics_of(options: Kafka) -> list[str]:
    """The topics, and patterns of topics, that the options name."""
    return [topic.strip() for topic in options.topics.split(",") if topic.strip()]
