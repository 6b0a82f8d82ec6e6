"""Holding a directory that only one server may use.

Law: one lock file, held as long as the process lives, so that a killed server leaves nothing locked.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from arbiter.durable import hold
from arbiter.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def alone(directory: Path, what: str) -> Iterator[None]:
    """Make and hold a directory: two servers would prune each other's files. `what` names it. Raises StoreError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = hold(directory / "supervisor.lock")
    except BlockingIOError:
        raise StoreError(
            f"the {what} {directory} is in use by another `arbiter serve`: stop that one, or name another directory"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot use the {what} {directory}: {error}") from error
    with lock:
        yield
