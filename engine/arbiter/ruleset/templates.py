"""Parameters: plain YAML in which ``${expr}`` inside a string is CEL.

Law: from nodes to `Param`s. ``$${`` is a literal ``${``. Authored order is kept. What an action may take is checked in
`effects.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from arbiter.authoring.blocks import under
from arbiter.authoring.nodes import Mapping, Node, Scalar, Sequence
from arbiter.ruleset.terms import Fields, Items, Param, Plain, Template

if TYPE_CHECKING:
    from arbiter.authoring.report import Report
    from arbiter.expr.tree import Expression
    from arbiter.ruleset.expressions import Expressions

_OPENING = re.compile(r"\$?\$\{")
# What may hold a brace that closes nothing: CEL's strings, raw ones first, and its comments.
_TOKEN = re.compile(
    r"""(?P<string>[rR][bB]?(?:"{3}.*?"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')"""
    r"""|[bB][rR](?:"{3}.*?"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')"""
    r"""|"{3}(?:\\.|[^\\])*?"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*\')"""
    r"|//[^\n]*|(?P<open>\{)|(?P<close>\})|[A-Za-z_0-9]+|.",
    re.DOTALL,
)


class Params:
    """Reads parameters. With `expressions` None they must be constant."""

    def __init__(self, report: Report, expressions: Expressions | None) -> None:
        self.report = report
        self._expressions = expressions

    def read(self, node: Node | None, path: str) -> Param | None:
        """The parameter that a node is; None when something in it was refused."""
        if node is None:
            return None
        if isinstance(node, Scalar):
            return self._scalar(node, path)
        if isinstance(node, Sequence):
            items = [self.read(item, f"{path}[{number}]") for number, item in enumerate(node.items)]
            kept = tuple(item for item in items if item is not None)
            if len(kept) != len(items):
                return None
            return Items(kept) if any(not isinstance(i, Plain) for i in kept) else Plain([_plain(i) for i in kept])
        return self._mapping(node, path)

    def _mapping(self, node: Mapping, path: str) -> Param | None:
        fields: dict[str, Param] = {}
        for name, entry in node.entries.items():
            if _OPENING.search(name):
                self.report.at(entry.key, "a key cannot hold `${}`", "only values can", path)
            field = self.read(entry.node, under(path, name))
            if field is not None:
                fields[name] = field
        if len(fields) != len(node.entries):
            return None
        if any(not isinstance(field, Plain) for field in fields.values()):
            return Fields(fields)
        return Plain({name: _plain(field) for name, field in fields.items()})

    def _scalar(self, node: Scalar, path: str) -> Param | None:
        if node.value is None:
            self.report.at(node, "a parameter cannot be nothing", 'leave it out, or write `""` for empty text', path)
            return None
        if not isinstance(node.value, str) or "${" not in node.text:
            return Plain(node.value)
        parts = self._parts(node, path)
        if parts is None:
            return None
        if all(isinstance(part, str) for part in parts):
            return Plain("".join(part for part in parts if isinstance(part, str)))
        return Template(tuple(parts))

    def _parts(self, node: Scalar, path: str) -> list[str | Expression] | None:
        """Literal text and expressions in turn; None when one was refused."""
        text, at, sound = node.text, 0, True
        parts: list[str | Expression] = []
        literal = ""
        while found := _OPENING.search(text, at):
            literal += text[at : found.start()]
            at = found.end()
            if found[0] == "$${":
                literal += "${"
                continue
            if self._expressions is None:
                self.report.inside(
                    node, found.start(), at, "the default is constant, `${}` cannot stand in it", path=path
                )
                return None
            end = _closing(text, at)
            if end is None:
                hint = "add a `}`; write `$${` if `${` is meant as text"
                self.report.inside(node, found.start(), at, "this `${` is never closed", hint, path)
                return None
            expression = self._expressions.part(node, at, end, path)
            sound = sound and expression is not None
            if literal:
                parts.append(literal)
            if expression is not None:
                parts.append(expression)
            literal, at = "", end + 1
        if literal + text[at:]:
            parts.append(literal + text[at:])
        return parts if sound else None


def _closing(text: str, start: int) -> int | None:
    """The offset of the brace that closes a ``${`` whose expression begins at `start`."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token["open"]:
            depth += 1
        elif token["close"]:
            if depth == 0:
                return token.start()
            depth -= 1
    return None


def _plain(param: Param) -> Any:
    return param.value if isinstance(param, Plain) else None
