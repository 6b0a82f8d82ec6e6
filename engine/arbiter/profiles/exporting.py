"""Everything that is held on a subject, a page at a time.

Law: shows what `holdings` lists, in its order, and decides nothing about who may see it. A page is of one state of the
store; from page to page that may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import InvalidField
from arbiter.profiles import records, tombstones
from arbiter.profiles.holdings import HOLDINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb

    from arbiter.profiles.environment import Environment

_PAGE_BYTES = 1 << 20  # of what is shown: a page must fit a message
_FIRST = (HOLDINGS[0].name, None)  # beyond nothing


class Exported(msgspec.Struct, frozen=True):
    """One page: the entries, each with the name of its holding, and the `following` page's token, empty for no more.

    `erased` is the µs time at which the subject was last erased, None for never.
    """

    entries: list[tuple[str, dict[str, Any]]]
    following: bytes = b""
    erased: int | None = None


def export(
    environment: Environment, txn: lmdb.Transaction[bytes], key: bytes, now: int, token: bytes = b"", limit: int = 1000
) -> Exported:
    """The page that `token` stands for, the first for an empty one, of at most `limit` entries and about 1 MiB,
    without values whose time is over at `now` (µs).

    Raises InvalidField for a token that this version did not make.
    """
    stone = tombstones.find(environment, txn, key)
    erased = None if stone is None else stone.at
    entries: list[tuple[str, dict[str, Any]]] = []
    size, last = 0, _read(token)
    for name, rest, shown in _from(environment, txn, key, now, *last):
        if entries and (len(entries) == limit or size > _PAGE_BYTES):
            return Exported(entries, records.encode(last), erased)
        entries.append((name, shown))
        size += len(records.encode(shown))
        last = name, rest
    return Exported(entries, b"", erased)


def _from(
    environment: Environment, txn: lmdb.Transaction[bytes], key: bytes, now: int, name: str, after: bytes | None
) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Every entry beyond that of the holding `name` with the rest `after`, with its holding and its rest."""
    names = [holding.name for holding in HOLDINGS]
    first = names.index(name)
    for holding in HOLDINGS[first:]:
        for rest, shown in holding.export(environment, txn, key, now, after if holding.name == name else None):
            yield holding.name, rest, shown


def _read(token: bytes) -> tuple[str, bytes | None]:
    if not token:
        return _FIRST
    try:
        name, rest = msgspec.msgpack.decode(token, type=tuple[str, bytes])
    except msgspec.MsgspecError:
        name, rest = "", b""
    if all(holding.name != name for holding in HOLDINGS):
        raise InvalidField("page_token is none that an earlier page gave: begin again without one", field="page_token")
    return name, rest
