"""Where the parts of a manifest stand, for whoever finds a mistake after it was read.

Law: paths (``outputs.cluster.tensor``) to nodes, and a mistake at a path to a diagnostic. Knows no manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.authoring.report import diagnostic
from arbiter.errors import Diagnostic

if TYPE_CHECKING:
    from arbiter.authoring.nodes import Node


class Places:
    """Where the parts of one file stand; none at first, and none ever in a file that is not text."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._nodes: dict[str, Node] = {}

    def add(self, path: str, node: Node) -> None:
        """Remember that what `path` names stands at `node`."""
        self._nodes[path] = node

    def node(self, path: str) -> Node | None:
        """What stands there, None for nothing that was remembered."""
        return self._nodes.get(path)

    def mistake(self, path: str, message: str, hint: str = "") -> Diagnostic:
        """Make a diagnostic where `path`, or the nearest thing that holds it, stands; else about the whole file."""
        place = path
        while place and place not in self._nodes:
            place = place.rpartition(".")[0]
        node = self._nodes.get(place)
        if node is None:
            return Diagnostic(file=self._file, path=path, message=message, hint=hint)
        return diagnostic(self._file, node.source, node.start, node.end, message, hint, path)
