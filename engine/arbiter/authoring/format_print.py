"""How authored files look: indented by two, one form for each value, lists and mappings in brackets where they fit.

Law: from a tree to lines. A value never changes; keys are ordered as `Style` says, and what stands beside a value moves
with it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.authoring.format_tree import Branch, Document, Entry, Leaf, Line
from arbiter.authoring.scalars import NotANumber, core_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WIDTH: Final = 120
_STEP: Final = 2
_INDICATORS: Final = frozenset("-?:,[]{}#&*!|>'\"%@`=<")
# Words that YAML 1.1, which other tools read, takes for booleans; who put them in quotes knew why.
_OTHERS: Final = frozenset({"y", "n", "yes", "no", "on", "off"})
_HEADER: Final = re.compile(r"((?:[!&]\S*\s+)*[|>])([-+0-9]*)([^\n]*)\n?")


class Style(msgspec.Struct, frozen=True):
    """`schema` is a JSON Schema: its `properties` give the order of keys. The values of keys in `folded` stand in
    brackets whenever they fit.
    """

    schema: Mapping[str, Any]
    folded: frozenset[str]


def print_tree(documents: list[Document], rest: list[Line], style: Style) -> str:
    """The text of a file, line ends as Unix has them."""
    return _Printer(style).text(documents, rest)


class _Printer:
    def __init__(self, style: Style) -> None:
        self._style = style

    def text(self, documents: list[Document], rest: list[Line]) -> str:
        lines: list[str] = []
        for number, document in enumerate(documents):
            _put(lines, document.before, 0)
            if number or document.marked:
                lines.append("---")
            begin = len(lines)
            body: list[str] = []
            _put(body, document.above, 0)
            body += self._root(document.root)
            _put(body, document.below, 0)
            lines[begin:] = body[1:] if body and not body[0] else body
        _put(lines, rest, 0)
        while lines and not lines[0]:
            del lines[0]
        while lines and not lines[-1] and not self._keeps(documents):
            del lines[-1]
        return "".join(f"{line}\n" for line in lines)

    def _keeps(self, documents: list[Document]) -> bool:
        """Whether the last thing written is a block text that keeps its empty lines."""
        node: Leaf | Branch = documents[-1].root
        while isinstance(node, Branch) and node.entries:
            node = node.entries[-1].value
        return isinstance(node, Leaf) and _keeps(node)

    def _root(self, root: Leaf | Branch) -> list[str]:
        if isinstance(root, Leaf):
            return _leaf_lines("", root, 0) if root.raw else []
        text = self._flow(root, self._style.schema) if root.flow else None
        if text is not None and len(text) <= WIDTH and not root.head:
            return [text]
        begin = (
            [" ".join(part for part in (root.properties, root.head) if part)] if root.properties or root.head else []
        )
        if not root.entries:
            begin = [f"{root.properties} {'{}' if root.mapping else '[]'}".strip()]
        return [*begin, *self._block(root, 0, self._style.schema)]

    def _block(self, branch: Branch, indent: int, schema: Any) -> list[str]:
        lines: list[str] = []
        for entry in self._ordered(branch, schema):
            inner = _below(schema, entry.key.text if entry.key else None, self._style.schema)
            _put(lines, entry.above, indent)
            if entry.blank and lines and lines[-1]:
                lines.append("")
            lines += self._entry(entry, indent, inner, lines)
        while lines and not lines[0]:
            del lines[0]
        _put(lines, branch.below, indent)
        return lines

    def _entry(self, entry: Entry, indent: int, schema: Any, lines: list[str]) -> list[str]:
        """The lines of an entry. What cannot stay beside a list's item goes above it, to `lines`."""
        value = entry.value
        lead = f"{' ' * indent}{_key(entry.key, flow=False) + ':' if entry.key else '-'}"
        beside = f" {entry.beside}" if entry.beside else ""
        if isinstance(value, Leaf):
            written = _leaf_lines(lead, value, indent)
            written[-1] += beside
            return written
        folds = value.flow or (entry.key is not None and entry.key.text in self._style.folded)
        text = self._flow(value, schema) if folds else None
        if text is not None and (len(lead) + 1 + len(text) <= WIDTH or not value.entries):
            return [f"{lead} {text}{beside}"]
        inside = _has_comments(value)
        if not value.entries:
            closing = "{}" if value.mapping else "[]"
            _put(lines, value.below, indent)
            return [f"{lead} {' '.join(part for part in (value.properties, closing) if part)}{beside}"]
        head = value.head or ("" if inside else entry.beside)
        below = [Line(entry.beside, blank=False)] if entry.beside and head != entry.beside else []
        body = self._block(value, indent + _STEP, schema)
        _put(body, below, indent + _STEP)
        if entry.key is not None or value.properties:
            return [" ".join(part for part in (lead, value.properties, head) if part), *body]
        # A list's item begins on the line of its dash: what stands above its first line goes above the dash.
        if head:
            lines.append(" " * indent + head)
        first = next(number for number, line in enumerate(body) if not _is_comment(line))
        lines += [" " * indent + line.lstrip() for line in body[:first]]
        return [f"{lead} {body[first].lstrip()}", *body[first + 1 :]]

    def _ordered(self, branch: Branch, schema: Any) -> list[Entry]:
        """The entries, known keys first and in their order; a file's own sections stand as their author put them.

        Where anchors are about, order may mean something.
        """
        order = () if schema is self._style.schema else _properties(schema)
        if not branch.mapping or not order or _has_anchors(branch):
            return branch.entries
        ranks = {name: number for number, name in enumerate(order)}
        return sorted(branch.entries, key=lambda e: ranks.get((e.key.text if e.key else "") or "", len(ranks)))

    def _flow(self, branch: Branch, schema: Any) -> str | None:
        """The value in brackets on one line; None where a comment or a text over several lines forbids it."""
        if branch.head or branch.below:
            return None
        parts: list[str] = []
        for entry in self._ordered(branch, schema):
            if entry.above or entry.beside:
                return None
            key = entry.key.text if entry.key else None
            value = (
                self._flow(entry.value, _below(schema, key, self._style.schema))
                if isinstance(entry.value, Branch)
                else _inline(entry.value, flow=True)
            )
            if value is None:
                return None
            if entry.key is not None:
                parts.append(f"{_key(entry.key, flow=True)}: {value}")
            else:
                parts.append(value or "null")
        text = ", ".join(parts)
        lead = f"{branch.properties} " if branch.properties else ""
        return f"{lead}{{{text}}}" if branch.mapping else f"{lead}[{text}]"


