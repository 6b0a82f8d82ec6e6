"""From the files of a rules directory to the tests in them, or to every mistake in them.

Law: layers what is said once (`defaults`, then the test, then the case) and names each test; what the sections mean is
for `given` and `expect`. Tests never make a rule file wrong, nor a rule file a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from arbiter.authoring.blocks import Block, one_of
from arbiter.authoring.documents import Form, read_documents
from arbiter.authoring.nodes import Entry, Mapping, Node, Scalar, Sequence, kind_of
from arbiter.authoring.report import Report
from arbiter.authoring.scalars import shorten
from arbiter.ruleset.load import is_test_file
from arbiter.ruletests.expect import read_expectations
from arbiter.ruletests.firings import read_foreseen
from arbiter.ruletests.given import MERGED, SETTINGS, Names, read_given
from arbiter.ruletests.values import nothing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as Mapped

    from arbiter.errors import Diagnostic
    from arbiter.models.model import Model
    from arbiter.ruleset.rules import Ruleset
    from arbiter.ruletests.spec import Foreseen, RuleTest

TEST_FILE: Final = Form("a test file", 16 << 20, "split it into several files")
SECTIONS: Final = ("defaults", "tests")
TEST_KEYS: Final = ("name", *SETTINGS, "expect", "cases")
_LAYERED: Final = (*MERGED, "expect")


def read_tests(
    files: Mapped[str, bytes], ruleset: Ruleset, models: Mapped[str, Model], *, folder: str = ""
) -> tuple[list[RuleTest], list[Diagnostic]]:
    """The tests in `files` (relative path → content), in order, and every mistake, sorted.

    Files that are no test files are left out, and so are the tests of a file that holds a mistake. `folder` stands
    before the paths in diagnostics.
    """
    names = Names(ruleset, models)
    tests: list[RuleTest] = []
    found: list[Diagnostic] = []
    for file, content in sorted(files.items()):
        if is_test_file(file):
            report = Report(folder)
            roots = read_documents(file, content, TEST_FILE, report) or ()
            reader = _Reader(file, names, report)
            read = [test for root in roots for test in reader.read(root)]
            tests += read if not report else []
            found += report.found
    return tests, sorted(found)


class _Reader(msgspec.Struct):
    """Reads one document of a test file."""

    file: str
    names: Names
    report: Report
    _taken: dict[str, Node] = {}

    def read(self, root: Node) -> Iterator[RuleTest]:
        report = self.report
        if not isinstance(root, Mapping):
            report.at(root, f"a test file must be a mapping, this is {kind_of(root)}", f"it has {one_of(SECTIONS)}")
            return
        file = Block(root, report, what="a test file", keys=SECTIONS)
        if not file.require("tests", "write `tests:` and under it `- name: ...` for each"):
            return
        layers: list[Mapping] = []
        defaults = file.mapping("defaults", "write `decision: ...`, `now: ...` and so on under it")
        if defaults is not None:
            Block(defaults, report, what="`defaults`", path="defaults", keys=(*SETTINGS, "expect"))
            layers.append(defaults)
        for path, node in file.items("tests", "begin each test with `- name: ...`"):
            if not isinstance(node, Mapping):
                report.at(node, f"a test must be a mapping, this is {kind_of(node)}", "write `- name: ...`", path)
                continue
            test = Block(node, report, what="a test", path=path, keys=TEST_KEYS)
            if not test.require("name", "say in a few words what is to happen"):
                continue
            name = test.text("name")
            if name is None:
                continue
            # What has cases is a test of its own only where it says what it expects.
            if test.has("expect") or not test.has("cases"):
                yield from self._test(name.text, name, path, [*layers, node])
            if test.has("cases"):
                yield from self._cases(test, name, [*layers, node])

    def _cases(self, test: Block, name: Scalar, layers: list[Mapping]) -> Iterator[RuleTest]:
        """One test for each case: what the test says holds for all of them."""
        cases = test.get("cases")
        if isinstance(cases, Sequence) and not cases.items:
            self.report.at(test.key("cases"), "`cases` is empty, so nothing is tested", path=test.path)
        for number, (path, node) in enumerate(test.items("cases", "write `- {name: ..., expect: {...}}`"), start=1):
            if not isinstance(node, Mapping):
                self.report.at(node, f"a case must be a mapping, this is {kind_of(node)}", path=path)
                continue
            case = Block(node, self.report, what="a case", path=path, keys=("name", *SETTINGS, "expect"))
            own = case.text("name")
            if own is None and case.has("name"):
                continue
            shown = f"{name.text} / {number if own is None else own.text}"
            yield from self._test(shown, own if own is not None else node, path, [*layers, node])

    def _test(self, name: str, at: Node, path: str, layers: list[Mapping]) -> Iterator[RuleTest]:
        report = self.report
        first = self._taken.setdefault(name, at)
        if first is not at:
            message = f"the name `{shorten(name)}` is given twice; the other place is {report.place_of(first)}"
            report.at(at, message, "name each test of a file by what is special to it", path)
            return
        merged = _layered(layers)
        block = Block(merged, report, what="the test", path=path, keys=merged.entries)  # each layer's keys are checked
        sound = block.require(
            "expect",
            "say what is to come back: `expect: {treatments: [RULE-ID]}`",
            at=at if isinstance(at, Scalar) else None,
        )
        given = read_given(block, self.names, self.file, name, at)
        expected = read_expectations(block, given.decisions, self.names) if given is not None and sound else None
        if given is not None and expected is not None:
            yield msgspec.structs.replace(given, expected=expected, foreseen=self._foreseen(block, given.now))

    def _foreseen(self, block: Block, now: int) -> Foreseen | None:
        node = block.get("expect")
        if not isinstance(node, Mapping):
            return None
        path = f"{block.path}.expect"
        expect = Block(node, self.report, what="`expect`", path=path, keys=node.entries)  # checked where it is read
        return read_foreseen(expect, self.names, now)


def _layered(layers: list[Mapping]) -> Mapping:
    """What holds for a test: a later layer replaces a key of an earlier one; sections of names are joined name by name.
    `null` takes back what an earlier layer says.
    """
    entries: dict[str, Entry] = {}
    for layer in layers:
        for key, entry in layer.entries.items():
            before = entries.get(key)
            if nothing(entry.node):
                entries.pop(key, None)
            elif key in _LAYERED and before is not None:
                entries[key] = _joined(before, entry)
            elif key in _LAYERED and isinstance(entry.node, Mapping):
                entries[key] = _joined(Entry(entry.key, msgspec.structs.replace(entry.node, entries={})), entry)
            else:
                entries[key] = entry
    last = layers[-1]
    return msgspec.structs.replace(last, entries=entries, partial=any(layer.partial for layer in layers))


def _joined(before: Entry, after: Entry) -> Entry:
    """Two mappings as one, the later before the earlier; `null` takes a name away."""
    if not isinstance(before.node, Mapping) or not isinstance(after.node, Mapping):
        return after
    entries = dict(before.node.entries)
    for name, entry in after.node.entries.items():
        if nothing(entry.node):
            entries.pop(name, None)
        else:
            entries[name] = entry
    partial = before.node.partial or after.node.partial
    return Entry(after.key, msgspec.structs.replace(after.node, entries=entries, partial=partial))
