"""Who looks on at decisions: what was asked for, and to whom goes what is told.

Law: what is asked and what is told are bytes that servers write and read; here they are passed on. One book for all
processes, kept by whoever all of them can reach.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from arbiter.runtime import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbiter.runtime.questions import Asker

# Takes what is told of a decision, serialised or empty, and how many more were too many.
Shown = Callable[[bytes, int], None]


class Onlookers:
    """The book: `told` is called with all that is asked for, by number, after each change."""

    def __init__(self, told: Callable[[Mapping[int, bytes]], None]) -> None:
        self._told = told
        self._numbers = itertools.count(1)
        self._asked: dict[int, bytes] = {}
        self._shown: dict[int, Shown] = {}

    @property
    def asked(self) -> Mapping[int, bytes]:
        """What is asked for now."""
        return dict(self._asked)

    def begin(self, asked: bytes, shown: Shown) -> int:
        """Note who looks on; returns the number."""
        number = next(self._numbers)
        self._asked[number], self._shown[number] = asked, shown
        self._told(self.asked)
        return number

    def end(self, number: int) -> None:
        """Strike out who looks on no more."""
        if self._asked.pop(number, None) is not None:
            del self._shown[number]
            self._told(self.asked)

    def show(self, number: int, content: bytes, dropped: int) -> None:
        """Pass on what is told to one of them."""
        shown = self._shown.get(number)
        if shown is not None:
            shown(content, dropped)


class AskedFor:
    """The onlookers of processes that ask by messages."""

    def __init__(self, told: Callable[[messages.Onlookers], None]) -> None:
        self._book = Onlookers(lambda asked: told(messages.Onlookers(dict(asked))))
        self._by: dict[tuple[Asker, int], int] = {}

    def heard(self, asker: Asker, message: messages.Onlook | messages.Shown) -> None:
        """Somebody asks, or asks no more, or tells."""
        match message:
            case messages.Shown(number, content, dropped):
                self._book.show(number, content, dropped)
            case messages.Onlook(ask, None):
                number = self._by.pop((asker, ask), 0)
                self._book.end(number)
            case messages.Onlook(ask, bytes() as asked):
                self._by[asker, ask] = self._book.begin(
                    asked, lambda content, dropped: asker.send(messages.Shown(ask, content, dropped))
                )

    def forget(self, asker: Asker) -> None:
        """Who asked is no more."""
        for of, ask in [key for key in self._by if key[0] is asker]:
            self._book.end(self._by.pop((of, ask)))
