"""All processes beside the workers: the one that reads Kafka's topics, and the one that runs triggers.

Law: which there are and when each has something to do. Called from the supervisor's one thread alone, as each is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.runtime.companion import Companion, Kind
from arbiter.runtime.triggering.process import run_triggers
from arbiter.serving import ConsumerInfo, ServerInfo, TriggerInfo

if TYPE_CHECKING:
    from arbiter.runtime.admin import Live
    from arbiter.runtime.doubts import Doubts
    from arbiter.runtime.loader import Built
    from arbiter.runtime.mailbox import Mailbox
    from arbiter.runtime.settings import RunBeside, Settings
    from arbiter.runtime.tally import Tally
    from arbiter.telemetry.counters import Counters


class Companions:
    """`consume` is the entry of the process that reads topics, None where none are to be read."""

    def __init__(
        self,
        settings: Settings,
        consume: RunBeside | None,
        mail: Mailbox,
        doubts: Doubts,
        tally: Tally,
        counters: Counters,
    ) -> None:
        encoded, grace = msgspec.msgpack.encode(settings), settings.grace
        self._counters = counters
        self._at_work = settings.triggers_file
        consumer = consume and Kind("consumer", consume, self._consumer_again)
        triggers = Kind(
            "triggers", run_triggers, self._triggers_again,
            patience=settings.triggers.watchdog_seconds, calls_out=True,
        )  # fmt: skip
        self._consumer = Companion(consumer, encoded, grace, mail, doubts, tally)
        self._triggers = Companion(triggers, encoded, grace, mail, doubts, tally)
        self._all = (self._consumer, self._triggers)

    @property
    def empty(self) -> bool:
        """Whether no process is left."""
        return all(each.empty for each in self._all)

    def load(self, live: Live, revision: int, running: Built | None) -> None:
        """Have all keep to what is live, of which `running` are the rules and models."""
        self._consumer.load(live, revision)
        # Where they are gone, that is written down, so that one that comes back begins with what happens then.
        have = running is not None and bool(running.snapshot.frame.triggers)
        self._triggers.load(live, revision, wanted=have or self._at_work.exists())

    def count(self, number: int) -> list[int]:
        """Ask them what they have counted; the processes that were asked."""
        return [pid for each in self._all for pid in each.count(number)]

    def beside(self, server: ServerInfo) -> ServerInfo:
        """How the server is, with how these are."""
        consumer, triggers = self._consumer.info(), self._triggers.info()
        return msgspec.structs.replace(
            server,
            consumer=None if consumer is None else ConsumerInfo(**consumer),
            triggers=None if triggers is None else TriggerInfo(**triggers),
        )

    def stop(self) -> None:
        """Let them write what they have, and end."""
        for each in self._all:
            each.stop()

    def kill(self) -> None:
        """End them at once."""
        for each in self._all:
            each.kill()

    def _consumer_again(self) -> None:
        self._counters.consumer_restarts += 1

    def _triggers_again(self) -> None:
        self._counters.trigger_restarts += 1
