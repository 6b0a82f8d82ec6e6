"""How a process beside the workers begins, whatever it is for.

Law: loads little, since the supervisor imports what starts with it. Ctrl-C is the supervisor's matter; what a process
raises it says in one sentence, and another follows.
"""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING

import msgspec

from arbiter.errors import ArbiterError
from arbiter.runtime.logs import start_logging
from arbiter.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("arbiter")


def enter(name: str, encoded: bytes, run: Callable[[Settings], None]) -> None:
    """Run a process that logs as `name`, by these settings, until it is done or SIGTERM comes."""
    # Ctrl-C reaches the whole process group; the supervisor decides what follows from it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = msgspec.msgpack.decode(encoded, type=Settings)
    start_logging(settings.log_level.upper(), name)
    try:
        run(settings)
    except ArbiterError as error:
        # The sentence says it all; a traceback is for faults of ours.
        _log.getChild(name).error("%s: %s", type(error).__name__, error)
        sys.exit(1)
