"""From the bytes of an authored file to nodes that know where they stand.

Law: the YAML parser gives events, and this module alone reads them: bounded in size, depth and aliases, YAML 1.2 core
schema, every refusal a diagnostic with a position. `None` stands where a value was refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from arbiter.authoring.nodes import Entry, Mapping, Node, Scalar, Sequence, is_nothing
from arbiter.authoring.scalars import NotANumber, core_value, shorten
from arbiter.authoring.source import Source
from arbiter.authoring.syntax import report_syntax

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.authoring.report import Report

MAX_DEPTH: Final = 48
_TOO_DEEP: Final = f"more than {MAX_DEPTH} levels of lists and mappings"
_PARSER_DEPTH: Final = 1000  # libyaml's own
MAX_ALIASED: Final = 20_000  # nodes that aliases repeat, in one file
MAX_VALUES: Final = 2_000_000  # nodes in one file: some 400 bytes of memory each

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# YAML's own printable set, less the three characters that YAML 1.1 parsers take for line breaks and 1.2 does not.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_CORE_TAGS: Final[dict[str, tuple[type, ...]]] = {
    "tag:yaml.org,2002:null": (type(None),),
    "tag:yaml.org,2002:bool": (bool,),
    "tag:yaml.org,2002:int": (int,),
    "tag:yaml.org,2002:float": (float, int),
}
_STRING_TAGS: Final = ("!", "tag:yaml.org,2002:str")


class Form(msgspec.Struct, frozen=True):
    """A kind of file: what messages call it (``a rule file``), how long it may be, and what to do when it is longer.

    With `escapes` double quotes take any character as an escape.
    """

    name: str
    max_bytes: int
    too_long: str
    escapes: bool = True


class _Open(msgspec.Struct):
    """A list or mapping whose end has not been seen. `size` counts it and all below, `height` is the longest chain."""

    mapping: bool
    start: int
    anchor: str | None
    items: list[Node | None]
    entries: dict[str, Entry]
    key: Scalar | None = None
    awaits_key: bool = True
    partial: bool = False
    size: int = 1
    height: int = 1


class _Made(msgspec.Struct, frozen=True):
    node: Node | None
    size: int
    height: int


class _Refused(Exception):
    """The rest of the file cannot be read; the reason is in the report."""


def read_documents(file: str, content: bytes, form: Form, report: Report) -> list[Node] | None:
    """The root nodes of the file's documents, empty ones left out; None when the file cannot be read to its end."""
    source = decode(file, content, form, report)
    if source is None:
        return None
    try:
        return list(_Reader(source, report).documents())
    except yaml.YAMLError as error:
        if "nesting depth" in str(getattr(error, "problem", "")):
            _report_depth(error, source, report)
        else:
            report_syntax(error, source, report)
    except _Refused:
        pass
    return None


def _report_depth(error: Any, source: Source, report: Report) -> None:
    """Say where it is too deep for us: libyaml has a bound of its own, and reads so far ahead that it comes first."""
    brackets = [match.start() for match in re.finditer(r"[\[{]", source.text[: error.problem_mark.index + 1])]
    beyond = _PARSER_DEPTH + 1 - MAX_DEPTH  # the last bracket opened one level more than libyaml takes
    start = brackets[-beyond] if len(brackets) >= beyond else error.problem_mark.index
    report.add(source, start, start + 1, _TOO_DEEP)


def decode(file: str, content: bytes, form: Form, report: Report) -> Source | None:
    """The file's text, without a byte order mark; None when it is too long, no UTF-8, or holds control characters."""
    if len(content) > form.max_bytes:
        message = f"the file has {len(content):,} bytes; at most {form.max_bytes:,} are read"
        report.whole(file, message, form.too_long)
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        source = Source(file, content[: error.start].decode("utf-8", "replace").removeprefix("\ufeff"))
        end = len(source.text)
        report.add(source, end, end + 1, "the file is not UTF-8 from here on", "save it in the encoding UTF-8")
        return None
    source = Source(file, text)
    bad = _FORBIDDEN.search(text)
    if bad is None:
        return source
    message = f"the character U+{ord(bad[0]):04X} cannot stand in {form.name}"
    escape = f"\\u{ord(bad[0]):04x}" if ord(bad[0]) else "\\0"
    hint = f"remove it, or write `{escape}` inside double quotes" if form.escapes else "remove it"
    report.add(source, bad.start(), bad.end(), message, hint)
    return None


