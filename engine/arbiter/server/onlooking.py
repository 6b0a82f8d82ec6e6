"""WatchDecisions: whoever looks on is told of decisions as they are made, on all workers.

Law: what is told is put together where it was decided, see `lookout`, and is passed on here as it came. What waits for
a reader is bounded; who is slow loses the newest, and is told how many.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from arbiter.errors import InvalidField, NotReady
from arbiter.server.answerparts import varint
from arbiter.server.calls import parse, settled
from arbiter.server.explaining import check_names
from arbiter.server.lookout import MOST, USUAL, Rate
from arbiter.v1 import admin_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arbiter.config.limits import Limits
    from arbiter.runtime.admin import Admin
    from arbiter.server.calls import Call, Work
    from arbiter.server.requests import RequestReader
    from arbiter.server.streams import Opens

BEAT_S: Final = 10.0  # after how long without decisions an answer tells what was dropped
WAITING: Final = 1000  # decisions that wait to be taken
_PIECE: Final = 64  # decisions of an answer
_TAG: Final = bytes([admin_pb2.WatchDecisionsResponse.DECISIONS_FIELD_NUMBER << 3 | 2])


class DecisionWatch:
    """Opens streams of WatchDecisions over an `Admin`."""

    def __init__(self, admin: Admin, limits: Limits, requests: RequestReader) -> None:
        self._admin = admin
        self._limits = limits
        self._requests = requests

    def opens(self, recorded: Callable[[str, Work], Work], path: str) -> Opens:
        """Return what opens a stream; `recorded` has calls of `path` recorded."""
        checked = recorded(path, self._check)

        def open_(content: bytes, call: Call, _cancel: Callable[[], object]) -> Onlooking:
            settled(checked(content, call), call)
            return Onlooking(self._admin, content)

        return open_

    def _check(self, content: bytes, _call: Call) -> bytes:
        """Refuse what is wrong with a WatchDecisionsRequest."""
        request = parse(admin_pb2.WatchDecisionsRequest, content)
        if request.subject_id:
            self._requests.check_id(request.subject_id, "subject_id")
        for field, names in (("decisions", request.decisions), ("rules", request.rules)):
            check_names(self._requests, self._limits, field, names)
        if request.HasField("share") and not 0 < request.share <= 1:
            raise InvalidField(
                f"share is {request.share:g}: send a part of one, above 0 and at most 1, or nothing for all",
                field="share",
            )
        if request.most_per_second > MOST:
            raise InvalidField(
                f"most_per_second is {request.most_per_second:,}, of {MOST:,} at most: look at a share, or at less",
                field="most_per_second",
            )
        self._requests.explaining(request.explain)
        return b""


class Onlooking:
    """One stream."""

    def __init__(self, admin: Admin, asked: bytes) -> None:
        self._admin = admin
        self._asked = asked
        self._rate = Rate(admin_pb2.WatchDecisionsRequest.FromString(asked).most_per_second or USUAL)
        self._waiting: deque[bytes] = deque()
        self._dropped = self._told = 0
        self._ends = self._left = False
        self._changed = threading.Condition()

    def _shown(self, content: bytes, dropped: int) -> None:
        """From any thread: a decision is told, or none, and how many were too many."""
        with self._changed:
            self._dropped += dropped
            if dropped:
                self._changed.notify()
            if content and (len(self._waiting) >= WAITING or not self._rate.take()):
                self._dropped += 1
            elif content:
                self._waiting.append(content)
                self._changed.notify()

    def end(self) -> None:
        """Have it end soon, with an error that says that the server stops."""
        with self._changed:
            self._ends = True
            self._changed.notify()

    def leave(self) -> None:
        """Know that nobody hears answers any more."""
        with self._changed:
            self._left = True
            self._changed.notify()

    def answers(self) -> Iterator[bytes]:
        """What is told, as it comes. Raises NotReady when the server stops."""
        end = self._admin.look_on(self._asked, self._shown)
        try:
            yield self._answer()
            while True:
                with self._changed:
                    self._changed.wait_for(self._has_news, BEAT_S)
                    if self._left:
                        return
                    if self._ends:
                        raise NotReady("the server stops: look on elsewhere")
                    content = self._answer()
                yield content
        finally:
            end()

    def _has_news(self) -> bool:
        return bool(self._waiting) or self._dropped > self._told or self._ends or self._left

    def _answer(self) -> bytes:
        """An answer of what waits, written by hand, since decisions come as they were written."""
        self._told = self._dropped
        pieces = [admin_pb2.WatchDecisionsResponse(dropped=self._dropped).SerializeToString()]
        for _ in range(min(_PIECE, len(self._waiting))):
            content = self._waiting.popleft()
            pieces += _TAG, varint(len(content)), content
        return b"".join(pieces)
