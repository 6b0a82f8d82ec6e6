"""The loop: messages come, become events, and are stored with how far their partitions were read.

Law: one thread. At most one write is under way, and the next one begins where it ends, so that none can be passed over;
what of a partition is stored decides, never what Kafka was told. A write for which there is no room waits, and the
partitions with it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final

import confluent_kafka
import msgspec
from confluent_kafka import KafkaError, TopicPartition

from arbiter.consumer.properties import BadProperties, consumer_properties, is_incremental, topics_of
from arbiter.consumer.reading import Record, Rejected, refusal
from arbiter.errors import ArbiterError, CallerError, LimitExceeded
from arbiter.profiles.consuming import EventsRefused, OffsetGap, Partition, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence
    from concurrent.futures import Future

    from arbiter.config.options import Kafka
    from arbiter.consumer.aside import Aside, Put
    from arbiter.consumer.told import Told
    from arbiter.profiles.store import Ingested, Store
    from arbiter.types import Event

_log = logging.getLogger("arbiter.consumer")

BATCH: Final = 1_000
_WAIT_S: Final = 0.05  # how long messages gather before they are written
_PATIENCE_S: Final = 10.0  # for an answer of the brokers
_COMMIT_EVERY_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.5
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 10.0
_NO_ROOM: Final = frozenset({"disk_full", "disk_read_only", "store_quota", "write_queue"})


class ConsumerFailed(ArbiterError):
    """Kafka's client cannot go on; a new one may."""


