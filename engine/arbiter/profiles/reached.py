"""How far triggers have looked through the log, and from where on each of them looks.

Law: one record in `meta`, written in the transaction that holds all that followed from the events up to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    import lmdb

    from arbiter.profiles.environment import Environment

_PLACE: Final = b"triggers"
Pattern = tuple[str, str]
"""A trigger's id, and the digest of its pattern."""


class Reached(msgspec.Struct, array_like=True, frozen=True):
    """All events up to `position` were looked at. `since` has the position after which each pattern looks at events."""

    position: int = 0
    since: dict[str, tuple[str, int]] = {}

    @property
    def patterns(self) -> dict[Pattern, int]:
        """The same by trigger and pattern."""
        return {(trigger, pattern): position for trigger, (pattern, position) in self.since.items()}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reached).decode


def read_reached(environment: Environment, txn: lmdb.Transaction[bytes]) -> Reached:
    """How far triggers have come; nowhere where none ever ran."""
    raw = txn.get(_PLACE, None, environment.meta)
    return Reached() if raw is None else _decode(raw)


def put_reached(environment: Environment, txn: lmdb.Transaction[bytes], reached: Reached) -> None:
    """Write how far they have come."""
    txn.put(_PLACE, _encode(reached), db=environment.meta)
