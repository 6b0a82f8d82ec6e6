"""How the processes log: one format, to standard error, which leaves standard output to the line that says ready.

Law: set up once per process, by the process's entry; everything else only asks `logging` for its logger.
"""

from __future__ import annotations

import logging
import sys

from arbiter.telemetry.logs import within_span


def start_logging(level: str, role: str) -> None:
    """Log to standard error from `level` (a name of `logging`) on; each line names `role`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s [{role}] %(name)s: %(message)s%(span)s"))
    handler.addFilter(_with_span)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # It tells of every event; what came of them is ours to tell.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)


def _with_span(record: logging.LogRecord) -> bool:
    record.span = within_span()
    return True