class Batch(msgspec.Struct, frozen=True):
    """What is stored at once: spans, one a partition, and the messages that their entries were made of."""

    spans: tuple[Span, ...] = ()
    records: dict[tuple[Partition, int], Record] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to store."""
        return bool(self.spans)

    def of(self, partitions: Container[Partition]) -> Batch:
        """What there is of these partitions."""
        return Batch(tuple(span for span in self.spans if span.partition in partitions), self.records)

    def then(self, other: Batch) -> Batch:
        """The two as one; `other` follows."""
        joined = {span.partition: span for span in self.spans}
        for span in other.spans:
            before = joined.get(span.partition)
            joined[span.partition] = span if before is None else msgspec.structs.replace(
                before, end=span.end, entries=[*before.entries, *span.entries]
            )  # fmt: skip
        return Batch(tuple(joined.values()), {**self.records, **other.records})

    def without(self, places: Container[tuple[Partition, int]]) -> Batch:
        """The same spans without the entries at these places."""
        return Batch(
            tuple(
                msgspec.structs.replace(
                    span, entries=[entry for entry in span.entries if (span.partition, entry[0]) not in places]
                )
                for span in self.spans
            ),
            self.records,
        )


class Loop:
    """Reads the topics into the store, until `stop`. Raises BadProperties for what librdkafka does not take.

    `read` makes events of messages, `asides` are where the others are put, `told` is what is known of it all.
    """

    def __init__(
        self,
        options: Kafka,
        given: dict[str, str],
        store: Store,
        read: Callable[[Record], Event],
        asides: Sequence[Aside],
        told: Told,
    ) -> None:
        self._options = options
        self._store = store
        self._read = read
        self._asides = asides
        self._told = told
        properties = consumer_properties(options, given)
        self._incremental = is_incremental(properties)
        try:
            self._consumer = confluent_kafka.Consumer({**properties, "error_cb": self._warned}, logger=_log)
        except confluent_kafka.KafkaException as error:
            raise BadProperties(f"Kafka's client refuses its properties: {error.args[0].str()}") from error
        self._ends: dict[Partition, int] = {}  # the offset of the next message, of the partitions that are ours
        self._writing: tuple[Batch, Future[Ingested]] | None = None
        self._held = Batch()  # what there was no room for,
        self._retry_at = 0.0  # when it is tried again, by the monotonic clock,
        self._pause = _FIRST_PAUSE_S  # and after how long the next time
        self._news: dict[Partition, int] = {}  # what is stored and Kafka was not told
        self._commit_at = self._look_at = 0.0
        self._lost: set[Partition] = set()  # whose next message is not where it should be
        self._stopping = False

    def stop(self) -> None:
        """From any thread, or a signal handler: store what was read, leave the group, and let `run` return."""
        self._stopping = True

    def run(self) -> None:
        """Read until `stop`. Raises StoreError, ConsumerFailed."""
        self.begin()
        try:
            while not self._stopping:
                self.step()
        finally:
            self.end()

    def begin(self) -> None:
        """Join the group."""
        self._consumer.subscribe(topics_of(self._options), on_assign=self._assigned, on_revoke=self._revoked)

    def step(self) -> None:
        """Read what is there, at most a batch, and begin to write it when what was read before is written."""
        batch = self._gathered(self._consumer.consume(BATCH, _WAIT_S))
        self._settle()
        if self._held:
            # What came meanwhile was there before the partitions stood still.
            self._held = self._held.then(batch)
            if time.monotonic() >= self._retry_at:
                held, self._held = self._held, Batch()
                self._write(held)
                self._settle()
        elif batch:
            self._write(batch)
        while self._lost and not self._held:
            self._settle()
            self._displaced(self._lost.pop())
        self._tell()

    def end(self) -> None:
        """Store what was read, and leave the group."""
        self._settle()
        self._tell(last=True)
        self._consumer.close()
        self._told.lags = {}
        self._told.partitions = 0

    # What partitions are ours

    def _partition(self, topic: str, number: int) -> Partition:
        return Partition(self._options.group, topic, number)

    def _assigned(self, _consumer: object, assigned: list[TopicPartition]) -> None:
        """These partitions are ours from now on: read each from where it is stored."""
        partitions = [self._partition(each.topic, each.partition) for each in assigned]
        stored = self._store.offsets(partitions)
        for each, partition in zip(assigned, partitions, strict=True):
            each.offset = self._ends[partition] = stored[partition] if partition in stored else self._begun(partition)
        if self._incremental:
            self._consumer.incremental_assign(assigned)
        else:
            self._consumer.assign(assigned)
        if self._held:
            self._consumer.pause(assigned)
        self._told.partitions = len(self._ends)
        if assigned:
            _log.info("reads %s", ", ".join(f"{each.topic}/{each.partition} from {each.offset}" for each in assigned))

    def _begun(self, partition: Partition) -> int:
        """Where to begin in a partition of which nothing was read; it is stored, so that it is the same ever after."""
        low, high = self._bounds(partition)
        start = high if self._options.start == "latest" else low
        try:
            self._store.consume([Span(partition, start, start)]).result()
        except LimitExceeded as error:
            _log.warning("where reading %s/%d begins is not stored: %s", partition.topic, partition.number, error)
        return start

    def _revoked(self, _consumer: object, revoked: list[TopicPartition]) -> None:
        """Another reads these partitions from now on, from where they are stored: what is under way ends first."""
        self._settle()
        for each in revoked:
            partition = self._partition(each.topic, each.partition)
            self._ends.pop(partition, None)
            self._news.pop(partition, None)
        self._held = self._held.of(self._ends)
        self._told.partitions = len(self._ends)
        if revoked:
            _log.info("leaves %s", ", ".join(f"{each.topic}/{each.partition}" for each in revoked))
        if self._told.paused and not self._held:
            self._go_on()

    def _bounds(self, partition: Partition) -> tuple[int, int]:
        """The offsets of the oldest message of a partition and of the next one to come."""
        place = f"{partition.topic}/{partition.number}"
        try:
            return self._consumer.get_watermark_offsets(TopicPartition(partition.topic, partition.number), _PATIENCE_S)
        except confluent_kafka.KafkaException as error:
            raise ConsumerFailed(f"the brokers do not say what {place} holds: {error}") from error

    # From messages to spans

    def _gathered(self, messages: Iterable[confluent_kafka.Message]) -> Batch:
        """What these messages are to the store; those that are no events are put aside."""
        records: dict[tuple[Partition, int], Record] = {}
        entries: dict[Partition, list[tuple[int, Any]]] = {}
        starts: dict[Partition, int] = {}
        rejected: list[Put] = []
        for message in messages:
            error, topic, number, offset = message.error(), message.topic(), message.partition(), message.offset()
            if error is not None:
                self._failed(error, topic, number)
                continue
            if topic is None or number is None or offset is None:
                continue
            partition = self._partition(topic, number)
            end = self._ends.get(partition)
            if end is None or offset < end:  # another's by now; or read twice, before and after it was away
                continue
            starts.setdefault(partition, end)
            self._ends[partition] = offset + 1
            found = entries.setdefault(partition, [])
            time_kind, at = message.timestamp()
            at = at if time_kind != confluent_kafka.TIMESTAMP_NOT_AVAILABLE else -1
            record = Record(topic, number, offset, at, message.key(), message.value())
            try:
                found.append((offset, self._store.prepare(self._read(record), "event")))
                records[partition, offset] = record
            except Rejected as reason:
                rejected.append((record, reason))
            except CallerError as refused:
                rejected.append((record, refusal(refused)))
        if rejected:
            self._put_aside(rejected)
        spans = tuple(Span(each, start, self._ends[each], entries[each]) for each, start in starts.items())
        return Batch(spans, records)

    def _put_aside(self, rejected: Sequence[Put]) -> None:
        for record, reason in rejected:
            self._told.rejected(record, reason)
        for aside in self._asides:
            try:
                aside.put(rejected)
            except (OSError, confluent_kafka.KafkaException) as error:
                self._told.failed("aside", f"messages that are no events cannot be put aside: {error}")

    # From spans to the store

    def _write(self, batch: Batch) -> None:
        self._writing = batch, self._store.consume(batch.spans)

    def _settle(self) -> None:
        """Wait for the write that is under way."""
        if self._writing is None:
            return
        (batch, future), self._writing = self._writing, None
        try:
            done = future.result()
        except OffsetGap as gap:
            _log.warning("%s", gap)
            self._read_again(batch)
            if self._told.paused:
                self._go_on()
        except EventsRefused as refused:
            self._put_aside([(batch.records[place], refusal(error)) for place, error in refused.errors.items()])
            self._write(batch.without(refused.errors))
            self._settle()
        except LimitExceeded as error:
            if error.reason not in _NO_ROOM:
                raise
            self._hold(batch, error)
        else:
            self._told.stored(done)
            self._news.update((span.partition, span.end) for span in batch.spans if span.partition in self._ends)
            if self._told.paused:
                self._go_on()

    def _hold(self, batch: Batch, error: LimitExceeded) -> None:
        """There is no room: let all stand still, and try again later."""
        self._held = batch.then(self._held)
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(_LONGEST_PAUSE_S, 2 * self._pause)
        if not self._told.paused:
            _log.error("reading pauses, and is tried again: %s", error)
            self._consumer.pause(self._consumer.assignment())
        self._told.paused = error.reason
        self._told.failed(error.reason, str(error))

    def _go_on(self) -> None:
        _log.info("there is room again, reading goes on")
        self._told.paused = ""
        self._pause = _FIRST_PAUSE_S
        self._consumer.resume(self._consumer.assignment())

    def _read_again(self, batch: Batch) -> None:
        """The store was set back: read on from where it stands."""
        ours = [span.partition for span in batch.spans if span.partition in self._ends]
        for partition, offset in self._store.offsets(ours).items():
            self._seek(partition, offset)

    def _seek(self, partition: Partition, offset: int) -> None:
        """Read on from there. The client's own `seek` refuses a partition whose next message it has not found."""
        self._ends[partition] = offset
        if self._incremental:
            place = TopicPartition(partition.topic, partition.number, offset)
            self._consumer.incremental_unassign([place])
            self._consumer.incremental_assign([place])
        else:
            self._consumer.assign([TopicPartition(each.topic, each.number, end) for each, end in self._ends.items()])

    # What Kafka says

    def _warned(self, error: KafkaError) -> None:
        """Something is wrong with the connections; the client mends it itself, but for what is fatal."""
        self._told.failed(error.name(), error.str())
        if error.fatal():
            raise ConsumerFailed(f"Kafka's client gave up: {error.str()}")

    def _failed(self, error: KafkaError, topic: str | None, number: int | None) -> None:
        """A message that is none says what is wrong with a partition."""
        if error.code() == KafkaError._AUTO_OFFSET_RESET and topic is not None and number is not None:  # noqa: SLF001
            self._lost.add(self._partition(topic, number))  # later: some of this batch may be from before it
            return
        self._warned(error)

    def _displaced(self, partition: Partition) -> None:
        """What was to be read next is not there."""
        end = self._ends.get(partition)
        if end is None:
            return
        low, high = self._bounds(partition)
        place = f"{partition.topic}/{partition.number}"
        if end < low:
            self._told.missed(low - end)
            self._told.failed("missed", f"{place}: messages {end} to {low - 1} were deleted before they were read")
            self._seek(partition, low)
            self._ends[partition] = end  # the span that follows begins where the store stands
        elif end > high:
            self._told.failed("anew", f"{place} ends at {high} and was read up to {end}: it was made anew, and is read "
                              f"from {low}")  # fmt: skip
            self._write(Batch((Span(partition, low, low, anew=True),)))
            self._settle()
            self._seek(partition, low)
        else:
            self._seek(partition, end)

    def _tell(self, *, last: bool = False) -> None:
        """Say now and then how far we are: to who asks us, and to Kafka for who watches groups there. We never ask."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            self._told.lags = self._lags()
        if self._news and (last or now >= self._commit_at):
            self._commit_at = now + _COMMIT_EVERY_S
            offsets = [TopicPartition(each.topic, each.number, end) for each, end in self._news.items()]
            self._news.clear()
            with contextlib.suppress(confluent_kafka.KafkaException):
                self._consumer.commit(offsets=offsets)  # and closing waits for it

    def _lags(self) -> dict[tuple[str, str], int]:
        """By topic and partition, how many messages are there and not read."""
        lags = {}
        for partition, end in self._ends.items():
            place = TopicPartition(partition.topic, partition.number)
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
            if high >= 0:
                lags[partition.topic, str(partition.number)] = max(0, high - end)
        return lags
