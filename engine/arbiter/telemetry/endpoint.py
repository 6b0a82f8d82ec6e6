"""The HTTP endpoint that Prometheus scrapes.

Law: answers GET of /metrics and of /healthz and nothing else, in one thread, one request at a time, and gives up on
whoever is slow: nobody who reaches the port can make the process work much. What the figures are comes from a function.
"""

from __future__ import annotations

import logging
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

from arbiter.errors import ArbiterError
from arbiter.telemetry.prometheus import exposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.telemetry.instrument import Reading

_log = logging.getLogger("arbiter.metrics")
_PATIENCE_S = 2.0  # for a request to come, and for its answer to be taken


class EndpointError(ArbiterError):
    """The address for metrics cannot be had."""


class Endpoint:
    """Serves until `close`. `read` says what has been counted, `healthy` whether calls are answered."""

    def __init__(self, listen: str, read: Callable[[], Reading], healthy: Callable[[], bool]) -> None:
        """Listen on ``HOST:PORT``, port 0 for any free one. Raises EndpointError."""
        host, _, port = listen.rpartition(":")
        try:
            self._server = _Server((host.strip("[]"), int(port)))
        except (OSError, ValueError, OverflowError) as error:
            raise EndpointError(f"cannot serve metrics on {listen}: {error}") from error
        self._server.read, self._server.healthy = read, healthy
        self._thread = threading.Thread(target=self._server.serve_forever, name="arbiter-metrics", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens, ``HOST:PORT``."""
        host, port = str(self._server.server_address[0]), self._server.server_port
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(HTTPServer):
    read: Callable[[], Reading]
    healthy: Callable[[], bool]
    request_queue_size = 16

    def __init__(self, address: tuple[str, int]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def handle_error(self, _request: object, _address: object) -> None:
        _log.debug("a scrape ended early", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE_S
    server_version = "arbiter"
    sys_version = ""

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                text, media_type = exposition(self.server.read(), self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, text, media_type)
            case "/healthz":
                if self.server.healthy():
                    self._answer(HTTPStatus.OK, b"ok\n")
                else:
                    self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"not serving\n")
            case _:
                self._answer(HTTPStatus.NOT_FOUND, b"there are /metrics and /healthz\n")

    def _answer(self, status: HTTPStatus, text: bytes, media_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        _log.debug(format, *args)
