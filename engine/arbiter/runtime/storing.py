"""The store, as those open it who leave its upkeep to the workers.

Law: records of another feature set are rewritten by the workers alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.profiles.store import Store
from arbiter.runtime.keyfiles import read_secrets

if TYPE_CHECKING:
    from arbiter.runtime.settings import Settings


def open_store(settings: Settings) -> Store:
    """Open the store of these settings. Raises StoreError, and what `read_secrets` does."""
    return Store.open(
        settings.store_directory,
        limits=settings.store_limits,
        background=False,
        secrets=read_secrets(settings.profiles),
    )
