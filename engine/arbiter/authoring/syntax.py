"""Why a text is no YAML, in words for authors.

Law: the one place that knows what libyaml says and what is meant by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import yaml

    from arbiter.authoring.report import Report
    from arbiter.authoring.source import Source

# A part of what libyaml says; what we say; a hint; whether the place meant is where something opened.
_SAID: Final = (
    ("mapping values are not allowed", "`: ` cannot stand here", "a text with `: ` in it must stand in quotes", False),
    ("unexpected end of stream", "the quote that opens here is never closed", "", True),
    ("expected ',' or ']'", "the `[` that opens here is never closed", "add a `]`, or the comma that is missing", True),
    ("expected ',' or '}'", "the `{` that opens here is never closed", "add a `}`, or the comma that is missing", True),
    ("expected '-' indicator", "a list ends here unfinished", "is this line indented like its neighbours?", False),
    (
        "expected key",
        "a mapping ends here unfinished",
        "is this line indented like its neighbours, and is every quote and bracket closed once?",
        False,
    ),
    ("could not find expected ':'", "a key has no `: ` behind it", "", True),
    (
        "unknown escape character",
        "there is no such escape",
        "write `\\\\` for a backslash, or use single quotes",
        False,
    ),
)


def report_syntax(error: yaml.YAMLError, source: Source, report: Report) -> None:
    """Report where the parser gave up, and why."""
    problem = str(getattr(error, "problem", None) or error)
    mark = getattr(error, "problem_mark", None)
    hint = ""
    for part, said, how, at_opening in _SAID:
        if part in problem:
            problem, hint = said, how
            mark = (at_opening and getattr(error, "context_mark", None)) or mark
            break
    start = min(mark.index, len(source.text)) if mark is not None else 0
    if "cannot start any token" in problem:
        character = source.text[start : start + 1]
        problem, hint = f"a plain text cannot begin with `{character}`", "put the text in quotes"
        if character == "\t":
            problem, hint = "a tab cannot indent", "indent with spaces"
    report.add(source, start, start + 1, f"this is not YAML: {problem}", hint)
