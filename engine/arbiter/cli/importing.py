"""A file of events, into a server, once.

Law: the file is read twice: to find every row that is no event before anything is sent, and to send. How far it came is
noted beside the file after every batch that is on the server's disk, so that an import that was killed goes on there; a
note that does not fit the file is not believed, and the ids of events keep what is sent again from counting twice.
"""

from __future__ import annotations

import contextlib
import re
import time
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from arbiter.cli.eventfile import batches
from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from arbiter.cli.eventfile import EventFile, Row
    from arbiter.client import Client

SHOWN = 20
PATIENCE_S = 60.0
_FIELD = re.compile(r"events\[(\d+)\]\.?")


class BadLines(ArbiterError):
    """Rows of a file that are no events, or that a server does not take."""


class Note(msgspec.Struct, frozen=True):
    """How far an import came: `rows` that are events, `digest` of their ids, and the server that has them."""

    target: str
    rows: int
    digest: str


class Imported(msgspec.Struct):
    """What became of a file. `events` are those that it holds, `erased` those that were dropped since their subject
    was erased after their time, `resumed` those that an earlier run had sent.
    """

    events: int = 0
    accepted: int = 0
    duplicates: int = 0
    erased: int = 0
    skipped: int = 0
    resumed: int = 0
    seconds: float = 0.0


class Mistakes:
    """The rows that were no events: the first few, and how many."""

    def __init__(self, name: str) -> None:
        self.number = 0
        self.said: list[str] = []
        self._name = name

    def add(self, line: int, mistake: str) -> None:
        """Note one."""
        self.number += 1
        if len(self.said) < SHOWN:
            self.said.append(f"{self._name}:{line}: {mistake}")

    def listed(self, head: str) -> str:
        """All of it, under a sentence."""
        more = self.number - len(self.said)
        return "\n".join([head, *self.said, *([f"… and {more} more"] if more else [])])


class Import:
    """Brings one file into the server of a client, `size` events a call. `note` is where it says how far it came."""

    def __init__(self, client: Client, file: EventFile, size: int, *, skip_bad: bool, note: Path | None) -> None:
        self.mistakes = Mistakes(file.name)
        self._client = client
        self._file = file
        self._size = size
        self._skip_bad = skip_bad
        self._note = note
        self._done = Imported()
        self._first_line = 0  # of the batch that is being sent

    def check(self) -> int:
        """Read the whole file; how many events it holds. Raises BadLines, unless bad ones are skipped, and BadFile."""
        for row in self._file.rows():
            if row.event is None:
                self.mistakes.add(row.line, row.mistake)
            else:
                self._done.events += 1
        self._done.skipped = self.mistakes.number
        if self.mistakes.number and not self._skip_bad:
            raise BadLines(self.mistakes.listed("these lines are no events, and nothing was sent:"))
        return self._done.events

    def run(self, advance: Callable[[int], None]) -> Imported:
        """Send what a checked file holds; `advance` is told how many more are through. Raises BadLines, CallFailed."""
        began = time.monotonic()
        rows = (row for row in self._file.rows() if row.event is not None)
        chain, sent = blake2b(digest_size=16), 0
        noted = self._noted()
        if noted is not None:
            begun, kept = [], blake2b(digest_size=16)
            for batch in batches(_first(rows, noted.rows), self._size):
                _link(kept, batch)
                begun.append(len(batch))
            if kept.hexdigest() == noted.digest:
                chain, sent = kept, sum(begun)
                advance(sent)
            else:  # another file by now
                rows = (row for row in self._file.rows() if row.event is not None)
        self._done.resumed = sent
        for batch in batches(rows, self._size):
            self._send(batch, anything_stored=bool(sent or self._done.accepted or self._done.duplicates))
            _link(chain, batch)
            sent += len(batch)
            self._write(Note(self._client.target, sent, chain.hexdigest()))
            advance(len(batch))
        if self._note is not None:
            self._note.unlink(missing_ok=True)
        self._done.seconds = time.monotonic() - began
        return self._done

    def _send(self, batch: list[Row], *, anything_stored: bool) -> None:
        from arbiter.client import CallFailed  # noqa: PLC0415 - brings grpc

        rows = list(batch)
        while rows:
            events = [row.event for row in rows if row.event is not None]
            try:
                answer = self._client.ingest_events(events, timeout=PATIENCE_S)
            except CallFailed as error:
                number, message = _named(error.field, error.message)
                if number is None or number >= len(rows):
                    raise
                if not self._skip_bad:
                    raise self._refused(rows, number, message, anything_stored=anything_stored) from None
                self.mistakes.add(rows[number].line, message)
                self._done.skipped += 1
                del rows[number]
            else:
                self._done.accepted += answer.accepted
                self._done.duplicates += answer.duplicates
                self._done.erased += answer.erased
                return

    def _refused(self, rows: list[Row], number: int, message: str, *, anything_stored: bool) -> BadLines:
        stored = "nothing was stored"
        if anything_stored:
            stored = f"the events of the lines before {rows[0].line} are stored, no other"
        return BadLines(f"{self._file.name}:{rows[number].line}: {message}; {stored}: mend it and import again")

    def _noted(self) -> Note | None:
        if self._note is None:
            return None
        try:
            found = msgspec.json.decode(self._note.read_bytes(), type=Note)
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.target == self._client.target else None

    def _write(self, note: Note) -> None:
        """Note how far it is. Where that cannot be, the import would begin anew, which does no harm."""
        if self._note is None:
            return
        with contextlib.suppress(OSError):
            beside = self._note.with_name(f"{self._note.name}.new")
            beside.write_bytes(msgspec.json.encode(note))
            beside.replace(self._note)


def _named(field: str, message: str) -> tuple[int | None, str]:
    """Which event a server speaks of, counted from 0, and what it says without naming it so."""
    found = _FIELD.match(field)
    return (None, message) if found is None else (int(found[1]), message.replace(found[0], "", 1))


def _first(rows: Iterator[Row], number: int) -> Iterable[Row]:
    """The next `number` rows, and not one more is taken."""
    for _ in range(number):
        row = next(rows, None)
        if row is None:
            return
        yield row


def _link(chain: blake2b, batch: list[Row]) -> None:
    for row in batch:
        if row.event is not None:
            chain.update(row.event.id.encode() + b"\n")
