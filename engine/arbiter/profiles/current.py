"""The generation of a store that a process works in, and going on to the next one.

Law: whoever begins something asks here first, and then stays in what it got until it has ended. A generation that was
left is closed by whoever lets go of it last.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from arbiter.errors import StoreError
from arbiter.profiles import generations
from arbiter.profiles.environment import open_environment

if TYPE_CHECKING:
    from pathlib import Path

    import lmdb

    from arbiter.profiles.environment import Environment

_log = logging.getLogger(__name__)


class Current:
    """`environment` is what to work in, unless its `superseded[0]` says to ask `latest`. Safe to use from any thread.

    `map_size` is the address range that each generation reserves, in bytes.
    """

    def __init__(self, path: Path, map_size: int) -> None:
        self.path = path
        self.environment = open_environment(path, map_size, scans=False)
        self._map_size = map_size
        self._following = threading.Lock()

    def latest(self) -> Environment:
        """The newest generation, opened if need be. Raises StoreError.

        A write that was acknowledged before this was called is in it: the mark of the older generation was set before
        the newer one had a name, and only with a name is it written to.
        """
        environment = self.environment
        if not environment.superseded[0]:
            return environment
        with self._following:
            environment = self.environment
            try:
                follows = environment.superseded[0] and generations.newest(self.path) > environment.generation
            except OSError as error:
                raise StoreError(f"cannot read the folder of the store in {self.path}: {error}") from error
            if follows:
                self.environment = environment = open_environment(self.path, self._map_size, scans=False)
                _log.info("the store in %s goes on in its generation %d", self.path, environment.generation)
            return environment

    def begin_write(self) -> tuple[Environment, lmdb.Transaction[bytes]]:
        """A write transaction in the newest generation, that no other can follow before it ends.

        Raises StoreError, lmdb.Error.
        """
        while True:
            environment = self.latest()
            txn = environment.handle.begin(write=True)
            try:
                if environment.superseded[0] and self.latest() is environment:
                    # Who set the mark held the lock that we hold now, and is gone: nothing follows.
                    generations.set_mark(environment.place, superseded=False)
                if not environment.superseded[0]:
                    environment.check_in_place()
                    return environment, txn
            except BaseException:
                txn.abort()
                raise
            txn.abort()
