"""Starting to serve: what a supervisor must hold before it runs.

Law: takes hold of the data, the port and the sockets, in this order, and lets all go at the end, whatever it is.
"""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from arbiter.profiles.environment import refuse_damaged
from arbiter.runtime import sockets
from arbiter.runtime.address import reserve
from arbiter.runtime.alone import alone
from arbiter.runtime.erasures import compacting
from arbiter.runtime.logkeeper import keeping
from arbiter.runtime.quiet import at_work
from arbiter.runtime.supervisor import Supervisor
from arbiter.telemetry import publish

if TYPE_CHECKING:
    from arbiter.runtime.settings import NoteOrder, OpenAdmin, OpenFace, RunBeside, Settings


def supervise(
    settings: Settings, open_face: OpenFace, open_admin: OpenAdmin, note: NoteOrder, consume: RunBeside | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. Call it in the main thread, after `logs.start_logging`. `note` makes a line of the
    audit log of what nobody called for.

    Prints one line on standard output when all workers serve. Raises AuthorError when the files hold errors and there
    is no last good snapshot, and ListenError, StoreError, TelemetryError, EndpointError or StartFailed when it cannot
    start.
    """
    # From now on, since the first process of a container ignores what it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    at_work()
    with ExitStack() as stack:
        stack.enter_context(alone(Path(settings.data), "data directory"))
        refuse_damaged(settings.store_directory)
        if settings.sockets:
            directory = Path(settings.sockets)
            sockets.make(directory)
            stack.enter_context(alone(directory, "directory for sockets"))
            sockets.clear(directory)
            stack.callback(sockets.clear, directory)
        held, address = reserve(settings.listen)
        stack.enter_context(held)
        supervisor = Supervisor(settings, address, open_face, open_admin, consume)
        publisher = publish.start(supervisor.desk.counters, "supervisor")
        stack.callback(publisher.shutdown)
        stack.enter_context(supervisor.tally.scraped(settings.metrics))
        stack.enter_context(compacting(settings, supervisor.doubts.suspect))
        stack.enter_context(keeping(settings, supervisor.desk.counters, supervisor.admin, note))
        supervisor.run()
