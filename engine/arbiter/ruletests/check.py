"""Tests as a gate: what must be mended before a rule set may be loaded.

Law: pure. Runs every test once and says what failed as diagnostics, one line each, at the place in the test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.authoring.report import Report
from arbiter.ruletests.files import read_tests
from arbiter.ruletests.run import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from arbiter.errors import Diagnostic
    from arbiter.ruletests.compare import Mismatch
    from arbiter.ruletests.run import Result
    from arbiter.snapshot import Snapshot
    from arbiter.types import RuleOutcome


def failed_tests(files: Mapping[str, bytes], snapshot: Snapshot, *, folder: str = "") -> list[Diagnostic]:
    """What is wrong with the test files among `files`, and which tests fail on `snapshot`; sorted, none when all pass.

    `folder` stands before the paths.
    """
    tests, found = read_tests(files, snapshot.ruleset, snapshot.models, folder=folder)
    runner = Runner(snapshot)
    for test in tests:
        found += failures(runner.run(test), folder=folder)
    return sorted(found)


def failures(result: Result, *, folder: str = "") -> list[Diagnostic]:
    """A diagnostic for each thing in a test that did not come true."""
    report = Report(folder)
    name = result.test.name
    if result.broken:
        report.at(result.test.node, f"the test `{name}` cannot be run: {result.broken}")
    for mismatch in result.mismatches:
        expected, got = ", ".join(mismatch.expected), ", ".join(mismatch.got)
        message = f"the test `{name}` fails: {mismatch.what}: expected {expected}, got {got}"
        report.at(mismatch.node, message, "; ".join(_reasons(result, mismatch)))
    return report.found


def outcomes_of(result: Result, mismatch: Mismatch) -> list[RuleOutcome]:
    """What became of the rules that a mismatch is about, in its order."""
    explained = (each.explanation for each in result.decisions if each.point == mismatch.decision)
    became = {outcome.rule_id: outcome for outcome in next(explained, ())}
    return [became[rule] for rule in mismatch.rules if rule in became]


def _reasons(result: Result, mismatch: Mismatch) -> Iterator[str]:
    for outcome in outcomes_of(result, mismatch):
        because = outcome.expression or outcome.detail
        lost = f" to `{outcome.lost_to}` on {outcome.lost_on}" if outcome.lost_to else ""
        yield f"`{outcome.rule_id}` {outcome.reason.name}{lost}" + (f": {because}" if because and not lost else "")
    for trigger, became in mismatch.why:
        yield f"`{trigger}`: {became}"
