"""The port that the workers share.

Law: sockets only. Every worker listens on the same port (SO_REUSEPORT) and the kernel spreads connections over them;
the supervisor holds the port without listening, so that it stays ours while workers come and go.
"""

from __future__ import annotations

import contextlib
import errno
import socket

from arbiter.errors import ArbiterError

_LAST_PORT = 65_535


class ListenError(ArbiterError):
    """The address to listen on is malformed or taken."""


def reserve(listen: str) -> tuple[socket.socket, str]:
    """Bind ``HOST:PORT`` (port 0: any free one). Returns the socket to keep and the numeric address to listen on.

    Raises ListenError.
    """
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal():
        raise ListenError(f"cannot listen on `{listen}`: write HOST:PORT, as in 127.0.0.1:50051 or [::1]:50051")
    if int(port) > _LAST_PORT:
        raise ListenError(f"cannot listen on `{listen}`: a port is at most {_LAST_PORT}")
    host = host.removeprefix("[").removesuffix("]")
    with contextlib.ExitStack() as stack:
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(
                host or "::", int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            if int(port):
                _refuse_if_taken(family, where)
            held = stack.enter_context(socket.socket(family, kind, protocol))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(where)
        except OSError as error:
            mend = ": stop what listens there, or choose another port" if error.errno == errno.EADDRINUSE else ""
            raise ListenError(f"cannot listen on {listen}: {error.strerror or error}{mend}") from error
        stack.pop_all()
    name, number = held.getsockname()[:2]
    return held, f"[{name}]:{number}" if ":" in name else f"{name}:{number}"


def _refuse_if_taken(family: int, where: tuple[object, ...]) -> None:
    """Binding without SO_REUSEPORT fails beside another Arbiter, whose calls we would otherwise share in silence."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(where)
