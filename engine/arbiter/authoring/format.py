"""One look for every authored file: the formatter behind ``arbiter fmt``.

Law: text in, text out. What it returns says the same as what it was given, and holds every comment of it: both are
checked on every file, since a formatter that loses something is worse than none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.format_print import Style, print_tree
from arbiter.authoring.format_tree import comments_of, read_tree
from arbiter.authoring.nodes import Mapping, Node, Scalar
from arbiter.authoring.report import Report
from arbiter.errors import ArbiterError

if TYPE_CHECKING:
    from arbiter.errors import Diagnostic

__all__ = ["Style", "format_file"]


def format_file(file: str, content: bytes, form: Form, style: Style) -> tuple[bytes | None, list[Diagnostic]]:
    """The file as it should look, or None and what is no sound YAML in it; `file` is its name in diagnostics.

    Line ends stay as the first line has them, a byte order mark goes, and the last line is ended. Raises ArbiterError
    when the outcome would not say the same, which is a fault of ours.
    """
    report = Report()
    roots = read_documents(file, content, form, report)
    if roots is None or report:
        return None, report.found
    text = content.decode("utf-8-sig")
    crlf = "\r\n" in text and text.index("\r\n") == text.index("\n") - 1
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith(("%YAML", "%TAG")):
            report.whole(file, f"line {number} is a YAML directive, which the formatter does not know", "remove it")
            return None, report.found
        if line.startswith("---"):
            break
    made = print_tree(*read_tree(text), style)
    _check(file, roots, text, made, form)
    return (made.replace("\n", "\r\n") if crlf else made).encode(), []


def _check(file: str, roots: list[Node], text: str, made: str, form: Form) -> None:
    again = read_documents(file, made.encode(), form, Report())
    if again is None or [_plain(root) for root in again] != [_plain(root) for root in roots]:
        raise ArbiterError(f"{file}: formatting would change what it says; it is left as it is")
    if sorted(comments_of(made)) != sorted(comments_of(text)):
        raise ArbiterError(f"{file}: formatting would lose a comment; it is left as it is")


def _plain(node: Node | None) -> Any:
    """What a node says, with its kind: ``1`` is not ``true``, nor ``1.0``."""
    if node is None:
        return None
    if isinstance(node, Scalar):
        return type(node.value).__name__, node.value
    if isinstance(node, Mapping):
        return {name: _plain(entry.node) for name, entry in node.entries.items()}
    return [_plain(item) for item in node.items]
