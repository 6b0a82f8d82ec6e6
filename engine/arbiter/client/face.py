"""What the two faces of the client share: all but how a call is waited for.

Law: says, for each turn of a call, what to send where; sending and waiting are each face's own. The one place in the
client that reads the clock, draws and makes keys. No gRPC but for what `channels` prepares.
"""

from __future__ import annotations

import random
import secrets
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from arbiter.client.access import bearer, check_token, targets_of
from arbiter.client.calls import Again
from arbiter.client.channels import credentials_of, options_of
from arbiter.client.failures import Misconfigured, cancelled
from arbiter.client.following import STREAM_S, Resumption
from arbiter.client.lanes import Lanes
from arbiter.client.methods import Methods
from arbiter.client.retry import NOT_TAKEN, AnswerLocally, Attempts, Budget, Raise, Retries, Wait
from arbiter.client.tracing import Tracing, end, inject, retrying, sent_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message
    from opentelemetry.trace import TracerProvider

    from arbiter.client.access import Target, Tls, Token
    from arbiter.client.calls import Call, Rpc
    from arbiter.client.channels import Option
    from arbiter.client.failures import CallFailed
    from arbiter.client.fallback import Fallback
    from arbiter.client.tracing import Metadata

_T = TypeVar("_T")

_NONE = -1
_ANYWAY = 1.0  # a draw with which nothing is held back
_LONG_S = 1e9  # for a stream that may take as long as it takes


class Face(Methods):
    """What a client is made of."""

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        timeout: float = 10.0,
        connections: int = 4,
        retries: Retries | None = Retries(),  # noqa: B008 - frozen
        fallback: Mapping[str, Fallback] | None = None,
        token: Token | None = None,
        tls: Tls | None = None,
        insecure_token: bool = False,
        tracer_provider: TracerProvider | None = None,
        options: Sequence[Option] = (),
    ) -> None:
        """Connect when calls need it. Raises Misconfigured.

        `target` is ``HOST:PORT`` or ``unix:PATH``, or several that serve the same; up to `connections` are opened to
        each. `timeout`, in seconds, holds for calls that give none. `fallback` answers, by decision point, when no
        server does. `token` goes along as a bearer token, over TLS, on this machine, or where `insecure_token` says
        that the way is safe. `options` are grpc's channel arguments.
        """
        targets = targets_of(target)
        check_token(token, targets, secured=tls is not None, insecure_token=insecure_token)
        if connections < 1:
            raise Misconfigured(f"`connections` is {connections}: at least one is needed")
        self.target = ", ".join(each.text for each in targets)
        self._fallbacks = dict(fallback or {})
        # Callers that ask one thing at a time stay with the first: let it not be the same one for all of them.
        lanes = random.sample(targets, len(targets)) * connections
        self._shared = Shared(lanes, timeout, retries, token, Tracing(tracer_provider))
        self._options = options_of(tls, options)
        self._credentials = None if tls is None else credentials_of(tls)
        self._channels: dict[int, Any] = {}
        self._senders: dict[tuple[int, str], Any] = {}
        self._opening = threading.Lock()
        self._closed = threading.Event()

    def __repr__(self) -> str:
        """Return what it is a client of, and no secret."""
        return f"{type(self).__name__}({self.target!r})"

    def _open(self, target: str) -> Any:
        """Return a channel to `target`, of the kind that the face sends through."""
        raise NotImplementedError

    def _channel(self, lane: int) -> Any:
        """Return the channel of a connection, open from the first time on. Raises CallFailed when closed."""
        with self._opening:
            if self._closed.is_set():
                raise cancelled("the client is closed: open another one")
            if lane not in self._channels:
                self._channels[lane] = self._open(self._shared.targets[lane].text)
            return self._channels[lane]

    def _sender(self, lane: int, rpc: Rpc[Any, Any]) -> Any:
        """Return what sends a method's requests over a connection. Raises CallFailed when closed."""
        key = (lane, rpc.path)
        sender = self._senders.get(key)
        if sender is None:
            sender = self._channel(lane).unary_unary(rpc.path, rpc.request.SerializeToString, rpc.response.FromString)
            self._senders[key] = sender
        return sender

    def _streamer(self, lane: int, rpc: Rpc[Any, Any]) -> Any:
        """Return what opens a stream of a method over a connection. Raises CallFailed when closed."""
        return self._channel(lane).stream_stream(rpc.path, rpc.request.SerializeToString, rpc.response.FromString)

    def _teller(self, lane: int, rpc: Rpc[Any, Any]) -> Any:
        """Return what opens a stream of answers to one message over a connection. Raises CallFailed when closed."""
        return self._channel(lane).unary_stream(rpc.path, rpc.request.SerializeToString, rpc.response.FromString)

    def _shut(self) -> list[Any]:
        """Let nothing more be sent; return the channels, which are the face's to close."""
        with self._opening:
            self._closed.set()
            self._senders.clear()
            channels = list(self._channels.values())
            self._channels.clear()
            return channels


