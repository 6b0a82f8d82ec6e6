"""What a formatter must know of a YAML file: besides values also comments, blank lines, quotes and brackets.

Law: from text that is known to be sound to a tree with every comment in its place; no style, no meaning. Positions are
offsets in a text with the line ends of Unix.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_COMMENT: Final = re.compile(r"(?:^|(?<=[ \t]))#[^\n]*", re.MULTILINE)
_PROPERTIES: Final = re.compile(r"[!&]\S*(?:\s+[!&]\S*)*")
_GAP: Final = re.compile(r"(?:[ \t\n]+|(?<=\s)#[^\n]*)*")


class Line(msgspec.Struct, frozen=True):
    """A comment on a line of its own. `blank`: an empty line stands before it."""

    text: str
    blank: bool


class Leaf(msgspec.Struct):
    """A scalar or an alias. `raw` is how it is written, `properties` the anchor and tag in it; an alias has no text."""

    raw: str
    text: str | None
    style: str
    properties: bool
    column: int


class Entry(msgspec.Struct):
    """A pair of a mapping, or an item of a list, which has no key. `beside` stands at the end of its last line."""

    key: Leaf | None
    value: Leaf | Branch
    above: list[Line]
    blank: bool
    beside: str = ""


class Branch(msgspec.Struct):
    """A mapping or a list. `head` stands behind the key that it belongs to, `below` after its last entry."""

    mapping: bool
    flow: bool
    properties: str
    entries: list[Entry]
    head: str = ""
    below: list[Line] = []


class Document(msgspec.Struct):
    """One document; `before` stands above its ``---``, which is there if `marked`."""

    before: list[Line]
    marked: bool
    above: list[Line]
    root: Leaf | Branch
    below: list[Line]


class _Comment(msgspec.Struct, frozen=True):
    start: int
    text: str
    alone: bool
    column: int
    blank: bool

    @property
    def line(self) -> Line:
        return Line(self.text, self.blank)


def read_tree(text: str) -> tuple[list[Document], list[Line]]:
    """The documents of a text that holds no mistakes, and the comments after the last."""
    return _Reader(text).documents()


def comments_of(text: str) -> list[str]:
    """Every comment of a text, in order."""
    return [comment.text for comment in _comments(text, list(yaml.parse(text, Loader=_Loader)))]


def _comments(text: str, events: list[Any]) -> list[_Comment]:
    """The comments between scalars; within them nothing is one, save behind the head of a block, which they keep."""
    found: list[_Comment] = []
    cursor = 0
    for event in events:
        if not isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent, yaml.StreamEndEvent)):
            continue
        start, end = _span(event)
        found += _between(text, cursor, start)
        cursor = end
        if isinstance(event, yaml.ScalarEvent) and event.style is None:
            # The end of a plain scalar with properties and no text lies behind what follows it.
            cursor = start + len(text[start:end].rstrip())
    found += _between(text, cursor, len(text))
    return found


def _span(event: Any) -> tuple[int, int]:
    return event.start_mark.index, event.end_mark.index


def _between(text: str, start: int, end: int) -> Iterator[_Comment]:
    for found in _COMMENT.finditer(text, start, end):
        begin = text.rfind("\n", 0, found.start()) + 1
        lead = text[begin : found.start()]
        # Behind a dash it speaks of the item that begins there, which the dash's place tells from those outside.
        alone = not lead.strip(" \t-?")
        column = len(lead) - len(lead.lstrip(" \t"))
        yield _Comment(found.start(), found[0].rstrip(), alone, column, _blank_before(text, begin))


def _blank_before(text: str, begin: int) -> bool:
    """Whether the line before the one that begins at `begin` is empty."""
    above = text.rfind("\n", 0, begin - 1) + 1 if begin else 0
    return begin > 0 and not text[above:begin].strip()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._events = list(yaml.parse(text, Loader=_Loader))
        self._at = 0
        self._comments = _comments(text, self._events)
        self._taken = 0

    def documents(self) -> tuple[list[Document], list[Line]]:
        read: list[Document] = []
        self._next()
        while not isinstance(self._peek, yaml.StreamEndEvent):
            begin = self._next()
            before = self._lines(begin.start_mark.index) if begin.explicit else []
            start = self._peek.start_mark.index
            first = self._peek
            inner = isinstance(first, yaml.CollectionStartEvent)
            above = [] if inner and not first.flow_style else self._lines(start)
            root = self._value(-1)
            read.append(Document(before, begin.explicit, above, root, []))
            end = self._next()
            read[-1].below = self._lines(end.start_mark.index)
        return read, self._lines(len(self._text) + 1)

    @property
    def _peek(self) -> Any:
        return self._events[self._at]

    def _next(self) -> Any:
        self._at += 1
        return self._events[self._at - 1]

    def _take(self, end: int) -> list[_Comment]:
        """The comments before an offset that have no place yet."""
        begin = self._taken
        while self._taken < len(self._comments) and self._comments[self._taken].start < end:
            self._taken += 1
        return self._comments[begin : self._taken]

    def _lines(self, end: int) -> list[Line]:
        return [comment.line for comment in self._take(end)]

    def _value(self, column: int) -> Leaf | Branch:
        """The next value; `column` is where the collection that it stands in is indented to."""
        event = self._next()
        if isinstance(event, yaml.CollectionStartEvent):
            return self._branch(event, column)
        start, end = event.start_mark.index, event.end_mark.index
        raw = self._text[start:end]
        if isinstance(event, yaml.AliasEvent):
            return Leaf(raw, None, "", False, column)
        style = event.style or ""
        properties = event.anchor is not None or event.tag is not None
        return Leaf(raw if style in {"|", ">"} else raw.rstrip(), event.value, style, properties, column)

    def _branch(self, event: Any, outer: int) -> Branch:
        found = _PROPERTIES.match(self._text, event.start_mark.index) if event.anchor or event.tag else None
        mapping = isinstance(event, yaml.MappingStartEvent)
        branch = Branch(mapping, bool(event.flow_style), found[0] if found else "", [])
        column = outer
        if not branch.flow:
            gap = _GAP.match(self._text, found.end()) if found else None
            start = gap.end() if gap else event.start_mark.index
            column = start - (self._text.rfind("\n", 0, start) + 1)
        while not isinstance(self._peek, yaml.CollectionEndEvent):
            self._entry(branch, column)
        end = self._next().end_mark.index
        self._finish(branch, end, column + (not mapping and column == outer))
        return branch

    def _entry(self, branch: Branch, column: int) -> None:
        start = self._peek.start_mark.index
        above = self._sides(branch, self._take(start))
        blank = _blank_before(self._text, self._text.rfind("\n", 0, start) + 1)
        key: Leaf | None = None
        if branch.mapping:
            leaf = self._value(column)
            assert isinstance(leaf, Leaf)  # noqa: S101 - keys that are none have been refused
            key = leaf
        inner = self._take(self._peek.start_mark.index) if branch.mapping else []
        head = ""
        block = isinstance(self._peek, yaml.CollectionStartEvent) and not self._peek.flow_style
        if block and inner and not inner[0].alone:
            head = inner.pop(0).text
        value = self._value(column)
        entry = Entry(key, value, above, blank)
        if isinstance(value, Branch) and block:
            between = [Line(value.head, blank=False)] if head and value.head else []
            value.head = head or value.head
            value.entries[0].above[:0] = [*(comment.line for comment in inner), *between]
        else:
            entry.above += [comment.line for comment in inner]
        branch.entries.append(entry)

    def _sides(self, branch: Branch, comments: list[_Comment]) -> list[Line]:
        """Give the entry before what stands beside it; the rest stands above the next."""
        if comments and not comments[0].alone:
            if branch.entries and not branch.entries[-1].beside:
                branch.entries[-1].beside = comments.pop(0).text
            elif not branch.entries and not branch.flow:
                branch.head = comments.pop(0).text
        return [comment.line for comment in comments]

    def _finish(self, branch: Branch, end: int, column: int) -> None:
        """Take what stands after the last entry: up to the bracket, or as far as it is indented like the entries."""
        if branch.flow:
            branch.below = self._sides(branch, self._take(end))
            return
        following = self._peek.start_mark.index
        begin = self._taken
        comments = self._take(following)
        kept = 0
        while kept < len(comments) and (not comments[kept].alone or comments[kept].column >= max(column, 0)):
            kept += 1
        self._taken = begin + kept
        last = branch.entries[-1]
        own = comments[:kept]
        if own and not own[0].alone and isinstance(last.value, Branch) and not last.value.flow:
            # Beside the end of a block: only an alias or a text could be meant, and they have taken theirs.
            branch.below = [comment.line for comment in own]
        else:
            branch.below = self._sides(branch, own)
