"""What the inline transport marks its questions to grpc with, so that it knows an event by its tag.

Law: plain data, made for every call: nothing here works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.telemetry.observer import Seen

if TYPE_CHECKING:
    from arbiter.server.calls import Rpc


class Slot:
    """Tag of a question for the next call of a method."""

    __slots__ = ("path", "rpc")

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self.path = rpc.path


class Message(Seen):
    """Tag of the question for a call's message, and what is known of the call until it ends."""

    __slots__ = ("arrival", "gone", "rpc", "traced", "watched")

    def __init__(self, rpc: Rpc, arrival: Any) -> None:
        self.path = rpc.path  # written out: a call to `super` takes longer than all of it
        self.began = 0
        self.span = None
        self.rpc = rpc
        self.arrival = arrival
        self.watched = False  # whether the call's end has been asked for
        self.gone = False  # whether the caller left
        self.traced = False  # whether it will have a span


class End:
    """Tag of the question for a call's end."""

    __slots__ = ("of",)

    def __init__(self, of: Message) -> None:
        self.of = of


class Went:
    """Tag of an answer."""

    __slots__ = ()


class Wake:
    """Tag of nothing: that writes have been answered is to be seen to."""

    __slots__ = ()


WENT = Went()
WAKE = Wake()
