"""Frames of HTTP/2 (RFC 9113) and the status that a gRPC answer's headers tell.

Law: bytes and numbers, no connection and no socket.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
WINDOW = 65_535  # octets, until settings say otherwise
LARGEST_WINDOW = (1 << 31) - 1
FRAME_SIZE = 16_384  # likewise
LAST_STREAM = (1 << 31) - 1

REFUSED_STREAM, CANCEL = 7, 8
# What gRPC makes of a stream that was reset, by HTTP/2's error code; of others it makes INTERNAL.
_AFTER_RESET = {8: 1, 11: 8, 12: 7}
# And of an answer without a gRPC status, by HTTP's; of others it makes UNKNOWN.
_AFTER_HTTP = {"400": 13, "401": 16, "403": 7, "404": 12, "429": 14, "502": 14, "503": 14, "504": 14}
STATUS_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
OK, CANCELLED, UNKNOWN = 0, 1, 2
DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 4, 8, 13, 14
NO_STATUS = -2  # headers that begin an answer: how it went is told at its end

_MOST_DIGITS = 10**8
_HEAD = struct.Struct(">HBBBI")
_SETTING = struct.Struct(">HI")
# Length in two parts, kind, flags, stream.
read_head = _HEAD.unpack_from


class ProtocolError(ArbiterError):
    """What came is no HTTP/2, or breaks its rules."""


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """A frame."""
    return _HEAD.pack(len(content) >> 8, len(content) & 255, kind, flags, stream) + content


def number(value: int) -> bytes:
    """Four octets, as windows and error codes are written."""
    return value.to_bytes(4, "big")


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """The content of a SETTINGS frame."""
    return b"".join(_SETTING.pack(*each) for each in values)


def read_settings(content: bytes) -> list[tuple[int, int]]:
    """The pairs of a SETTINGS frame. Raises ProtocolError."""
    if len(content) % _SETTING.size:
        raise ProtocolError(f"a SETTINGS frame of {len(content)} octets: each setting has {_SETTING.size}")
    return list(_SETTING.iter_unpack(content))


def message(content: bytes) -> bytes:
    """A message as gRPC sends it: uncompressed, its length before it."""
    return b"\0" + number(len(content)) + content


def timeout_header(microseconds: int) -> bytes:
    """The header field that tells a server how long a call may take, as HPACK writes what goes into no table."""
    value = b"%du" % microseconds if microseconds < _MOST_DIGITS else b"%dm" % (microseconds // 1000)
    return b"\x00\x0cgrpc-timeout" + bytes([len(value)]) + value


def is_whole(answer: bytes) -> bool:
    """Whether the octets of an answer are one uncompressed message."""
    return len(answer) - 5 == int.from_bytes(answer[1:5], "big") and not answer[0]


def without_padding(flags: int, content: bytes) -> bytes:
    """What DATA and HEADERS carry, without padding. Raises ProtocolError."""
    if not flags & PADDED:
        return content
    if not content or content[0] >= len(content):
        raise ProtocolError("a frame whose padding is longer than the frame")
    return content[1 : len(content) - content[0]]


def status_in(headers: Iterable[tuple[str, str]]) -> int:
    """What headers tell of how the call went: a gRPC status, or NO_STATUS."""
    found = dict(headers)
    told = found.get("grpc-status")
    if told is not None:
        return int(told) if told.isdecimal() and int(told) < len(STATUS_NAMES) else UNKNOWN
    http = found.get(":status", "200")
    return NO_STATUS if http == "200" else _AFTER_HTTP.get(http, UNKNOWN)


def status_after_reset(code: int) -> int:
    """The gRPC status of a call whose stream was reset with an error code of HTTP/2."""
    return _AFTER_RESET.get(code, INTERNAL)
