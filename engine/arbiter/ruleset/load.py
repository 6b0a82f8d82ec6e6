"""From the files of a rule set to one typed `Ruleset`, or to every mistake in them.

Law: pure, and canonical: neither the order of files nor that of keys shows in the result, save where it means
something. First everything that is declared is gathered from all files, then everything that uses it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from arbiter.authoring.blocks import NOT_BUILT, check_identifier, check_name, one_of
from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.nodes import Entry, Mapping, Node, Sequence, is_nothing, kind_of
from arbiter.authoring.report import Report
from arbiter.authoring.scalars import shorten
from arbiter.errors import did_you_mean
from arbiter.ruleset.authored import RuleReader
from arbiter.ruleset.declarations import Declared
from arbiter.ruleset.expressions import Expressions, rule_scope, types_of, values_of
from arbiter.ruleset.features import FeatureReader
from arbiter.ruleset.points import read_point
from arbiter.ruleset.rules import DecisionPoint, Feature, Rule, Ruleset, Segment
from arbiter.ruleset.segments import read_segment, report_nesting
from arbiter.ruleset.templates import Params

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as Mapped

    from arbiter.errors import Diagnostic

SECTIONS: Final = ("schema", "actions", "decisions", "rules", "segments", "features")
UNBUILT: Final = ("subject", "triggers", "experiments", "consent")
SUFFIXES: Final = (".yaml", ".yml")
TESTS: Final = (".test.yaml", ".test.yml")
RULE_FILE: Final = Form("a rule file", 16 << 20, "split it into several files")

_Named = TypeVar("_Named", DecisionPoint, Feature, Segment)


class _Gathered(msgspec.Struct):
    """The sections of all files. `whole` is False when a file could not be read: then no name can be called unknown."""

    declared: Declared
    decisions: dict[str, Entry] = {}
    segments: dict[str, Entry] = {}
    features: dict[str, Entry] = {}
    rules: list[tuple[str, Node]] = []
    whole: bool = True


def is_rule_file(path: str) -> bool:
    """Whether a file of the rules directory is read: YAML by its name, not hidden, and not tests of rules."""
    return path.endswith(SUFFIXES) and not path.endswith(TESTS) and not _is_hidden(path)


def is_test_file(path: str) -> bool:
    """Whether a file of the rules directory holds tests of rules: it says nothing about what is decided."""
    return path.endswith(TESTS) and not _is_hidden(path)


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def load_ruleset(
    files: Mapped[str, bytes],
    models: Mapped[str, Mapped[str, str]],
    labels: Mapped[str, Mapped[str, Iterable[str]]] | None = None,
    inputs: Mapped[str, Iterable[tuple[str, str]]] | None = None,
    *,
    folder: str = "",
) -> tuple[Ruleset | None, list[Diagnostic]]:
    """Read a rule set: relative path → content, and model → output → type; files that are not rule files are left out.

    `labels` gives model → output → the only strings that the output can be: comparing it with another is a mistake.
    `inputs` gives model → the names (root, name) that it reads: using it without declaring them is a mistake.
    `folder` stands before the paths in diagnostics; positions in the rule set never depend on it.
    Returns the rule set and no diagnostics, or None and every mistake, sorted. Never raises for anything in `files`.
    """
    report = Report(folder)
    read = {path: content for path, content in sorted(files.items()) if is_rule_file(path)}
    gathered = _gather(read, report)
    declared = gathered.declared
    if not gathered.whole:
        declared.profile = declared.context = declared.events = declared.actions = None

    reader = FeatureReader(report, declared)
    features = [reader.read(name, entry) for name, entry in gathered.features.items()]
    types = dict.fromkeys(gathered.features, "dyn") | {f.name: f.type for f in features if f is not None}
    scope = rule_scope(
        profile=declared.profile,
        context=declared.context,
        features=types if gathered.whole else None,
        segments=dict.fromkeys(gathered.segments, "bool") if gathered.whole else None,
        models=models,
        inputs=inputs or {},
    )
    values = values_of("profile", declared.profile) | values_of("context", declared.context)
    values |= {
        ("models", model, output): tuple(words)
        for model, outputs in (labels or {}).items()
        for output, words in outputs.items()
        if words
    }
    expressions = Expressions(report, scope, values)
    segments = [read_segment(name, entry, report, expressions) for name, entry in gathered.segments.items()]
    report_nesting((s for s in segments if s is not None), gathered.segments, report)
    points = [read_point(name, entry, report, declared.actions) for name, entry in gathered.decisions.items()]
    known = gathered.decisions.keys() if gathered.whole else None
    rule_reader = RuleReader(report, declared, expressions, Params(report, expressions), known)
    rules = [rule_reader.read(node, path) for path, node in gathered.rules]
    if report:
        return None, report.found

    return Ruleset(
        decisions=_sorted(points),
        rules=tuple(sorted((rule for rule in rules if rule is not None), key=_rule_id)),
        segments=_sorted(segments),
        features=_sorted(features),
        profile_types=dict(sorted((types_of(declared.profile) or {}).items())),
        context_types=dict(sorted((types_of(declared.context) or {}).items())),
        event_types={
            event: dict(sorted((types_of(properties) or {}).items()))
            for event, properties in sorted((declared.events or {}).items())
        },
    ), []


def _rule_id(rule: Rule) -> str:
    return rule.id


def _sorted(items: Iterable[_Named | None]) -> tuple[_Named, ...]:
    return tuple(sorted((item for item in items if item is not None), key=lambda item: item.name))


def _gather(files: Mapped[str, bytes], report: Report) -> _Gathered:
    gathered = _Gathered(Declared(report))
    for file, content in files.items():
        roots = read_documents(file, content, RULE_FILE, report)
        if roots is None:
            gathered.whole = False
        number = 0  # rules are counted through the file, whatever its documents
        for root in roots or ():
            number = _gather_document(root, gathered, report, number)
    return gathered


def _gather_document(root: Node, gathered: _Gathered, report: Report, number: int) -> int:
    if not isinstance(root, Mapping):
        message = f"a rule file must be a mapping, this is {kind_of(root)}"
        report.at(root, message, f"it may have {one_of(SECTIONS)}")
        return number
    for name, entry in root.entries.items():
        node = entry.node
        if name in UNBUILT:
            report.at(entry.key, f"`{name}` {NOT_BUILT}", path=name)
        elif name not in SECTIONS:
            hint = did_you_mean(name, (*SECTIONS, *UNBUILT)) or f"it may have {one_of(SECTIONS)}"
            report.at(entry.key, f"unknown key `{shorten(name)}` in a rule file", hint, name)
        elif node is None or is_nothing(node):
            continue  # an empty section, or one that was refused
        elif name == "schema":
            gathered.declared.read_schema(node)
        elif name == "actions":
            gathered.declared.read_actions(node)
        elif name == "rules":
            if not isinstance(node, Sequence):
                report.at(
                    node, f"`rules` must be a list, this is {kind_of(node)}", "begin each rule with `- id: ...`", name
                )
                continue
            gathered.rules += [(f"rules[{number + n}]", item) for n, item in enumerate(node.items) if item is not None]
            number += len(node.items)
        else:
            _gather_names(name, node, gathered, report)
    return number


def _gather_names(section: str, node: Node, gathered: _Gathered, report: Report) -> None:
    """Take in one file's `decisions`, `segments` or `features`."""
    if not isinstance(node, Mapping):
        report.at(
            node, f"`{section}` must be a mapping, this is {kind_of(node)}", "write `name: ...` for each", section
        )
        return
    what = section.removesuffix("s")
    into: dict[str, Entry] = getattr(gathered, section)
    for name, entry in node.entries.items():
        path = f"{section}.{name}"
        if section == "decisions":
            sound = check_identifier(entry.key, "name", report, path)
        else:
            sound = check_name(entry.key, f"a {what}", report, path)
        if sound and gathered.declared.first(entry.key, what, name):
            into[name] = entry
