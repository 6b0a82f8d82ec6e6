"""`arbiter serve` as it is, but that its workers read the clock of a soak's board instead of the machine's.

Law: the product has no back door for this. This program puts a function of its own in place of the one that opens a
worker's server, and that sets the clock before it calls the real one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from arbiter import cli
from arbiter.server import app
from benchmarks.soak.board import Board
from benchmarks.soak.face import BOARD, open_face

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Serve with these arguments; the environment names the board."""
    Board(Path(os.environ[BOARD]))  # fails here, and not in every worker
    app.open_face = open_face  # type: ignore[assignment] # a Server is a Face, and more
    sys.argv = ["arbiter", "serve", *arguments]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1:])