def _put(lines: list[str], comments: list[Line], indent: int) -> None:
    for comment in comments:
        if comment.blank and lines and lines[-1]:
            lines.append("")
        lines.append(" " * indent + comment.text)


def _is_comment(line: str) -> bool:
    return not line or line.lstrip().startswith("#")


def _has_comments(branch: Branch) -> bool:
    return bool(branch.head or branch.below) or any(
        entry.above or entry.beside or (isinstance(entry.value, Branch) and _has_comments(entry.value))
        for entry in branch.entries
    )


def _has_anchors(branch: Branch) -> bool:
    return bool(branch.properties) or any(
        _has_anchors(entry.value)
        if isinstance(entry.value, Branch)
        else entry.value.properties or entry.value.text is None or (entry.key is not None and _odd(entry.key))
        for entry in branch.entries
    )


def _odd(key: Leaf) -> bool:
    return key.properties or key.text is None


def _below(schema: Any, key: str | None, root: Mapping[str, Any]) -> Any:
    """The part of a schema that speaks of a key's value, or of a list's items."""
    for each in _alternatives(schema, root):
        if key is None and "items" in each:
            return each["items"]
        if key is not None and key in each.get("properties", {}):
            return each["properties"][key]
        if key is not None and isinstance(each.get("additionalProperties"), dict):
            return each["additionalProperties"]
    return {}


def _properties(schema: Any) -> tuple[str, ...]:
    return next((tuple(each["properties"]) for each in _alternatives(schema, {}) if "properties" in each), ())


