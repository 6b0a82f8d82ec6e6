"""What one rule file says, section by section, and what all of them declare together.

Law: knows which sections there are and takes them apart. What rules mean is not looked at; what a file says is kept
apart from what all say, since files are read again only when they change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import check_identifier, check_name, one_of
from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.nodes import Entry, Mapping, Node, Sequence, is_nothing, kind_of
from arbiter.authoring.report import Report
from arbiter.authoring.scalars import shorten
from arbiter.errors import did_you_mean
from arbiter.ruleset.dates import read_subject
from arbiter.ruleset.declarations import Declared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Sequence as Sequenced

SECTIONS: Final = (
    "schema", "actions", "decisions", "rules", "segments", "features", "triggers", "subject", "consent",
    "experiments", "layers", "holdout", "metrics", "caps", "groups",
)  # fmt: skip
LISTED: Final = ("rules", "triggers")
RULE_FILE: Final = Form("a rule file", 16 << 20, "split it into several files")

Places = list[tuple[str, Node]]
"""Nodes with their paths in the file."""


class Sections(msgspec.Struct, frozen=True):
    """A file without its rules and triggers: its other sections in authored order, and the mistakes that were found on
    the way.

    `whole` is False when it could not be read to its end.
    """

    declarations: Places
    report: Report
    whole: bool


class Gathered(msgspec.Struct):
    """What all files declare. `whole` is False when a file could not be read: then no name can be called unknown."""

    declared: Declared
    decisions: dict[str, Entry] = {}
    segments: dict[str, Entry] = {}
    features: dict[str, Entry] = {}
    experiments: dict[str, Entry] = {}
    layers: dict[str, Entry] = {}
    metrics: dict[str, Entry] = {}
    groups: dict[str, Entry] = {}
    holdout: Node | None = None
    caps: list[Node] = []
    whole: bool = True


def read_sections(file: str, content: bytes, folder: str) -> tuple[Sections, Places]:
    """One file: its sections, and its rules and triggers apart from them, for they are many and needed once."""
    report = Report(folder)
    declarations: Places = []
    listed: Places = []
    roots = read_documents(file, content, RULE_FILE, report)
    numbers = dict.fromkeys(LISTED, 0)  # they are counted through the file, whatever its documents
    for root in roots or ():
        if not isinstance(root, Mapping):
            message = f"a rule file must be a mapping, this is {kind_of(root)}"
            report.at(root, message, f"it may have {one_of(SECTIONS)}")
            continue
        for name, entry in root.entries.items():
            if report.full:
                break
            node = entry.node
            if name not in SECTIONS:
                hint = did_you_mean(name, SECTIONS) or f"it may have {one_of(SECTIONS)}"
                report.at(entry.key, f"unknown key `{shorten(name)}` in a rule file", hint, name)
            elif node is None or is_nothing(node):
                continue  # an empty section, or one that was refused
            elif name not in LISTED:
                declarations.append((name, node))
            elif isinstance(node, Sequence):
                first = numbers[name]
                listed += [(f"{name}[{first + n}]", item) for n, item in enumerate(node.items) if item is not None]
                numbers[name] += len(node.items)
            else:
                message = f"`{name}` must be a list, this is {kind_of(node)}"
                report.at(node, message, f"begin each {name.removesuffix('s')} with `- id: ...`", name)
    return Sections(declarations, report, roots is not None), listed


def gather(files: Iterable[Sections], report: Report) -> Gathered:
    """Put together what the files declare; what two of them declare is reported."""
    gathered = Gathered(Declared(report))
    subjects: list[Node] = []
    holdouts: list[Node] = []
    declared = gathered.declared
    takes: dict[str, Callable[[Node], None]] = {
        "schema": declared.read_schema,
        "actions": declared.read_actions,
        "consent": declared.read_consent,
        "subject": subjects.append,
        "holdout": holdouts.append,
        "caps": gathered.caps.append,
    }
    for file in files:
        gathered.whole = gathered.whole and file.whole
        for name, node in file.declarations:
            if name in takes:
                takes[name](node)
            else:
                _gather_names(name, node, gathered, report)
    if not gathered.whole:
        declared.profile = declared.account = declared.context = declared.events = declared.actions = (
            declared.purposes
        ) = None
    declared.check_purposes()
    subject = _only(subjects, "subject", report)
    if subject is not None:
        declared.zone = read_subject(subject, report, declared)
        declared.zone_refused = declared.zone is None
    gathered.holdout = _only(holdouts, "holdout", report)
    declared.zone_refused |= not gathered.whole
    return gathered


def _only(nodes: Sequenced[Node], section: str, report: Report) -> Node | None:
    """The first of the places where a section stands that may stand in one; the others are reported."""
    for node in nodes[1:]:
        message = f"`{section}` stands in two places; the other is {report.place_of(nodes[0])}"
        report.at(node, message, "remove one of the two", section)
    return nodes[0] if nodes else None


def _gather_names(section: str, node: Node, gathered: Gathered, report: Report) -> None:
    """Take in one file's `decisions`, `segments`, `features`, `experiments`, `layers`, `metrics` or `groups`."""
    if not isinstance(node, Mapping):
        report.at(
            node, f"`{section}` must be a mapping, this is {kind_of(node)}", "write `name: ...` for each", section
        )
        return
    what = section.removesuffix("s")
    into: dict[str, Entry] = getattr(gathered, section)
    for name, entry in node.entries.items():
        path = f"{section}.{name}"
        if section in {"decisions", "layers", "groups"}:
            sound = check_identifier(entry.key, "name", report, path)
        else:
            sound = check_name(entry.key, f"{'an' if what[0] in 'aeiou' else 'a'} {what}", report, path)
        if sound and gathered.declared.first(entry.key, what, name):
            into[name] = entry
