"""An error as the log may tell it: where it arose and of what kind it is, without the values that it arose from.

Law: what a call or a model was given never reaches the log, and the message of an error of Python's or of a library's
may repeat it ("could not convert string to float: …"). So a message is told only where we wrote it, or the system did.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Final

import lmdb

from arbiter.errors import ArbiterError, CallerError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOLD: Final = (ArbiterError, OSError, MemoryError, lmdb.Error)
_LINKS: Final = 8


def told(error: BaseException) -> str:
    """The error and those behind it, the first cause first, each with its frames."""
    links = list(_links(error))
    return "\nwhich led to\n".join(map(_link, reversed(links)))


def let_go(error: BaseException) -> None:
    """Take the frames from an error that was told, and from those behind it. Whoever keeps it, a future or a list, is
    held by them in turn: a circle, and one that stands when a snapshot is loaded is never freed, nor what it holds.
    """
    for link in _links(error):
        link.__traceback__ = None


def _links(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_LINKS):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _link(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    safe = isinstance(error, _TOLD) and not isinstance(error, CallerError)
    message = f": {error}" if safe and str(error) else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{name}{message}"