def _alternatives(schema: Any, root: Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(schema, dict):
        yield schema
        for word in ("anyOf", "oneOf"):
            for each in schema.get(word, ()):
                yield from _alternatives(each, root)


def _key(key: Leaf, *, flow: bool) -> str:
    if key.text is None:
        return f"{key.raw} "
    text = _inline(key, flow=flow)
    return _quoted(key.text, "") if text is None else text


def _inline(leaf: Leaf, *, flow: bool) -> str | None:
    """A scalar on one line; None when it is written over several."""
    if leaf.style in {"|", ">"} or "\n" in leaf.raw:
        return None
    if leaf.text is None or leaf.properties or not leaf.raw:
        return leaf.raw
    if leaf.style:
        return leaf.text if _plain(leaf.text, flow=flow) else _quoted(leaf.text, leaf.raw)
    return leaf.raw if not flow or not set(leaf.raw) & set(",[]{}") else _quoted(leaf.raw, "")


def _plain(text: str, *, flow: bool) -> bool:
    """Whether a text may stand without quotes and stays a text."""
    if not text or text != text.strip() or not text.isprintable() or text.lower() in _OTHERS:
        return False
    if text[0] in _INDICATORS or text.startswith("...") or ": " in text or " #" in text or text.endswith(":"):
        return False
    if flow and set(text) & set(",[]{}"):
        return False
    try:
        return isinstance(core_value(text), str)
    except NotANumber:
        return False


def _quoted(text: str, raw: str) -> str:
    """A text in quotes: double ones, unless single ones save escapes; `raw` where neither can say it plainly."""
    if text.isprintable():
        if '"' not in text and "\\" not in text:
            return f'"{text}"'
        if "'" not in text or not raw:
            return "'" + text.replace("'", "''") + "'"
    return raw or msgspec.json.encode(text).decode()


def _keeps(leaf: Leaf) -> bool:
    header = _HEADER.match(leaf.raw) if leaf.style in {"|", ">"} else None
    return header is not None and "+" in header[2]


def _leaf_lines(lead: str, leaf: Leaf, indent: int) -> list[str]:
    """A scalar behind its key or dash; the lines of a longer one are indented alike."""
    text = _inline(leaf, flow=False)
    if text is not None:
        return [f"{lead} {text}".rstrip() if lead else text]
    margin = " " * (indent + _STEP if lead else _STEP)
    if leaf.style not in {"|", ">"}:
        first, *others = leaf.raw.split("\n")
        # Blanks at either end of a line mean nothing, unless a backslash says so.
        rest = [margin + line.strip(" \t") if line.strip(" \t") else "" for line in others]
        if leaf.style == '"':
            rest = [margin + line.lstrip(" \t") if line.strip(" \t") else "" for line in others]
        return [f"{lead} {first}".lstrip() if not lead else f"{lead} {first}", *rest]
    return _block_text(lead, leaf, margin)


def _block_text(lead: str, leaf: Leaf, margin: str) -> list[str]:
    header = _HEADER.match(leaf.raw)
    assert header is not None  # noqa: S101 - the parser has read it
    body = leaf.raw[header.end() :].split("\n")
    if body and not body[-1].strip(" "):
        del body[-1]
    depth = re.sub(r"\D", "", header[2])
    first = next((line for line in body if line.strip(" ")), "")
    base = max(leaf.column, 0) + int(depth) if depth else len(first) - len(first.lstrip(" "))
    # More blanks than the indentation on an empty line are text.
    lines = [margin + line[base:] if line[base:] else "" for line in body]
    if "+" not in header[2]:
        while lines and not lines[-1]:
            del lines[-1]
    assert leaf.text is not None  # noqa: S101 - an alias is no block
    chomping = "".join(sign for sign in header[2] if sign in "+-")
    if leaf.text and not leaf.text.endswith("\n"):
        chomping = "-"  # so it is already, unless the file ends without a line break
    elif chomping == "+" and leaf.text.strip("\n") and not leaf.text.endswith("\n\n"):
        chomping = ""  # nothing is kept, and an empty line may follow
    begin = f"{header[1]}{str(_STEP) if depth else ''}{chomping}"
    comment = header[3].strip()
    return [" ".join(part for part in (lead, begin, comment) if part), *lines]
