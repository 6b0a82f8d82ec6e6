"""What the log says of an exposure or an outcome: a row, as it is written when it is recorded, and read again.

Law: data and its MessagePack form, as in `logged`. A row says whose it is by the reference that the rows of that
subject's decisions have; without consent to a log it says which rule and what, to the minute, and of nobody.
"""

from __future__ import annotations

from typing import Final

import msgspec

MINUTE: Final = 60_000_000


class Happened(msgspec.Struct, frozen=True, array_like=True):
    """That a decision was shown, or what happened then. `kind` is ``exposure`` or ``outcome``, `id` that of the event,
    `decision` that of the decision's row. Moments are µs since the epoch: when it happened, when it was `decided_at`,
    and when it was `recorded`. `rule` is empty for the whole decision. An outcome has a `name`, and a `value` where one
    was sent. A row that says nothing of a subject has no `id`, `decision`, `decided_at`, `subject` and `value`.
    """

    kind: str
    id: str | None
    decision: str | None
    at: int
    decided_at: int | None
    recorded: int
    subject: str | None
    point: str
    snapshot: str
    rule: str
    name: str | None = None
    value: float | None = None


encode_happened: Final = msgspec.msgpack.Encoder().encode
decode_happened: Final = msgspec.msgpack.Decoder(list[Happened]).decode


def impersonal(row: Happened) -> Happened:
    """The same without whatever leads to the subject, or tells the exact time."""
    at, recorded = row.at - row.at % MINUTE, row.recorded - row.recorded % MINUTE
    return Happened(row.kind, None, None, at, None, recorded, None, row.point, row.snapshot, row.rule, row.name)
