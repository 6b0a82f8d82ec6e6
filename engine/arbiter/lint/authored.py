"""What the lint reads of the files themselves: which values names may have, where actions stand, what comments accept.

Law: text in, facts out. The files are known to load.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from arbiter.authoring.documents import read_documents
from arbiter.authoring.nodes import Mapping as MappingNode
from arbiter.authoring.report import Report
from arbiter.lint.domains import Allowed
from arbiter.lint.finding import KINDS
from arbiter.ruleset.declarations import Declared
from arbiter.ruleset.features import lowest_of
from arbiter.ruleset.load import RULE_FILE, is_rule_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arbiter.models.model import Model
    from arbiter.ruleset.rules import Ruleset

_DECLARES: Final = re.compile(rb"""(?m)(?:^|[\s{,"'])(?:schema|actions)["']?\s*:""")
_ALLOW: Final = re.compile(r"#\s*arbiter:\s*allow\s+([a-z][a-z-]*(?:\s*,\s*[a-z][a-z-]*)*)")
_NOT_ALLOW: Final = re.compile(r"#\s*arbiter\s*:\s*(?:ignore|disable|skip|suppress|accept|allow)\b")
_BEHIND: Final = re.compile(r"\s+([a-z]+(?:-[a-z]+)*)")
_COMMENT: Final = re.compile(r"\s*#")


class Declarations(msgspec.Struct, frozen=True):
    """The only values of attributes, by path, and the position of each declared action."""

    values: dict[tuple[str, ...], tuple[Any, ...]]
    actions: dict[str, str]


def read_declarations(files: Mapping[str, bytes]) -> Declarations:
    """What rule files declare beyond types."""
    report = Report()
    declared = Declared(report)
    actions: dict[str, str] = {}
    for path, content in sorted(files.items()):
        if not is_rule_file(path) or not _DECLARES.search(content):
            continue
        for root in read_documents(path, content, RULE_FILE, report) or ():
            entries = root.entries if isinstance(root, MappingNode) else {}
            for section in ("schema", "actions"):
                node = entries[section].node if section in entries else None
                if not isinstance(node, MappingNode):
                    continue
                if section == "schema":
                    declared.read_schema(node)
                else:
                    actions |= {name: e.key.source.position(e.key.start) for name, e in node.entries.items()}
    values: dict[tuple[str, ...], tuple[Any, ...]] = {
        (root, name): typed.values
        for root, names in declared.attributes()
        for name, typed in (names or {}).items()
        if typed.values
    }
    return Declarations(values, actions)


def allowed_of(
    ruleset: Ruleset, declarations: Declarations, models: Mapping[str, Model]
) -> dict[tuple[str, ...], Allowed]:
    """What each declared name can hold. Counts, sums and decays are 0 for who has no event, and missing for lack of
    consent.
    """
    found: dict[tuple[str, ...], Allowed] = {}
    sections = {
        "profile": ruleset.profile_types, "account": ruleset.account_types, "context": ruleset.context_types
    }  # fmt: skip
    for root, types in sections.items():
        for name, kind in types.items():
            found[root, name] = Allowed(kind, declarations.values.get((root, name), ()))
    found |= {("managed", name): Allowed("bool", (True,)) for name in ruleset.managed}
    lowest = lowest_of(ruleset.features)
    for feature in ruleset.features:
        always = 0 if feature.aggregate in {"count", "sum", "decay"} and not feature.purposes else None
        found["features", feature.name] = Allowed(feature.type, (), lowest.get(feature.name), always)
    for each in ruleset.experiments.each:
        for path, words in each.values():
            found["profile", f"experiments.{path}"] = Allowed("string", words)
    for name, model in models.items():
        for output, kind in model.outputs.items():
            found["profile", f"models.{name}.{output}"] = Allowed(kind, tuple(model.labels.get(output, ())))
    return found


class Comments:
    """The comments ``# arbiter: allow CODE`` of all files: on the line of what they accept, or right above it.

    `unread` has file, line, column and a hint of what is meant to be one and is not.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.unread: list[tuple[str, int, int, str]] = []
        self._lines: dict[str, list[str]] = {}
        self._allows: dict[tuple[str, int], tuple[str, ...]] = {}
        self._files = files
        self._used: set[tuple[str, int, str]] = set()
        for path, content in files.items():
            if is_rule_file(path) and b"arbiter:" in content:
                for number, line in enumerate(self.lines(path), 1):
                    found = _ALLOW.search(line)
                    if found is None and (meant := _NOT_ALLOW.search(line)):
                        hint = "write `# arbiter: allow CODE`, with commas between several codes"
                        self.unread.append((path, number, meant.start() + 1, hint))
                    if found and (behind := _BEHIND.match(line, found.end())) and behind[1] in KINDS:
                        hint = f"write `{found[1]}, {behind[1]}`: without a comma it is a reason, no code"
                        self.unread.append((path, number, behind.start(1) + 1, hint))
                    if found:
                        self._allows[path, number] = tuple(code.strip() for code in found[1].split(","))

    def lines(self, path: str) -> list[str]:
        """A file's lines, without their breaks."""
        if path not in self._lines:
            text = self._files.get(path, b"").decode("utf-8-sig", "replace")
            self._lines[path] = re.split(r"\r\n|\n|\r", text)
        return self._lines[path]

    def accept(self, code: str, position: str) -> bool:
        """Whether a comment accepts a finding of this kind at ``file:line:column``."""
        path, line, _ = split_position(position)
        here = line
        while here > 0:
            if code in self._allows.get((path, here), ()):
                self._used.add((path, here, code))
                return True
            here -= 1
            if here <= 0 or not _COMMENT.match(self.lines(path)[here - 1]):
                return False
        return False

    def idle(self) -> list[tuple[str, int, int, str]]:
        """The places (file, line, column) and codes of comments that accepted nothing."""
        found = []
        for (path, line), codes in sorted(self._allows.items()):
            column = found_at.start() + 1 if (found_at := _ALLOW.search(self.lines(path)[line - 1])) else 1
            found += [(path, line, column, code) for code in codes if (path, line, code) not in self._used]
        return found


def split_position(position: str) -> tuple[str, int, int]:
    """File, line and column of a position; zeros for a whole file."""
    parts = position.rsplit(":", 2)
    if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():  # noqa: PLR2004 - file, line, column
        return parts[0], int(parts[1]), int(parts[2])
    return position, 0, 0
