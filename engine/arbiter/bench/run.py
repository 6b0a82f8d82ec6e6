"""One load while it is put on its server: which call is due, which connection takes it, what became of it.

Law: never waits; told the time, it does what is due and says when the next is. Time is the monotonic clock's, in ns.
"""

from __future__ import annotations

import itertools
import random
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from arbiter.bench import frames as h2
from arbiter.bench.link import Link, Lost
from arbiter.bench.load import LoadError, Result
from arbiter.bench.secured import Secured
from arbiter.bench.wire import UNPROCESSED, Wire
from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    import select
    from collections.abc import Iterator

    from arbiter.bench.load import Load

_AGAIN_NS = 20_000_000  # until a connection that was lost is made again
_SWEEP_NS = 1_000_000  # between looks for calls whose deadline has passed
_FAR = 1 << 62
_LAST_PORT = 65_535
clock = time.monotonic_ns


class NoServer(ArbiterError):
    """Nobody answers where load was to be put."""


class _Call(NamedTuple):
    due: int
    body: int  # its number


class Run:
    """A load, the connections that carry it, and its result. `links` are the connections by their file's number."""

    def __init__(self, load: Load, epoll: select.epoll) -> None:
        """Raises LoadError for a target that is no address."""
        self.load = load
        self.links: dict[int, Link] = {}
        self.result = Result(load.seconds)
        self.begun = self.end = _FAR
        self._epoll = epoll
        self._host, self._family, self._address = _resolved(load.target)
        self._timeout = None if load.timeout is None else int(load.timeout * 1e9)
        self._framed = [h2.message(body) for body in load.bodies]
        self._numbers = itertools.cycle(range(len(load.bodies)))
        self._gaps = _gaps(load.rate, load.seed if load.poisson else None) if load.rate else None
        self._restraint = load.restraint() if load.restraint else None
        self._draw = random.Random(load.seed).random  # noqa: S311 - which calls are held back, no secrets
        self._due = _FAR  # of an open loop: when the next call is
        self._waiting: deque[_Call] = deque()  # for a connection that takes them
        self._paused: deque[int] = deque()  # of a closed loop: when callers that were refused call again
        self._deadlines: deque[tuple[int, Link, int, _Call]] = deque()
        self._swept = self._connect_at = 0
        self._serving: list[Link] = []  # links that take calls, or will
        self._open = 0

    @property
    def ready(self) -> bool:
        """Whether all connections stand."""
        return len(self._serving) == self.load.connections and all(link.wire.ready for link in self._serving)

    @property
    def unanswered(self) -> int:
        """Calls that have not ended."""
        return self._open + len(self._waiting)

    def begin(self, now: int) -> None:
        """Put the load on from now."""
        self.begun = now + int(self.load.warmup * 1e9)
        self.end = self.begun + int(self.load.seconds * 1e9)
        if self._gaps:
            self._due = now
        else:
            self._waiting.extend(_Call(now, next(self._numbers)) for _ in range(self.load.streams))

    def turn(self, now: int) -> int:
        """Do what is due by now; when the next is."""
        while len(self._serving) < self.load.connections and now >= self._connect_at:
            self._connect(now)
        if self._gaps:
            self._arrive(now, self._gaps)
        while self._paused and self._paused[0] <= now:
            self._waiting.append(_Call(self._paused.popleft(), next(self._numbers)))
        if self._timeout is not None and now >= self._swept + _SWEEP_NS:
            self._sweep(now)
        if self._waiting:
            self._deal(now)
        wake = self._due if self._due < self.end else _FAR
        if self._paused:
            wake = min(wake, self._paused[0])
        if self._deadlines:
            wake = min(wake, max(self._deadlines[0][0], self._swept + _SWEEP_NS))
        return wake if len(self._serving) == self.load.connections else min(wake, self._connect_at)

    def on(self, link: Link, mask: int) -> None:
        """React to events of a connection. Raises NoServer when it is lost before load was put on."""
        try:
            answers = link.on(mask)
        except Lost as lost:
            self._lost(link, lost)
            return
        now = clock()
        for call, status, framed in answers:
            self._open -= 1
            if status == UNPROCESSED:
                self._waiting.appendleft(call)
            else:
                self._ended(call, status, framed, now)
        self.result.latency.settle()
        link.flush()
        if link.wire.leaving:
            if not link.wire.used:
                self._connect_at = now + _AGAIN_NS
            self._leave(link)
            if not link.wire.open:
                self._drop(link)

    def close(self) -> None:
        """End all connections, and count what has no answer."""
        remaining = [*self._waiting]
        for link in list(self.links.values()):
            remaining += link.wire.abandon()
            self._drop(link)
        self.result.unanswered = sum(self.begun <= call.due < self.end for call in remaining)

    def _connect(self, now: int) -> None:
        tls = self.load.tls
        wire = Wire(self.load.target, self.load.path, self.load.metadata, secured=tls is not None)
        try:
            link = Link(self._epoll, self._family, self._address, wire, Secured(tls, self._host) if tls else None)
        except Lost as lost:
            self._refuse(lost, now)
            return
        self.links[link.fileno] = link
        self._serving.append(link)

    def _refuse(self, lost: Lost, now: int) -> None:
        """Connect again, not at once; before load is put on there is no again."""
        self._connect_at = now + _AGAIN_NS
        if self.begun == _FAR:
            raise NoServer(f"no server answers at {self.load.target}: {lost}") from lost

    def _lost(self, link: Link, lost: Lost) -> None:
        """The calls of a connection that is lost end UNAVAILABLE."""
        now = clock()
        for call in link.wire.abandon():
            self._open -= 1
            self._ended(call, h2.UNAVAILABLE, b"", now)
        self._leave(link)
        self._drop(link)
        self._refuse(lost, now)

    def _leave(self, link: Link) -> None:
        if link in self._serving:
            self._serving.remove(link)
            self.result.reconnected += 1

    def _drop(self, link: Link) -> None:
        del self.links[link.fileno]
        link.close()

    def _arrive(self, now: int, gaps: Iterator[int]) -> None:
        """Take in the calls of an open loop that are due."""
        while self._due <= now and self._due < self.end:
            if self._restraint and not self._restraint.allows(now / 1e9, self._draw()):
                self.result.held += self._due >= self.begun
            elif self._open + len(self._waiting) < self.load.cap:
                self._waiting.append(_Call(self._due, next(self._numbers)))
            else:
                self.result.unsent += self._due >= self.begun
            self._due += next(gaps)

    def _deal(self, now: int) -> None:
        """Give the calls that wait to connections that take them, the emptiest first."""
        links = [link for link in self._serving if link.wire.room > 0]
        lag, begun = self.result.lag.add, self.begun
        while self._waiting and links:
            link = links[0] if len(links) == 1 else min(links, key=_fullness)
            call = self._waiting.popleft()
            if self._timeout is None:
                link.wire.call(self._framed[call.body], call)
            else:
                deadline = call.due + self._timeout
                field = h2.timeout_header(max(1, (deadline - now) // 1000))
                stream = link.wire.call(self._framed[call.body], call, field)
                self._deadlines.append((deadline, link, stream, call))
            self._open += 1
            if call.due >= begun:
                lag(now - call.due)
            if link.wire.room <= 0:
                links.remove(link)
        for link in self._serving:
            if link.wire.out:
                link.flush()

    def _sweep(self, now: int) -> None:
        """Give up the calls whose deadline has passed."""
        self._swept = now
        while self._deadlines and self._deadlines[0][0] <= now:
            _, link, stream, call = self._deadlines.popleft()
            if link.wire.cancel(stream):
                self._open -= 1
                self._ended(call, h2.DEADLINE_EXCEEDED, b"", now)
        oldest = now - (self._timeout or 0)
        while self._waiting and self._waiting[0].due <= oldest:
            self._ended(self._waiting.popleft(), h2.DEADLINE_EXCEEDED, b"", now)

    def _ended(self, call: _Call, status: int, framed: bytes, now: int) -> None:
        """Count a call that ended; its caller calls again."""
        if status == h2.CANCELLED and self._timeout is not None and now >= call.due + self._timeout:
            status = h2.DEADLINE_EXCEEDED  # the server was the first to notice
        result, load = self.result, self.load
        result.answers += 1
        if self.begun <= now < self.end:
            result.arrived[status] += 1
        if self.begun <= call.due < self.end:
            result.ended[status] += 1
            histogram = result.latency if status == h2.OK else result.refused
            histogram.add(now - call.due)
        if self._restraint:
            if status == h2.OK:
                self._restraint.taken(now / 1e9)
            elif status == h2.RESOURCE_EXHAUSTED:
                self._restraint.refused(now / 1e9)
        if load.on_answer:
            load.on_answer(call.body, status, framed[5:])
        if load.rate is None and now < self.end:
            if status != h2.OK and load.backoff:
                self._paused.append(now + int(load.backoff * 1e9))
            else:
                self._waiting.append(_Call(now, next(self._numbers)))


def _fullness(link: Link) -> int:
    return link.wire.open


def _gaps(rate: float, seed: int | None) -> Iterator[int]:
    """The ns between calls: random with a seed, even without."""
    if seed is None:
        # Told apart by fractions of a ns, so that no rate drifts.
        before = 0
        for number in itertools.count(1):
            after = int(number * 1e9 / rate)
            yield after - before
            before = after
    draw = random.Random(seed)  # noqa: S311 - arrivals, no secrets
    while True:
        yield int(draw.expovariate(rate) * 1e9)


def _resolved(target: str) -> tuple[str, int, object]:
    """The host, family and address of ``HOST:PORT`` or ``unix:PATH``. Raises LoadError."""
    if target.startswith("unix:"):
        return "", socket.AF_UNIX, target.removeprefix("unix:")
    host, colon, port = target.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) <= _LAST_PORT):
        raise LoadError(f"`{target}` is no address: write HOST:PORT, as in 127.0.0.1:50051, or unix:PATH")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise LoadError(f"`{target}` is no address: {error}") from error
    return host, family, address
