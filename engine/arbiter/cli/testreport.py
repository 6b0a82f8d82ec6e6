"""What became of tests, told: as text, as JSON, as JUnit's XML.

Law: words and columns only. What failed, and why, comes from the results.
"""

from __future__ import annotations

import difflib
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.text import Text

from arbiter.authoring.report import diagnostic
from arbiter.cli.answers import Judged
from arbiter.cli.terminal import diagnostic_fields, diagnostic_text, fail, out, plural, print_table
from arbiter.ruletests.check import outcomes_of
from arbiter.ruletests.coverage import Covered, Reach, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from arbiter.authoring.nodes import Node
    from arbiter.errors import Diagnostic
    from arbiter.ruletests.compare import Mismatch
    from arbiter.ruletests.run import Result

_REACHED: Final = {
    Reach.UNASKED: "no test asks its decision",
    Reach.JUDGED: "never matched",
    Reach.ELIGIBLE: "matched, never won",
    Reach.WON: "won",
}
_FIRED: Final = {
    Reach.UNASKED: "no test is about triggers",
    Reach.JUDGED: "never complete",
    Reach.ELIGIBLE: "complete, never fired",
    Reach.WON: "fired",
}
_SIDES: Final = {"-": ("expected", "red"), "+": ("got", "green"), " ": ("both", "dim")}


