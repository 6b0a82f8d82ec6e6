"""Moving the ids that somebody lists to the current key of a store, beside a server or without one.

Law: opens the store as a server would, and never turns one to a key that a running server does not know.
"""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.errors import StoreError
from arbiter.profiles.copies import open_existing
from arbiter.profiles.inspecting import inspect
from arbiter.profiles.keys import UnderPrevious  # noqa: TC001 - a field's type at run time
from arbiter.runtime.alone import alone
from arbiter.runtime.storing import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from arbiter.runtime.settings import Settings

_AT_ONCE: Final = 64


class Rekeyed(msgspec.Struct, frozen=True):
    """How many ids were given and how many of them `moved`, and what is left under `previous` keys."""

    ids: int
    moved: int
    previous: tuple[UnderPrevious, ...]


def rekey(settings: Settings, names: Iterable[str], *, accounts: bool) -> Rekeyed:
    """Move the ids of subjects, or of accounts. Raises StoreError, LimitExceeded, UnusableFile."""
    path, number, moved = settings.store_directory, 0, 0
    open_existing(path).handle.close()  # none is made where there is none
    with (
        _beside(settings.data_directory) as beside,
        open_store(settings) as store,
    ):
        if beside and not store.keys.begun:
            raise StoreError(
                f"the server that uses {settings.data_directory} was not started with this `profiles.key`, and would "
                f"no longer find whom this moves: start it again with it first"
            )
        rest = iter(names)
        while batch := list(islice(rest, _AT_ONCE)):
            done = store.rekey(account_ids=batch) if accounts else store.rekey(batch)
            moved += done.result()
            number += len(batch)
    environment = open_existing(path)
    try:
        return Rekeyed(number, moved, inspect(environment).previous)
    finally:
        environment.handle.close()


@contextlib.contextmanager
def _beside(directory: Path) -> Iterator[bool]:
    """Whether a server uses the data directory; if none does, it is held until the end of the block."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(directory, "data directory"))
        except StoreError:
            beside = True
        else:
            beside = False
        yield beside
