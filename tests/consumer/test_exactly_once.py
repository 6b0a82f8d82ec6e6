"""Whatever happens to those who read, each message counts once: rebalances, kill -9, and readers that fell behind.

Readers are processes of one group over one store, as a server has one; brokers speak the real protocol.
"""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.errors import ArbiterError, LimitExceeded
from arbiter.profiles.consuming import OffsetGap, Partition, Span
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store
from arbiter.ruleset.rules import Feature
from arbiter.types import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.consumer.conftest import Kafka

ENGINE = Path(__file__).resolve().parents[2] / "engine"
PATIENCE_S = 60.0
COUNT = Feature("buys", "count", "buy", "", None, None, 1, "buys", "int")
NOW = 1 << 60
READER = """
import signal, sys, time
from pathlib import Path
from arbiter.config.limits import Limits
from arbiter.config.options import Kafka
from arbiter.consumer.loop import Loop
from arbiter.consumer.reading import reader_of
from arbiter.consumer.told import Told
from arbiter.profiles.features import FeatureSet
from arbiter.profiles.store import Store
from arbiter.ruleset.rules import Feature
from arbiter.telemetry.counters import Counters
clock = lambda: time.time_ns() // 1000
options = Kafka(brokers=sys.argv[2], topics=sys.argv[3])
# So that a reader that was killed is missed soon.
given = {"session.timeout.ms": "3500", "heartbeat.interval.ms": "200", "log_level": "0"}
with Store.open(Path(sys.argv[1]), background=False) as store:
    store.use_features(FeatureSet([Feature("buys", "count", "buy", "", None, None, 1, "buys", "int")]))
    told = Told(Counters(), clock)
    loop = Loop(options, given, store, reader_of(options, Limits(), clock), [], told)
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    stored = told.stored
    def say(done):
        stored(done)
        print(told.partitions, flush=True)
    told.stored = say
    loop.run()
"""


class Reader:
    """A process that reads. `stored` counts its writes."""

    def __init__(self, store: Path, kafka: Kafka, topic: str) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-c", READER, str(store), kafka.brokers, topic],
            env={"PYTHONPATH": str(ENGINE)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.stored = 0
        self.partitions = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.stored += 1
            self.partitions = int(line)
        self.process.stdout.close()

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE_S)
        self._thread.join()
        return code


@contextmanager
def traffic(kafka: Kafka, topic: str) -> Iterator[list[int]]:
    """While the block runs, send messages that name neither ids nor times, a little at a time; how many were sent."""
    sent: list[int] = []
    enough = threading.Event()

    def send() -> None:
        while not enough.wait(0.05):
            kafka.send(topic, *[{"subject_id": f"s{n % 20}", "type": "buy"} for n in range(100)])
            sent.append(100)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        enough.set()
        thread.join()


def counted(folder: Path) -> tuple[int, int]:
    """By the features, and by the log."""
    with Store.open(folder, background=False) as store:
        store.use_features(FeatureSet([COUNT]))
        features = sum(store.read(f"s{n}", NOW).features["buys"] for n in range(20))
        return features, sum(len(store.events(f"s{n}", limit=1_000_000)) for n in range(20))


def until_all_is_read(reader: Reader, folder: Path, sent: int) -> None:
    """Let it read on; asking the store means to open it in another process than those that read."""
    deadline = time.monotonic() + PATIENCE_S
    while counted(folder)[1] < sent:
        assert reader.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)