class Shared:
    """What the calls of one client have in common."""

    __slots__ = ("_token", "budget", "lanes", "retries", "targets", "timeout", "tracing")

    def __init__(
        self,
        targets: Sequence[Target],
        timeout: float,
        retries: Retries | None,
        token: Token | None,
        tracing: Tracing,
    ) -> None:
        self.targets = targets
        self.timeout = timeout
        self.retries = retries
        self.budget = Budget(retries or Retries())
        self.lanes = Lanes(len(targets))
        self.tracing = tracing
        self._token = bearer(token) if isinstance(token, str) else token

    def first_lanes(self) -> range:
        """Return one connection to each target."""
        return range(len(set(self.targets)))

    def authorization(self) -> str | None:
        """Return what `authorization` says in a call that is sent now."""
        token = self._token
        return bearer(token()) if callable(token) else token


class Connections:
    """The connections that one stream goes over, one after another, as `Turns` are the turns of a call.

    `timeout` is for the whole stream, None for as long as it takes. A connection on which anything was answered gives
    the next one all attempts again.
    """

    def __init__(self, shared: Shared, timeout: float | None) -> None:
        self._shared = shared
        self._until = None if timeout is None else monotonic() + timeout
        self._attempts = self._fresh()
        self.lane = _NONE

    def begin(self) -> tuple[float | None, Metadata | None]:
        """Take a connection; the seconds that a stream over it may take, and what goes along."""
        now = monotonic()
        self.lane = self._shared.lanes.take(now)
        authorization = self._shared.authorization()
        remaining = None if self._until is None else max(0.0, self._until - now)
        return remaining, None if authorization is None else [("authorization", authorization)]

    def answered(self) -> None:
        """Say that the connection works."""
        if self._attempts.sent > 1:
            self._attempts = self._fresh()

    def failed(self, failure: CallFailed) -> float:
        """Say that it broke; return the seconds to wait before the next. Raises the failure when there is none."""
        now = monotonic()
        self.leave(broken=failure.code in NOT_TAKEN)
        step = self._attempts.failed(failure, now, random.random())  # noqa: S311 - spreads retries, hides nothing
        if not isinstance(step, Wait):
            raise failure
        self._attempts.waited(now + step.seconds)
        return step.seconds

    def leave(self, *, broken: bool = False) -> None:
        """Be done with the connection."""
        lane, self.lane = self.lane, _NONE
        if lane != _NONE and broken:
            self._shared.lanes.leave_broken(lane, monotonic())
        elif lane != _NONE:
            self._shared.lanes.leave(lane)

    def _fresh(self) -> Attempts:
        attempts = Attempts(self._shared.retries, self._shared.budget, safe=True, local=False)
        now = monotonic()
        # A stream is no call of those that are many: it is opened in any case.
        attempts.begin(now, _LONG_S if self._until is None else self._until - now, _ANYWAY)
        return attempts