class Timed(msgspec.Struct, frozen=True):
    """A result, and the seconds that it took."""

    result: Result
    seconds: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run of tests. `folder` stands before the names of files; `covered` is None where nobody asked."""

    folder: str
    results: list[Timed]
    mistakes: list[Diagnostic]
    seconds: float
    covered: list[Covered] | None
    fail_under: float | None

    @property
    def ok(self) -> bool:
        """Whether there is nothing to mend."""
        return not self.mistakes and not self.failed and not self._too_little

    @property
    def failed(self) -> list[Result]:
        """The tests that did not pass."""
        return [each.result for each in self.results if not each.result.passed]

    @property
    def _too_little(self) -> bool:
        return self.covered is not None and self.fail_under is not None and percent(self.covered) < self.fail_under

    def print(self) -> None:
        """Tell people."""
        for mistake in self.mistakes:
            out().print(diagnostic_text(mistake))
        for result in self.failed:
            self._print_failure(result)
        rows = [
            (self._named(file), str(len(of)), str(sum(not each.result.passed for each in of)))
            for file, of in self._by_file()
        ]
        if rows:
            print_table(("file", "tests", "failed"), rows)
        if self.covered is not None:
            self._print_coverage(self.covered)
        failed = len(self.failed)
        passed = f"{failed} failed" if failed else "all passed" if self.results else "none run"
        said = f"{plural(len(self.results), 'test')}, {passed}"
        if self.mistakes:
            said += f", {plural(len(self.mistakes), 'mistake')} in files whose tests were not run"
        out().print(f"{said}, in {self.seconds:.2f} s", style="bold red" if failed or self.mistakes else "green")
        if self._too_little and self.covered is not None:
            out().print(
                f"too few rules are tested: {percent(self.covered):.1f} % of {self.fail_under:g} %", style="red"
            )

    def _print_failure(self, result: Result) -> None:
        out().print(Text.assemble(("FAILED ", "bold red"), (result.test.name, "bold")))
        if result.broken:
            out().print(diagnostic_text(self._place(result.test.node, result.broken)))
        for mismatch in result.mismatches:
            alone = len(result.test.decisions) == 1 or not mismatch.decision
            what = mismatch.what if alone else f"{mismatch.decision}: {mismatch.what}"
            out().print(diagnostic_text(self._place(mismatch.node, f"{what}: not as expected")))
            for side, line, tone in _diff(mismatch):
                out().print(Text(f"  {side:>8}  {line}", tone))
            for rule, became in _fates(result, mismatch):
                out().print(Text.assemble("   because  ", (rule, "bold"), f" {became}"))
        out().print()

    def _print_coverage(self, covered: list[Covered]) -> None:
        rows = [
            (self._named(file), str(len(of)), *(str(sum(each.reach is r for each in of)) for r in reversed(Reach)))
            for file, of in _grouped(covered)
        ]
        heads = ("rules in", "rules", "won", "matched only", "never matched", "not asked")
        if any(each.trigger for each in covered):
            heads = ("rules, triggers in", "of them", "won, fired", "matched only", "never matched", "not asked")
        print_table(heads, rows)
        rest = [each for each in covered if each.reach is not Reach.WON]
        if rest:
            print_table(
                ("rule without a test", "how far it got", "written in"),
                [
                    (each.rule_id, (_FIRED if each.trigger else _REACHED)[each.reach], self._named(each.position))
                    for each in rest
                ],
            )
        rules, triggers = ([each.reach is Reach.WON for each in covered if each.trigger is kind]
                           for kind in (False, True))  # fmt: skip
        said = f"{sum(rules):,} of {plural(len(rules), 'rule')} won in a test"
        if triggers:
            said += f", {sum(triggers):,} of {plural(len(triggers), 'trigger')} fired"
        out().print(f"{said}, {percent(covered):.1f} %")

    def fields(self) -> dict[str, Any]:
        """The report for JSON."""
        fields: dict[str, Any] = {
            "ok": self.ok,
            "passed": len(self.results) - len(self.failed),
            "failed": len(self.failed),
            "seconds": round(self.seconds, 6),
            "tests": [self._test_fields(each) for each in self.results],
            "diagnostics": [diagnostic_fields(each) for each in self.mistakes],
        }
        if self.covered is not None:
            rules, triggers = (
                [
                    {name: each.rule_id, "position": self._named(each.position), "reach": each.reach.name.lower()}
                    for each in self.covered
                    if each.trigger is kind
                ]
                for name, kind in (("rule_id", False), ("trigger", True))
            )
            fields["coverage"] = {"percent": percent(self.covered), "rules": rules, "triggers": triggers}
        return fields

    def _test_fields(self, timed: Timed) -> dict[str, Any]:
        result = timed.result
        mismatches = []
        for mismatch in result.mismatches:
            place = self._place(mismatch.node, mismatch.what)
            mismatches.append(
                {
                    "decision": mismatch.decision, "what": mismatch.what, "expected": mismatch.expected,
                    "got": mismatch.got, "line": place.line, "column": place.column,
                    "why": [Judged.of(outcome) for outcome in outcomes_of(result, mismatch)],
                    "triggers": [{"trigger": name, "why": why} for name, why in mismatch.why],
                }
            )  # fmt: skip
        return {
            "file": self._named(result.test.file), "line": self._place(result.test.node, "").line,
            "name": result.test.name, "passed": result.passed, "seconds": round(timed.seconds, 6),
            "broken": result.broken, "mismatches": mismatches,
        }  # fmt: skip

    def _by_file(self) -> list[tuple[str, list[Timed]]]:
        return [(file, list(of)) for file, of in groupby(self.results, key=lambda each: each.result.test.file)]

    def _named(self, file: str) -> str:
        return f"{self.folder}/{file}" if self.folder != "." else file

    def _place(self, node: Node, message: str) -> Diagnostic:
        return diagnostic(self._named(node.source.file), node.source, node.start, node.end, message)

    def suites(self) -> Iterator[tuple[str, list[Timed]]]:
        """The results by the name of their file."""
        for file, of in self._by_file():
            yield self._named(file), of

    def said_of(self, result: Result) -> str:
        """A failed test in plain text."""
        lines = [result.broken] if result.broken else []
        for mismatch in result.mismatches:
            place = self._place(mismatch.node, mismatch.what)
            lines.append(f"{place.file}:{place.line}:{place.column}: {mismatch.what}")
            lines += [f"  {side:>8}  {line}" for side, line, _ in _diff(mismatch)]
            lines += [f"   because  {rule} {became}" for rule, became in _fates(result, mismatch)]
        return "\n".join(lines)


def _grouped(covered: list[Covered]) -> list[tuple[str, list[Covered]]]:
    return [(file, list(of)) for file, of in groupby(covered, key=lambda each: each.file)]


def _diff(mismatch: Mismatch) -> Iterator[tuple[str, str, str]]:
    """What was expected beside what came, line by line: the side, the line, and its colour."""
    for line in difflib.ndiff(mismatch.expected, mismatch.got):
        if not line.startswith("?"):
            side, tone = _SIDES[line[0]]
            yield side, line[2:], tone


def _fates(result: Result, mismatch: Mismatch) -> Iterator[tuple[str, str]]:
    """What became of the rules and triggers in question, in words."""
    for outcome in outcomes_of(result, mismatch):
        why = Judged.of(outcome).why()
        yield outcome.rule_id, f"{outcome.reason.name}{' ' + why if outcome.lost_to else ': ' + why if why else ''}"
    yield from mismatch.why


def write_junit(report: Report, path: Path) -> None:
    """Write the report as CI systems read it. Raises OSError."""
    from xml.etree.ElementTree import Element, ElementTree, SubElement, indent  # noqa: PLC0415 - only for CI

    root = Element("testsuites")
    for name, results in report.suites():
        suite = SubElement(root, "testsuite", _counts(name, results))
        for timed in results:
            result = timed.result
            line = result.test.node.source.place(result.test.node.start)[0]
            case = SubElement(
                suite,
                "testcase",
                {"classname": name, "name": result.test.name, "time": f"{timed.seconds:.6f}", "line": str(line)},
            )
            if not result.passed:
                first = result.broken or f"{result.mismatches[0].what}: not as expected"
                SubElement(case, "failure", {"message": first}).text = report.said_of(result)
    for number, mistake in enumerate(report.mistakes):
        suite = SubElement(root, "testsuite", {"name": mistake.file, "tests": "1", "failures": "0", "errors": "1"})
        case = SubElement(suite, "testcase", {"classname": mistake.file, "name": f"mistake {number + 1}"})
        SubElement(case, "error", {"message": mistake.message}).text = mistake.render()
    indent(root)
    try:
        ElementTree(root).write(path, "utf-8", xml_declaration=True)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")


def _counts(name: str, results: Sequence[Timed]) -> dict[str, str]:
    seconds = sum(each.seconds for each in results)
    failed = sum(not each.result.passed for each in results)
    return {"name": name, "tests": str(len(results)), "failures": str(failed), "errors": "0", "time": f"{seconds:.6f}"}