def wait_for(reader: Reader, stored: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while reader.stored < stored:
        assert reader.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_readers_that_join_leave_and_die_count_each_message_once(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    chance = random.Random(20261128)  # noqa: S311 - moments, not secrets
    readers: list[Reader] = []
    try:
        with traffic(kafka, topic) as sent:
            readers.append(first := Reader(tmp_path, kafka, topic))
            wait_for(first, 3)
            readers.append(second := Reader(tmp_path, kafka, topic))
            wait_for(second, 3)  # it got partitions of the first one
            assert first.end(signal.SIGTERM) == 0
            # So much that it dies in the middle of writing it.
            kafka.send(topic, *[{"subject_id": f"s{n % 20}", "type": "buy"} for n in range(20_000)])
            sent.append(20_000)
            wait_for(second, second.stored + 3)
            time.sleep(chance.uniform(0, 0.1))
            assert second.end(signal.SIGKILL) == -signal.SIGKILL
            readers.append(last := Reader(tmp_path, kafka, topic))
            wait_for(last, 1)
        until_all_is_read(last, tmp_path, sum(sent))
        assert last.end(signal.SIGTERM) == 0
        assert counted(tmp_path) == (sum(sent), sum(sent))
    finally:
        for reader in readers:
            if reader.process.poll() is None:
                reader.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("store"), background=False) as opened:
        opened.use_features(FeatureSet([COUNT]))
        yield opened


topics = itertools.count()
ids = itertools.count()


class Place:
    """A partition and a subject of its own. Each time a message is read its event has another id, so that nothing but
    the offsets can tell that it is the same.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.subject = f"subject-{next(topics)}"
        self.partition = Partition("group", self.subject, 3)

    def consume(self, start: int, end: int, *, anew: bool = False) -> ArbiterError | None:
        """Hand in the messages of some offsets; those that three divides are no events."""
        entries = [
            (offset, self.store.prepare(Event(f"e{next(ids)}", self.subject, "buy", offset), "event"))
            for offset in range(start, end)
            if offset % 3
        ]
        error = self.store.consume([Span(self.partition, start, end, entries, anew)]).exception()
        assert error is None or isinstance(error, ArbiterError)
        return error

    @property
    def stored(self) -> int:
        return self.store.offsets([self.partition]).get(self.partition, -1)

    @property
    def offsets(self) -> list[int]:
        return [event.at for event in self.store.events(self.subject, limit=10_000)]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 12)), max_size=15))
def test_what_follows_what_is_stored_counts_once_and_nothing_else_does(
    store: Store, reads: list[tuple[int, int]]
) -> None:
    place = Place(store)
    first = end = -1  # of what is stored
    for away, length in reads:
        start = max(0, away if end < 0 else end + away)
        error = place.consume(start, start + length)
        if 0 <= end < start:
            assert isinstance(error, OffsetGap)
        else:
            assert error is None
            first = start if end < 0 else first
            end = max(end, start + length)
        assert place.stored == end
        if end >= 0:
            assert place.offsets == [offset for offset in range(first, end) if offset % 3]


def test_a_topic_that_is_made_anew_is_read_from_where_it_begins_now(store: Store) -> None:
    place = Place(store)
    assert place.consume(0, 50) is None
    assert place.consume(0, 0, anew=True) is None
    assert place.consume(0, 10) is None
    assert place.stored == 10
    assert sorted(place.offsets) == sorted([n for n in range(50) if n % 3] + [n for n in range(10) if n % 3])


def test_a_refused_batch_moves_no_partition(tmp_path: Path) -> None:
    with Store.open(tmp_path, quota=1, background=False) as full:
        place = Place(full)
        assert isinstance(place.consume(0, 5), LimitExceeded)
        assert (place.stored, place.offsets) == (-1, [])
    with Store.open(tmp_path, background=False) as roomy:
        place.store = roomy
        other = Partition("group", "elsewhere", 0)
        assert place.consume(0, 5) is None
        both = [Span(other, 0, 7), Span(place.partition, 9, 12)]
        assert isinstance(roomy.consume(both).exception(), OffsetGap)
        assert roomy.offsets([other, place.partition]) == {place.partition: 5}


def test_each_group_has_a_place_of_its_own(store: Store) -> None:
    mine, yours = (Partition(group, "topic", 0) for group in ("mine", "yours"))
    store.consume([Span(mine, 0, 5)]).result()
    assert store.offsets([mine, yours]) == {mine: 5}