class Resumed(Connections):
    """The connections that a stream goes over which nobody ends: see `Resumption`. Each carries it for a while."""

    def __init__(self, shared: Shared, patience: float | None) -> None:
        super().__init__(shared, None)
        self._resumption = Resumption(shared.retries, patience)

    def begin(self) -> tuple[float | None, Metadata | None]:
        """As above."""
        return STREAM_S, super().begin()[1]

    def answered(self) -> None:
        """As above."""
        self._resumption.answered()

    def failed(self, failure: CallFailed) -> float:
        """As above."""
        self.leave(broken=failure.code in NOT_TAKEN)
        return self._resumption.failed(failure, monotonic(), random.random())  # noqa: S311 - as above


class Turns(Generic[_T]):
    """The turns of one call. `step` says what is next; a face does it and tells what came of it, then looks again.

    `lane` is the connection that carries what is sent.
    """

    __slots__ = ("_attempts", "_call", "_now", "_shared", "_span", "lane", "step")

    def __init__(self, shared: Shared, call: Call[_T]) -> None:
        """Begin."""
        again, retries = call.rpc.again, shared.retries
        if again is Again.KEYED and retries is not None and not call.message.idempotency_key:
            call.message.idempotency_key = secrets.token_hex(16)
        safe = (
            again is Again.ALWAYS
            or (again is Again.KEYED and bool(call.message.idempotency_key))
            or (again is Again.TIMED and call.message.HasField("at"))
        )
        self._shared = shared
        self._call = call
        self._attempts = Attempts(retries, shared.budget, safe=safe, local=call.local is not None)
        self._span = shared.tracing.begin(call.rpc.path)
        self._now = monotonic()
        self.lane = _NONE
        draw = random.random()  # noqa: S311 - spreads what is held back, hides nothing
        self.step = self._attempts.begin(self._now, shared.timeout if call.timeout is None else call.timeout, draw)

    def take(self) -> Metadata | None:
        """Take a connection for what is sent now, and return what goes along."""
        shared, span = self._shared, self._span
        lane = self.lane = shared.lanes.take(self._now)
        metadata: Metadata = []
        if (authorization := shared.authorization()) is not None:
            metadata.append(("authorization", authorization))
        inject(span, metadata)
        if span is not None:
            sent_to(span, shared.targets[lane])
        return metadata or None

    def answered(self, response: Message) -> _T:
        """Return the answer that a response is."""
        self._leave()
        self._attempts.succeeded(monotonic())
        self._end("OK")
        return self._call.read(response)

    def failed(self, failure: CallFailed) -> None:
        """Say that what was sent came to nothing."""
        self._now = monotonic()
        self._leave(broken=failure.code in NOT_TAKEN)
        draw = random.random()  # noqa: S311 - spreads retries, hides nothing
        self.step = self._attempts.failed(failure, self._now, draw)
        if self._span is not None and isinstance(self.step, Wait):
            retrying(self._span, failure, self.step.seconds)

    def waited(self) -> None:
        """Say that a wait is over."""
        self._now = monotonic()
        self.step = self._attempts.waited(self._now)

    def given_up(self, step: Raise | AnswerLocally) -> _T:
        """Raise the failure, or return what answers in its place."""
        local = self._call.local if isinstance(step, AnswerLocally) else None
        self._end(step.failure.code, local=local is not None)
        if local is None:
            raise step.failure
        return local(step.failure)

    def close(self) -> None:
        """Leave nothing behind, however the call ended."""
        self._leave()
        self._end("CANCELLED")

    def _leave(self, *, broken: bool = False) -> None:
        lane, self.lane = self.lane, _NONE
        if lane == _NONE:
            return
        if broken:
            self._shared.lanes.leave_broken(lane, self._now)
        else:
            self._shared.lanes.leave(lane)

    def _end(self, code: str, *, local: bool = False) -> None:
        span, self._span = self._span, None
        if span is not None:
            end(span, code, local=local)
