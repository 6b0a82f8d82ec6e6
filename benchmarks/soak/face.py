"""What opens the server of a worker under soak: workers find it by its name.

Law: sets the clock, and leaves all else to the real one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from arbiter.server import app
from benchmarks.soak.board import Board

if TYPE_CHECKING:
    from arbiter.runtime.settings import Backing, Face

BOARD = "SOAK_BOARD"
_open_face = app.open_face


def open_face(backing: Backing, listen: str, settings: bytes, socket: str) -> Face:
    """Open a worker's server by the clock of the board that the environment names."""
    clock = Board(Path(os.environ[BOARD])).now
    backing.engine.clock = clock
    backing.engine.store.use_clock(clock)
    return _open_face(backing, listen, settings, socket)
