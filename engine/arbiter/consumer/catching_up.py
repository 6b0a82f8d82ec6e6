"""Reading topics to their ends, without a server: to fill a new store, or to see what becomes of messages.

Law: what the consumer's process does, in this one, and then no more. The data directory is ours alone meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.consumer.process import open_loop
from arbiter.consumer.told import Told
from arbiter.errors import AuthorError
from arbiter.profiles.store import Store
from arbiter.runtime.alone import alone
from arbiter.runtime.declared import keep_to
from arbiter.runtime.engine import wall_clock
from arbiter.runtime.keyfiles import read_secrets
from arbiter.runtime.loader import Loader
from arbiter.telemetry.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable

    from arbiter.config.limits import Limits
    from arbiter.runtime.settings import Settings
    from arbiter.serving import ConsumerFigures


def catch_up(settings: Settings, limits: Limits, progress: Callable[[ConsumerFigures], None]) -> ConsumerFigures:
    """Read until nothing is left in any partition; what was done. `progress` hears of it after every batch.

    Raises AuthorError when the rules hold errors, BadProperties, ConsumerFailed, UnusableFile, and StoreError, also
    when a server uses the data directory.
    """
    with alone(settings.data_directory, "data directory"):
        attempt = Loader(settings.rules_directory, settings.models_directory, None).load()
        if attempt.built is None:
            raise AuthorError(attempt.diagnostics)
        secrets = read_secrets(settings.profiles)
        with Store.open(
            settings.store_directory, limits=settings.store_limits, background=False, secrets=secrets
        ) as store:
            keep_to(store, attempt.built.snapshot.frame)
            told = Told(Counters(), wall_clock)
            loop = open_loop(settings.kafka, limits, store, told, wall_clock)
            loop.begin()
            try:
                # Of a partition that was not asked for yet nobody knows what is left.
                while not told.partitions or len(told.lags) < told.partitions or any(told.lags.values()):
                    loop.step()
                    progress(told.figures())
            finally:
                loop.end()
            return told.figures()
