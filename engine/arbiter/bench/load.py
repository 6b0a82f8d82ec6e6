"""What load is put on a server, and what came of it.

Law: plain data. How load is put stands in `drive`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from arbiter.bench.frames import OK, STATUS_NAMES
from arbiter.bench.histogram import Histogram
from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    import ssl

# Called with the number of the body that was sent, the gRPC status, and the message that was answered.
OnAnswer = Callable[[int, int, bytes], None]


class Restrains(Protocol):
    """What holds back the calls of an open loop that a server would turn away. Moments are in seconds."""

    def allows(self, now: float, draw: float) -> bool:
        """Whether a call that is due is sent; `draw` is evenly distributed in [0, 1)."""

    def taken(self, now: float) -> None:
        """Know that a call was answered OK."""

    def refused(self, now: float) -> None:
        """Know that a call was answered RESOURCE_EXHAUSTED."""


class LoadError(ArbiterError):
    """A load that cannot be put on a server."""


@dataclass(frozen=True)
class Load:
    """Calls of one method. `bodies` are serialised messages, sent by turns.

    A *closed* loop has `streams` callers, each of which calls again when it is answered, `backoff` seconds later when
    the answer was a refusal. With `rate`, calls a second, the loop is *open*: a call is due whether or not those before
    it were answered, and its latency counts from when it was due. Calls are due at even distances, or with `poisson` at
    random ones. A call that is due while `cap` are unanswered is not sent, and counted as such.

    The server is warmed up for `warmup` seconds, then measured for `seconds`; calls still open then have `patience`
    seconds to end. `timeout`, in seconds, is each call's deadline, counted from when it is due: the server is told what
    is left of it, and we give the call up.

    `restraint` makes what decides, call by call, whether an open loop sends what is due: clients that hold back while
    they are refused. What is not sent is counted as held.

    `tls` secures the connections, as `arbiter.bench.secured.trusting` makes it; the server's certificate must name the
    target's host.
    """

    target: str  # HOST:PORT, or unix:PATH
    path: str  # /package.Service/Method
    bodies: Sequence[bytes]
    streams: int = 1
    connections: int = 1
    seconds: float = 3.0
    rate: float | None = None
    poisson: bool = False
    cap: int = 10_000
    warmup: float = 0.3
    patience: float = 5.0
    timeout: float | None = None
    backoff: float = 0.0
    metadata: Sequence[tuple[str, str]] = ()
    tls: ssl.SSLContext | None = None
    on_answer: OnAnswer | None = None
    restraint: Callable[[], Restrains] | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises LoadError for what makes no sense."""
        for name in ("streams", "connections", "cap", "seconds"):
            if getattr(self, name) <= 0:
                raise LoadError(f"`{name}` is {getattr(self, name)}: it must be more than 0")
        if self.rate is not None and self.rate <= 0:
            raise LoadError(f"`rate` is {self.rate}: it must be more than 0 calls a second")
        if self.rate is None and self.streams < self.connections:
            raise LoadError(f"{self.streams} streams cannot keep {self.connections} connections busy: ask for fewer")
        if self.rate is None and self.restraint is not None:
            raise LoadError("`restraint` holds back calls of an open loop: give a `rate`, or `backoff` in its place")
        if self.tls is not None and self.target.startswith("unix:"):
            raise LoadError(f"`{self.target}` is a Unix socket, and servers speak no TLS on those: ask without it")
        if not self.bodies:
            raise LoadError("no bodies: nothing could be sent")


@dataclass
class Result:
    """What came of it. Rates count the answers that *arrived* while it was measured; all else is told of the calls that
    were *due* in that time, followed to their end.
    """

    seconds: float
    arrived: Counter[int] = field(default_factory=Counter)  # by gRPC status
    ended: Counter[int] = field(default_factory=Counter)  # likewise
    latency: Histogram = field(default_factory=Histogram)  # of the calls that ended OK
    refused: Histogram = field(default_factory=Histogram)  # of those that ended otherwise
    lag: Histogram = field(default_factory=Histogram)  # from due to sent: what the generator, or a full server, added
    answers: int = 0  # all of them, those to the warm-up too
    unanswered: int = 0
    unsent: int = 0
    held: int = 0
    reconnected: int = 0

    @property
    def throughput(self) -> float:
        """Answers a second, of any status."""
        return self.arrived.total() / self.seconds

    @property
    def goodput(self) -> float:
        """OK answers a second."""
        return self.arrived[OK] / self.seconds

    @property
    def failed(self) -> int:
        """Calls that did not end OK: refused, unanswered, held back, or not even sent."""
        return self.ended.total() - self.ended[OK] + self.unanswered + self.unsent + self.held

    def summary(self) -> dict[str, Any]:
        """The figures by name: rates a second, latencies in µs."""
        return {
            "seconds": round(self.seconds, 3),
            "throughput": round(self.throughput, 1),
            "goodput": round(self.goodput, 1),
            "statuses": {STATUS_NAMES[code]: count for code, count in sorted(self.ended.items())},
            "unanswered": self.unanswered,
            "unsent": self.unsent,
            "held": self.held,
            "reconnected": self.reconnected,
            "latency_us": self.latency.microseconds(),
            "refused_us": self.refused.microseconds(),
            "lag_us": self.lag.microseconds(),
        }
