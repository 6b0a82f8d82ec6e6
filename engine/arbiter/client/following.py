"""Following what triggers do: where a stream is, and how it goes on where it broke off.

Law: no gRPC, no clock, no sleep: moments, in seconds of one steady clock, and the draw are arguments, and both faces
drive this one machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.client import arguments
from arbiter.client.calls import Again, Call, Method, rpc
from arbiter.client.firings import Firing, SubjectStanding, read_firing, read_standing
from arbiter.client.retry import may_pass
from arbiter.v1 import trigger_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arbiter.client.failures import CallFailed
    from arbiter.client.retry import Retries

_triggers = trigger_pb2.DESCRIPTOR.services_by_name["TriggerService"].methods_by_name
SUBSCRIBE = rpc(_triggers["Subscribe"], trigger_pb2.SubscribeRequest, trigger_pb2.SubscribeResponse, Again.ALWAYS)
EXPLAIN_TRIGGERS = rpc(
    _triggers["ExplainTriggers"],
    trigger_pb2.ExplainTriggersRequest,
    trigger_pb2.ExplainTriggersResponse,
    Again.ALWAYS,
)
# A stream is opened anew after as long: a server that vanished without a word would be waited for, for ever.
STREAM_S: Final = 600.0
_UINT64: Final = range(1 << 64)


class TriggerMethods:
    """The part of `Methods` that is about triggers."""

    @Method
    def explain_triggers(
        self, subject_id: str, *, triggers: Sequence[str] = (), firings: int = 0, timeout: float | None = None
    ) -> Call[SubjectStanding]:
        """Return how far along a subject is with each trigger, or with these, and what they did last: the newest
        `firings` of each, 0 for one.
        """
        message = trigger_pb2.ExplainTriggersRequest(
            subject_id=arguments.text(subject_id, "subject_id"),
            triggers=arguments.texts(triggers, "triggers"),
            firings=arguments.number(firings, "firings", arguments.UINT32),
        )
        return EXPLAIN_TRIGGERS.call(message, read_standing, timeout)


class Following:
    """What is followed, and how far: `position` is what to go on after, None before a server said where it begins;
    `newest` is that of the newest firing, as the server told it last, and `unknown` are triggers that no rules declare.
    """

    def __init__(
        self,
        after: int | None = None,
        triggers: Sequence[str] = (),
        tags: Sequence[str] = (),
        subject_id: str = "",
        *,
        include_decision: bool = False,
    ) -> None:
        """Raises InvalidRequest for what no request can hold."""
        self._request = trigger_pb2.SubscribeRequest(
            triggers=arguments.texts(triggers, "triggers"),
            tags=arguments.texts(tags, "tags"),
            subject_id=arguments.text(subject_id, "subject_id"),
            include_decision=include_decision,
        )
        self.position = None if after is None else arguments.number(after, "after", _UINT64)
        self.newest = 0
        self.unknown: tuple[str, ...] = ()

    def request(self) -> trigger_pb2.SubscribeRequest:
        """What a stream that goes on from here is opened with."""
        request = trigger_pb2.SubscribeRequest()
        request.CopyFrom(self._request)
        if self.position is not None:
            request.after = self.position
        return request

    def read(self, response: trigger_pb2.SubscribeResponse) -> Iterator[Firing]:
        """Give the firings of an answer; what was given was passed on."""
        self.newest = response.newest
        self.unknown = self.unknown or tuple(response.unknown_triggers)
        for each in response.firings:
            self.position = each.position
            yield read_firing(each)
        self.position = response.position


class Followed:
    """How far a stream of firings is, for who reads it."""

    def __init__(self, following: Following) -> None:
        self._following = following

    @property
    def position(self) -> int | None:
        """What to go on after, later or elsewhere: everything up to it was told, or was not asked for.

        None before a server said where it begins.
        """
        return self._following.position

    @property
    def newest(self) -> int:
        """The position of the newest firing of all, as the server told it last."""
        return self._following.newest

    @property
    def unknown(self) -> tuple[str, ...]:
        """The triggers that are followed and that no rules declare, as the server told it."""
        return self._following.unknown


class Resumption:
    """When a stream that broke off is opened again: after a wait that grows, for as long as `patience` seconds, None
    for ever, without an answer; never with `retries` None.
    """

    def __init__(self, retries: Retries | None, patience: float | None) -> None:
        self._retries = retries
        self._patience = patience
        self._failures = 0
        self._since: float | None = None  # when it first failed after the last answer

    def answered(self) -> None:
        """Say that a server answers."""
        self._failures, self._since = 0, None

    def failed(self, failure: CallFailed, now: float, draw: float) -> float:
        """Say that the stream broke off; the seconds to wait before the next. Raises the failure when there is none."""
        self._since = now if self._since is None else self._since
        ended = failure.code == "DEADLINE_EXCEEDED" and not self._failures  # ours, see STREAM_S
        if self._retries is None or not (ended or may_pass(failure)):
            raise failure
        if self._patience is not None and now - self._since >= self._patience:
            raise failure
        self._failures += 1
        longest = min(self._retries.longest, self._retries.first * 2.0 ** min(self._failures - 1, 30))
        return (failure.retry_after or 0.0) + draw * longest
