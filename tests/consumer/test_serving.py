"""`arbiter serve` with topics to read: one server, one story, from its start to its end."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arbiter.client import Client
from arbiter.profiles.store import Store
from tests import forked
from tests.conftest import replace
from tests.consumer.conftest import PATIENCE_S, await_

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.serving import ConsumerFigures, ConsumerInfo
from tests.consumer.conftest import Kafka

ENGINE = Path(__file__).resolve().parents[2] / "engine"
RULES = """\
actions: {show: {params: {text: string}}}
features: {buys: {count: buy}}
decisions:
  home: {slots: 1, order: [priority], default: {action: show, params: {text: none}}}
rules:
  - {id: all, decision: home, priority: 5, when: features.buys > 0, then: {action: show, params: {text: some}}}
"""


class Served:
    """A running `arbiter serve`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        (folder / "rules").mkdir()
        self.write(RULES)
        self.log = folder / "log"
        places = [f"--rules={folder / 'rules'}", f"--data={folder / 'data'}", "--models="]
        command = [sys.executable, "-m", "arbiter.cli", "serve", "--listen=127.0.0.1:0", "--workers=1", *places]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                [*command, *options],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ENGINE)},
                text=True,
            )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        self.process.stdout.close()
        self.client = Client(ready.removeprefix("arbiter ready on ").partition(",")[0])

    def write(self, rules: str) -> None:
        replace(self.folder / "rules" / "rules.yaml", rules)

    def feature(self, name: str) -> int:
        found: int = self.client.get_profile("ann").features.get(name, 0)
        return found

    @property
    def consumer(self) -> ConsumerInfo:
        found = self.client.server_info().consumer
        assert found is not None
        return found

    @property
    def figures(self) -> ConsumerFigures:
        found = self.consumer.figures
        assert found is not None
        return found

    def status(self) -> subprocess.CompletedProcess[str]:
        """What `arbiter status` says."""
        return forked.arbiter("status", "--target", self.client.target)

    def end(self) -> int:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def served(kafka: Kafka, topic: str, tmp_path: Path) -> Iterator[Served]:
    properties = tmp_path / "kafka.properties"
    properties.touch(0o600)
    # So that one that was killed is missed soon.
    properties.write_text("session.timeout.ms=4000\nheartbeat.interval.ms=200\n")
    server = Served(
        tmp_path,
        "--metrics=127.0.0.1:0",
        f"--kafka-brokers={kafka.brokers}",
        f"--kafka-topics={topic}",
        f"--kafka-properties={properties}",
    )
    yield server
    if server.process.poll() is None:
        server.end()


def test_a_server_reads_topics_whatever_becomes_of_the_process_that_does(
    kafka: Kafka, topic: str, served: Served
) -> None:
    buy = {"subject_id": "ann", "type": "buy"}
    kafka.send(topic, *[buy] * 100, b"nonsense")
    await_(lambda: served.feature("buys") == 100)
    await_(lambda: served.consumer.figures is not None and served.figures.rejected == 1)
    figures = served.figures
    assert (figures.partitions, figures.lag, figures.accepted, figures.paused) == (4, 0, 100, "")
    served_at = re.search(r"metrics on (\S+)", served.log.read_text())
    assert served_at is not None
    with urllib.request.urlopen(served_at[1]) as scraped:  # noqa: S310 - our own server
        metrics = scraped.read().decode()
    assert 'arbiter_consumer_messages_total{arbiter_outcome="accepted"} 100.0' in metrics

    told = served.status()
    assert told.returncode == 0
    line = "4 partitions, 0 messages behind: 100 stored, 0 known, 0 of erased subjects, 1 rejected, 0 missed"
    assert line in " ".join(told.stdout.split())

    # Its store keeps to what the snapshot declares that runs.
    served.write(RULES.replace("{count: buy}}", "{count: buy}, visits: {count: visit}}"))
    await_(lambda: "visits" in served.client.get_profile("ann").features)
    digest = served.client.get_profile("ann").snapshot
    await_(lambda: served.consumer.digest == digest)
    kafka.send(topic, *[{**buy, "type": "visit"}] * 10)
    await_(lambda: served.feature("visits") == 10)

    # When there is no room it waits, and goes on.
    resource.prlimit(served.consumer.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    kafka.send(topic, *[buy] * 100)
    await_(lambda: served.figures.paused == "disk_full")
    assert "the disk of the data directory is full" in served.figures.last_error
    kafka.send(topic, *[buy] * 100)
    assert served.feature("buys") == 100
    unbounded = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(served.consumer.pid, resource.RLIMIT_FSIZE, unbounded)
    await_(lambda: served.feature("buys") == 300)
    await_(lambda: not served.figures.paused)

    # When it dies another follows.
    first = served.consumer.pid
    for _ in range(20):
        kafka.send(topic, *[buy] * 10)
    os.kill(first, signal.SIGKILL)
    kafka.send(topic, *[buy] * 100)
    await_(lambda: (now := served.consumer).phase == "serving" and now.pid != first)
    assert served.consumer.restarts == 1
    await_(lambda: served.feature("buys") == 600)

    assert served.end() == 0
    assert re.search(r"the consumer \(process \d+\) has ended with exit code 0", served.log.read_text())


def test_what_cannot_begin_says_so_at_once(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    properties = tmp_path / "kafka.properties"
    properties.touch(0o600)
    properties.write_text("group.id=other\n")
    options = ["--kafka-brokers=127.0.0.1:1", "--kafka-topics=t", f"--kafka-properties={properties}"]
    done = forked.arbiter("serve", f"--data={tmp_path}", *options)
    assert done.returncode == 1
    assert "kafka.properties:1: `group.id` cannot be set here: `kafka.group` says it" in done.stderr


def consumed(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What `arbiter events consume` says."""
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "rules" / "rules.yaml").write_text(RULES)
    places = [f"--rules={folder / 'rules'}", f"--data={folder / 'data'}", "--models="]
    return forked.arbiter("events", "consume", *places, *options)


def test_topics_are_read_to_their_ends_without_a_server(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    kafka.send(topic, *[{"subject_id": "ann", "type": "buy", "id": f"e{n // 2}"} for n in range(2_500)], key="k")
    kafka.send(topic, b"nonsense")
    done = consumed(tmp_path, f"--kafka-brokers={kafka.brokers}", f"--kafka-topics={topic}")
    assert done.stdout == (
        "1,250 events stored, 1,250 were there already, 0 of erased subjects, 1 rejected, 0 gone before they were read"
        "\n"
    )
    assert done.returncode == 1
    with Store.open(tmp_path / "data" / "store", background=False) as store:
        assert len(store.events("ann", limit=10_000)) == 1_250
        store.erase("ann").result()
    done = consumed(
        tmp_path, f"--kafka-brokers={kafka.brokers}", f"--kafka-topics={topic}", "--kafka-group=another", "--json"
    )
    said = json.loads(done.stdout)
    assert (said["accepted"], said["duplicates"], said["erased"], said["rejected"]) == (0, 0, 2_500, 1)


def test_without_topics_there_is_nothing_to_read(tmp_path: Path) -> None:
    done = consumed(tmp_path)
    assert done.returncode == 2
    assert "which topics? Give `kafka.brokers` and `kafka.topics`" in " ".join(done.stderr.split())
