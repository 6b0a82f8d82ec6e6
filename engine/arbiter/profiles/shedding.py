"""What only time takes away: firings that are too old, and arrivals of commits that have left the log.

Law: looks first, in a short read transaction, so that mostly nothing is written. Any process may do it; a piece that
another did too finds nothing left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from arbiter.profiles.arrivals import passed_arrivals
from arbiter.profiles.firings import forget_firings, passed_firings

if TYPE_CHECKING:
    from arbiter.profiles.current import Current
    from arbiter.profiles.group import Group
    from arbiter.profiles.values import Limits
    from arbiter.profiles.writer import Writer

_PIECE: Final = 500


class Shed:
    """Take the next piece. Answered with how many entries went."""

    weight = _PIECE

    def apply(self, group: Group) -> int:
        """Delete them."""
        environment, txn = group.environment, group.txn
        arrivals = passed_arrivals(environment, txn, _PIECE)
        for key in arrivals:
            txn.delete(key, db=environment.arrival)
        kept = group.limits.keep_firings
        firings = [] if kept is None else passed_firings(environment, txn, group.now - kept, _PIECE)
        forget_firings(environment, txn, firings)
        group.wrote = group.wrote or bool(arrivals or firings)
        return len(arrivals) + len(firings)


def shed(current: Current, writer: Writer, limits: Limits) -> bool:
    """Take the next piece, if there is one; whether there was. Raises StoreError, LimitExceeded."""
    environment = current.latest()
    with environment.handle.begin() as txn:
        due = bool(passed_arrivals(environment, txn, 1))
        if not due and limits.keep_firings is not None:
            due = bool(passed_firings(environment, txn, writer.clock() - limits.keep_firings, 1))
    return due and bool(writer.submit(Shed()).result())
