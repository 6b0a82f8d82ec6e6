"""A connection's socket, its wire, and the TLS between them.

Law: moves octets, never waits. What is sent on it is the driver's business.
"""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

from arbiter.bench.secured import Refused

if TYPE_CHECKING:
    from arbiter.bench.secured import Secured
    from arbiter.bench.wire import Answer, Wire

_CHUNK = 1 << 18


class Lost(Exception):
    """The connection has ended."""


class Link:
    """A connection that is being made, then stands. Register `fileno` with `epoll` and call `on` with its events."""

    def __init__(
        self, epoll: select.epoll, family: int, address: object, wire: Wire, secured: Secured | None = None
    ) -> None:
        """Begin to connect. Raises Lost when that fails at once."""
        self.wire = wire
        self._secured = secured
        self._epoll = epoll
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        if family != socket.AF_UNIX:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fileno = self._socket.fileno()
        self._connected = False
        self._watched = select.EPOLLIN | select.EPOLLOUT
        epoll.register(self.fileno, self._watched)
        try:
            self._socket.connect(address)  # type: ignore[arg-type] # of whichever form the family has
        except BlockingIOError:
            pass
        except OSError as error:
            self.close()
            raise Lost(str(error)) from error

    def close(self) -> None:
        """End the connection."""
        self._epoll.unregister(self.fileno)
        self._socket.close()

    def on(self, events: int) -> list[Answer]:
        """React to events of the socket; the calls that ended. Raises Lost."""
        if not self._connected:
            if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise Lost(os.strerror(error))
            self._connected = True
        answers = []
        if events & ~select.EPOLLOUT:
            try:
                data = self._socket.recv(_CHUNK)
            except BlockingIOError:
                return []
            except OSError as error:
                raise Lost(str(error)) from error
            if not data:
                raise Lost("the server closed the connection")
            if self._secured:
                try:
                    data = self._secured.opened(data)
                except Refused as refused:
                    raise Lost(str(refused)) from refused
            answers = self.wire.feed(data)
        return answers

    def flush(self) -> None:
        """Send what the socket takes. What is lost by that is noticed when answers are read."""
        if not self._connected:
            return
        out = self.wire.out
        if self._secured:
            try:
                out = self._secured.sealed(out)
            except OSError:
                out.clear()
        if out:
            try:
                del out[: self._socket.send(out)]
            except BlockingIOError:
                pass
            except OSError:
                out.clear()
        wanted = select.EPOLLIN | select.EPOLLOUT if out else select.EPOLLIN
        if wanted != self._watched:
            self._watched = wanted
            self._epoll.modify(self.fileno, wanted)
