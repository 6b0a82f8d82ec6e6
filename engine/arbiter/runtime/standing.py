"""What operators ordered and files know nothing of: a hold after a rollback, of a snapshot or a model, a canary,
rules switched off.

Law: data and its one file, which a restart reads. Whoever changes it writes it first, so that what was acknowledged
survives. It decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from arbiter.durable import replace

# Fields' types at run time: msgspec reads them to decode.
from arbiter.errors import StoreError
from arbiter.serving import Canary, Hold, ModelHold, Override  # noqa: TC001

if TYPE_CHECKING:
    from pathlib import Path

FILE = "standing.json"


class Standing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What holds until it is taken back, runs out, or is overtaken. `staged` are digests, the newest last. `resumed`
    has when experiments were switched on again (µs since the epoch): guardrails forget what was before.
    """

    hold: Hold | None = None
    canary: Canary | None = None
    overrides: tuple[Override, ...] = ()
    staged: tuple[str, ...] = ()
    models: tuple[ModelHold, ...] = ()
    resumed: dict[str, int] = {}


class StandingFile:
    """The file in a data directory that holds it."""

    def __init__(self, data: Path) -> None:
        self._path = data / FILE

    def read(self) -> Standing:
        """What was ordered; nothing when there is no file. Raises StoreError for a file that cannot be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Standing)
        except FileNotFoundError:
            return Standing()
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            # To go on without it would bring back what an operator took away.
            raise StoreError(
                f"cannot read {self._path}, which holds rollback, canary and overrides: {error}; mend it, or remove it "
                "to start without them"
            ) from error

    def write(self, standing: Standing) -> None:
        """Put it on disk. Raises StoreError."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace(self._path, msgspec.json.format(msgspec.json.encode(standing)))
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error}") from error
