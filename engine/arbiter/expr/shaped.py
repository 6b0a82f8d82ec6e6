"""Values whose names are kept once for all that have the same ones.

Law: data and its look-up; what has the same names shares one table of places, as objects of one *hidden class* do in
Self (Chambers, Ungar and Lee, OOPSLA 1989). It reads like a dictionary and is never changed. The table is made when a
name is first asked for, and found again by the bytes in which the names are packed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from arbiter.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable, Iterator, KeysView, Sequence, ValuesView

Taken = Callable[[list[Any]], tuple[Any, ...]]
STORED = ("account", "features", "profile")  # the roots of a view that may be kept so
SHAPES = 4_096  # tables that are kept, of some 3 kB for 30 names
SHARED = 1_024  # sets of names that a process keeps apart from values; fewer, so that what is read has its tables

_decode_names = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_encode = msgspec.msgpack.Encoder().encode


class _Places(dict[bytes, dict[str, int]]):
    """The place of each name, by the names packed. Raises StoreError for what packs no names."""

    def __missing__(self, names: bytes) -> dict[str, int]:
        try:
            made = {name: place for place, name in enumerate(_decode_names(names))}
        except msgspec.MsgspecError as error:
            raise StoreError(f"a record of the store does not say what its values are called: {error}") from error
        if len(self) >= SHAPES:
            self.clear()
        self[names] = made
        return made


PLACES = _Places()
_shared: set[bytes] = set()


class Shaped(msgspec.Struct, array_like=True, gc=False, eq=False, repr_omit_defaults=True):
    """A mapping of names to values: `held` are the values, and `names` what they are called, in order and packed."""

    names: bytes
    held: list[Any]

    @property
    def places(self) -> dict[str, int]:
        """Where the value of each name stands in `held`: not to be changed. Raises StoreError."""
        return PLACES[self.names]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a name, or the default."""
        place = PLACES[self.names].get(name)
        try:
            return default if place is None else self.held[place]
        except IndexError:
            raise self.unpaired() from None

    def __getitem__(self, name: str) -> Any:
        """The value of a name; KeyError where there is none."""
        place = PLACES[self.names][name]
        try:
            return self.held[place]
        except IndexError:
            raise self.unpaired() from None

    def __contains__(self, name: object) -> bool:
        """Whether there is a value of that name."""
        return name in PLACES[self.names]

    def __len__(self) -> int:
        """How many values there are."""
        return len(self.held)

    def __iter__(self) -> Iterator[str]:
        """The names, in order."""
        return iter(PLACES[self.names])

    def keys(self) -> KeysView[str]:
        """The names, in order."""
        return PLACES[self.names].keys()

    def values(self) -> ValuesView[Any]:
        """The values, in the order of the names."""
        return self.plain().values()

    def items(self) -> ItemsView[str, Any]:
        """Names and values, in order."""
        return self.plain().items()

    def plain(self) -> dict[str, Any]:
        """The same as a dictionary, which is the caller's own. Raises StoreError where names and values do not pair."""
        places = PLACES[self.names]
        if len(places) != len(self.held):
            raise self.unpaired()
        # A copy has the room: this takes three quarters of what `dict(zip())` does.
        made: dict[str, Any] = {**places}
        for name, value in zip(places, self.held, strict=False):
            made[name] = value  # noqa: PERF403 - see above
        return made

    def unpaired(self) -> StoreError:
        """The error of a record that is damaged so that it has fewer values than names."""
        return StoreError(f"a record of the store has {len(self.places)} names for {len(self.held)} values")

    def __eq__(self, other: object) -> bool:
        """Whether the other mapping has the same values by the same names."""
        if isinstance(other, Shaped):
            other = other.plain()
        return self.plain() == other if isinstance(other, dict) else NotImplemented

    def __ne__(self, other: object) -> bool:
        """Whether it has not. A Struct has one of its own, which looks whether both are the same object."""
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # as a dictionary's

    def __repr__(self) -> str:
        """As a dictionary's."""
        return repr(self.plain())


Mapping.register(Shaped)


def shaped(values: Mapping[str, Any]) -> Shaped | dict[str, Any]:
    """The values of a mapping, in its order: a dictionary where more sets of names were met than are worth a table."""
    if isinstance(values, Shaped):
        return values
    names = _encode(tuple(values))
    if names not in _shared:
        if len(_shared) >= SHARED:
            return dict(values)
        _shared.add(names)
    return Shaped(names, list(values.values()))


def taker(
    names: Sequence[str], known: dict[bytes, Taken] | None = None
) -> Callable[[Mapping[str, Any]], Iterable[Any]]:
    """What gives the values of these names, two at least and in order, None for what is missing.

    `known` gets, by packed names, what does it with what is held: for who looks there first.
    """
    known = {} if known is None else known

    def take(values: Mapping[str, Any]) -> Iterable[Any]:
        if not isinstance(values, Shaped):
            return map(values.get, names)
        get = known.get(values.names)
        if get is None:
            if len(known) >= SHAPES:
                known.clear()
            get = known[values.names] = _getter(values.places, names)
        try:
            return get(values.held)
        except IndexError:
            raise values.unpaired() from None

    return take


def _getter(places: Mapping[str, int], names: Sequence[str]) -> Taken:
    get = itemgetter(*(places.get(name, -1) for name in names))
    if all(name in places for name in names):
        return get
    return lambda held: get([*held, None])
