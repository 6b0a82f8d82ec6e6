"""The lint: every finding about a rule set that loads, as diagnostics.

Law: pure: the clock is an argument. It reads the snapshot, and the text of the files for what a snapshot does not keep.
Findings that a comment accepts are left out, and a comment that accepts nothing is one.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from arbiter.authoring.source import LONGEST_LINE
from arbiter.errors import Diagnostic, did_you_mean
from arbiter.lint.authored import Comments, allowed_of, read_declarations, split_position
from arbiter.lint.contest import Contest, Given
from arbiter.lint.finding import KINDS, Finding
from arbiter.lint.gaps import check_tables
from arbiter.lint.order import Gift, elsewhere, gift_of
from arbiter.lint.rules import check_point, check_rules
from arbiter.lint.space import Trees
from arbiter.lint.ties import check_ties
from arbiter.lint.triggers import check_triggers
from arbiter.lint.unused import check_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from arbiter.ruleset.rules import Rule
    from arbiter.snapshot import Snapshot

_LINES = 40  # of one expression, among which what is underlined is looked for


class Noted(msgspec.Struct, frozen=True, order=True):
    """A finding, and how it is shown. `diagnostic` comes first, so that these sort as diagnostics do."""

    diagnostic: Diagnostic
    finding: Finding | None = None


class Names(msgspec.Struct, frozen=True):
    """What stands before the paths of rule files and of models where people read them."""

    rules: str = ""
    models: str = "models"


def lint(
    snapshot: Snapshot, files: Mapping[str, bytes], now: int, names: Names, ignored: Collection[str] = ()
) -> list[Noted]:
    """Everything that is odd about a rule set, sorted by place.

    `files` are the rule files that the snapshot was made of, by their path in the rules directory; `now` (µs) is the
    moment of examples for which it does not matter; findings of the kinds in `ignored` are left out.
    """
    comments = Comments(files)
    found = []
    for finding in findings(snapshot, files, now, names):
        accepted = [comments.accept(finding.code, position) for position in (finding.position, *finding.also)]
        if not any(accepted) and finding.code not in ignored:
            found.append(Noted(_diagnostic(finding, comments, names), finding))
    if "unneeded-allow" not in ignored:
        for path, line, column, code in comments.idle():
            idle = Finding(
                code="unneeded-allow",
                position=f"{path}:{line}:{column}",
                text=comments.lines(path)[line - 1][column - 1 :],
                message=f"there is no `{code}` here to allow",
                hint=(did_you_mean(code, KINDS) if code not in KINDS else "") or "remove it from the comment",
            )
            found.append(Noted(_diagnostic(idle, comments, names), idle))
        for path, line, column, hint in comments.unread:
            unread = Finding(
                code="unneeded-allow",
                position=f"{path}:{line}:{column}",
                text=comments.lines(path)[line - 1][column - 1 :],
                message="this accepts nothing",
                hint=hint,
            )
            found.append(Noted(_diagnostic(unread, comments, names), unread))
    return sorted(found, key=lambda noted: noted.diagnostic)


def findings(snapshot: Snapshot, files: Mapping[str, bytes], now: int, names: Names) -> Iterator[Finding]:
    """Every finding, accepted or not, in no order."""
    ruleset = snapshot.ruleset
    declarations = read_declarations(files)
    given = Given(snapshot, Trees(snapshot.symbols), allowed_of(ruleset, declarations, snapshot.models), now)
    by_point: dict[str, list[Rule]] = {point.name: [] for point in ruleset.decisions}
    for rule in ruleset.rules:
        by_point[rule.decision].append(rule)
    gifts: dict[str, set[Gift]] = {
        point.name: {gift_of(each.then) for each in by_point[point.name] if each.enabled}
        | ({gift_of(point.default)} if point.default is not None else set())
        for point in ruleset.decisions
    }
    for point in ruleset.decisions:
        contest = Contest(given, point, by_point[point.name], elsewhere(gifts, point.name))
        about_rules, idle = check_rules(contest)
        yield from about_rules
        yield from check_ties(contest, idle)
        yield from check_point(contest)
    yield from check_tables(ruleset, snapshot, now)
    yield from check_triggers(ruleset, given)
    manifests = {name: PurePosixPath(names.models, name, "manifest.yaml").as_posix() for name in snapshot.models}
    yield from check_names(ruleset, snapshot, declarations.actions, manifests)


def _diagnostic(finding: Finding, comments: Comments, names: Names) -> Diagnostic:
    path, line, column = split_position(finding.position)
    example = ""
    if finding.subject is not None:
        example = finding.subject.text() + (f": {finding.outcome}" if finding.outcome else "")
    file = (PurePosixPath(names.rules) / path).as_posix() if names.rules and line else path
    found = Diagnostic(
        file=file,
        line=line,
        column=column,
        message=finding.message,
        hint=finding.hint,
        path=finding.path,
        severity="warning",
        code=finding.code,
        example=example,
    )
    lines = comments.lines(path)
    if not 0 < line <= len(lines):
        return found
    line, column, end = _underlined(lines, line, column, finding.text)
    text = lines[line - 1]
    shown = text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"
    return msgspec.structs.replace(
        found, line=line, column=column, end_column=end, source=shown if column < LONGEST_LINE else ""
    )


def _underlined(lines: list[str], line: int, column: int, text: str) -> tuple[int, int, int]:
    """Line, column and end column of `text`, looked for from a place on; of the word there when it is not found."""
    for number in range(line, min(line + _LINES, len(lines)) + 1) if text else ():
        at = lines[number - 1].find(text, column - 1 if number == line else 0)
        if at >= 0:
            return number, at + 1, at + len(text) + 1
    rest = lines[line - 1][column - 1 :]
    if text:
        return line, column, column + max(1, len(rest.rstrip()))
    word = next((i for i, c in enumerate(rest) if c.isspace() or c in ",}]"), len(rest))
    trimmed = rest[:word].removesuffix(":")
    return line, column, column + max(1, len(trimmed))
