"""The client's end of one HTTP/2 connection that carries unary calls of one method: octets in, answers out.

Law: no socket and no clock. Whoever owns the connection sends `out`, and feeds what it receives.

The server is told that its header table has no room, so that the same octets always mean the same headers and are
decoded once. What a call sends differs from the call before it in the stream's number and the message alone.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import hpack

from arbiter.bench import frames as h2
from arbiter.bench.frames import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

UNPROCESSED = -1  # the server says that it has not looked at the call: to be sent again
_REPLENISH = 1 << 30  # octets received until the connection's window is made large again
_TABLE = 4096  # octets of our header table, where the server does not want it smaller
_REMEMBERED = 1024  # blocks of headers whose meaning is kept
_LARGEST_BLOCK = 1 << 20
_FOUR = 4


class Answer(NamedTuple):
    """How a call ended: its tag, the gRPC status or UNPROCESSED, the message in gRPC's framing."""

    tag: Any
    status: int
    framed: bytes


class _Held:
    """A message of which a part waits for the server's windows; `allowed` is what the stream's own has left."""

    __slots__ = ("allowed", "framed", "stream")

    def __init__(self, stream: int, framed: bytes, allowed: int) -> None:
        self.stream, self.framed, self.allowed = stream, framed, allowed


class Wire:
    """One connection. `out` is what must be sent; whoever sends it takes it out.

    `ready` once the server has told its settings; `leaving` when it takes no new calls, though open ones may end.
    """

    def __init__(
        self, authority: str, path: str, metadata: Sequence[tuple[str, str]] = (), *, secured: bool = False
    ) -> None:
        ours = ((h2.HEADER_TABLE_SIZE, 0), (h2.ENABLE_PUSH, 0), (h2.INITIAL_WINDOW_SIZE, h2.LARGEST_WINDOW))
        self.out = bytearray(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0, h2.settings(ours)))
        self.out += h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.number(h2.LARGEST_WINDOW - h2.WINDOW))
        self.ready = self.leaving = False
        self._headers = [
            (":method", "POST"), (":scheme", "https" if secured else "http"), (":path", path),
            (":authority", authority), ("te", "trailers"), ("content-type", "application/grpc"),
            ("user-agent", "arbiter-bench"), *metadata,
        ]  # fmt: skip
        self._encoder = hpack.Encoder()
        self._blocks: list[tuple[bytes, bytes]] = []
        self._decoder = hpack.Decoder()
        self._decoder.max_allowed_table_size = self._decoder.header_table_size = 0
        self._statuses: dict[bytes, int] = {}
        self._open: dict[int, Any] = {}
        self._bodies: dict[int, bytes] = {}
        self._failed: dict[int, int] = {}  # by stream: what the headers before a message already told
        self._rest = b""
        self._block: tuple[int, int, bytes] | None = None  # headers that go on in the next frame: stream, flags, octets
        self._received = 0
        self._next = 1
        self._most = h2.LAST_STREAM
        self._window = self._stream_window = h2.WINDOW
        self._frame_size = h2.FRAME_SIZE
        self._held: deque[_Held] = deque()

    @property
    def open(self) -> int:
        """Calls that have no answer yet."""
        return len(self._open)

    @property
    def used(self) -> bool:
        """Whether it ever carried a call."""
        return self._next > 1

    @property
    def room(self) -> int:
        """How many more calls the server takes now."""
        return 0 if self.leaving or not self.ready else self._most - len(self._open)

    def call(self, framed: bytes, tag: Any, field: bytes = b"") -> int:
        """Begin a call with a message in gRPC's framing, and return its stream. Only while there is `room`.

        `field` is a header field that only this call has, encoded.
        """
        stream = self._next
        self._next = stream + 2
        if stream + 2 > h2.LAST_STREAM:
            self.leaving = True
        self._open[stream] = tag
        number = stream.to_bytes(4, "big")
        # Headers of the first call fill the server's table, those of the others point into it.
        head, block = self._blocks.pop() if len(self._blocks) > 1 else self._blocks[0]
        if field:
            block += field
            head = len(block).to_bytes(3, "big") + head[3:]
        size = len(framed)
        if size <= self._window and size <= self._stream_window and size <= self._frame_size and not self._held:
            self._window -= size
            self.out += b"".join((head, number, block, size.to_bytes(3, "big"), b"\0\1", number, framed))
        else:
            self.out += b"".join((head, number, block))
            self._held.append(_Held(stream, framed, self._stream_window))
            self._send_held()
        return stream

    def cancel(self, stream: int) -> bool:
        """Give up a call, for which no answer comes then; False when it has ended already."""
        if stream not in self._open:
            return False
        self._forget(stream)
        self.out += h2.frame(h2.RST_STREAM, 0, stream, h2.number(h2.CANCEL))
        return True

    def abandon(self) -> list[Any]:
        """The tags of all open calls, which get no answer: the connection is lost."""
        tags = list(self._open.values())
        self._open.clear()
        self.leaving = True
        return tags

    def feed(self, data: bytes) -> list[Answer]:
        """Take octets from the server, cut anywhere; the calls that ended by them. Raises ProtocolError."""
        if self._rest:
            data = self._rest + data
        answers: list[Answer] = []
        opened, bodies, statuses = self._open, self._bodies, self._statuses
        at, end = 0, len(data)
        while end - at >= h2.HEAD_BYTES:
            high, low, kind, flags, stream = h2.read_head(data, at)
            start = at + h2.HEAD_BYTES
            at = start + (high << 8 | low)
            if at - start > h2.FRAME_SIZE:
                raise ProtocolError("what answers does not speak HTTP/2, or sends larger frames than it may")
            if at > end:
                at = start - h2.HEAD_BYTES
                break
            # Nearly all frames are these two: a message that goes on, and headers whose octets are known.
            if kind == h2.DATA and not flags and not self._block:
                self._received += at - start
                if stream in opened:
                    bodies[stream] = bodies[stream] + data[start:at] if stream in bodies else data[start:at]
            elif kind == h2.HEADERS and not flags & ~0x5 and flags & 0x4 and not self._block:
                status = statuses.get(data[start:at])
                self._told(stream, flags, self._learn(data[start:at]) if status is None else status, answers)
            else:
                self._take(kind, flags, stream & h2.LAST_STREAM, data[start:at], answers)
        self._rest = data[at:]
        if self._received > _REPLENISH:
            self.out += h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.number(self._received))
            self._received = 0
        return answers

    def _told(self, stream: int, flags: int, status: int, answers: list[Answer]) -> None:
        """Headers of a stream: at its beginning, or at its end."""
        if not flags & h2.END_STREAM:
            if status != h2.NO_STATUS and stream in self._open:
                self._failed[stream] = status
            return
        if self._failed and stream in self._failed:
            status = self._failed.pop(stream) if status == h2.NO_STATUS else status
        self._end(stream, h2.UNKNOWN if status == h2.NO_STATUS else status, answers)

    def _end(self, stream: int, status: int, answers: list[Answer]) -> None:
        framed = self._bodies.pop(stream, b"")
        if stream not in self._open:
            return
        if status == h2.OK and not h2.is_whole(framed):
            status = h2.INTERNAL
        answers.append(Answer(self._open[stream], status, framed))
        if self._held:
            self._forget(stream)
        else:
            del self._open[stream]

    def _forget(self, stream: int) -> None:
        self._open.pop(stream, None)
        self._bodies.pop(stream, None)
        self._failed.pop(stream, None)
        self._held = deque(each for each in self._held if each.stream != stream)

    def _learn(self, block: bytes) -> int:
        """What a block of headers tells. Raises ProtocolError."""
        try:
            status = h2.status_in((str(name), str(value)) for name, value in self._decoder.decode(block))
        except hpack.HPACKError as error:
            raise ProtocolError(f"headers that cannot be read: {error}") from error
        if len(self._statuses) < _REMEMBERED:
            self._statuses[block] = status
        return status

    def _take(self, kind: int, flags: int, stream: int, content: bytes, answers: list[Answer]) -> None:
        """A frame of any kind."""
        if self._block and kind != h2.CONTINUATION:
            raise ProtocolError("headers that were to go on, and another frame came")
        if stream:
            self._take_of_call(kind, flags, stream, content, answers)
        elif kind == h2.SETTINGS and not flags & h2.ACK:
            self._settle(h2.read_settings(content))
        elif kind == h2.PING and not flags & h2.ACK:
            self.out += h2.frame(h2.PING, h2.ACK, 0, content)
        elif kind == h2.WINDOW_UPDATE:
            self._window += _four(content)
            self._send_held()
        elif kind == h2.GOAWAY:
            self.leaving = True
            last = _four(content[:4])
            for each in [each for each in self._open if each > last]:
                answers.append(Answer(self._open[each], UNPROCESSED, b""))
                self._forget(each)

    def _take_of_call(self, kind: int, flags: int, stream: int, content: bytes, answers: list[Answer]) -> None:
        match kind:
            case h2.DATA:
                self._received += len(content)
                if stream in self._open:
                    self._bodies[stream] = self._bodies.get(stream, b"") + h2.without_padding(flags, content)
                if flags & h2.END_STREAM:
                    self._end(stream, self._failed.pop(stream, h2.UNKNOWN), answers)
            case h2.HEADERS:
                content = h2.without_padding(flags, content)
                self._go_on(stream, flags, content[5:] if flags & h2.HAS_PRIORITY else content, answers)
            case h2.CONTINUATION:
                if not self._block or self._block[0] != stream:
                    raise ProtocolError("headers go on that did not begin")
                _, first, before = self._block
                self._go_on(stream, first & h2.END_STREAM | flags & h2.END_HEADERS, before + content, answers)
            case h2.RST_STREAM:
                code = _four(content)
                self._end(stream, UNPROCESSED if code == h2.REFUSED_STREAM else h2.status_after_reset(code), answers)
            case h2.WINDOW_UPDATE:
                for each in self._held:
                    each.allowed += _four(content) if each.stream == stream else 0
                self._send_held()

    def _go_on(self, stream: int, flags: int, block: bytes, answers: list[Answer]) -> None:
        if len(block) > _LARGEST_BLOCK:
            raise ProtocolError("headers of more than a mebibyte")
        if flags & h2.END_HEADERS:
            self._block = None
            self._told(stream, flags, self._learn(block), answers)
        else:
            self._block = (stream, flags, block)

    def _settle(self, told: list[tuple[int, int]]) -> None:
        """Keep to the server's settings, and say so."""
        table = None if self.ready else _TABLE
        for name, value in told:
            match name:
                case h2.HEADER_TABLE_SIZE:
                    table = min(value, _TABLE)
                case h2.MAX_CONCURRENT_STREAMS:
                    self._most = value
                case h2.MAX_FRAME_SIZE:
                    self._frame_size = value
                case h2.INITIAL_WINDOW_SIZE:
                    for each in self._held:
                        each.allowed += value - self._stream_window
                    self._stream_window = value
        self.out += h2.frame(h2.SETTINGS, h2.ACK, 0)
        self.ready = True
        if table is not None:
            self._encoder.header_table_size = table
            first, later = (self._encoder.encode(self._headers, huffman=False) for _ in range(2))
            # Without the stream's number, which is all that differs.
            self._blocks = [(h2.frame(h2.HEADERS, h2.END_HEADERS, 0, block)[:5], block) for block in (later, first)]
        self._send_held()

    def _send_held(self) -> None:
        """Send of what is held what the server's windows allow."""
        for each in self._held:
            while each.framed and (size := min(len(each.framed), self._window, each.allowed, self._frame_size)) > 0:
                part, each.framed = each.framed[:size], each.framed[size:]
                self._window -= size
                each.allowed -= size
                self.out += h2.frame(h2.DATA, 0 if each.framed else h2.END_STREAM, each.stream, part)
        if self._held:
            self._held = deque(each for each in self._held if each.framed)


def _four(content: bytes) -> int:
    """A number of four octets, whose first bit says nothing. Raises ProtocolError."""
    if len(content) != _FOUR:
        raise ProtocolError("a frame that should hold four octets")
    return int.from_bytes(content, "big") & h2.LAST_STREAM
