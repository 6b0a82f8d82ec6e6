"""Clients that nobody wants: each opens connections of its own and misbehaves on them.

Law: sockets and bytes alone, so that nothing mends what is to be broken. Bounded in time; what becomes of it is for the
server to say.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from typing import TYPE_CHECKING

from hpack import Encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 8, 9
_END_STREAM, _END_HEADERS = 1, 4
_TIMEOUT_S = 2.0
_IDLE = 1000
_STREAMS = 200
DECIDE = "/arbiter.v1.DecisionService/Decide"
UPDATE = "/arbiter.v1.ProfileService/UpdateProfile"


@contextlib.contextmanager
def _connected(target: str) -> Iterator[socket.socket]:
    host, _, port = target.rpartition(":")
    connection = socket.create_connection((host, int(port)), _TIMEOUT_S)
    # A server that closes on us is what is wanted.
    with connection, contextlib.suppress(OSError):
        yield connection


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _headers(path: str, *more: tuple[str, str]) -> bytes:
    fields = [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "soak"),
        ("content-type", "application/grpc"), ("te", "trailers"), *more,
    ]  # fmt: skip
    encoded: bytes = Encoder().encode(fields, huffman=False)
    return encoded


def _message(content: bytes) -> bytes:
    return struct.pack(">BI", 0, len(content)) + content


def _drain(connection: socket.socket, seconds: float = 0.2) -> None:
    connection.settimeout(seconds)
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass


def garbage(target: str) -> None:
    """Random bytes, alone and after the preface of HTTP/2."""
    for start in (b"", _PREFACE, _PREFACE + _frame(_SETTINGS, 0, 0)):
        with _connected(target) as connection:
            connection.sendall(start + os.urandom(8192))
            _drain(connection)


def half_open(target: str) -> None:
    """A preface and half a frame, then nothing, then gone."""
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(_connected(target))
            connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_HEADERS, 4, 1, _headers(DECIDE))[:20])
        time.sleep(0.5)


def http_1(target: str) -> None:
    """The HTTP of browsers."""
    for request in (b"GET / HTTP/1.1\r\nHost: soak\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\nx"):
        with _connected(target) as connection:
            connection.sendall(request)
            _drain(connection)


def huge_headers(target: str) -> None:
    """A megabyte of headers, in one field and in frames without end."""
    long = _headers(DECIDE, ("x-long", "a" * 1_000_000))
    with _connected(target) as connection:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0))
        pieces = [long[place : place + 16_000] for place in range(0, len(long), 16_000)]
        connection.sendall(_frame(_HEADERS, 0, 1, pieces[0]))
        for piece in pieces[1:]:
            connection.sendall(_frame(_CONTINUATION, 0, 1, piece))
        connection.sendall(_frame(_CONTINUATION, _END_HEADERS, 1))
        _drain(connection)


def over_the_limit(target: str) -> None:
    """Messages that say to be, and are, longer than is allowed."""
    for path in (DECIDE, UPDATE):
        with _connected(target) as connection:
            connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_HEADERS, _END_HEADERS, 1, _headers(path)))
            connection.sendall(_frame(_DATA, 0, 1, struct.pack(">BI", 0, 1 << 30)))
            for _ in range(3):
                connection.sendall(_frame(_DATA, 0, 1, bytes(16_000)))
            _drain(connection)


def malformed(target: str) -> None:
    """Calls whose messages are no protobuf, or say what makes no sense."""
    for path in (DECIDE, UPDATE, "/arbiter.v1.DecisionService/DecideBatch", "/no.Such/Method"):
        with _connected(target) as connection:
            connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0))
            for stream in range(1, 41, 2):
                connection.sendall(_frame(_HEADERS, _END_HEADERS, stream, _headers(path)))
                content = _message(os.urandom(random.randrange(200)))
                connection.sendall(_frame(_DATA, _END_STREAM, stream, content))
            _drain(connection)


def resets(target: str) -> None:
    """Streams that are opened, asked on, and reset at once."""
    with _connected(target) as connection:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0))
        asked = _message(b"\n\x04soak\x12\x04home")
        for stream in range(1, 2 * _STREAMS, 2):
            connection.sendall(
                _frame(_HEADERS, _END_HEADERS, stream, _headers(DECIDE))
                + _frame(_DATA, _END_STREAM, stream, asked)
                + _frame(_RESET, 0, stream, struct.pack(">I", 8))
            )
        _drain(connection)


def slow_readers(target: str) -> None:
    """Callers that ask for much and take none of it."""
    with contextlib.ExitStack() as stack:
        window = _frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, 0))  # no room for any answer
        for _ in range(10):
            connection = stack.enter_context(_connected(target))
            connection.sendall(_PREFACE + window)
            for stream in range(1, 100, 2):
                connection.sendall(
                    _frame(_HEADERS, _END_HEADERS, stream, _headers(DECIDE))
                    + _frame(_DATA, _END_STREAM, stream, _message(b"\n\x04soak\x12\x04home"))
                )
        time.sleep(1.0)


def idle(target: str) -> None:
    """A thousand connections that say nothing, dropped together."""
    with contextlib.ExitStack() as stack:
        for _ in range(_IDLE):
            with contextlib.suppress(OSError):
                stack.enter_context(_connected(target))
        time.sleep(0.5)


BAD_CLIENTS: tuple[Callable[[str], None], ...] = (
    garbage, half_open, http_1, huge_headers, over_the_limit, malformed, resets, slow_readers, idle,
)  # fmt: skip