class _Reader:
    """Builds nodes from parser events with a stack of its own, so that no nesting can exhaust the interpreter's."""

    def __init__(self, source: Source, report: Report) -> None:
        self.source = source
        self.report = report
        self.open: list[_Open] = []
        self.anchors: dict[str, _Made] = {}
        self.aliased = 0
        self.values = 0
        self.root: Node | None = None

    def documents(self) -> Iterator[Node]:
        """Each document's root, unless it is empty; raises `_Refused` or `yaml.YAMLError` where reading must stop."""
        # As `yaml.parse` does, which asks twice for each event.
        for event in iter(_Loader(self.source.text).get_event, None):
            if isinstance(event, yaml.ScalarEvent):
                self._place(_Made(self._scalar(event), 1, 1), event.anchor, event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._finish(event)
            elif isinstance(event, yaml.AliasEvent):
                self._place(self._alias(event), None, event)
            elif isinstance(event, yaml.DocumentStartEvent):
                self.anchors, self.root = {}, None
            elif isinstance(event, yaml.DocumentEndEvent) and self.root is not None and not is_nothing(self.root):
                yield self.root

    def _report(self, start: int, end: int, message: str, hint: str = "") -> None:
        self.report.add(self.source, start, end, message, hint)
        if self.report.full:
            raise _Refused

    def _begin(self, event: Any) -> None:
        tag = "map" if isinstance(event, yaml.MappingStartEvent) else "seq"
        if event.tag not in {None, "!", f"tag:yaml.org,2002:{tag}"}:
            self._refuse_tag(event)
        if len(self.open) >= MAX_DEPTH:
            start = event.start_mark.index
            self._report(start, start + 1, _TOO_DEEP)
            raise _Refused
        self.open.append(_Open(tag == "map", event.start_mark.index, event.anchor, [], {}))

    def _finish(self, event: Any) -> None:
        top = self.open.pop()
        end = event.end_mark.index
        node: Node = (
            Mapping(self.source, top.start, end, top.entries, top.partial)
            if top.mapping
            else Sequence(self.source, top.start, end, tuple(top.items))
        )
        self._place(_Made(node, top.size, top.height), top.anchor, event)

    def _place(self, made: _Made, anchor: str | None, event: Any) -> None:
        """Put a finished node where it belongs: in the innermost open list or mapping, or at the root."""
        if anchor is not None:
            self.anchors[anchor] = made
        self.values += 1
        if self.values > MAX_VALUES:
            start = event.start_mark.index
            message = f"more than {MAX_VALUES:,} keys and values in one file"
            self._report(start, start + 1, message, "split it into several")
            raise _Refused
        if not self.open:
            self.root = made.node
            return
        top = self.open[-1]
        top.size += made.size
        top.height = max(top.height, made.height + 1)
        if not top.mapping:
            top.items.append(made.node)
        elif top.awaits_key:
            top.key, top.awaits_key = self._key(made.node, top.entries, event), False
            top.partial = top.partial or top.key is None
        else:
            if top.key is not None:
                top.entries[top.key.text] = Entry(top.key, made.node)
            top.awaits_key = True

    def _key(self, node: Node | None, entries: dict[str, Entry], event: Any) -> Scalar | None:
        """The key, or None when it was refused and its value is to be dropped."""
        start, end = (node.start, node.end) if node is not None else (event.start_mark.index, event.end_mark.index)
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            if isinstance(node, Scalar) and node.text:
                message, hint = f"the key `{node.text}` is not a string", f'write `"{node.text}"`'
            else:
                message, hint = "a key must be a string", ""
            self._report(start, end, message, hint)
            return None
        if node.value == "<<" and not node.style:
            hint = "write the keys out; an alias may stand for a whole value"
            self._report(start, end, "merge keys (`<<`) are not part of YAML 1.2", hint)
            return None
        first = entries.get(node.text)
        if first is not None:
            line, column = self.source.place(first.key.start)
            message = f"the key `{shorten(node.text)}` stands here for the second time; the first is at {line}:{column}"
            self._report(start, end, message, "remove one of the two")
            return None
        return node

    def _alias(self, event: Any) -> _Made:
        name, start, end = event.anchor, event.start_mark.index, event.end_mark.index
        made = self.anchors.get(name)
        if any(frame.anchor == name for frame in self.open):
            message = f"the alias `*{name}` stands inside the value that it names, which would never end"
        elif made is None:
            message = f"the alias `*{name}` names no anchor before it"
        elif self.aliased + made.size > MAX_ALIASED:
            message = f"aliases repeat more than {MAX_ALIASED:,} values in this file"
        elif len(self.open) + made.height > MAX_DEPTH:
            message = f"with this alias there are more than {MAX_DEPTH} levels of lists and mappings"
        else:
            self.aliased += made.size
            return made
        self._report(start, end, message)
        if made is not None:
            raise _Refused
        return _Made(None, 1, 1)

    def _scalar(self, event: Any) -> Scalar | None:
        start, end, style = event.start_mark.index, event.end_mark.index, event.style or ""
        text: str = event.value
        value: bool | int | float | str | None = text
        try:
            if event.tag is None:
                value = core_value(text) if not style else text
            elif event.tag in _CORE_TAGS:
                value = core_value(text)
                if not isinstance(value, _CORE_TAGS[event.tag]):
                    self._refuse_tag(event)
                    return None
            elif event.tag not in _STRING_TAGS:
                self._refuse_tag(event)
                return None
        except NotANumber as error:
            self._report(start, end, str(error), "quote it if text is meant")
            return None
        return Scalar(self.source, start, end, value, text, style)

    def _refuse_tag(self, event: Any) -> None:
        start = event.start_mark.index
        raw = re.compile(r"(?:&\S+\s+)?(!\S*)").match(self.source.text, start)
        first, last = raw.span(1) if raw else (start, start + 1)
        name = self.source.text[first:last]
        known = event.tag in _CORE_TAGS
        message = f"this is not what its tag `{name}` says" if known else f"unknown tag `{name}`"
        self._report(first, last, message, "remove the tag; quotes make a string")
